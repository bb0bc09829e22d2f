package listen

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

// glance is how long a test watches that nothing happens, less than the 1 s
// after which a client sends its SYN again.
const glance = 300 * time.Millisecond

// expectSilence checks that a connection to addr is neither made nor refused.
func expectSilence(t *testing.T, addr netip.AddrPort) {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr.String(), glance)
	if err == nil {
		c.Close()
	}
	if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
		t.Errorf("connect to %s during hold: %v, want no answer", addr, err)
	}
}

// hold holds vips until release is called.
func hold(t *testing.T, s *Set, vips ...string) (release func()) {
	t.Helper()
	var list []netip.Addr
	for _, v := range vips {
		list = append(list, netip.MustParseAddr(v))
	}
	end, err := s.Hold(list)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHold(t *testing.T) {
	s := newSet(t)
	held, other := anyPort("127.0.0.11"), anyPort("127.0.0.12")
	stage(t, s, map[netip.AddrPort]Handler{held: greeter("held"), other: greeter("other")}).Commit()
	heldAt, otherAt := s.Addr(held), s.Addr(other)
	established := dial(t, heldAt)
	expect(t, established, "held")

	release := hold(t, s, "127.0.0.11")
	connected := make(chan error, 1)
	go func() {
		c, err := net.DialTimeout("tcp", heldAt.String(), patience)
		if err == nil {
			c.Close()
		}
		connected <- err
	}()
	expectSilence(t, heldAt)
	say(t, established, "established connections go on")
	expect(t, dial(t, otherAt), "other")
	select {
	case err := <-connected:
		t.Fatalf("the connect during hold ended with %v", err)
	default:
	}

	release()
	select {
	case err := <-connected:
		if err != nil {
			t.Errorf("the connect begun during hold failed after it: %v", err)
		}
	case <-time.After(patience):
		t.Error("the connect begun during hold does not succeed after it")
	}
	expect(t, dial(t, heldAt), "held")
}

func TestHoldServesTheBacklog(t *testing.T) {
	s := newSet(t)
	addr := anyPort("127.0.0.11")
	c := stage(t, s, map[netip.AddrPort]Handler{addr: greeter("served")})
	waiting := dial(t, s.Addr(addr)) // nothing accepts yet
	hold(t, s, "127.0.0.11")
	expectSilence(t, s.Addr(addr))
	c.Commit()
	expect(t, waiting, "served")
}

func TestListenerOpenedDuringHold(t *testing.T) {
	s := newSet(t)
	release := hold(t, s, "127.0.0.11")
	addr := anyPort("127.0.0.11")
	stage(t, s, map[netip.AddrPort]Handler{addr: greeter("late")}).Commit()
	expectSilence(t, s.Addr(addr))
	release()
	expect(t, dial(t, s.Addr(addr)), "late")
}

// Who holds an address does not have to know who else does.
func TestHoldsAreIndependent(t *testing.T) {
	s := newSet(t)
	addr := anyPort("127.0.0.11")
	stage(t, s, map[netip.AddrPort]Handler{addr: greeter("held")}).Commit()
	first, second := hold(t, s, "127.0.0.11"), hold(t, s, "127.0.0.11")
	first()
	first()
	expectSilence(t, s.Addr(addr))
	second()
	expect(t, dial(t, s.Addr(addr)), "held")
}

func TestHoldOnWildcard(t *testing.T) {
	s := newSet(t)
	v4, v6 := anyPort("0.0.0.0"), anyPort("::")
	stage(t, s, map[netip.AddrPort]Handler{v4: greeter("four"), v6: greeter("six")}).Commit()
	at := func(ip string, wild netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr(ip), s.Addr(wild).Port())
	}
	hold(t, s, "127.0.0.12", "2001:db8::1", "2001:db8::1:1")
	release := hold(t, s, "127.0.0.11")
	expectSilence(t, at("127.0.0.11", v4))
	expectSilence(t, at("127.0.0.12", v4))
	expect(t, dial(t, at("127.0.0.13", v4)), "four")
	expect(t, dial(t, at("::1", v6)), "six")

	release6 := hold(t, s, "::1")
	expectSilence(t, at("::1", v6))
	release()
	release6()
	expect(t, dial(t, at("::1", v6)), "six")
	expect(t, dial(t, at("127.0.0.11", v4)), "four")
	expectSilence(t, at("127.0.0.12", v4))
}
