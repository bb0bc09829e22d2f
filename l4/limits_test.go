package l4

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"appliance/internal/pool"
)

func TestServiceHasNoMoreThanItsLimit(t *testing.T) {
	h := newHouse(t)
	h.load([]Config{{Name: "web", Listen: []netip.AddrPort{entrance}, MaxConnections: 2}}, newPool("web", backend(t, greet("hi"))))
	first := h.dial(entrance)
	expect(t, first, "hi")
	expect(t, h.dial(entrance), "hi")
	h.expectRefusal(entrance)
	if st := h.engine.Stats()[0]; st.Limited != 1 || st.Refused != 1 || st.Current != 2 {
		t.Errorf("%+v, want one refused by the limit", st)
	}
	first.Close()
	h.end()
	eventually(t, "there is room", func() bool { return h.engine.Stats()[0].Current == 1 })
	expect(t, h.dial(entrance), "hi")
}

func TestClientHasNoMoreThanItsLimit(t *testing.T) {
	h := newHouse(t)
	h.load([]Config{{Name: "web", Listen: []netip.AddrPort{entrance}, PerClient: PerClient{MaxConnections: 1}}}, newPool("web", backend(t, greet("hi"))))
	dial := func(ip string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: atOnce}
		return d.Dial("tcp", h.set.Addr(entrance).String())
	}
	from := func(ip string) net.Conn {
		c, err := dial(ip)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	one := from("127.0.0.41")
	expect(t, one, "hi")
	if c, err := dial("127.0.0.41"); err == nil { // the reset may come as early as in connect
		expectReset(t, c)
		c.Close()
	}
	expect(t, from("127.0.0.42"), "hi")
	one.Close()
	eventually(t, "the client may again", func() bool { return h.engine.Stats()[0].Current == 1 })
	expect(t, from("127.0.0.41"), "hi")
}

func TestClientRate(t *testing.T) {
	var c clients
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	same := netip.MustParseAddr("2001:db8::2") // in the /64 of b
	for _, tt := range []struct {
		client netip.Addr
		at     time.Duration
		ok     bool
	}{
		{a, 0, true}, {a, 0, true}, {a, 0, false}, {b, 0, true}, {same, 0, true}, {b, 0, false},
		{a, 400 * time.Millisecond, false}, {a, 500 * time.Millisecond, true}, {a, 600 * time.Millisecond, false},
		{a, time.Hour, true}, {a, time.Hour, true}, {a, time.Hour, false},
	} {
		refusal := c.enter(tt.client, 0, 2, tt.at)
		if (refusal == "") != tt.ok {
			t.Errorf("%s at %v: %q", tt.client, tt.at, refusal)
		}
	}
}

// What a client did while no rate was asked for, or a higher one, is not held against
// it when a reload asks for one.
func TestClientRateThatAReloadBrings(t *testing.T) {
	client := netip.MustParseAddr("192.0.2.1")
	for _, before := range []int{0, 1000} {
		var c clients
		for range 500 {
			if refusal := c.enter(client, 0, before, 0); refusal != "" {
				t.Fatal(refusal)
			}
		}
		if refusal := c.enter(client, 0, 2, 500*time.Millisecond); refusal != "" {
			t.Errorf("after %d in a second: %s", before, refusal)
		}
	}
}

// Clients that come and go do not fill the memory, and those that stay are
// remembered, as are those that have just gone.
func TestClientsAreForgotten(t *testing.T) {
	var c clients
	next := netip.MustParseAddr("10.0.0.0")
	come := func() netip.Addr {
		next = next.Next()
		if refusal := c.enter(next, 1, 1, 0); refusal != "" {
			t.Fatalf("%v: %s", next, refusal)
		}
		return next
	}
	stays := come()
	var latest netip.Addr
	for range maxClients + 100 {
		latest = come()
		c.leave(latest, 1)
	}
	if n := len(c.known); n > maxClients {
		t.Errorf("%d clients are known, want at most %d", n, maxClients)
	}
	if c.enter(stays, 1, 0, 0) == "" || c.enter(latest, 0, 1, 0) == "" {
		t.Error("one that has a connection, or has just had one, is forgotten")
	}
	if c.enter(latest, 1, 0, 0) != "" {
		t.Error("a client is refused that has no connection")
	}
	c.leave(latest, 0)
	if _, ok := c.known[latest]; ok {
		t.Error("a client without connections is kept though there is no rate")
	}
	c.leave(stays, 0)
	known := 0
	for s := c.idle.after; s != &c.idle; s = s.after {
		known++
	}
	if known != len(c.known) {
		t.Errorf("%d of %d clients can be forgotten, want all", known, len(c.known))
	}
}

// A new client costs the same, however many have connections.
func BenchmarkClients(b *testing.B) {
	for _, connected := range []int{0, maxClients, 4 * maxClients} {
		b.Run(fmt.Sprint(connected, " connected"), func(b *testing.B) {
			var c clients
			next := netip.MustParseAddr("10.0.0.0")
			for range connected {
				next = next.Next()
				c.enter(next, 1, 1, 0)
			}
			for b.Loop() {
				next = next.Next()
				c.enter(next, 1, 1, 0)
				c.leave(next, 1)
			}
		})
	}
}

// Connections wait for a server that is full, in order, and for a while.
func TestQueueForAServer(t *testing.T) {
	h := newHouse(t)
	p := pool.New(pool.Config{Name: "web", Queue: 2, QueueTimeout: 400 * time.Millisecond,
		Servers: []pool.ServerConfig{{Address: backend(t, greet("hi")).String(), MaxConnections: 1}}})
	h.load([]Config{{Name: "web", Listen: []netip.AddrPort{entrance}}}, p)
	first := h.dial(entrance)
	expect(t, first, "hi")
	second := h.dial(entrance)
	eventually(t, "the second waits", func() bool { return p.Waiting() == 1 })
	third := h.dial(entrance)
	eventually(t, "the third waits", func() bool { return p.Waiting() == 2 })
	h.expectRefusal(entrance) // the queue is full
	resetConn(second)         // who has gone is served no more
	eventually(t, "the second has left", func() bool { return p.Waiting() == 1 })
	first.Close()
	expect(t, third, "hi")
	late := h.dial(entrance)
	expectReset(t, late) // nobody ends in time
	third.Close()
	if n := h.engine.Stats()[0].Limited; n != 2 {
		t.Errorf("%d are counted as refused by a limit, want one by the full queue and one after its wait", n)
	}
	eventually(t, "nothing is left", func() bool { return p.Waiting() == 0 && p.Servers()[0].Current() == 0 })
}

// A server that dies while it is on its way to who has waited for it is not used.
func TestQueueForAServerThatDies(t *testing.T) {
	h := newHouse(t)
	at := backend(t, greet("hi")).String()
	p := pool.New(pool.Config{Name: "web", Queue: 1, Checked: true, Servers: []pool.ServerConfig{{Address: at, MaxConnections: 1}}})
	p.SetHealth(at, pool.Health{State: pool.Up})
	h.load([]Config{{Name: "web", Listen: []netip.AddrPort{entrance}}}, p)
	busy, err := p.Pick()
	if err != nil {
		t.Fatal(err)
	}
	c := h.dial(entrance)
	eventually(t, "the client waits", func() bool { return p.Waiting() == 1 })
	held, goOn := make(chan struct{}), make(chan struct{})
	for _, l := range h.engine.loops {
		l.post(func() { held <- struct{}{}; <-goOn })
		<-held
	}
	busy.Done()
	if p.Waiting() != 0 {
		t.Error("the client still waits")
	}
	p.SetHealth(at, pool.Health{State: pool.Down})
	close(goOn)
	expectReset(t, c)
	eventually(t, "nothing is left", func() bool { return p.Servers()[0].Current() == 0 })
}

// A connection whose server refuses it waits for the others, where those are full.
func TestQueueAfterAFailedConnect(t *testing.T) {
	for _, frees := range []bool{true, false} {
		h := newHouse(t)
		full := backend(t, greet("hi"))
		p := pool.New(pool.Config{Name: "web", Queue: 1, QueueTimeout: 400 * time.Millisecond, Balance: pool.First,
			Servers: []pool.ServerConfig{{Address: full.String(), MaxConnections: 1}, {Address: closedPort(t).String()}}})
		h.load([]Config{{Name: "web", Listen: []netip.AddrPort{entrance}}}, p)
		first := h.dial(entrance)
		expect(t, first, "hi")
		second := h.dial(entrance)
		eventually(t, "the second waits", func() bool { return p.Waiting() == 1 })
		h.expectRefusal(entrance) // the queue is full
		if frees {
			first.Close()
			expect(t, second, "hi")
			second.Close()
		} else {
			expectReset(t, second)
			first.Close()
		}
		eventually(t, "nothing is left", func() bool {
			return p.Waiting() == 0 && p.Servers()[0].Current() == 0 && p.Servers()[1].Current() == 0
		})
	}
}

// A connection that a dead server has not accepted yet goes to another one: nothing was
// sent.
func TestConnectsToADeadServer(t *testing.T) {
	h := newHouse(t)
	silent, server := silentPort(t), backend(t, greet("hello"))
	p := pool.New(pool.Config{Name: "web", Checked: true, Balance: pool.First, OnServerDown: pool.DownReset,
		Servers: []pool.ServerConfig{{Address: silent.String()}, {Address: server.String()}}})
	for _, a := range []netip.AddrPort{silent, server} {
		p.SetHealth(a.String(), pool.Health{State: pool.Up})
	}
	h.load([]Config{{Name: "web", Listen: []netip.AddrPort{entrance}, Timeouts: Timeouts{Connect: time.Hour}}}, p)
	c := h.dial(entrance)
	eventually(t, "the connection waits for the silent server", func() bool {
		l := h.engine.Sessions()
		return len(l) == 1 && l[0].State == "connecting"
	})
	p.SetHealth(silent.String(), pool.Health{State: pool.Down})
	expect(t, c, "hello")
	if st := p.Servers()[0].Stats(); st.Current != 0 || st.ConnectErrors != 1 {
		t.Errorf("the silent server has %+v", st)
	}
}

func TestConnectionsOfADeadServer(t *testing.T) {
	for _, mode := range []pool.OnServerDown{pool.DownReset, pool.DownDrain} {
		h := newHouse(t)
		server := backend(t, echo)
		p := pool.New(pool.Config{Name: "web", Checked: true, OnServerDown: mode, Servers: []pool.ServerConfig{{Address: server.String()}}})
		p.SetHealth(server.String(), pool.Health{State: pool.Up})
		h.load([]Config{{Name: "web", Listen: []netip.AddrPort{entrance}}}, p)
		c := h.dial(entrance)
		say(t, c, "one")
		expect(t, c, "one")
		p.SetHealth(server.String(), pool.Health{State: pool.Down})
		if mode == pool.DownReset {
			expectReset(t, c)
			continue
		}
		say(t, c, "two")
		expect(t, c, "two")
	}
}
