package l4

import (
	"net/netip"
	"sync"
	"time"
)

// maxClients bounds how many clients are kept count of. Beyond it those that
// have no connection are forgotten, whatever their rate.
const maxClients = 100000

// clients counts the connections of each client of a service.
type clients struct {
	mu    sync.Mutex
	known map[netip.Addr]*clientState
}

// clientState is one client: an IPv4 address, or the /64 of an IPv6 address, of
// which everybody has as many as they like.
type clientState struct {
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
	}
	key := clientOf(client)
	s := c.known[key]
	if s == nil {
		if len(c.known) >= maxClients {
			c.forget()
		}
		s = &clientState{at: now}
		c.known[key] = s
	}
	s.level = max(0, s.level-float64(rate)*(now-s.at).Seconds())
	s.at = now
	switch {
	case most > 0 && s.current >= most:
		return "too many connections of this client"
	case rate > 0 && s.level+1 > float64(rate):
		return "too many connections of this client in a second"
	}
	s.current++
	s.level++
	return ""
}

// leave ends a connection that entered.
func (c *clients) leave(client netip.Addr, rate int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := clientOf(client)
	s := c.known[key]
	if s == nil {
		return // counted before a limit was set
	}
	if s.current--; s.current <= 0 && rate == 0 {
		delete(c.known, key)
	}
}

// forget drops the clients that have no connection.
func (c *clients) forget() {
	for key, s := range c.known {
		if s.current <= 0 {
			delete(c.known, key)
		}
	}
}
