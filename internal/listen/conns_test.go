package listen

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
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
