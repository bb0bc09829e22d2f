package link

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"testing"
)

var testMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x0b}

func testFrame(msg []byte) []byte {
	return appendAdvert(nil, testMAC, netip.MustParseAddr("192.168.15.11"), msg)
}

func TestAdvertFrameBytes(t *testing.T) {
	want := "01005e000012" + "02000000000b" + "0800" +
		"45c0001800004000ff70" + "caef" + "c0a80f0b" + "e0000012" + "01020304"
	if got := hex.EncodeToString(testFrame([]byte{1, 2, 3, 4})); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestGratuitousARPBytes(t *testing.T) {
	want := "ffffffffffff" + "02000000000b" + "0806" + "0001080006040001" +
		"02000000000b" + "c0a80f03" + "ffffffffffff" + "c0a80f03"
	if got := hex.EncodeToString(appendGratuitousARP(nil, testMAC, netip.MustParseAddr("192.168.15.3"))); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// repairIP makes the header's checksum right again.
func repairIP(frame []byte) {
	h := frame[ethernetHeader:]
	h = h[:int(h[0]&0x0f)*4]
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:], ^onesSum(h))
}

func TestParseAdvertRefusals(t *testing.T) {
	for _, tt := range []struct {
		name  string
		want  error
		spoil func(f []byte) []byte
	}{
		{"whole", nil, func(f []byte) []byte { return f }},
		{"padded", nil, func(f []byte) []byte { return append(f, make([]byte, 18)...) }},
		{"no payload", nil, func(f []byte) []byte { f[17] = 20; repairIP(f); return f[:34] }},
		{"empty", ErrShort, func(f []byte) []byte { return nil }},
		{"cut in the header", ErrShort, func(f []byte) []byte { return f[:33] }},
		{"options beyond the frame", ErrShort, func(f []byte) []byte { f[14] = 0x4f; return f }},
		{"ARP", ErrNotIP, func(f []byte) []byte { f[13] = 6; return f }},
		{"IPv6", ErrNotIPv4, func(f []byte) []byte { f[14] = 0x65; return f }},
		{"header of 16 bytes", ErrHeaderLength, func(f []byte) []byte { f[14] = 0x44; return f }},
		{"longer than the frame", ErrTotalLength, func(f []byte) []byte { f[17]++; repairIP(f); return f }},
		{"shorter than the header", ErrTotalLength, func(f []byte) []byte { f[17] = 19; repairIP(f); return f }},
		{"damaged", ErrHeaderChecksum, func(f []byte) []byte { f[22]--; return f }},
		{"first fragment", ErrFragment, func(f []byte) []byte { f[20] = 0x20; repairIP(f); return f }},
		{"last fragment", ErrFragment, func(f []byte) []byte { f[20], f[21] = 0, 1; repairIP(f); return f }},
		{"TCP", ErrProtocol, func(f []byte) []byte { f[23] = 6; repairIP(f); return f }},
	} {
		if _, err := parseAdvert(tt.spoil(testFrame([]byte{1, 2, 3, 4}))); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestParseAdvertPassesOverOptions(t *testing.T) {
	f := testFrame([]byte{1, 2, 3, 4})
	// Router Alert (RFC 2113) behind the fixed header.
	f = append(f[:34:34], append([]byte{0x94, 4, 0, 0}, f[34:]...)...)
	f[14], f[17] = 0x46, 28
	repairIP(f)
	got, err := parseAdvert(f)
	if err != nil || !bytes.Equal(got.payload, []byte{1, 2, 3, 4}) {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzParseAdvert(f *testing.F) {
	f.Add(testFrame([]byte{1, 2, 3, 4}))
	f.Add(testFrame(nil))
	f.Add(appendAdvert(nil, testMAC, netip.MustParseAddr("fe80::11"), []byte{1, 2, 3, 4}))
	f.Fuzz(func(t *testing.T, frame []byte) {
		got, err := parseAdvert(frame)
		if err != nil {
			var named FrameError
			if !errors.As(err, &named) {
				t.Fatalf("%v has no name", err)
			}
			return
		}
		again, err := parseAdvert(appendAdvert(nil, testMAC, got.src, got.payload))
		if err != nil || again.src != got.src || !bytes.Equal(again.payload, got.payload) {
			t.Fatalf("%+v came back as %+v, %v", got, again, err)
		}
	})
}
