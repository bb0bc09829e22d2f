package l4

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"appliance/internal/pool"
)

// udpBackend is a server that answers datagrams with prefix and what it got.
func udpBackend(t testing.TB, address, prefix string) netip.AddrPort {
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
func freeUDP(t testing.TB, ip string) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// closedUDP returns an address that refuses datagrams: a socket has it that is
// connected to somebody else, so that nobody else gets the port.
func closedUDP(t *testing.T) netip.AddrPort {
	t.Helper()
	ip := net.IPv4(127, 0, 0, 31)
	c, err := net.DialUDP("udp", &net.UDPAddr{IP: ip}, &net.UDPAddr{IP: ip, Port: 9})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func udpClient(t testing.TB, to netip.AddrPort) *net.UDPConn {
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
	// One that is to become empty keeps them.
	if err := p.SetAdmin(p.Servers()[0].Label(), pool.Drain); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, one, "1") + ask(t, udpClient(t, at), "3"); got != "a1b3" {
		t.Errorf("while the first server drains: answers %q, want a1b3", got)
	}
	// A server that goes has its sessions moved.
	if err := p.SetAdmin(p.Servers()[0].Label(), pool.Maint); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, one, "1"); got != "b1" {
		t.Errorf("answer %q after the server has gone, want b1", got)
	}
	// Also one that its check finds dead.
	if err := p.SetAdmin(p.Servers()[0].Label(), pool.Ready); err != nil {
		t.Fatal(err)
	}
	p.SetHealth(p.Servers()[1].Address(), pool.Health{State: pool.Down})
	if got := ask(t, one, "1"); got != "a1" {
		t.Errorf("answer %q after its server has died, want a1", got)
	}
	// Also where a reload removes it.
	p.Update(pool.Config{Servers: []pool.ServerConfig{{Address: udpBackend(t, "127.0.0.31:0", "c").String()}}}, nil)
	if got := ask(t, one, "1"); got != "c1" {
		t.Errorf("answer %q after a reload without the server, want c1", got)
	}
	// Or gives the service another pool.
	h.load([]Config{{Name: "x", Listen: []netip.AddrPort{at}, Protocol: "udp", Pool: "y"}}, newPool("y", udpBackend(t, "127.0.0.31:0", "d")))
	if got := ask(t, one, "1"); got != "d1" {
		t.Errorf("answer %q after a reload with another pool, want d1", got)
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
	at, dead := freeUDP(t, "127.0.0.51"), closedUDP(t)
	p := newPool("x", dead, udpBackend(t, "127.0.0.31:0", "b"))
	cfg := pool.Config{Outlier: &pool.Outlier{ConsecutiveFailures: 2}}
	for _, server := range p.Servers() {
		cfg.Servers = append(cfg.Servers, pool.ServerConfig{Address: server.Address()})
	}
	p.Update(cfg, nil)
	h.load([]Config{{Name: "x", Listen: []netip.AddrPort{at}, Protocol: "udp"}}, p)
	c := udpClient(t, at)
	_, _ = c.Write([]byte("lost"))
	eventually(t, "the refusal is counted", func() bool { return p.Servers()[0].Stats().ConnectErrors == 1 })
	if p.Servers()[0].Stats().Ejection.Times != 0 {
		t.Error("one refusal counts as two")
	}
	if got := ask(t, c, "1"); got != "b1" {
		t.Errorf("answer %q, want b1", got)
	}
}

// The only server has refused a datagram: each one after that is sent to it all the
// same, for it may be back.
func TestRefusedByTheOnlyServer(t *testing.T) {
	h := newHouse(t)
	at, dead := freeUDP(t, "127.0.0.51"), closedUDP(t)
	p := newPool("x", dead)
	h.load([]Config{{Name: "x", Listen: []netip.AddrPort{at}, Protocol: "udp"}}, p)
	c := udpClient(t, at)
	for sent := range int64(5) {
		_, _ = c.Write([]byte("lost"))
		eventually(t, "the refusal is counted", func() bool { return p.Servers()[0].Stats().ConnectErrors == sent+1 })
	}
	if st := h.engine.Stats()[0]; st.Refused != 0 || st.Total != 1 {
		t.Errorf("%+v, want one session, and nothing that found no server", st)
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

// Datagrams that come in a crowd are moved in batches, all of them and in order,
// both ways.
func TestManyDatagrams(t *testing.T) {
	h := newHouse(t)
	at := freeUDP(t, "127.0.0.51")
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 31)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	_ = server.SetReadBuffer(4 << 20)
	h.load([]Config{{Name: "x", Listen: []netip.AddrPort{at}, Protocol: "udp"}},
		newPool("x", server.LocalAddr().(*net.UDPAddr).AddrPort()))
	const clients, each = 3, 100
	var conns []*net.UDPConn
	for range clients {
		conns = append(conns, udpClient(t, at))
	}
	// The loop is kept from its work, so that there are many when it comes to it.
	crowd := func(send func()) {
		t.Helper()
		l, stopped, goOn := h.engine.port(at).loop, make(chan struct{}), make(chan struct{})
		l.post(func() { close(stopped); <-goOn })
		<-stopped
		send()
		close(goOn)
	}
	crowd(func() {
		for i := range each {
			for k, c := range conns {
				for j := range k + 1 { // runs of one, two and three
					if _, err := fmt.Fprintf(c, "%d %d", k, i*(k+1)+j); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	})
	next, from := make([]int, clients), make([]netip.AddrPort, clients)
	_ = server.SetReadDeadline(time.Now().Add(atOnce))
	b := make([]byte, 100)
	for range each * (1 + 2 + 3) {
		n, sender, err := server.ReadFromUDPAddrPort(b)
		if err != nil {
			t.Fatalf("after %v: %v", next, err)
		}
		var k, i int
		if _, err := fmt.Sscanf(string(b[:n]), "%d %d", &k, &i); err != nil || i != next[k] {
			t.Fatalf("client %d: %q, %v; want number %d", k, b[:n], err, next[k])
		}
		next[k], from[k] = next[k]+1, sender
	}
	crowd(func() {
		for i := range each {
			if _, err := server.WriteToUDPAddrPort(fmt.Append(nil, i), from[2]); err != nil {
				t.Fatal(err)
			}
		}
	})
	for i := range each {
		n, err := conns[2].Read(b)
		if err != nil || string(b[:n]) != fmt.Sprint(i) {
			t.Fatalf("answer %d is %q, %v", i, b[:n], err)
		}
	}
	if st := h.engine.Stats()[0]; st.Lost != 0 || st.Total != clients {
		t.Errorf("%+v, want %d sessions and nothing lost", st, clients)
	}
}

// A datagram that is too long for the way to the server is lost, which says
// nothing about the server.
func TestDatagramTooLongForTheServer(t *testing.T) {
	h := newHouse(t)
	at := freeUDP(t, "::1")
	p := newPool("x", udpBackend(t, "127.0.0.31:0", "a"))
	h.load([]Config{{Name: "x", Listen: []netip.AddrPort{at}, Protocol: "udp"}}, p)
	c := udpClient(t, at)
	ask(t, c, "1")
	if _, err := c.Write(make([]byte, 65527)); err != nil { // the longest one of IPv6
		t.Fatal(err)
	}
	eventually(t, "it is lost", func() bool { return h.engine.Stats()[0].Lost == 1 })
	if got := ask(t, c, "2"); got != "a2" {
		t.Errorf("answer %q, want a2", got)
	}
	if st, all := p.Servers()[0].Stats(), h.engine.Stats()[0]; st.ConnectErrors != 0 || all.Total != 1 {
		t.Errorf("%+v and %+v, want no error of the server and one session", st, all)
	}
}

func TestClientHasNoMoreSessionsThanItsLimit(t *testing.T) {
	h := newHouse(t)
	at := freeUDP(t, "127.0.0.51")
	h.load([]Config{{Name: "x", Listen: []netip.AddrPort{at}, Protocol: "udp", PerClient: PerClient{MaxConnections: 1}}},
		newPool("x", udpBackend(t, "127.0.0.31:0", "a")))
	one, two := udpClient(t, at), udpClient(t, at)
	ask(t, one, "1")
	_, _ = two.Write([]byte("2"))
	eventually(t, "the second is refused", func() bool { return h.engine.Stats()[0].Limited == 1 })
	h.engine.CutSessions(func(SessionInfo) bool { return true })
	if got := ask(t, two, "2"); got != "a2" {
		t.Errorf("answer %q when there is room, want a2", got)
	}
}

// faultyHouse returns a house, and what its engine says of UDP addresses.
func faultyHouse(t *testing.T) (*house, chan error) {
	h, faults := newHouse(t), make(chan error, 100)
	h.engine.fault = func(_ netip.AddrPort, err error) { faults <- err }
	return h, faults
}

func nextFault(t *testing.T, faults chan error) error {
	t.Helper()
	select {
	case err := <-faults:
		return err
	case <-time.After(atOnce):
		t.Fatal("nothing is told")
		return nil
	}
}

// A socket that fails after it was opened is a fault, until it works again or is
// given up.
func TestPortThatFails(t *testing.T) {
	h, faults := faultyHouse(t)
	at := freeUDP(t, "127.0.0.51")
	cfgs := []Config{{Name: "x", Listen: []netip.AddrPort{at}, Protocol: "udp"}}
	p := newPool("x", udpBackend(t, "127.0.0.31:0", "a"))
	h.load(cfgs, p)
	c := udpClient(t, at)
	ask(t, c, "1")
	port := h.engine.port(at)
	kept, err := unix.Dup(port.side.fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(kept)
	broken, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(broken)
	// The descriptor means something else now, which epoll(7) does not know: it
	// goes on to tell of the socket.
	swap := func(from int) {
		port.loop.call(func() {
			if err := unix.Dup3(from, port.side.fd, unix.O_CLOEXEC); err != nil {
				t.Error(err)
			}
		})
	}
	swap(broken)
	_, _ = c.Write([]byte("2"))
	if err := nextFault(t, faults); err == nil || !strings.Contains(err.Error(), at.String()) {
		t.Errorf("told %v, want a fault of %s", err, at)
	}
	swap(kept)
	if err := nextFault(t, faults); err != nil {
		t.Errorf("told %v, want the end of the fault", err)
	}
	b := make([]byte, 10)
	if n, err := c.Read(b); err != nil || string(b[:n]) != "a2" { // it had only been late
		t.Errorf("read %q, %v, want a2", b[:n], err)
	}
	swap(broken)
	_, _ = c.Write([]byte("3"))
	if err := nextFault(t, faults); err == nil {
		t.Error("no second fault")
	}
	h.load(nil)
	if err := nextFault(t, faults); err != nil {
		t.Errorf("told %v, want the end of the fault with the service", err)
	}
}

// Where there are no descriptors for sessions new clients are not served, which is
// a fault; the others go on.
func TestNoDescriptorsForSessions(t *testing.T) {
	if !alone(t, "TestNoDescriptorsForSessions") {
		return
	}
	h, faults := faultyHouse(t)
	at := freeUDP(t, "127.0.0.51")
	h.load([]Config{{Name: "x", Listen: []netip.AddrPort{at}, Protocol: "udp"}}, newPool("x", udpBackend(t, "127.0.0.31:0", "a")))
	old, late := udpClient(t, at), udpClient(t, at)
	ask(t, old, "1")
	free := exhaust(t)
	_, _ = late.Write([]byte("2"))
	if err := nextFault(t, faults); err == nil {
		t.Error("the fault ends before it begins")
	}
	if got := ask(t, old, "3"); got != "a3" {
		t.Errorf("answer %q of a session that there was, want a3", got)
	}
	free()
	if err := nextFault(t, faults); err != nil {
		t.Errorf("told %v, want the end of the fault", err)
	}
	if got := ask(t, late, "4"); got != "a4" {
		t.Errorf("answer %q, want a4", got)
	}
}
