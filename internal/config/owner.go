package config

import (
	"net/netip"
	"slices"

	"appliance/vrrp"
)

// owns reports whether a virtual address of v is the own address of a node, which
// may be so for the owner alone.
func (f *File) owns(v VRRPEntry, node string, a netip.Addr) bool {
	return a.IsValid() && f.Nodes[node].Address == a && f.basePriority(v, node) == vrrp.OwnerPriority &&
		slices.ContainsFunc(v.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
}

// ownAddress returns the virtual address of v that is the own one of its owner,
// and the owner's name; ok is false if there is none.
func (f *File) ownAddress(v VRRPEntry) (a netip.Addr, node string, ok bool) {
	for _, name := range f.NodeNames() {
		if a := f.Nodes[name].Address; f.owns(v, name, a) {
			return a, name, true
		}
	}
	return netip.Addr{}, "", false
}

// validateOwners reports virtual routers with two owners, and what cannot be had
// together with an address that never leaves its node.
func (f *File) validateOwners(r *report) {
	for i, v := range f.VRRP {
		at := index("vrrp", i)
		var owners []string
		for _, name := range f.NodeNames() {
			if f.basePriority(v, name) == vrrp.OwnerPriority {
				owners = append(owners, name)
			}
		}
		if len(owners) > 1 {
			r.invalid(at+".priority", "%s and %s both have 255 in %s; only one node owns the addresses", owners[0], owners[1], at)
		}
		a, node, ok := f.ownAddress(v)
		if ok && v.Interface == "" {
			r.invalid(at+".interface", "%s is %s's own address: name the interface that has it", a, node)
		}
		if ok && v.VirtualMAC {
			r.invalid(at+".virtual_mac", "%s is %s's own address and has the hardware address of its interface; leave virtual_mac out", a, node)
		}
		if ok && len(v.Track) > 0 {
			r.invalid(at+".track", "nothing can move %s: it is %s's own address and stays there as long as the machine runs; leave track out, or give %s another address",
				a, node, at)
		}
	}
}
