package l4

import (
	"net/netip"
	"sync"
	"time"
)

// maxClients bounds how many clients are kept count of. Beyond it those that
// have no connection are forgotten, whatever their rate, the longest idle first.
const maxClients = 100000

// clients counts the connections of each client of a service.
type clients struct {
	mu    sync.Mutex
	known map[netip.Addr]*clientState
	// idle is a ring of those without a connection, the longest idle behind it.
	idle clientState
}

// clientState is one client: an IPv4 address, or the /64 of an IPv6 address, of
// which everybody has as many as they like.
type clientState struct {
	key           netip.Addr
	before, after *clientState // in the ring; nil while it has connections

	current int
	// level is how many of the connections that the rate allows are used up;
	// it falls with time.
	level float64
	at    time.Duration // when level was worked out
}

// clientOf returns what counts as one client.
func clientOf(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a
	}
	p, _ := a.Prefix(64) // fails only if the address is invalid
	return p.Addr()
}

// enter counts a connection of a client, or says why there are too many: more
// than most at once, or more than rate in a second. 0 is no limit. After an
// empty answer, leave is due.
func (c *clients) enter(client netip.Addr, most, rate int, now time.Duration) (refusal string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = make(map[netip.Addr]*clientState)
		c.idle.before, c.idle.after = &c.idle, &c.idle
	}
	key := clientOf(client)
	s := c.known[key]
	if s == nil {
		if oldest := c.idle.after; len(c.known) >= maxClients && oldest != &c.idle {
			c.forget(oldest)
		}
		s = &clientState{key: key, at: now}
		c.known[key] = s
		c.rest(s)
	}
	// Never more than the rate: a reload may have lowered it, or brought it.
	s.level = max(0, min(s.level, float64(rate))-float64(rate)*(now-s.at).Seconds())
	s.at = now
	switch {
	case most > 0 && s.current >= most:
		return "too many connections of this client"
	case rate > 0 && s.level+1 > float64(rate):
		return "too many connections of this client in a second"
	}
	if s.current == 0 {
		s.rise()
	}
	s.current++
	s.level++
	return ""
}

// leave ends a connection that entered.
func (c *clients) leave(client netip.Addr, rate int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.known[clientOf(client)]
	if s == nil {
		return // counted before a limit was set
	}
	if s.current--; s.current > 0 {
		return
	}
	c.rest(s)
	if rate == 0 {
		c.forget(s)
	}
}

// rest puts a client that has no connection into the ring.
func (c *clients) rest(s *clientState) {
	s.before, s.after = c.idle.before, &c.idle
	s.before.after, s.after.before = s, s
}

// rise takes a client out of the ring.
func (s *clientState) rise() {
	s.before.after, s.after.before = s.after, s.before
	s.before, s.after = nil, nil
}

// forget drops a client that has no connection.
func (c *clients) forget(s *clientState) {
	s.rise()
	delete(c.known, s.key)
}
