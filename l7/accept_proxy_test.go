package l7

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	"appliance/internal/proxyproto"
)

var proxied = proxyproto.Header{Source: netip.MustParseAddrPort("192.0.2.1:1000"), Destination: netip.MustParseAddrPort("198.51.100.7:443")}

func TestReadProxyHeader(t *testing.T) {
	long := append(proxyproto.AppendV2(nil, proxied), make([]byte, 300)...) // with further fields
	long[14], long[15] = byte((12+300)>>8), byte((12+300)&0xff)
	for name, tc := range map[string]struct {
		head []byte
		want string
	}{
		"v1":         {proxyproto.AppendV1(nil, proxied), "192.0.2.1:1000"},
		"v2":         {proxyproto.AppendV2(nil, proxied), "192.0.2.1:1000"},
		"v2, long":   {long, "192.0.2.1:1000"},
		"v1 unknown": {[]byte("PROXY UNKNOWN\r\n"), "invalid AddrPort"},
		"v2 local":   {proxyproto.AppendV2(nil, proxyproto.Header{}), "invalid AddrPort"},
		"none":       {[]byte("GET / HTTP/1.1\r\n"), "this is no PROXY header"},
		"cut":        {proxyproto.AppendV2(nil, proxied)[:20], "unexpected EOF"},
	} {
		rest := "GET / HTTP/1.1"
		if name == "cut" {
			rest = ""
		}
		r := strings.NewReader(string(tc.head) + rest)
		h, err := readProxyHeader(iotest.OneByteReader(r))
		got := fmt.Sprint(h.Source)
		if err != nil {
			got = err.Error()
		}
		if left, _ := io.ReadAll(r); got != tc.want || err == nil && string(left) != rest {
			t.Errorf("%s: %s, %q is left; want %s", name, got, left, tc.want)
		}
	}
}

func TestAcceptProxy(t *testing.T) {
	r := newRig(t)
	r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("X-Forwarded-For")) }))
	plain, secure, other := r.addr(), r.addr(), r.addr()
	from := &AcceptProxy{From: prefixes("127.0.0.1/8")}
	r.apply(Config{Name: "plain", Listen: []netip.AddrPort{plain}, Pool: "p", AcceptProxy: from},
		Config{Name: "secure", Listen: []netip.AddrPort{secure}, Pool: "p", AcceptProxy: from, TLS: &TLS{Certificates: []Certificate{makeCert(t, "a.example")}}},
		Config{Name: "other", Listen: []netip.AddrPort{other}, Pool: "p", AcceptProxy: &AcceptProxy{From: prefixes("10.0.0.0/8")}})
	const request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	for name, head := range map[string][]byte{"v1": proxyproto.AppendV1(nil, proxied), "v2": proxyproto.AppendV2(nil, proxied)} {
		if resp := say(t, plain, string(head)+request); resp.StatusCode != 200 {
			t.Errorf("%s: %s", name, resp.Status)
		} else if got := body(t, resp); got != "192.0.2.1" {
			t.Errorf("%s: the client is %q", name, got)
		}
		conn, err := net.Dial("tcp", secure.String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(head); err != nil {
			t.Fatal(err)
		}
		tc := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		io.WriteString(tc, request)
		resp, err := http.ReadResponse(bufio.NewReader(tc), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := body(t, resp); got != "192.0.2.1" {
			t.Errorf("%s by TLS: the client is %q", name, got)
		}
		tc.Close()
	}
	// Who must send a header and does not gets nothing, and nobody else's counts.
	c, in := dial(t, plain, nil)
	io.WriteString(c, request)
	if b, _ := io.ReadAll(in); len(b) > 0 {
		t.Errorf("without a header: %q", b)
	}
	if resp := say(t, other, string(proxyproto.AppendV1(nil, proxied))+request); resp.StatusCode != 400 {
		t.Errorf("a header of somebody else: %s", resp.Status)
	}
	if resp := say(t, other, request); resp.StatusCode != 200 {
		t.Errorf("no header of somebody else: %s", resp.Status)
	}
}
