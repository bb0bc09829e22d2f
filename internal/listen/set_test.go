package listen

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// patience bounds what is expected to happen at once.
const patience = 10 * time.Second

// greeter is a handler that says its name, then echoes until the client closes.
type greeter string

func (g greeter) ServeConn(c *Conn) {
	defer c.Close()
	if _, err := io.WriteString(c, string(g)); err == nil {
		_, _ = io.Copy(c, c)
	}
}

func newSet(t *testing.T) *Set {
	t.Helper()
	s := NewSet(zerolog.Nop(), func(addr netip.AddrPort, err error) {
		t.Errorf("fault on %s: %v", addr, err)
	})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		s.Wait()
	})
	return s
}

func stage(t *testing.T, s *Set, want map[netip.AddrPort]Handler) *Change {
	t.Helper()
	c, err := s.Stage(want)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func dial(t *testing.T, addr netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr.String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// expect reads as many bytes as want has.
func expect(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

func say(t *testing.T, c net.Conn, what string) {
	t.Helper()
	if _, err := io.WriteString(c, what); err != nil {
		t.Fatal(err)
	}
	expect(t, c, what)
}

func anyPort(ip string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(ip), 0) }

func TestCommitStartsSwapsAndStops(t *testing.T) {
	s := newSet(t)
	kept, gone := anyPort("127.0.0.1"), anyPort("127.0.0.2")
	stage(t, s, map[netip.AddrPort]Handler{kept: greeter("one"), gone: greeter("two")}).Commit()
	keptAt, goneAt := s.Addr(kept), s.Addr(gone)
	if keptAt.Port() == 0 {
		t.Fatal("Addr does not know the port")
	}
	before, other := dial(t, keptAt), dial(t, goneAt)
	expect(t, before, "one")
	expect(t, other, "two")

	added := anyPort("::1")
	stage(t, s, map[netip.AddrPort]Handler{kept: greeter("three"), added: greeter("four")}).Commit()

	if at := s.Addr(kept); at != keptAt {
		t.Errorf("the listener moved from %s to %s", keptAt, at)
	}
	expect(t, dial(t, keptAt), "three")
	expect(t, dial(t, s.Addr(added)), "four")
	say(t, before, "connections stay with their handlers")
	say(t, other, "even if the listener is gone")
	if c, err := net.DialTimeout("tcp", goneAt.String(), patience); err == nil {
		c.Close()
		t.Error("the listener that is not wanted any more still accepts")
	}
}

func TestStageFailsWhole(t *testing.T) {
	s := newSet(t)
	kept := anyPort("127.0.0.1")
	stage(t, s, map[netip.AddrPort]Handler{kept: greeter("one")}).Commit()

	taken, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	blocked := netip.MustParseAddrPort(taken.Addr().String())
	free, err := net.Listen("tcp", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	fresh := netip.MustParseAddrPort(free.Addr().String())
	free.Close()

	_, err = s.Stage(map[netip.AddrPort]Handler{kept: greeter("two"), blocked: greeter("three"), fresh: greeter("four")})
	if err == nil || !strings.Contains(err.Error(), blocked.String()) || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("error %v, want one that names %s and says in use", err, blocked)
	}
	expect(t, dial(t, s.Addr(kept)), "one")
	again, err := net.Listen("tcp", fresh.String())
	if err != nil {
		t.Fatalf("a failed Stage left a listener open: %v", err)
	}
	again.Close()
}

func TestDiscard(t *testing.T) {
	s := newSet(t)
	addr := anyPort("127.0.0.1")
	c := stage(t, s, map[netip.AddrPort]Handler{addr: greeter("one")})
	at := s.Addr(addr)
	if _, err := s.Stage(nil); err == nil {
		t.Error("a second change was staged")
	}
	waiting := dial(t, at)
	c.Discard()
	if _, err := waiting.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("the connection that waited ended with %v, want a reset", err)
	}
	if c, err := net.DialTimeout("tcp", at.String(), patience); err == nil {
		c.Close()
		t.Error("a discarded listener is still open")
	}
	c.Commit() // too late: does nothing
	stage(t, s, map[netip.AddrPort]Handler{addr: greeter("two")}).Commit()
	expect(t, dial(t, s.Addr(addr)), "two")
}

func TestConnectionsWaitForCommit(t *testing.T) {
	s := newSet(t)
	addr := anyPort("127.0.0.1")
	c := stage(t, s, map[netip.AddrPort]Handler{addr: greeter("served")})
	waiting := dial(t, s.Addr(addr))
	c.Commit()
	expect(t, waiting, "served")
}

func TestForeignAddresses(t *testing.T) {
	s := newSet(t)
	v4, v6 := anyPort("192.0.2.1"), anyPort("2001:db8::1")
	stage(t, s, map[netip.AddrPort]Handler{v4: greeter(""), v6: greeter("")}).Commit()
	for _, addr := range []netip.AddrPort{v4, v6} {
		if at := s.Addr(addr); at.Addr() != addr.Addr() || at.Port() == 0 {
			t.Errorf("%s is bound to %s", addr, at)
		}
	}
}

func TestSocketOptions(t *testing.T) {
	l, err := open(anyPort("127.0.0.1"), needs{alive: DefaultKeepAlive}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	raw, err := l.file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	option := func(level, name int) (value int) {
		if err := raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), level, name) }); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	if option(unix.SOL_SOCKET, unix.SO_REUSEADDR) == 0 {
		t.Error("SO_REUSEADDR is off: a restart would have to wait for old connections")
	}
	if option(unix.SOL_SOCKET, unix.SO_PROTOCOL) != unix.IPPROTO_TCP {
		t.Error("the listener is not plain TCP")
	}
}

func TestCloseEndsEverythingButConnections(t *testing.T) {
	s := newSet(t)
	addr, staged := anyPort("127.0.0.1"), anyPort("127.0.0.2")
	stage(t, s, map[netip.AddrPort]Handler{addr: greeter("hello")}).Commit()
	at := s.Addr(addr)
	c := dial(t, at)
	expect(t, c, "hello")
	change := stage(t, s, map[netip.AddrPort]Handler{addr: greeter(""), staged: greeter("")})
	stagedAt := s.Addr(staged)

	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	change.Commit() // too late: does nothing
	for _, a := range []netip.AddrPort{at, stagedAt} {
		if c, err := net.DialTimeout("tcp", a.String(), patience); err == nil {
			c.Close()
			t.Errorf("%s still accepts", a)
		}
	}
	if _, err := s.Stage(nil); err == nil {
		t.Error("a closed set was changed")
	}
	say(t, c, "still here")
}

func TestMatches(t *testing.T) {
	addrs := func(list ...string) (out []netip.Addr) {
		for _, a := range list {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	for _, tt := range []struct {
		vips  []netip.Addr
		local string
		want  bool
	}{
		{nil, "192.0.2.1", true},
		{[]netip.Addr{}, "192.0.2.1", false},
		{addrs("192.0.2.2", "192.0.2.1"), "192.0.2.1", true},
		{addrs("192.0.2.1"), "::ffff:192.0.2.1", true},
		{addrs("::ffff:192.0.2.1"), "192.0.2.1", true},
		{addrs("192.0.2.2"), "192.0.2.1", false},
		{addrs("fe80::1"), "fe80::1%eth0", true},
		{addrs("fe80::1%eth0"), "fe80::1%eth0", true},
		{addrs("fe80::1%eth1"), "fe80::1%eth0", false},
	} {
		if got := Matches(tt.vips, netip.MustParseAddr(tt.local)); got != tt.want {
			t.Errorf("Matches(%v, %s) = %v", tt.vips, tt.local, got)
		}
	}
}

func TestOverlapWithOurselvesIsExplained(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	one := netip.MustParseAddrPort(free.Addr().String())
	free.Close()
	all := netip.AddrPortFrom(netip.IPv4Unspecified(), one.Port())
	s := newSet(t)
	stage(t, s, map[netip.AddrPort]Handler{one: greeter("one")}).Commit()
	_, err = s.Stage(map[netip.AddrPort]Handler{all: greeter("all")})
	if err == nil || !strings.Contains(err.Error(), "overlaps "+one.String()) {
		t.Errorf("the wildcard over our own listener: %v", err)
	}
	other := newSet(t)
	if _, err := other.Stage(map[netip.AddrPort]Handler{one: greeter("one")}); err == nil || strings.Contains(err.Error(), "overlaps") {
		t.Errorf("an address that somebody else has: %v", err)
	}
}
