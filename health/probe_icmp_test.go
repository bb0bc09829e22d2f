package health

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestICMP(t *testing.T) {
	tests := map[string]struct{ address, want string }{
		"answers":         {"127.0.0.1", "up: echo answered"},
		"answers by IPv6": {"::1", "up: echo answered"},
		"IPv4 in IPv6":    {"::ffff:127.0.0.1", "up: echo answered"},
		"unknown zone":    {"fe80::1%nowhere0", "down: there is no interface nowhere0"},
		"broadcast":       {"255.255.255.255", "down: permission denied"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			address := netip.AddrPortFrom(netip.MustParseAddr(test.address), 0)
			got := verdictOf(t, address, Config{Type: ICMP, Timeout: ample})
			if os.Geteuid() != 0 && strings.Contains(got, "CAP_NET_RAW") {
				t.Skip(got)
			}
			if got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

func TestEchoAnswers(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		request := newEcho(v6, 0x0123456789abcdef)
		reply := request.packet()
		if reply[0] = echoReply; v6 {
			reply[0] = echoReply6
		}
		if !request.answeredBy(reply) {
			t.Errorf("IPv6 %v: its own answer is none", v6)
		}
		if newEcho(v6, 1).answeredBy(reply) {
			t.Errorf("IPv6 %v: the answer to another is taken for its own", v6)
		}
		if request.answeredBy(request.packet()) {
			t.Errorf("IPv6 %v: a request is taken for its answer", v6)
		}
		for n := range reply {
			if request.answeredBy(reply[:n]) {
				t.Errorf("IPv6 %v: %d bytes are taken for an answer", v6, n)
			}
		}
		header := make([]byte, 24)
		header[0] = 4<<4 | 6 // with options
		if got := request.answeredBy(slices.Concat(header, reply)); got == v6 {
			t.Errorf("IPv6 %v: with an IP header before it: %v", v6, got)
		}
	}
}

func TestEchoChecksum(t *testing.T) {
	p := newEcho(false, 0xfedcba9876543210).packet()
	if internetChecksum(p) != 0 {
		t.Errorf("the sum over % x is not 0", p)
	}
}

func FuzzEchoAnswer(f *testing.F) {
	f.Add([]byte{0x4f}, uint64(1))
	f.Add(newEcho(false, 1).packet(), uint64(1))
	f.Fuzz(func(t *testing.T, p []byte, random uint64) {
		for _, v6 := range []bool{false, true} {
			if newEcho(v6, random).answeredBy(p) && !bytes.Contains(p, binary.BigEndian.AppendUint64(nil, random)) {
				t.Errorf("% x answers %x", p, random)
			}
		}
	})
}
