package config

import (
	"fmt"
	"net/netip"
	"slices"

	"appliance/internal/endpoint"
)

// broadcast is the address of everybody on a LAN.
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// validateUsable reports an address of a listener or a server that no TCP
// connection can have, whatever the machine.
func validateUsable(r *report, at string, a netip.Addr) {
	switch {
	case a.IsMulticast() || a == broadcast:
		r.invalid(at, "%s is the address of many machines; a TCP connection has one at each end", a)
	case a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "":
		r.invalid(at, "%s means nothing without its interface; write %s%%eth0, with the name of the interface", a, a)
	}
}

// listener is an address of a service and where it stands.
type listener struct {
	address netip.AddrPort
	path    string
	service string // its name
	udp     bool
}

// String returns what messages call the listener.
func (l listener) String() string {
	if l.service == "" {
		return l.path
	}
	return fmt.Sprintf("%s, service %s", l.path, l.service)
}

// listeners returns the addresses of all services that can be judged.
func (f *File) listeners() []listener {
	var all []listener
	for _, s := range f.services() {
		for i, a := range s.listen {
			if a.IsValid() && a.Port() != 0 { // else said already
				all = append(all, listener{a, index(s.path+".listen", i), s.name, s.udp})
			}
		}
	}
	return all
}

// validateListeners reports addresses of services that cannot be bound, or not
// together.
func (f *File) validateListeners(r *report) {
	all := f.listeners()
	for i, l := range all {
		validateUsable(r, l.path, l.address.Addr())
		f.validateScope(r, l)
		taken := slices.IndexFunc(all[:i], func(other listener) bool { return l.udp == other.udp && overlap(l.address, other.address) })
		switch {
		case taken < 0:
		case all[taken].address == l.address:
			r.invalid(l.path, "%s is taken by %s", l.address, all[taken])
		default:
			r.invalid(l.path, "%s overlaps %s, which is taken by %s", l.address, all[taken].address, all[taken])
		}
	}
}

// validateScope reports a listener on a link-local virtual address with a virtual
// MAC address: it is on an interface that comes and goes with it, and a listener
// belongs to one interface for good.
func (f *File) validateScope(r *report, l listener) {
	a := l.address.Addr()
	if !a.Is6() || !a.IsLinkLocalUnicast() {
		return
	}
	for i, v := range f.VRRP {
		if v.VirtualMAC && slices.ContainsFunc(v.Addresses, func(p netip.Prefix) bool { return p.Addr() == a.WithZone("") }) {
			r.invalid(l.path, "%s has a virtual MAC address (%s): no service can listen there; use an address of it that is not link-local",
				a.WithZone(""), index("vrrp", i))
		}
	}
}

// overlap reports whether two addresses cannot be bound at the same time: they
// are equal, or one means all addresses of the other's family.
func overlap(a, b netip.AddrPort) bool {
	if a.Port() != b.Port() {
		return false
	}
	wildcard := a.Addr().IsUnspecified() || b.Addr().IsUnspecified()
	return a == b || wildcard && a.Addr().Is4() == b.Addr().Is4()
}

// validateServerAddresses reports servers of a pool at path that cannot be
// connected to, and those that would be the appliance itself.
func (f *File) validateServerAddresses(r *report, path string, p Pool) {
	for i, s := range p.Servers {
		e, err := endpoint.Parse(s.Address)
		if err != nil {
			continue // said already
		}
		at := index(path+".servers", i) + ".address"
		if e.Path() != "" {
			if e.Path() == f.Admin.Socket {
				r.invalid(at, "%s is the socket by which the appliance itself is commanded", e.Path())
			}
			continue
		}
		if e.Name() != "" {
			continue // not known here
		}
		a := netip.AddrPortFrom(e.IP().Addr().Unmap(), e.IP().Port())
		if a.Addr().IsUnspecified() {
			r.invalid(at, "%s is no address of a server; say which machine, 127.0.0.1 for this one", a.Addr())
			continue
		}
		validateUsable(r, at, a.Addr())
		f.validateElsewhere(r, at, a)
	}
	// With a port of its own too the check would ask one place about all servers.
	if c := p.Check; c != nil && c.Address.IsValid() && c.Port > 0 && c.Port <= 65535 {
		f.validateElsewhere(r, path+".check.address", netip.AddrPortFrom(c.Address.Unmap(), uint16(c.Port)))
	}
}

// validateElsewhere reports that an address to connect to is the appliance's own.
func (f *File) validateElsewhere(r *report, at string, a netip.AddrPort) {
	for _, l := range f.listeners() {
		if f.reaches(a, l.address) {
			r.invalid(at, "%s is where the appliance itself listens (%s); a connection would come back to it", a, l)
			return
		}
	}
}

// reaches reports whether a connection to a server would end at a listener of
// this node or the other: it is the listener's address, or an address that the
// file shows to be the appliance's own where that listens on all.
func (f *File) reaches(server, l netip.AddrPort) bool {
	if server == l {
		return true
	}
	return overlap(server, l) && f.isOwn(server.Addr())
}

// isOwn reports whether the file shows that an address belongs to the
// appliance.
func (f *File) isOwn(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	for _, n := range f.Nodes {
		if n.Address == a {
			return true
		}
	}
	for _, v := range f.VRRP {
		if slices.ContainsFunc(v.Addresses, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return true
		}
	}
	return false
}

// validateVirtualAddresses reports virtual addresses that cannot be virtual.
func (f *File) validateVirtualAddresses(r *report) {
	nodes := make(map[netip.Addr]string)
	for name, n := range f.Nodes {
		nodes[n.Address] = name
	}
	owner := make(map[netip.Addr]int)
	for i, v := range f.VRRP {
		for j, p := range v.Addresses {
			at, a := index(index("vrrp", i)+".addresses", j), p.Addr()
			first, taken := owner[a]
			node, own := nodes[a]
			switch {
			case !a.IsValid():
			case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == broadcast:
				r.invalid(at, "%s cannot be a virtual address", a)
			case p.Bits() == 0:
				r.invalid(at, "/0 is the network of all addresses; write the length of the LAN's prefix, such as %s/24", a)
			case isNetwork(p):
				r.invalid(at, "%s is the address of the network %s itself, not of a machine in it", a, p.Masked())
			case isBroadcast(p):
				r.invalid(at, "%s is the broadcast address of the network %s", a, p.Masked())
			case own && !f.owns(v, node, a):
				r.invalid(at, "%s is node %s's own address; a virtual address belongs to none, unless that node is its owner, with priority 255 in %s",
					a, node, index("vrrp", i))
			case taken && first != i:
				r.invalid(at, "%s is an address of %s already", a, index("vrrp", first))
			default:
				owner[a] = i
			}
		}
	}
}

// hasReserved reports whether the first and the last address of a network belong
// to no machine. Smaller ones have none to spare (RFC 3021).
func hasReserved(p netip.Prefix) bool { return p.Addr().Is4() && p.Bits() <= 30 }

func isNetwork(p netip.Prefix) bool { return hasReserved(p) && p.Addr() == p.Masked().Addr() }

// isBroadcast reports whether the address is the last one of its network: the
// next one is in another.
func isBroadcast(p netip.Prefix) bool { return hasReserved(p) && !p.Contains(p.Addr().Next()) }
