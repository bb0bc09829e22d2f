package l4

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"appliance/internal/pool"
)

// udpBackend is a server that answers datagrams with prefix and what it got.
func udpBackend(t *testing.T, address, prefix string) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, maxDatagram)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(append([]byte(prefix), b[:n]...), from)
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// freeUDP returns an address at which nobody takes datagrams.
func freeUDP(t *testing.T, ip string) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func udpClient(t *testing.T, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(atOnce))
	return c
}

func ask(t *testing.T, c *net.UDPConn, what string) string {
	t.Helper()
	if _, err := c.Write([]byte(what)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, maxDatagram)
	n, err := c.Read(b)
	if err != nil {
		t.Fatalf("no answer to %q: %v", what, err)
	}
	return string(b[:n])
}

func TestDatagrams(t *testing.T) {
	for _, tt := range []struct{ listen, to, server string }{
		{"127.0.0.51", "127.0.0.51", "127.0.0.31:0"},
		{"0.0.0.0", "127.0.0.52", "127.0.0.31:0"}, // the client's socket takes answers from there alone
		{"::1", "::1", "127.0.0.31:0"},
	} {
		h := newHouse(t)
		at := freeUDP(t, tt.to)
		listen := netip.AddrPortFrom(netip.MustParseAddr(tt.listen), at.Port())
		server := udpBackend(t, tt.server, "")
		p := newPool("echo", server)
		h.load([]Config{{Name: "echo", Listen: []netip.AddrPort{listen}, Protocol: "udp"}}, p)
		c := udpClient(t, at)
		for _, size := range []int{3, 0, 65507, 1400} {
			sent := string(noise(size))
			if got := ask(t, c, sent); got != sent {
				t.Errorf("%s: %d bytes came back for %d", tt.listen, len(got), size)
			}
		}
		eventually(t, "all is counted", func() bool {
			st := h.engine.Stats()[0]
			return st.Total == 1 && st.Current == 1 && st.BytesToServer == 66910 && st.BytesToClient == 66910
		})
	}
}

// A session keeps its server; another client's gets the next.
func TestSessionsOfDatagramsStay(t *testing.T) {
	h := newHouse(t)
	at := freeUDP(t, "127.0.0.51")
	p := newPool("x", udpBackend(t, "127.0.0.31:0", "a"), udpBackend(t, "127.0.0.31:0", "b"))
	cfg := Config{Name: "x", Listen: []netip.AddrPort{at}, Protocol: "udp"}
	h.load([]Config{cfg}, p)
	one, two := udpClient(t, at), udpClient(t, at)
	for range 3 {
		if got := ask(t, one, "1") + ask(t, two, "2"); got != "a1b2" {
			t.Errorf("answers %q, want a1b2", got)
		}
	}
	// A reload does not disturb them.
	h.load([]Config{cfg}, p)
	if got := ask(t, one, "1") + ask(t, two, "2"); got != "a1b2" {
		t.Errorf("after a reload: answers %q, want a1b2", got)
	}
	// A server that goes has its sessions moved.
	if err := p.SetAdmin(p.Servers()[0].Label(), pool.Maint); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, one, "1"); got != "b1" {
		t.Errorf("answer %q after the server has gone, want b1", got)
	}
	// What a reload removes is gone.
	h.load(nil)
	_, _ = one.Write([]byte("1"))
	if _, err := one.Read(make([]byte, 10)); err == nil {
		t.Error("a removed service answers")
	}
}

// A refusal counts against the server and moves the session.
func TestRefusedDatagrams(t *testing.T) {
	h := newHouse(t)
	at, dead := freeUDP(t, "127.0.0.51"), freeUDP(t, "127.0.0.31")
	p := newPool("x", dead, udpBackend(t, "127.0.0.31:0", "b"))
	h.load([]Config{{Name: "x", Listen: []netip.AddrPort{at}, Protocol: "udp"}}, p)
	c := udpClient(t, at)
	_, _ = c.Write([]byte("lost"))
	eventually(t, "the refusal is counted", func() bool { return p.Servers()[0].Stats().ConnectErrors == 1 })
	if got := ask(t, c, "1"); got != "b1" {
		t.Errorf("answer %q, want b1", got)
	}
}

func TestSessionsOfDatagramsEnd(t *testing.T) {
	h := newHouse(t)
	first, second := freeUDP(t, "127.0.0.51"), freeUDP(t, "127.0.0.52")
	p := newPool("x", udpBackend(t, "127.0.0.31:0", ""))
	h.load([]Config{
		{Name: "counted", Listen: []netip.AddrPort{first}, Protocol: "udp", Pool: "x", Responses: 2},
		{Name: "idle", Listen: []netip.AddrPort{second}, Protocol: "udp", Pool: "x", MaxConnections: 1,
			Timeouts: Timeouts{Idle: 200 * time.Millisecond}},
	}, p)
	c := udpClient(t, first)
	ask(t, c, "1")
	if st := h.engine.Stats()[0]; st.Current != 1 {
		t.Errorf("%+v, want a session", st)
	}
	ask(t, c, "2")
	eventually(t, "the second answer ends the session", func() bool { return h.engine.Stats()[0].Current == 0 })

	d, refused := udpClient(t, second), udpClient(t, second)
	ask(t, d, "1")
	_, _ = refused.Write([]byte("2"))
	eventually(t, "one more than may be is refused", func() bool { return h.engine.Stats()[1].Limited == 1 })
	eventually(t, "silence ends the session", func() bool { return h.engine.Stats()[1].Current == 0 })
	if got := ask(t, refused, "3"); got != "3" {
		t.Errorf("answer %q, want 3", got)
	}
	if n := p.Servers()[0].Current(); n > 1 {
		t.Errorf("the server has %d sessions, want 1 at most", n)
	}
}

// A change that is not made leaves nothing bound.
func TestDiscardedDatagrams(t *testing.T) {
	h := newHouse(t)
	at := freeUDP(t, "127.0.0.51")
	pools := map[string]*pool.Pool{"x": newPool("x")}
	c, err := h.engine.Stage([]Config{{Name: "x", Listen: []netip.AddrPort{at}, Protocol: "udp"}}, pools)
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.engine.Stage([]Config{{Name: "x", Listen: []netip.AddrPort{at}, Protocol: "udp"}}, pools)
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("bound twice: %v", err)
	}
	c.Discard()
	l, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Errorf("after Discard: %v", err)
	} else {
		l.Close()
	}
}

// Sessions of datagrams are listed like connections, and end by command.
func TestSessionsOfDatagramsAreListed(t *testing.T) {
	h := newHouse(t)
	at := freeUDP(t, "127.0.0.51")
	p := newPool("x", udpBackend(t, "127.0.0.31:0", "a"))
	h.load([]Config{{Name: "x", Listen: []netip.AddrPort{at}, Protocol: "udp"}}, p)
	one, two := udpClient(t, at), udpClient(t, at)
	ask(t, one, "123")
	ask(t, two, "1")
	all := h.engine.Sessions()
	if len(all) != 2 || all[0].ID >= all[1].ID {
		t.Fatalf("listed: %+v", all)
	}
	want := SessionInfo{
		ID: all[0].ID, Service: "x", State: "datagrams", Client: one.LocalAddr().(*net.UDPAddr).AddrPort(), Local: at,
		Pool: "x", Server: p.Servers()[0].Label(), Age: all[0].Age, BytesToServer: 3, BytesToClient: 4,
	}
	want.Peer = want.Client
	if all[0] != want || want.Age <= 0 {
		t.Errorf("listed %+v, want %+v", all[0], want)
	}
	if n := h.engine.CutSessions(func(s SessionInfo) bool { return s.ID == want.ID }); n != 1 {
		t.Errorf("%d sessions cut, want 1", n)
	}
	if left := h.engine.Sessions(); len(left) != 1 || left[0].Client == want.Client {
		t.Errorf("left: %+v", left)
	}
	if got := ask(t, one, "5"); got != "a5" { // a new session
		t.Errorf("answer %q", got)
	}
}
