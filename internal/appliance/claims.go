package appliance

import (
	"net/netip"
	"slices"
	"sync"

	"appliance/vrrp"
)

// claims says which of this process's routers hold which virtual address. A
// reload may move an address from one router to another, and nobody can say
// which of the two is the first to act: the address is taken off the interface
// when the last one lets it go.
type claims struct {
	// mu is held while the interface is changed, so that what is on it and what
	// is claimed agree. Only the routers' workers wait for it.
	mu      sync.Mutex
	holders map[claim][]vrrp.Addresses
}

type claim struct {
	iface   string
	address netip.Prefix
}

func newClaims() *claims { return &claims{holders: make(map[claim][]vrrp.Addresses)} }

// shared is the addresses of one router on an interface that it shares with the
// other routers of the process.
type shared struct {
	vrrp.Addresses
	iface  string
	claims *claims
}

// Acquire claims addresses and puts them on the interface.
func (s *shared) Acquire(addresses []netip.Prefix) ([]netip.Prefix, error) {
	c := s.claims
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range addresses {
		key := claim{s.iface, a}
		if !slices.Contains(c.holders[key], vrrp.Addresses(s)) {
			c.holders[key] = append(c.holders[key], s)
		}
	}
	return s.Addresses.Acquire(addresses)
}

// Release gives the claim to addresses up, and takes those off the interface
// that no other router claims.
func (s *shared) Release(addresses []netip.Prefix) error {
	c := s.claims
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range addresses {
		key := claim{s.iface, a}
		c.holders[key] = slices.DeleteFunc(c.holders[key], func(h vrrp.Addresses) bool { return h == s })
		if len(c.holders[key]) == 0 {
			delete(c.holders, key)
		}
	}
	return s.Addresses.Release(c.free(s.iface, addresses))
}

// sweep has sweep called with those of addresses that nobody claims.
func (c *claims) sweep(iface string, addresses []netip.Prefix, sweep func([]netip.Prefix) ([]netip.Prefix, error)) ([]netip.Prefix, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return sweep(c.free(iface, addresses))
}

// free returns those of addresses that nobody claims. The caller holds mu.
func (c *claims) free(iface string, addresses []netip.Prefix) []netip.Prefix {
	var free []netip.Prefix
	for _, a := range addresses {
		if len(c.holders[claim{iface, a}]) == 0 {
			free = append(free, a)
		}
	}
	return free
}
