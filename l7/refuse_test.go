package l7

import (
	"fmt"
	"net/http"
	"net/netip"
	"testing"
)

// What could be read in two ways, by us and by a server, is refused.
func TestTargetsAndHostsThatAreNone(t *testing.T) {
	r := newRig(t)
	r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) { t.Errorf("%s %s got through", r.RequestURI, r.Host) }))
	plain, https := r.addr(), r.addr()
	r.apply(Config{Name: "plain", Listen: []netip.AddrPort{plain}, Pool: "p"},
		Config{Name: "web", Listen: []netip.AddrPort{https}, Pool: "p", TLS: &TLS{Certificates: []Certificate{makeCert(t, "a")}}})
	for _, head := range []string{
		"GET http:/admin HTTP/1.1\r\nHost: a", "GET x:/admin HTTP/1.1\r\nHost: a", "GET http:///admin HTTP/1.1\r\nHost: a",
		"GET ftp://a/admin HTTP/1.1\r\nHost: a", "GET /admin#/../public HTTP/1.1\r\nHost: a", "GET /?#x HTTP/1.1\r\nHost: a",
		"GET http://a#/admin HTTP/1.1\r\nHost: a", "GET * HTTP/1.1\r\nHost: a", "GET admin HTTP/1.1\r\nHost: a",
		"GET / HTTP/1.1\r\nHost: evil,blog", "GET / HTTP/1.1\r\nHost: a@b", "GET / HTTP/1.1\r\nHost: a;b",
		"GET / HTTP/1.1\r\nHost: a:b", "GET / HTTP/1.1\r\nHost:", "GET / HTTP/1.0\r\nHost: a,b", "GET http://a,b/ HTTP/1.1\r\nHost: a",
		"GET /%61dmin/%zz HTTP/1.1\r\nHost: a", "GET /admin%00 HTTP/1.1\r\nHost: a",
	} {
		// And nothing is believed that follows on the connection.
		if resp := say(t, plain, head+"\r\nConnection: keep-alive\r\n\r\n"); resp.StatusCode != 400 || !resp.Close {
			t.Errorf("%q: %s, close %v", head, resp.Status, resp.Close)
		}
	}
	for _, head := range [][]string{
		{":authority", "a b", ":path", "/"}, {":authority", "a,b", ":path", "/"}, {":path", "/"}, {":path", "/", "host", "a/b"},
		{":authority", "a", ":path", "/admin#/../public"}, {":authority", "a", ":path", "*"},
	} {
		c, in := http2Frames(t, https, nil)
		write(t, c, ask(1, head...))
		if status, _ := answerFrames(t, in); status != "400" {
			t.Errorf("%q: %s", head, status)
		}
	}
}

// A request that needs no host gets through, and nobody invents one for the
// client.
func TestRequestWithoutHost(t *testing.T) {
	server := web(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Host, r.Header["X-Forwarded-Host"], r.Header["Forwarded"])
	})
	_, addr := simple(t, server)
	for _, head := range []string{"GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\nHost:\r\n\r\n"} {
		resp := say(t, addr, head)
		if got, want := body(t, resp), server+"[] [for=127.0.0.1;proto=http]"; got != want {
			t.Errorf("%q: %s, %q; want %q", head, resp.Status, got, want)
		}
	}
}
