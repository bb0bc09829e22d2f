package listen

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// Who is connected to an address that goes is told so; all others are left
// alone.
func TestCut(t *testing.T) {
	s := newSet(t)
	first, second := netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("127.0.0.2:0")
	stage(t, s, map[netip.AddrPort]Handler{first: greeter("a"), second: greeter("b")}).Commit()
	gone, stays := dial(t, s.Addr(first)), dial(t, s.Addr(second))
	expect(t, gone, "a")
	expect(t, stays, "b")

	if n := s.Cut([]netip.Addr{first.Addr()}); n != 1 {
		t.Errorf("%d connections were cut, want 1", n)
	}
	if _, err := gone.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a client that was cut off reads: %v, want a reset", err)
	}
	say(t, stays, "still here")

	// The address may come back: its listener is what it was.
	again := dial(t, s.Addr(first))
	expect(t, again, "a")
	say(t, again, "back")
}

// A connection that has ended is none that could be cut.
func TestCutForgetsWhatHasEnded(t *testing.T) {
	s := newSet(t)
	address := netip.MustParseAddrPort("127.0.0.1:0")
	stage(t, s, map[netip.AddrPort]Handler{address: greeter("a")}).Commit()
	c := dial(t, s.Addr(address))
	expect(t, c, "a")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.Wait()
	if n := s.Cut(nil); n != 0 {
		t.Errorf("%d connections were cut, want none", n)
	}
}

// optionsOf is a handler that checks the socket options of its connections.
type optionsOf struct {
	t    *testing.T
	want map[int]int // by name, of SOL_TCP
	done chan struct{}
}

func (o optionsOf) ServeConn(c *Conn) {
	defer close(o.done)
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		o.t.Error(err)
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if on, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE); on != 1 || err != nil {
			o.t.Errorf("SO_KEEPALIVE is %d, %v", on, err)
		}
		for name, want := range o.want {
			if got, err := unix.GetsockoptInt(int(fd), unix.SOL_TCP, name); got != want || err != nil {
				o.t.Errorf("option %d is %d, %v; want %d", name, got, err, want)
			}
		}
	})
}

func TestConnectionsAreKeptAlive(t *testing.T) {
	s := newSet(t)
	address := anyPort("127.0.0.11")
	h := optionsOf{t, map[int]int{
		unix.TCP_KEEPIDLE: 15, unix.TCP_KEEPINTVL: 15, unix.TCP_KEEPCNT: 9, unix.TCP_NODELAY: 1,
	}, make(chan struct{})}
	stage(t, s, map[netip.AddrPort]Handler{address: h}).Commit()
	dial(t, s.Addr(address))
	<-h.done
}

// stacks is a handler that tells by which goroutine each connection is served.
type stacks chan string

func (s stacks) ServeConn(c *Conn) {
	defer c.Close()
	text := make([]byte, 32)
	text = text[:runtime.Stack(text, false)]
	name, _, _ := strings.Cut(string(text), " [")
	s <- name
	_, _ = c.Read(text) // until the client closes
}

// awaitIdle waits until no connection is served and that many goroutines are idle.
func awaitIdle(t *testing.T, s *conns, want int) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		local, idle := len(s.all), len(s.idle)
		s.mu.Unlock()
		switch {
		case local == 0 && idle == want:
			return
		case local == 0 || time.Now().After(end):
			t.Fatalf("%d connections are served and %d goroutines idle, want none and %d", local, idle, want)
		}
	}
}

// A goroutine whose connection has ended serves another one, until Wait.
func TestGoroutinesServeAgain(t *testing.T) {
	s := NewSet(zerolog.Nop(), nil)
	address, h := anyPort("127.0.0.1"), make(stacks)
	stage(t, s, map[netip.AddrPort]Handler{address: h}).Commit()
	one, other := dial(t, s.Addr(address)), dial(t, s.Addr(address))
	names := map[string]bool{<-h: true, <-h: true}
	if len(names) != 2 {
		t.Fatalf("two connections at a time are served by %v", names)
	}
	one.Close()
	other.Close()
	awaitIdle(t, &s.conns, 2)
	for range 2 {
		dial(t, s.Addr(address))
		if name := <-h; !names[name] {
			t.Errorf("served by %s, which is none of %v", name, names)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.Cut(nil)
	s.Wait()
	if len(s.conns.idle) > 0 {
		t.Errorf("%d goroutines are idle after Wait", len(s.conns.idle))
	}
}

// Of many goroutines that have nothing to do only some are kept.
func TestFewGoroutinesStayIdle(t *testing.T) {
	var s conns
	names := make(stacks, 2*idleWorkers)
	address := anyPort("127.0.0.1")
	l, err := net.Listen("tcp", address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range cap(names) {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s.serve(names, adopt(t, c.(*net.TCPConn)))
	}
	for range cap(names) {
		<-names // so that all are under way at a time
	}
	s.cut(nil)
	awaitIdle(t, &s, idleWorkers)
	s.wait()
	if len(s.idle) > 0 {
		t.Errorf("%d goroutines are idle after wait", len(s.idle))
	}
}

// adopt makes a Conn of c.
func adopt(t *testing.T, c *net.TCPConn) *Conn {
	t.Helper()
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	if ctl := raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) }); ctl != nil || err != nil {
		t.Fatal(ctl, err)
	}
	return NewConn(fd, c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort())
}

// Many connections begin a collection when no more come, which is waited for; few begin
// none, and neither do few that come after many.
func TestCollect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s conns
		add := func(n int) {
			for range n {
				s.add(&Conn{})
			}
		}
		coming := func() bool {
			synctest.Wait()
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.collection != nil
		}
		add(collectLeast - 1)
		if coming() {
			t.Error("few connections begin a collection")
		}
		add(1)
		for range 10 {
			add(collectLeast/10 + 1)
			time.Sleep(collectAfter)
			if !coming() {
				t.Error("a collection while many connections come")
			}
		}
		add(collectLeast / 10)
		time.Sleep(collectAfter)
		if coming() {
			t.Error("no collection when no more come")
		}
		add(collectLeast - 1)
		if coming() {
			t.Error("few more begin another collection")
		}
		began := time.Now()
		add(1)
		s.tasks.Wait()
		if d := time.Since(began); d != collectAfter || coming() {
			t.Errorf("the collection has ended after %v", d)
		}
		for c := range s.all {
			s.remove(c)
		}
		for range 2 * collectLeast {
			c := &Conn{}
			s.add(c)
			s.remove(c)
		}
		if coming() {
			t.Error("connections that end begin a collection")
		}
		// One that is to come does not hold up the end.
		add(collectLeast)
		began = time.Now()
		if s.wait(); time.Since(began) > 0 {
			t.Error("the end waits for a collection")
		}
	})
}
