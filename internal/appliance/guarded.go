package appliance

import (
	"net/netip"
	"os"
	"reflect"
	"slices"

	"appliance/internal/guard"
	"appliance/l4/kernel"
	"appliance/vrrp"
)

// Guard is the guard process, until its appliance has ended: stdin is the socket that
// Options.Guard's command has got.
func Guard(stdin *os.File) error {
	files, err := guard.NewFiles(stdin)
	if err != nil {
		return err
	}
	return guard.Watch(files, guard.LAN{Shutter: kernel.Shut})
}

// holder is told what is held under a name from now on.
type holder interface {
	Hold(name string, h guard.Holding)
}

var _ holder = (*guard.Guard)(nil)

// guarded is a router's addresses of which the guard process knows: it is told
// before they are on the interface and after they have gone, so that whatever a
// crash leaves is swept.
type guarded struct {
	vrrp.Addresses
	guard holder
	// describe returns what is to be swept with addresses.
	describe func(addresses []netip.Prefix) guard.Holding
	name     string

	// Of the goroutine that calls the methods.
	held []netip.Prefix
	told guard.Holding // the latest that the guard knows
}

// Acquire tells the guard of what is new, and acquires the addresses. It is the
// renewal too, so that the farewell that the guard has is not older than that
// when a reload changes what adverts are like.
func (g *guarded) Acquire(addresses []netip.Prefix) ([]netip.Prefix, error) {
	for _, a := range addresses {
		if !slices.Contains(g.held, a) {
			g.held = append(g.held, a)
		}
	}
	g.tell()
	return g.Addresses.Acquire(addresses)
}

// Release releases addresses and tells the guard.
func (g *guarded) Release(addresses []netip.Prefix) error {
	err := g.Addresses.Release(addresses)
	g.held = slices.DeleteFunc(g.held, func(a netip.Prefix) bool { return slices.Contains(addresses, a) })
	g.tell()
	return err
}

// tell tells the guard what is held, if it does not know.
func (g *guarded) tell() {
	if h := g.describe(slices.Clone(g.held)); !reflect.DeepEqual(h, g.told) {
		g.guard.Hold(g.name, h)
		g.told = h
	}
}

// holding describes what m holds, with the adverts of priority 0 that tell the
// other nodes not to wait for this one.
func (m *member) holding(addresses []netip.Prefix) guard.Holding {
	h := guard.Holding{
		Interface: m.config.Interface,
		Source:    m.router.Status().Source,
		Addresses: addresses,
		Unicast:   m.config.Unicast,
		Farewells: m.farewells(),
	}
	if h.MAC = virtualMAC(m.config); h.MAC != nil {
		h.Undo = m.undo
	}
	return h
}

func (m *member) farewells() []guard.Farewell {
	var all []guard.Farewell
	for _, f := range m.router.Farewells() {
		all = append(all, guard.Farewell{To: f.To, Message: f.Payload})
	}
	return all
}
