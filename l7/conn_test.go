package l7

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/netip"
	"testing"
)

// A connection that may be about to bring a request counts, but not for long,
// and not besides its request.
func TestNewConnectionsAreActive(t *testing.T) {
	t.Parallel()
	came, release := make(chan struct{}), make(chan struct{})
	r := newRig(t)
	r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) {
		came <- struct{}{}
		<-release
	}))
	plain, https := r.addr(), r.addr()
	r.apply(Config{Name: "plain", Listen: []netip.AddrPort{plain}, Pool: "p"},
		Config{Name: "web", Listen: []netip.AddrPort{https}, Pool: "p", TLS: &TLS{Certificates: []Certificate{makeCert(t, "a")}}})
	insecure := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocolHTTP1}}
	for _, tc := range []struct {
		name string
		addr netip.AddrPort
		tls  *tls.Config
		text string
	}{
		{"nothing", plain, nil, ""},
		{"half a head", plain, nil, "GET / HTTP/1.1\r\nHo"},
		{"half a hello", https, nil, "\x16\x03\x01"},
		{"half a head in TLS", https, insecure, "GET / HTTP/1.1\r\nHo"},
	} {
		c, _ := dial(t, tc.addr, tc.tls)
		io.WriteString(c, tc.text)
		r.until("it counts: "+tc.name, func() bool { return r.engine.Active(nil) == 1 })
		r.until("it counts no longer: "+tc.name, func() bool { return r.engine.Active(nil) == 0 })
		c.Close()
	}
	c, in := dial(t, plain, nil)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-came
	if n := r.engine.Active(nil); n != 1 {
		t.Errorf("%d active, want the request", n)
	}
	close(release)
	body(t, answerTo(t, in, "GET"))
	r.until("it is idle", func() bool { return r.engine.Active(nil) == 0 })
	c, _ = dial(t, plain, nil)
	c.Close()
	r.until("one that leaves at once is gone", func() bool { return r.engine.Active(nil) == 0 })
}
