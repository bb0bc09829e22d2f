package appliance

import (
	"fmt"
	"net/netip"
	"slices"

	"appliance/vrrp"
)

// owned is the addresses of a router of which some may be this node's own, as
// the owner of a virtual router has them. Those are announced and no more: the
// machine is known by them, so they are never leased, and never taken off.
type owned struct {
	vrrp.Addresses
	own func() []netip.Addr
	// missing returns those of addresses that are not on the interface.
	missing func(addresses []netip.Addr) ([]netip.Addr, error)
}

// Acquire acquires those of addresses that are not this node's own. One that is
// must be there: nobody else puts it back.
func (o *owned) Acquire(addresses []netip.Prefix) (added []netip.Prefix, err error) {
	own, others := o.split(addresses)
	if len(own) > 0 {
		missing, err := o.missing(own)
		if err != nil {
			return nil, err
		}
		if len(missing) > 0 {
			return nil, fmt.Errorf("%s is this node's own address and is not on the interface; give it to the interface, for it is no virtual one here", missing[0])
		}
	}
	if len(others) == 0 {
		return nil, nil
	}
	return o.Addresses.Acquire(others)
}

// Release releases those of addresses that are not this node's own.
func (o *owned) Release(addresses []netip.Prefix) error {
	if _, others := o.split(addresses); len(others) > 0 {
		return o.Addresses.Release(others)
	}
	return nil
}

// split parts this node's own addresses from the others.
func (o *owned) split(addresses []netip.Prefix) (own []netip.Addr, others []netip.Prefix) {
	all := o.own()
	for _, a := range addresses {
		if slices.Contains(all, a.Addr()) {
			own = append(own, a.Addr())
		} else {
			others = append(others, a)
		}
	}
	return own, others
}
