package l7

import (
	"crypto/tls"
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
	c2 := http2Client(t, addr)
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
	up := r.engine.services["web"].state.Load().pools[r.pools["one"]]

	// Routes and certificates change: the connections stay and follow them.
	cfg.Pool = "two"
	cfg.TLS = &TLS{Certificates: []Certificate{makeCert(t, "new.example.com")}}
	r.apply(cfg)
	check("two")
	if name, _, err := presented(t, addr, ""); name != "new.example.com" || err != nil {
		t.Errorf("certificate of %q, %v", name, err)
	}
	if r.engine.services["web"].state.Load().pools[r.pools["two"]] != up {
		t.Error("the connections to the servers were given up")
	}

	// A configuration with a mistake changes nothing.
	bad := cfg
	bad.Pool = "three"
	if _, err := r.engine.Stage([]Config{bad}, r.pools, nil); err == nil || !strings.Contains(err.Error(), `service web: unknown pool "three"`) {
		t.Errorf("%v", err)
	}
	check("two")

	// Discarded is not committed.
	other := cfg
	other.Pool = "one"
	staged, err := r.engine.Stage([]Config{other}, r.pools, nil)
	if err != nil {
		t.Fatal(err)
	}
	staged.Discard()
	check("two")

	// Other upstream settings: a new upstream, the same clients.
	cfg.Timeouts.Connect = time.Second
	r.apply(cfg)
	check("two")
	if r.engine.services["web"].state.Load().pools[r.pools["two"]] == up {
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
	if got := body(t, resp); got != "done" {
		t.Errorf("%q", got)
	}
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("%v", err)
	}
}

// Who was let in by a door without TLS, or with it, is not kept when that has
// changed.
func TestReloadTurnsTLSOnAndOff(t *testing.T) {
	r := newRig(t)
	r.pool("p", named(t, "x"))
	addr := r.addr()
	plain := Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p"}
	secure := plain
	secure.TLS = &TLS{Certificates: []Certificate{makeCert(t, "a")}}
	for _, step := range []struct {
		before, after Config
		tls           *tls.Config
	}{{plain, secure, nil}, {secure, plain, &tls.Config{InsecureSkipVerify: true}}} {
		r.apply(step.before)
		c, in := dial(t, addr, step.tls)
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		body(t, answerTo(t, in, "GET"))
		r.apply(step.after)
		if _, err := in.ReadByte(); err != io.EOF {
			t.Errorf("TLS before %v: %v", step.tls != nil, err)
		}
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
