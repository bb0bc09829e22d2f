package l7

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

// from connects from a local address; nil if the reset came as early as in connect.
func from(t *testing.T, ip string, addr netip.AddrPort) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: patience}
	c, err := d.DialContext(context.Background(), "tcp", addr.String())
	if errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// asks reports whether a request on a connection is answered; else it must be reset.
func asks(t *testing.T, c net.Conn) bool {
	t.Helper()
	if c == nil {
		return false
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if err == nil {
		var resp *http.Response
		if resp, err = http.ReadResponse(bufio.NewReader(c), nil); err == nil {
			if body(t, resp); resp.StatusCode != 200 {
				t.Fatal(resp.Status)
			}
			return true
		}
	}
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Fatalf("refused by %v, want a reset", err)
	}
	return false
}

// A service has no more connections than its limit, be they idle, and those it has
// are served.
func TestServiceHasNoMoreThanItsLimit(t *testing.T) {
	r := newRig(t)
	r.pool("p", named(t, "one"))
	addr := r.addr()
	cfg := Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", MaxConnections: 2}
	r.apply(cfg)
	one, two := from(t, "127.0.0.1", addr), from(t, "127.0.0.1", addr)
	if !asks(t, one) || !asks(t, two) || asks(t, from(t, "127.0.0.2", addr)) || asks(t, from(t, "127.0.0.1", addr)) {
		t.Error("not two connections are served, whoever they are from")
	}
	r.until("the refused ones are counted", func() bool { s := r.stats("web"); return s.Refused == 2 && s.Connections == 2 })
	if log := r.log.String(); strings.Count(log, `"level":"warn"`) != 1 || !strings.Contains(log, "as many connections as it may") {
		t.Errorf("want one warning that tells why:\n%s", log)
	}
	two.Close()
	r.until("there is room", func() bool { return r.stats("web").Connections == 1 })
	if !asks(t, one) || !asks(t, from(t, "127.0.0.1", addr)) {
		t.Error("there is no room for another one")
	}
	cfg.MaxConnections = 0
	r.apply(cfg)
	if !asks(t, from(t, "127.0.0.1", addr)) {
		t.Error("a bound that is gone holds still")
	}
}

// A client has no more connections than its limit, whatever others have; one of a
// trusted proxy is of nobody, and one by a PROXY header of the client that it names.
func TestClientHasNoMoreThanItsLimit(t *testing.T) {
	r := newRig(t)
	r.pool("p", named(t, "one"))
	addr := r.addr()
	cfg := Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p",
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.8/32")},
		AcceptProxy:    &AcceptProxy{From: []netip.Prefix{netip.MustParsePrefix("127.0.0.9/32")}},
		Rules:          Rules{PerClient: &PerClient{MaxConnections: 1}}}
	r.apply(cfg)
	named := func(client string) net.Conn {
		c := from(t, "127.0.0.9", addr)
		io.WriteString(c, "PROXY TCP4 "+client+" 127.0.0.1 1 2\r\n")
		return c
	}
	by := func(client string) func() net.Conn { return func() net.Conn { return from(t, client, addr) } }
	header := func(client string) func() net.Conn { return func() net.Conn { return named(client) } }
	for _, tc := range []struct {
		what    string
		connect func() net.Conn // at its turn: those that wait race for who is the first
		want    bool
	}{
		{"the first", by("127.0.0.1"), true}, {"the second", by("127.0.0.1"), false}, {"another client", by("127.0.0.2"), true},
		{"a proxy", by("127.0.0.8"), true}, {"a proxy again", by("127.0.0.8"), true},
		{"a client by a header", header("192.0.2.1"), true}, {"the same", header("192.0.2.1"), false}, {"another", header("192.0.2.2"), true},
		{"by a header what has one already", header("127.0.0.1"), false},
	} {
		if got := asks(t, tc.connect()); got != tc.want {
			t.Errorf("%s: served %t, want %t", tc.what, got, tc.want)
		}
	}
	if s := r.stats("web"); s.Refused != 3 {
		t.Errorf("%d are refused, want 3", s.Refused)
	}
	// A reload does not lose count, and one without the bound forgets who had it.
	cfg.PerClient = &PerClient{MaxConnections: 2, MaxRequests: 5}
	r.apply(cfg)
	if asks(t, from(t, "127.0.0.2", addr)) == false || asks(t, from(t, "127.0.0.2", addr)) {
		t.Error("after a reload with a bound of two, one more and no other was to be served")
	}
	cfg.PerClient = nil
	r.apply(cfg)
	if !asks(t, from(t, "127.0.0.2", addr)) {
		t.Error("a bound that is gone holds still")
	}
}

// By TLS and HTTP/2 a connection is one, and refused before its handshake.
func TestLimitOfConnectionsByTLS(t *testing.T) {
	r := newRig(t)
	r.pool("p", named(t, "one"))
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", TLS: &TLS{Certificates: []Certificate{makeCert(t, "a.example")}},
		Rules: Rules{PerClient: &PerClient{MaxConnections: 1}}})
	c := client(t, addr, protocolHTTP2)
	for range 3 {
		if resp := get(t, c, "https://a.example/"); body(t, resp) != "one" {
			t.Errorf("%s", resp.Status)
		}
	}
	if _, err := tls.Dial("tcp", addr.String(), &tls.Config{InsecureSkipVerify: true}); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("a second connection: %v, want a reset", err)
	}
	if s := r.stats("web"); s.Refused != 1 || s.TLSFailures != 0 || s.Requests != 3 {
		t.Errorf("%+v", s)
	}
}
