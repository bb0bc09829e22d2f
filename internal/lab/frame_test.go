package lab

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"testing"
)

var (
	macA = net.HardwareAddr{2, 0, 0, 0, 0, 0xa}
	macB = net.HardwareAddr{2, 0, 0, 0, 0, 0xb}
)

func TestARPSurvivesTheWire(t *testing.T) {
	want := arp{
		operation: arpReply,
		senderMAC: macA, sender: netip.MustParseAddr("192.168.15.3"),
		targetMAC: macB, target: netip.MustParseAddr("192.168.15.100"),
	}
	frame := want.appendTo(nil, macA, macB)
	if to, from := frame[:6], frame[6:12]; !bytes.Equal(to, macB) || !bytes.Equal(from, macA) {
		t.Errorf("the frame goes from %x to %x", from, to)
	}
	got, ok := parseARP(frame)
	if !ok || got.operation != want.operation || got.sender != want.sender || got.target != want.target ||
		!bytes.Equal(got.senderMAC, macA) || !bytes.Equal(got.targetMAC, macB) {
		t.Errorf("got %+v, %v", got, ok)
	}
	for n := range frame {
		if _, ok := parseARP(frame[:n]); ok {
			t.Errorf("the first %d bytes of %d pass for a whole packet", n, len(frame))
		}
	}
}

func TestProbeNumbersSurviveTheirAddress(t *testing.T) {
	for _, number := range []int{0, 1, 255, 256, 1 << 24} {
		if got, ok := probeNumber(probeMAC(number)); !ok || got != number {
			t.Errorf("probe %d is read as %d, %v", number, got, ok)
		}
	}
	if _, ok := probeNumber(macA); ok {
		t.Error("a station's address passes for a probe's")
	}
}

// frameOf reads hexadecimal digits with spaces.
func frameOf(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseAdvert(t *testing.T) {
	const ether = "01005e000012 02000000000a 0800 "
	// RFC 9568 section 5.1: version 3, VRID 50, priority 100, 100 ms.
	whole := ether + "45c0 0020 0000 0000 ff70 0000 c0a80f0b e0000012 31 32 64 01 000a 0000 c0a80f03"
	a, ok := parseAdvert(frameOf(t, whole))
	if want := (advert{netip.MustParseAddr("192.168.15.11"), 3, 50, 100}); !ok || a != want {
		t.Errorf("got %+v, %v, want %+v", a, ok, want)
	}
	for name, text := range map[string]string{
		"another protocol": strings.Replace(whole, "ff70", "ff11", 1),
		"another type":     strings.Replace(whole, " 31 32", " 32 32", 1),
		"cut":              whole[:len(whole)-1*8],
		"no header length": strings.Replace(whole, "45c0", "40c0", 1),
		"no frame":         "",
	} {
		if a, ok := parseAdvert(frameOf(t, text)); ok {
			t.Errorf("%s: got %+v", name, a)
		}
	}
}

func TestSolicitationBytes(t *testing.T) {
	// Worked out by hand. The message, checksum 0: 8700 + fd15 + 0003 + 0101 + 0270 +
	// 0000 + 0007. The pseudo-header: fe80 + 6d6f + 6e69 + ff02 + 0001 + 0020 + 003a.
	// Together 46145 -> 6149 -> ^ 9eb6.
	want := frameOf(t, "333300000001 02000000000a 86dd 60000000 0020 3a ff"+
		"fe80000000000000000000006d6f6e69 ff020000000000000000000000000001"+
		"8700 9eb6 00000000 fd150000000000000000000000000003 0101 027000000007")
	got := appendSolicitation(nil, macA, probeMAC(7), netip.MustParseAddr("fd15::3"))
	if !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}

func TestParseNA(t *testing.T) {
	const start = "333300000001 02000000000a 86dd 60000000 0018 3a ff fd150000000000000000000000000003 ff020000000000000000000000000001 8800 0000 "
	const target = "000000 fd150000000000000000000000000003"
	for flags, wantSolicited := range map[string]bool{"20": false, "60": true, "a0": false} {
		got, solicited, ok := parseNA(frameOf(t, start+flags+target))
		if !ok || got != netip.MustParseAddr("fd15::3") || solicited != wantSolicited {
			t.Errorf("flags %s: %s, solicited %v, %v", flags, got, solicited, ok)
		}
	}
	for name, text := range map[string]string{
		"a solicitation": strings.Replace(start, "8800", "8700", 1) + "20" + target,
		"cut":            start + "20" + target[:len(target)-2],
	} {
		if got, _, ok := parseNA(frameOf(t, text)); ok {
			t.Errorf("%s: got %s", name, got)
		}
	}
}

// No frame from the network may end the program, and what is read as ARP is
// what was written.
func FuzzFrames(f *testing.F) {
	f.Add(arp{operation: 1, senderMAC: macA, sender: netip.IPv4Unspecified(), targetMAC: macB, target: netip.IPv4Unspecified()}.appendTo(nil, macA, macB))
	f.Add([]byte(strings.Repeat("\x45", 64)))
	f.Fuzz(func(t *testing.T, frame []byte) {
		parseAdvert(frame)
		parseNA(frame)
		a, ok := parseARP(frame)
		if !ok {
			return
		}
		again := a.appendTo(nil, frame[6:12], frame[0:6])
		if !bytes.Equal(again, frame[:len(again)]) {
			t.Errorf("read %x, wrote %x", frame, again)
		}
	})
}
