package appliance

import (
	"net/netip"
	"slices"

	"appliance/internal/guard"
	"appliance/vrrp"
)

// guarded is a router's addresses of which the guard process knows: it is told
// before they are on the interface and after they have gone, so that whatever a
// crash leaves is swept.
type guarded struct {
	vrrp.Addresses
	guard *guard.Guard
	// describe returns what is to be swept with addresses.
	describe func(addresses []netip.Prefix) guard.Holding
	name     string
	held     []netip.Prefix // of the goroutine that calls the methods
}

// Acquire tells the guard of addresses that are new, and acquires all.
func (g *guarded) Acquire(addresses []netip.Prefix) error {
	before := len(g.held)
	for _, a := range addresses {
		if !slices.Contains(g.held, a) {
			g.held = append(g.held, a)
		}
	}
	if len(g.held) > before {
		g.guard.Hold(g.name, g.describe(g.held))
	}
	return g.Addresses.Acquire(addresses)
}

// Release releases addresses and tells the guard.
func (g *guarded) Release(addresses []netip.Prefix) error {
	err := g.Addresses.Release(addresses)
	g.held = slices.DeleteFunc(g.held, func(a netip.Prefix) bool { return slices.Contains(addresses, a) })
	g.guard.Hold(g.name, g.describe(g.held))
	return err
}

// holding describes what m holds, with the advert of priority 0 that tells the
// other nodes not to wait for this one.
func (m *member) holding(addresses []netip.Prefix) guard.Holding {
	source := m.router.Status().Source
	farewell := vrrp.Advert{
		Version:   m.config.Version,
		VRID:      m.config.VRID,
		Interval:  m.config.AdvertInterval,
		Addresses: vipsOf(m.config.Addresses),
	}
	return guard.Holding{
		Interface: m.config.Interface,
		Source:    source,
		Addresses: addresses,
		Farewell:  farewell.Append(nil, source, vrrp.Group(), vrrp.ChecksumPseudo),
	}
}
