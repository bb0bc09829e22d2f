package l7

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

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
	idle2, busy2 := http2Client(t, addr), http2Client(t, addr)
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
	if n := r.engine.ActiveSince(vip, time.Now()); n != 0 {
		t.Errorf("%d began just now", n)
	}
	if n := r.engine.ActiveSince(vip, time.Now().Add(-time.Hour)); n != 2 {
		t.Errorf("%d began within an hour", n)
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
	c2 := http2Client(t, addr)
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
	c2 = http2Client(t, addr)
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
