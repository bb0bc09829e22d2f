package l4

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"appliance/internal/endpoint"
	"appliance/internal/listen"
	"appliance/internal/pool"
)

func TestRefusedConnectIsRetried(t *testing.T) {
	h := newHouse(t)
	dead, alive := closedPort(t), backend(t, echo)
	p := h.serve(Timeouts{}, dead, alive)
	for range 4 {
		c := h.dial(entrance)
		// Sent before any server has accepted: it must reach the one that does.
		say(t, c, "hello")
		expect(t, c, "hello")
		c.Close()
		h.end()
	}
	refusing, serving := p.Servers()[0].Stats(), p.Servers()[1].Stats()
	if serving.Total != 4 || serving.ConnectErrors != 0 || serving.BytesToServer != 20 || serving.BytesToClient != 20 {
		t.Errorf("the living server has %+v, want 4 connections with 20 bytes each way", serving)
	}
	if refusing.ConnectErrors == 0 || refusing.ConnectErrors != refusing.Total || refusing.Errors.Refused != refusing.Total || refusing.Current != 0 {
		t.Errorf("the dead server has %+v, want all connections failed and none left", refusing)
	}
	if st := h.engine.Stats()[0]; st.Refused != 0 || st.Total != 4 {
		t.Errorf("the service has %+v, want 4 connections and none refused", st)
	}
}

func TestSilentServerIsPassedOver(t *testing.T) {
	h := newHouse(t)
	silent := silentPort(t)
	p := h.serve(Timeouts{Connect: 100 * time.Millisecond}, silent, backend(t, greet("hello")))
	expect(t, h.dial(entrance), "hello")
	if st := p.Servers()[0].Stats(); st.ConnectErrors != 1 || st.Errors.TimedOut != 1 {
		t.Errorf("the silent server has %+v, want 1 connect that timed out", st)
	}
}

// What this machine lacks is nothing to blame a server for, but another one may
// do without.
func TestShortageIsNoFaultOfTheServer(t *testing.T) {
	h := newHouse(t)
	unlucky := backend(t, greet("hello"))
	p := newPool("web", unlucky, backend(t, greet("hello")))
	change, err := h.engine.Stage([]Config{{Name: "web", Listen: []netip.AddrPort{entrance}}}, map[string]*pool.Pool{"web": p})
	if err != nil {
		t.Fatal(err)
	}
	change.doors[0].connect = func(a endpoint.Endpoint, options []listen.Option) (int, error) {
		if a.IP() == unlucky {
			return -1, os.NewSyscallError("connect", syscall.EADDRNOTAVAIL)
		}
		return connect(a, options)
	}
	listeners, err := h.set.Stage(change.Handlers())
	if err != nil {
		t.Fatal(err)
	}
	listeners.Commit()
	for range 4 {
		expect(t, h.dial(entrance), "hello")
	}
	if st := p.Servers()[0].Stats(); st.Total == 0 || st.ConnectErrors != 0 || st.Current != 0 {
		t.Errorf("the server that could not be reached has %+v, want it picked and not blamed", st)
	}
}

func TestThreeServersAreTried(t *testing.T) {
	h := newHouse(t)
	p := h.serve(Timeouts{}, closedPort(t), closedPort(t), closedPort(t), closedPort(t))
	h.expectRefusal(entrance)
	var tried, current int64
	for _, s := range p.Servers() {
		st := s.Stats()
		if st.ConnectErrors > 1 {
			t.Errorf("%s was tried %d times for one connection", st.Label, st.ConnectErrors)
		}
		tried += st.ConnectErrors
		current += st.Current
	}
	if tried != 3 || current != 0 {
		t.Errorf("%d servers were tried and %d connections are left, want 3 and 0", tried, current)
	}
	eventually(t, "refused is counted, nothing left", func() bool {
		st := h.engine.Stats()[0]
		return st.Refused == 1 && st.Current == 0 && h.engine.Active(nil) == 0
	})
}

func TestNoServer(t *testing.T) {
	h := newHouse(t)
	p := h.serve(Timeouts{}, backend(t, greet("hello")))
	if err := p.SetAdmin(p.Servers()[0].Label(), pool.Maint); err != nil {
		t.Fatal(err)
	}
	h.expectRefusal(entrance)
	if st := h.engine.Stats()[0]; st.Refused != 1 || st.Total != 1 {
		t.Errorf("the service has %+v, want 1 connection, refused", st)
	}
	if err := p.SetAdmin(p.Servers()[0].Label(), pool.Ready); err != nil {
		t.Fatal(err)
	}
	expect(t, h.dial(entrance), "hello")
}

func TestDrainLetsConnectionsGoOn(t *testing.T) {
	h := newHouse(t)
	p := h.serve(Timeouts{}, backend(t, echo), backend(t, greet("other")))
	c := h.dial(entrance)
	say(t, c, "one")
	expect(t, c, "one")
	if err := p.SetAdmin(p.Servers()[0].Label(), pool.Drain); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		expect(t, h.dial(entrance), "other")
	}
	say(t, c, "two")
	expect(t, c, "two")
}

func TestDistributionByWeight(t *testing.T) {
	h := newHouse(t)
	a, b := backend(t, greet("a")), backend(t, greet("b"))
	p := pool.New(pool.Config{Name: "web", Servers: []pool.ServerConfig{
		{Address: a.String(), Weight: 3}, {Address: b.String()},
	}})
	h.load([]Config{{Name: "web", Listen: []netip.AddrPort{entrance}}}, p)
	count := make(map[string]int)
	for range 40 {
		c := h.dial(entrance)
		answer := make([]byte, 1)
		if _, err := io.ReadFull(c, answer); err != nil {
			t.Fatal(err)
		}
		count[string(answer)]++
		c.Close()
	}
	if count["a"] != 30 || count["b"] != 10 {
		t.Errorf("distribution %v, want a 30, b 10", count)
	}
}

// The counters tell of a connection while it lasts, not only in the end.
func TestBytesAreCountedAsTheyMove(t *testing.T) {
	h := newHouse(t)
	p := h.serve(Timeouts{}, backend(t, echo))
	c := h.dial(entrance)
	say(t, c, "12345")
	expect(t, c, "12345")
	eventually(t, "5 bytes each way", func() bool {
		s, v := p.Servers()[0].Stats(), h.engine.Stats()[0]
		return s.BytesToServer == 5 && s.BytesToClient == 5 && v.BytesToServer == 5 && v.BytesToClient == 5
	})
	if st := h.engine.Stats()[0]; st.Current != 1 {
		t.Errorf("%d connections now, want 1", st.Current)
	}
}

func TestReload(t *testing.T) {
	h := newHouse(t)
	other := netip.MustParseAddrPort("127.0.0.22:0")
	first, second := newPool("first", backend(t, echo)), newPool("second", backend(t, greet("second")))
	h.load([]Config{
		{Name: "web", Listen: []netip.AddrPort{entrance}, Pool: "first"},
		{Name: "old", Listen: []netip.AddrPort{other}, Pool: "first"},
	}, first)
	at := h.set.Addr(entrance)
	c := h.dial(entrance)
	say(t, c, "before")
	expect(t, c, "before")
	removed := h.dial(other)
	say(t, removed, "before")
	expect(t, removed, "before")

	h.load([]Config{{Name: "web", Listen: []netip.AddrPort{entrance}, Pool: "second"}}, second)

	expect(t, h.dial(entrance), "second")
	say(t, c, "after")
	expect(t, c, "after")
	say(t, removed, "after")
	expect(t, removed, "after")
	if got := h.set.Addr(entrance); got != at {
		t.Errorf("the listener moved from %s to %s", at, got)
	}
	st := h.engine.Stats()
	if len(st) != 1 || st[0].Name != "web" || st[0].Pools[0] != "second" || st[0].Total != 2 || st[0].Current != 2 {
		t.Errorf("stats %+v, want one service with the counters of both configurations", st)
	}
	if n := h.engine.Active(nil); n != 3 {
		t.Errorf("%d connections are active, want 3", n)
	}
}

func TestStageFindsMistakes(t *testing.T) {
	pools := map[string]*pool.Pool{"p": newPool("p")}
	addr := []netip.AddrPort{entrance}
	for _, tt := range []struct {
		cfgs []Config
		want string
	}{
		{[]Config{{Name: "web", Listen: addr, Pool: "q"}}, `service web: there is no pool "q"`},
		{[]Config{{Name: "web", Listen: addr, Pool: "p"}, {Name: "ssh", Listen: addr, Pool: "p"}},
			"service ssh: 127.0.0.21:0 belongs to service web already"},
		{[]Config{{Name: "web", Pool: "p"}, {Name: "web", Pool: "p"}}, "service web: the name is used twice"},
	} {
		e := newHouse(t).engine
		if _, err := e.Stage(tt.cfgs, pools); err == nil || err.Error() != tt.want {
			t.Errorf("error %v, want %s", err, tt.want)
		}
		if n := len(e.Stats()); n != 0 {
			t.Errorf("a failed Stage left %d services", n)
		}
	}
}

func TestActive(t *testing.T) {
	h := newHouse(t)
	other := netip.MustParseAddrPort("127.0.0.22:0")
	p := newPool("p", backend(t, greet("hi")))
	h.load([]Config{{Name: "web", Listen: []netip.AddrPort{entrance, other}, Pool: "p"}}, p)
	for _, addr := range []netip.AddrPort{entrance, other, other} {
		expect(t, h.dial(addr), "hi")
	}
	for _, tt := range []struct {
		vips []netip.Addr
		want int
	}{
		{nil, 3},
		{[]netip.Addr{}, 0},
		{[]netip.Addr{entrance.Addr()}, 1},
		{[]netip.Addr{other.Addr()}, 2},
		{[]netip.Addr{entrance.Addr(), other.Addr()}, 3},
		{[]netip.Addr{netip.MustParseAddr("192.0.2.1")}, 0},
	} {
		if got := h.engine.Active(tt.vips); got != tt.want {
			t.Errorf("Active(%v) = %d, want %d", tt.vips, got, tt.want)
		}
	}
}

func TestShutdownWaits(t *testing.T) {
	h := newHouse(t)
	h.serve(Timeouts{}, backend(t, echo))
	c := h.dial(entrance)
	say(t, c, "before")
	expect(t, c, "before")
	down := make(chan error, 1)
	go func() { down <- h.engine.Shutdown(context.Background()) }()
	eventually(t, "Shutdown has begun", func() bool {
		h.engine.mu.Lock()
		defer h.engine.mu.Unlock()
		return h.engine.closing
	})
	h.expectRefusal(entrance)
	say(t, c, "during")
	expect(t, c, "during")
	select {
	case err := <-down:
		t.Fatalf("Shutdown returned %v before the connection ended", err)
	default:
	}
	c.Close()
	if err := <-down; err != nil {
		t.Errorf("Shutdown: %v, want no error as nothing was cut", err)
	}
	if err := h.engine.Shutdown(context.Background()); err != nil {
		t.Errorf("second Shutdown: %v", err)
	}
}

func TestShutdownCuts(t *testing.T) {
	h := newHouse(t)
	silent := silentPort(t)
	established := newPool("a", backend(t, greet("hello")))
	connecting := newPool("b", silent)
	other := netip.MustParseAddrPort("127.0.0.22:0")
	h.load([]Config{
		{Name: "a", Listen: []netip.AddrPort{entrance}},
		{Name: "b", Listen: []netip.AddrPort{other}, Timeouts: Timeouts{Connect: time.Hour}},
	}, established, connecting)
	c := h.dial(entrance)
	expect(t, c, "hello")
	between := time.Now()
	w := h.dial(other)
	eventually(t, "both are carried", func() bool { return h.engine.Active(nil) == 2 })
	eventually(t, "one began after the other", func() bool { return h.engine.ActiveSince(nil, between) == 1 })
	if n := h.engine.ActiveSince([]netip.Addr{entrance.Addr()}, between); n != 0 {
		t.Errorf("%d began after the first one at its address", n)
	}

	because := errors.New("grace is over")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(because)
	err := h.engine.Shutdown(ctx)
	if !errors.Is(err, because) || !strings.Contains(err.Error(), "2 connections cut") {
		t.Errorf("Shutdown: %v, want that 2 connections were cut, and why", err)
	}
	expectReset(t, c)
	expectReset(t, w)
	if got := h.end(); got != "cut by shutdown" {
		t.Errorf("the connection ended with %q", got)
	}
	for _, p := range []*pool.Pool{established, connecting} {
		if st := p.Servers()[0].Stats(); st.Current != 0 || st.ConnectErrors != 0 {
			t.Errorf("server of pool %s: %+v, want nothing left and nothing blamed on it", p.Name(), st)
		}
	}
}
