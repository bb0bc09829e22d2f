package listen

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// Handler serves the connections of a listener.
type Handler interface {
	// ServeConn serves one connection, on a goroutine of its own, and closes it
	// before it returns, unless it parks it. Keep-alive is on and Nagle's algorithm
	// off.
	ServeConn(c *Conn)
}

// Taker is a Handler that has no use for a goroutine for each connection: its
// ServeConn is not called.
type Taker interface {
	Handler
	// Take takes a connection over: the non-blocking socket fd, which it closes
	// in the end, or has already when it returns. It must not wait. Set.Wait
	// and Set.Cut do not know of the connection.
	Take(fd int, local, peer netip.AddrPort)
}

// Set is the set of all listeners of a process. All methods may be called from
// any goroutine; whoever made the Set calls Close and Wait.
type Set struct {
	log   zerolog.Logger
	fault func(addr netip.AddrPort, err error)

	conns conns // those with a ServeConn under way, and parked ones

	mu        sync.Mutex // guards what follows; changes are rare
	listeners map[netip.AddrPort]*listener
	staged    *Change            // neither committed nor discarded yet
	held      map[netip.Addr]int // how many times each address is held
	closed    bool
}

// NewSet returns an empty set. fault is told when accepting on an address
// begins to fail, and with a nil error when it works again or the listener is
// closed; it is called from the listener's goroutine and must not wait for the
// Set. A nil fault is allowed.
func NewSet(log zerolog.Logger, fault func(addr netip.AddrPort, err error)) *Set {
	if fault == nil {
		fault = func(netip.AddrPort, error) {}
	}
	return &Set{log: log, fault: fault, listeners: make(map[netip.AddrPort]*listener), held: make(map[netip.Addr]int)}
}

// Change is a staged change of a Set. Whoever staged it calls Commit or
// Discard; a further call of either does nothing.
type Change struct {
	set    *Set
	want   map[netip.AddrPort]Handler
	opened map[netip.AddrPort]*listener // listening, but nothing accepts yet
}

// Stage opens the listeners of want that the set does not have; nothing else
// changes before Commit. Connections that arrive on them until then wait in the
// backlog. Port 0 makes the kernel choose a port, see Addr. An error names the
// address and leaves nothing open; a second change cannot be staged while there
// is one.
func (s *Set) Stage(want map[netip.AddrPort]Handler) (*Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, fmt.Errorf("stage listeners: %w", net.ErrClosed)
	case s.staged != nil:
		return nil, errors.New("stage listeners: another change is under way")
	}
	c := &Change{set: s, want: want, opened: make(map[netip.AddrPort]*listener)}
	for addr, h := range want {
		if _, ok := s.listeners[addr]; ok {
			continue
		}
		l, err := open(addr, needsOf(h), s.heldNow())
		if err != nil {
			c.closeOpened()
			if ours, ok := s.overlapping(addr); ok && errors.Is(err, unix.EADDRINUSE) {
				return nil, fmt.Errorf("%w: it overlaps %s, on which this appliance listens until the change is made; restart it to change that", err, ours)
			}
			return nil, Advise(err, addr)
		}
		c.opened[addr] = l
	}
	s.staged = c
	return c, nil
}

// overlapping returns a listener's address that addr cannot be bound beside: the
// same port of all addresses of the family, or of one of them.
func (s *Set) overlapping(addr netip.AddrPort) (netip.AddrPort, bool) {
	for ours := range s.listeners {
		if ours.Port() == addr.Port() && ours.Addr().Is4() == addr.Addr().Is4() &&
			(ours.Addr().IsUnspecified() || addr.Addr().IsUnspecified()) {
			return ours, true
		}
	}
	return netip.AddrPort{}, false
}

// Commit makes the change: connections accepted from now on go to the handlers
// of the change, and listeners that it does not want are closed. Connections
// that were accepted before stay with their handlers. When it returns the
// goroutines of the closed listeners have ended.
func (c *Change) Commit() {
	s := c.set
	for _, l := range s.commit(c) {
		l.wait()
	}
}

// commit does what Commit does and returns the closed listeners, whose
// goroutines may still be running.
func (s *Set) commit(c *Change) (closed []*listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.staged != c {
		return nil
	}
	s.staged = nil
	for addr, h := range c.want {
		l, ok := s.listeners[addr]
		if !ok {
			l = c.opened[addr]
			s.listeners[addr] = l
			l.start(h, s)
			continue
		}
		l.serve(h)
	}
	for addr, l := range s.listeners {
		if _, ok := c.want[addr]; !ok {
			l.close()
			delete(s.listeners, addr)
			closed = append(closed, l)
		}
	}
	return closed
}

// Discard closes what Stage opened; connections that wait there are reset.
func (c *Change) Discard() {
	c.set.mu.Lock()
	defer c.set.mu.Unlock()
	if c.set.staged == c {
		c.set.staged = nil
		c.closeOpened()
	}
}

func (c *Change) closeOpened() {
	for _, l := range c.opened {
		l.close()
	}
}

// Hold makes the listeners of these addresses, also those opened later, leave
// new connection requests unanswered until release is called. A client sends
// its request again by itself, at first after 1 s (RFC 6298, section 2), so it
// neither fails nor is refused while the address moves to another node.
// Handshakes under way, connections waiting to be accepted and established ones
// are not affected. On a wildcard listener only requests to these addresses are
// ignored.
//
// Holds do not know of each other: an address answers again when the last one
// that it is part of has been released. A second call of the same release does
// nothing. An error, of Hold or of release, names the listeners that it failed
// on; on the others it is done. release is never nil.
func (s *Set) Hold(vips []netip.Addr) (release func() error, err error) {
	vips = slices.Clone(vips)
	release = sync.OnceValue(func() error { return s.hold(vips, -1) })
	return release, s.hold(vips, 1)
}

// hold changes by how many holds vips are held.
func (s *Set) hold(vips []netip.Addr, by int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, vip := range vips {
		vip = vip.Unmap()
		s.held[vip] += by
		if s.held[vip] == 0 {
			delete(s.held, vip)
		}
	}
	held := s.heldNow()
	var errs []error
	apply := func(listeners map[netip.AddrPort]*listener) {
		for _, l := range listeners {
			if err := l.hold(held); err != nil {
				errs = append(errs, fmt.Errorf("hold %s: %w", l.addr, err))
			}
		}
	}
	apply(s.listeners)
	if s.staged != nil {
		apply(s.staged.opened)
	}
	return errors.Join(errs...)
}

// heldNow returns the addresses that are held.
func (s *Set) heldNow() []netip.Addr { return slices.Collect(maps.Keys(s.held)) }

// Addr returns the address that the listener wanted as want is bound to, which
// differs if want has port 0. It is want itself if there is no such listener.
func (s *Set) Addr(want netip.AddrPort) netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.listeners[want]
	if !ok && s.staged != nil {
		l, ok = s.staged.opened[want]
	}
	if !ok {
		return want
	}
	return l.local
}

// Close closes all listeners, staged ones too, and waits until nothing is
// accepted any more. Connections go on. A second call does nothing. The error
// is always nil.
func (s *Set) Close() error {
	for _, l := range s.closeAll() {
		l.wait()
	}
	return nil
}

func (s *Set) closeAll() (closed []*listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.staged != nil {
		s.staged.closeOpened()
		s.staged = nil
	}
	for addr, l := range s.listeners {
		l.close()
		delete(s.listeners, addr)
		closed = append(closed, l)
	}
	return closed
}

// Wait returns when every connection has ended: no ServeConn is under way, and none is
// parked. Call it after Close, and after the handlers have been told to end their
// connections.
func (s *Set) Wait() { s.conns.wait() }

// Cut resets the connections under way whose local address is one of vips, and
// returns how many those are. It is for an address that is about to go: after
// that no packet could tell the clients. Their handlers find the connection
// closed.
func (s *Set) Cut(vips []netip.Addr) int { return s.conns.cut(vips) }
