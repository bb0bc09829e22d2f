package l7

import (
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

// Servers get Via with the version of the client, behind what others have said, and a
// request that goes in a circle ends.
func TestVia(t *testing.T) {
	r := newRig(t)
	r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Join(r.Header.Values("Via"), " | "))
	}))
	plain, secure, circle := r.addr(), r.addr(), r.addr()
	r.pool("circle", circle.String())
	cfg := Config{Name: "web", Listen: []netip.AddrPort{plain}, Pool: "p", Via: "edge"}
	tls := cfg
	tls.Name, tls.Listen, tls.TLS = "tls", []netip.AddrPort{secure}, &TLS{Certificates: []Certificate{makeCert(t, "a.example")}}
	r.apply(cfg, tls, Config{Name: "circle", Listen: []netip.AddrPort{circle}, Pool: "circle", Via: "lb.example.com"})
	for _, tc := range []struct {
		request, want string
		status        int
	}{
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "1.1 edge", 200},
		{"GET / HTTP/1.0\r\n\r\n", "1.0 edge", 200},
		{"GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 fred, HTTP/2 p.example.net:80 (edge)\r\n\r\n", "1.0 fred, HTTP/2 p.example.net:80 (edge) | 1.1 edge", 200},
		{"GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 edges\r\nVia: edge\r\n\r\n", "1.1 edges | edge | 1.1 edge", 200},
		{"GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 fred, 1.1 Edge (x)\r\n\r\n", "508 Loop Detected\n", 508},
		{"GET / HTTP/1.1\r\nHost: a\r\nConnection: Via\r\nVia: 2.0 edge\r\n\r\n", "508 Loop Detected\n", 508},
	} {
		resp := say(t, plain, tc.request)
		if got := body(t, resp); got != tc.want || resp.StatusCode != tc.status || resp.Header.Get("Via") != "" {
			t.Errorf("%q: %s %q, want %q", tc.request, resp.Status, got, tc.want)
		}
	}
	if got := body(t, get(t, client(t, secure, protocolHTTP2), "https://a.example/")); got != "2.0 edge" {
		t.Errorf("HTTP/2: %q", got)
	}
	if resp := get(t, client(t, circle, protocolHTTP1), "http://a/"); body(t, resp) == "" || resp.StatusCode != 508 {
		t.Errorf("a circle: %s", resp.Status)
	}
	if n := r.stats("circle").Requests; n != 2 {
		t.Errorf("%d requests until the circle was noticed", n)
	}
}

// A circle by way of the question whether a request may pass ends, too.
func TestViaOfQuestions(t *testing.T) {
	r := newRig(t)
	r.pool("p", named(t, "hello"))
	addr := r.addr()
	r.pool("auth", addr.String())
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Via: "edge", Rules: Rules{ForwardAuth: &ForwardAuth{Pool: "auth"}}})
	if resp := get(t, client(t, addr, protocolHTTP1), "http://a/"); body(t, resp) == "" || resp.StatusCode != 502 {
		t.Errorf("%s", resp.Status)
	}
	if n := r.stats("web").Requests; n != 2 {
		t.Errorf("%d requests until the circle was noticed", n)
	}
}
