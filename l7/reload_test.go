package l7

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// named starts a server that answers with its name.
func named(t *testing.T, name string) string {
	return web(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name) })
}

func TestReloadKeepsConnections(t *testing.T) {
	r := newRig(t)
	r.pool("one", named(t, "one"))
	r.pool("two", named(t, "two"))
	addr := r.addr()
	cfg := Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "one",
		TLS: &TLS{Certificates: []Certificate{makeCert(t, "old.example.com")}}}
	r.apply(cfg)

	c1, in := dial(t, addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	ask := func() string {
		io.WriteString(c1, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		return body(t, answerTo(t, in, "GET"))
	}
	c2 := http2Conn(t, addr)
	check := func(want string) {
		t.Helper()
		if got := ask(); got != want {
			t.Errorf("by HTTP/1.1: %q, want %q", got, want)
		}
		if got := c2.get(t); got != want {
			t.Errorf("by HTTP/2: %q, want %q", got, want)
		}
	}
	check("one")
	up := r.engine.services["web"].state.Load().upstream

	// Routes and certificates change: the connections stay and follow them.
	cfg.Pool = "two"
	cfg.TLS = &TLS{Certificates: []Certificate{makeCert(t, "new.example.com")}}
	r.apply(cfg)
	check("two")
	if name, _, err := presented(t, addr, ""); name != "new.example.com" || err != nil {
		t.Errorf("certificate of %q, %v", name, err)
	}
	if r.engine.services["web"].state.Load().upstream != up {
		t.Error("the connections to the servers were given up")
	}

	// A configuration with a mistake changes nothing.
	bad := cfg
	bad.Pool = "three"
	if _, err := r.engine.Stage([]Config{bad}, r.pools); err == nil || !strings.Contains(err.Error(), `service web: unknown pool "three"`) {
		t.Errorf("%v", err)
	}
	check("two")

	// Discarded is not committed.
	other := cfg
	other.Pool = "one"
	staged, err := r.engine.Stage([]Config{other}, r.pools)
	if err != nil {
		t.Fatal(err)
	}
	staged.Discard()
	check("two")

	// Other upstream settings: a new upstream, the same clients.
	cfg.Timeouts.Connect = time.Second
	r.apply(cfg)
	check("two")
	if r.engine.services["web"].state.Load().upstream == up {
		t.Error("the new settings are not in force")
	}
	if s := r.stats("web"); s.Requests != 10 {
		t.Errorf("%d requests counted over the reloads", s.Requests)
	}

	// Settings of the door: idle connections are let go, new ones come in.
	cfg.MaxHeaderSize = 1 << 20
	r.apply(cfg)
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("the old connection: %v", err)
	}
	c2.untilUnusable(t)
	if got := body(t, get(t, client(t, addr, protocolHTTP1), "https://a/")); got != "two" {
		t.Errorf("on a new connection: %q", got)
	}
}

func TestReloadLetsRequestsEnd(t *testing.T) {
	came, release := make(chan struct{}), make(chan struct{})
	r, addr := simple(t, web(t, func(w http.ResponseWriter, r *http.Request) {
		came <- struct{}{}
		<-release
		io.WriteString(w, "done")
	}))
	c, in := dial(t, addr, nil)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-came
	r.apply() // no service is left
	if len(r.engine.Stats()) != 0 || r.engine.Active(nil) != 1 {
		t.Errorf("%+v, %d active", r.engine.Stats(), r.engine.Active(nil))
	}
	close(release)
	resp := answerTo(t, in, "GET")
	if got := body(t, resp); got != "done" || !resp.Close {
		t.Errorf("%q, close %v", got, resp.Close)
	}
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("%v", err)
	}
}

func TestAddressMovesBetweenServices(t *testing.T) {
	r := newRig(t)
	r.pool("one", named(t, "one"))
	r.pool("two", named(t, "two"))
	addr := r.addr()
	r.apply(Config{Name: "a", Listen: []netip.AddrPort{addr}, Pool: "one"})
	c, in := dial(t, addr, nil)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	body(t, answerTo(t, in, "GET"))
	r.apply(Config{Name: "b", Listen: []netip.AddrPort{addr}, Pool: "two"})
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("the old service's idle connection: %v", err)
	}
	if got := body(t, say(t, addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")); got != "two" {
		t.Errorf("%q", got)
	}
}

// Requests that are under way while configurations change all the time are all
// answered.
func TestReloadUnderLoad(t *testing.T) {
	r := newRig(t)
	r.pool("one", named(t, "one"))
	r.pool("two", named(t, "two"))
	addr := r.addr()
	cfg := Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "one",
		TLS: &TLS{Certificates: []Certificate{makeCert(t, "a")}}}
	r.apply(cfg)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for _, proto := range []string{protocolHTTP1, protocolHTTP2} {
		c := client(t, addr, proto)
		wg.Go(func() {
			for !stop.Load() {
				resp, err := c.Get("https://a/")
				if err != nil {
					t.Errorf("%s: %v", proto, err)
					return
				}
				if got := body(t, resp); got != "one" && got != "two" {
					t.Errorf("%s: %q", proto, got)
				}
			}
		})
	}
	for i := range 50 {
		cfg.Pool = []string{"one", "two"}[i%2]
		cfg.Timeouts.Connect = time.Duration(1+i%3) * time.Second
		r.apply(cfg)
		before := r.stats("web").Requests
		r.until("some requests", func() bool { return t.Failed() || r.stats("web").Requests > before+4 })
	}
	stop.Store(true)
	wg.Wait()
}

func TestQuiesce(t *testing.T) {
	came, release := make(chan struct{}), make(chan struct{})
	r, addr := secure(t, web(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			came <- struct{}{}
			<-release
		}
		io.WriteString(w, "ok")
	}))
	h1 := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}
	const request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	vip := []netip.Addr{addr.Addr()}

	idle, idleIn := dial(t, addr, h1)
	io.WriteString(idle, request)
	body(t, answerTo(t, idleIn, "GET"))
	fresh, freshIn := dial(t, addr, h1) // no request yet
	fresh.(*tls.Conn).Handshake()
	busy, busyIn := dial(t, addr, h1)
	io.WriteString(busy, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-came
	raw2, raw2In := dial(t, addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	io.WriteString(raw2, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	if _, err := raw2In.Peek(9); err != nil { // its settings: it is in
		t.Fatal(err)
	}
	idle2, busy2 := http2Conn(t, addr), http2Conn(t, addr)
	idle2.get(t)
	slow := make(chan string)
	go func() { slow <- busy2.path(t, "/slow") }()
	<-came

	r.engine.Quiesce([]netip.Addr{netip.MustParseAddr("192.0.2.1")}, true)
	if got := idle2.get(t); got != "ok" {
		t.Errorf("%q", got)
	}
	io.WriteString(idle, request)
	if resp := answerTo(t, idleIn, "GET"); body(t, resp) != "ok" || resp.Close {
		t.Error("another address was meant")
	}
	r.until("two are active, when the idle ones have settled", func() bool { return r.engine.Active(vip) == 2 })
	if n := r.engine.Active([]netip.Addr{netip.MustParseAddr("192.0.2.1")}); n != 0 {
		t.Errorf("%d active at another address", n)
	}

	r.engine.Quiesce(vip, true)
	if _, err := idleIn.ReadByte(); err != io.EOF {
		t.Errorf("idle connection: %v", err)
	}
	if code := untilGoAway(t, raw2In); code != 0 {
		t.Errorf("GOAWAY with error %d", code)
	}
	idle2.untilUnusable(t)
	busy2.untilUnusable(t)
	io.WriteString(fresh, request)
	if resp := answerTo(t, freshIn, "GET"); body(t, resp) != "ok" || !resp.Close {
		t.Errorf("connection without a request: close %v", resp.Close)
	}
	// New ones are still served, once.
	c, in := dial(t, addr, h1)
	io.WriteString(c, request)
	if resp := answerTo(t, in, "GET"); body(t, resp) != "ok" || !resp.Close {
		t.Errorf("new connection: close %v", resp.Close)
	}
	c2 := http2Conn(t, addr)
	if got := c2.get(t); got != "ok" {
		t.Errorf("new HTTP/2 connection: %q", got)
	}
	c2.untilUnusable(t)

	close(release)
	resp := answerTo(t, busyIn, "GET")
	if got := body(t, resp); got != "ok" || !resp.Close {
		t.Errorf("busy connection: %q, close %v", got, resp.Close)
	}
	if got := <-slow; got != "ok" {
		t.Errorf("busy HTTP/2 connection: %q", got)
	}
	r.until("quiet", func() bool { return r.engine.Active(vip) == 0 })

	r.engine.Quiesce(vip, false)
	c, in = dial(t, addr, h1)
	for range 2 {
		io.WriteString(c, request)
		if resp := answerTo(t, in, "GET"); body(t, resp) != "ok" || resp.Close {
			t.Errorf("back to normal: close %v", resp.Close)
		}
	}
	c2 = http2Conn(t, addr)
	for range 2 {
		if got := c2.get(t); got != "ok" {
			t.Errorf("back to normal by HTTP/2: %q", got)
		}
	}
}

func TestQuiesceAllOnWildcard(t *testing.T) {
	r := newRig(t)
	r.pool("p", named(t, "x"))
	addr := r.addrOn("0.0.0.0:0")
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p"})
	one, two := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	closes := func(local netip.Addr) bool {
		resp := say(t, netip.AddrPortFrom(local, addr.Port()), "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		body(t, resp)
		return resp.Close
	}
	for _, step := range []struct {
		vips     []netip.Addr
		on       bool
		one, two bool
	}{
		{[]netip.Addr{one}, true, true, false},
		{[]netip.Addr{two}, true, true, true},
		{[]netip.Addr{one}, false, false, true},
		{nil, true, true, true},
		{nil, false, false, false},
	} {
		r.engine.Quiesce(step.vips, step.on)
		if a, b := closes(one), closes(two); a != step.one || b != step.two {
			t.Errorf("after Quiesce(%v, %v): %v, %v", step.vips, step.on, a, b)
		}
	}
}

func TestShutdown(t *testing.T) {
	came, release := make(chan struct{}), make(chan struct{})
	r, addr := simple(t, web(t, func(w http.ResponseWriter, r *http.Request) {
		came <- struct{}{}
		<-release
		fmt.Fprint(w, strings.Repeat("x", 1<<20))
	}))
	c, in := dial(t, addr, nil)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-came
	ended := make(chan error)
	go func() { ended <- r.engine.Shutdown(context.Background()) }()
	r.until("the engine refuses", func() bool {
		c, in := dial(t, addr, nil)
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond)) // it may have got in before
		_, err := in.ReadByte()
		return err == io.EOF
	})
	select {
	case err := <-ended:
		t.Fatalf("Shutdown did not wait: %v", err)
	default:
	}
	close(release)
	if got := body(t, answerTo(t, in, "GET")); len(got) != 1<<20 {
		t.Errorf("%d bytes", len(got))
	}
	if err := <-ended; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if err := r.engine.Shutdown(context.Background()); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

func TestShutdownCuts(t *testing.T) {
	protocols(t, func(t *testing.T) string {
		return web(t, func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
	}, func(t *testing.T, r *rig, c *http.Client) {
		resp := get(t, c, "https://a/")
		defer resp.Body.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := r.engine.Shutdown(ctx); err != context.DeadlineExceeded {
			t.Errorf("Shutdown: %v", err)
		}
		if n := r.engine.Active(nil); n != 0 && !r.eventually(func() bool { return r.engine.Active(nil) == 0 }) {
			t.Errorf("%d active", n)
		}
		if b, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("%q looks whole", b)
		}
	})
}

// h2 is one HTTP/2 connection.
type h2 struct{ conn *http.ClientConn }

func http2Conn(t *testing.T, addr netip.AddrPort) h2 {
	t.Helper()
	transport := client(t, addr, protocolHTTP2).Transport.(*http.Transport)
	conn, err := transport.NewClientConn(t.Context(), "https", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return h2{conn}
}

func (c h2) get(t *testing.T) string { return c.path(t, "/") }

func (c h2) path(t *testing.T, path string) string {
	req, _ := http.NewRequest("GET", "https://a"+path, nil)
	resp, err := c.conn.RoundTrip(req)
	if err != nil {
		t.Errorf("HTTP/2: %v", err)
		return ""
	}
	return body(t, resp)
}

// untilUnusable waits until the connection takes no more requests.
func (c h2) untilUnusable(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(patience); c.conn.Available() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the connection takes requests still")
		}
	}
}

// untilGoAway reads the frames of an HTTP/2 connection up to GOAWAY and returns
// its error code (RFC 9113, section 6.8).
func untilGoAway(t *testing.T, r io.Reader) uint32 {
	t.Helper()
	for {
		var head [9]byte // section 4.1: length, type, flags, stream
		if _, err := io.ReadFull(r, head[:]); err != nil {
			t.Fatalf("no GOAWAY: %v", err)
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(r, payload); err != nil {
			t.Fatalf("no GOAWAY: %v", err)
		}
		if head[3] == 7 {
			return binary.BigEndian.Uint32(payload[4:])
		}
	}
}
