package proxyproto

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

var (
	four = Header{netip.MustParseAddrPort("192.0.2.1:1000"), netip.MustParseAddrPort("198.51.100.7:443")}
	six  = Header{netip.MustParseAddrPort("[2001:db8::1]:1000"), netip.MustParseAddrPort("[2001:db8::2]:443")}
)

func TestParse(t *testing.T) {
	v2 := func(rest string) string { return string(signature) + rest }
	for _, tt := range []struct {
		name, in string
		want     Header
		rest     string
		fails    string
	}{
		{"v1, IPv4", "PROXY TCP4 192.0.2.1 198.51.100.7 1000 443\r\nGET /", four, "GET /", ""},
		{"v1, IPv6", "PROXY TCP6 2001:db8::1 2001:db8::2 1000 443\r\n", six, "", ""},
		{"v1, unknown", "PROXY UNKNOWN whatever this is\r\nx", Header{}, "x", ""},
		{"v1, a port too large", "PROXY TCP4 192.0.2.1 198.51.100.7 65536 443\r\n", Header{}, "", "is no port"},
		{"v1, a port with a zero", "PROXY TCP4 192.0.2.1 198.51.100.7 0443 443\r\n", Header{}, "", "is no port"},
		{"v1, the other family", "PROXY TCP4 2001:db8::1 2001:db8::2 1000 443\r\n", Header{}, "", "no address of TCP4"},
		{"v1, two blanks", "PROXY TCP4  192.0.2.1 198.51.100.7 1000 443\r\n", Header{}, "", "malformed"},
		{"v1, no address", "PROXY TCP4 a b 1 2\r\n", Header{}, "", "malformed"},
		{"v1, without end", "PROXY TCP4 " + strings.Repeat("1", 200), Header{}, "", "does not end"},
		{"v2, local", v2("\x20\x00\x00\x00rest"), Header{}, "rest", ""},
		{"v2, unix", v2("\x21\x31\x00\x01xrest"), Header{}, "rest", ""},
		{"v2, a version to come", v2("\x31\x11\x00\x00"), Header{}, "", "unknown version 3"},
		{"v2, an unknown command", v2("\x22\x11\x00\x00"), Header{}, "", "unknown command 2"},
		{"v2, local, whatever it is", v2("\x20\xff\x00\x03xyzrest"), Header{}, "rest", ""},
		{"v2, unspecified", v2("\x21\x00\x00\x02tlrest"), Header{}, "rest", ""},
		{"v2, TLVs", string(AppendV2(nil, four)[:15]) + "\x13" + string(AppendV2(nil, four)[16:]) + "\x04\x00\x04nooprest", four, "rest", ""},
		{"v2, an unknown family", v2("\x21\x41\x00\x00"), Header{}, "", "unknown family"},
		{"v2, an unknown protocol", v2("\x21\x13\x00\x00"), Header{}, "", "unknown family and protocol 0x13"},
		{"v2, no room for the addresses", v2("\x21\x11\x00\x04abcd"), Header{}, "", "without its addresses"},
		{"v2, too long", v2("\x21\x11\xff\xff"), Header{}, "", "are accepted"},
		{"not one", "GET / HTTP/1.1\r\n", Header{}, "", "no PROXY header"},
		{"v2, IPv4 and more", string(AppendV2(nil, four)) + "rest", four, "rest", ""},
	} {
		h, n, err := Parse([]byte(tt.in))
		switch {
		case tt.fails != "":
			if err == nil || !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.fails)
			}
		case err != nil || h != tt.want || tt.in[n:] != tt.rest:
			t.Errorf("%s: got %v, rest %q, %v; want %v, rest %q", tt.name, h, tt.in[n:], err, tt.want, tt.rest)
		}
	}
}

// Whatever the header, all of its beginnings are incomplete.
func TestHeadersInPieces(t *testing.T) {
	for _, whole := range [][]byte{AppendV1(nil, four), AppendV1(nil, six), AppendV2(nil, four), AppendV2(nil, six), AppendV1(nil, Header{}), AppendV2(nil, Header{})} {
		for n := range whole {
			if _, _, err := Parse(whole[:n]); !errors.Is(err, ErrIncomplete) {
				t.Errorf("%d bytes of %q: %v, want ErrIncomplete", n, whole, err)
			}
		}
		if _, n, err := Parse(whole); err != nil || n != len(whole) {
			t.Errorf("%q: %d, %v", whole, n, err)
		}
	}
}

func TestBothFamiliesAreWrittenAsIPv6(t *testing.T) {
	mixed := Header{four.Source, six.Destination}
	for _, b := range [][]byte{AppendV1(nil, mixed), AppendV2(nil, mixed)} {
		h, _, err := Parse(b)
		if err != nil || h.Source.Addr().Unmap() != four.Source.Addr() || h.Destination != six.Destination {
			t.Errorf("%q is read as %v, %v", b, h, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, h := range []Header{four, six, {}} {
		f.Add(AppendV1(nil, h))
		f.Add(AppendV2(nil, h))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := Parse(b)
		if err != nil {
			if n != 0 || h != (Header{}) {
				t.Fatalf("an error with a result: %v, %d", h, n)
			}
			return
		}
		if n > len(b) || n > MaxSize {
			t.Fatalf("a header of %d bytes in %d", n, len(b))
		}
		for _, again := range [][]byte{AppendV1(nil, h), AppendV2(nil, h)} {
			got, m, err := Parse(again)
			if err != nil || m != len(again) {
				t.Fatalf("what was written of %v is not read: %v", h, err)
			}
			if h.Source.IsValid() != got.Source.IsValid() || got.Source.Port() != h.Source.Port() ||
				got.Source.Addr().Unmap() != h.Source.Addr().Unmap() || got.Destination.Addr().Unmap() != h.Destination.Addr().Unmap() {
				t.Fatalf("%v became %v", h, got)
			}
		}
		if !bytes.HasPrefix(b, []byte("PROXY")) && !bytes.HasPrefix(b, signature) {
			t.Fatalf("%q is taken for a header", b[:n])
		}
	})
}
