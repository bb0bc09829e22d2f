package appliance

import (
	"net/netip"
	"slices"

	"appliance/vrrp"
)

// activator is told which routers hold addresses.
type activator interface {
	activate(m *member, active bool)
}

// carried is a router's addresses together with the kernel path, which looks at
// frames to their virtual MAC address from before they are announced until after
// they have gone: never must a packet of a connection that it carries find
// nobody but the stack, which would reset it.
type carried struct {
	vrrp.Addresses
	path   activator
	member *member

	// Of the goroutine that calls the methods.
	held []netip.Prefix
}

// Acquire acquires addresses.
func (c *carried) Acquire(addresses []netip.Prefix) ([]netip.Prefix, error) {
	for _, a := range addresses {
		if !slices.Contains(c.held, a) {
			c.held = append(c.held, a)
		}
	}
	c.path.activate(c.member, len(c.held) > 0)
	return c.Addresses.Acquire(addresses)
}

// Release releases addresses.
func (c *carried) Release(addresses []netip.Prefix) error {
	err := c.Addresses.Release(addresses)
	c.held = slices.DeleteFunc(c.held, func(a netip.Prefix) bool { return slices.Contains(addresses, a) })
	c.path.activate(c.member, len(c.held) > 0)
	return err
}
