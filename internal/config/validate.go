package config

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"appliance/vrrp"
)

// maxSocketPath is the longest path that a unix socket's address holds on
// Linux, without the zero at its end.
const maxSocketPath = 107

// maxDrain is the longest drain; packaging/applianctl.service gives a stop a
// little more.
const maxDrain = 5 * time.Minute

// validate reports everything that the text alone shows to be wrong. Relative
// paths have been resolved before.
func (f *File) validate(r *report) {
	if len(f.VRRP) == 0 && len(f.L4) == 0 && len(f.L7) == 0 {
		r.invalid("", "there is nothing to do: the file has neither [[vrrp]] nor a service in [[l4]] or [[l7]]")
	}
	if n := len(f.Admin.Socket); n > maxSocketPath {
		r.invalid("admin.socket", "the path has %d bytes, from the folder of this file on if it is relative; a unix socket may have %d at most",
			n, maxSocketPath)
	}
	f.validateAdmin(r)
	if f.Handover.Drain > maxDrain {
		r.invalid("handover.drain", "the drain may last %s at most: new clients wait for its end", "5m")
	}
	f.validateNodes(r)
	f.validatePeer(r)
	f.validateRouters(r)
	f.validateServices(r)
	f.validatePools(r)
	f.validateTracks(r)
}

// validateAdmin reports a door for watchers that is open to everybody, or cannot
// be opened.
func (f *File) validateAdmin(r *report) {
	a := f.Admin.Listen
	switch {
	case !a.IsValid():
		if len(f.Admin.Allow) > 0 {
			r.invalid("admin.allow", "the networks that may look at what? listen is missing, such as \"127.0.0.1:9112\"")
		}
		return
	case a.Port() == 0:
		r.invalid("admin.listen", "the port must be between 1 and 65535")
	case !a.Addr().IsLoopback() && len(f.Admin.Allow) == 0:
		r.invalid("admin.listen", "whoever reaches %s would learn of all servers, clients and events; say in allow which networks may, such as [\"192.168.15.0/24\"], or listen on 127.0.0.1", a)
	}
	for _, l := range f.listeners() {
		if !l.udp && overlap(a, l.address) {
			r.invalid("admin.listen", "%s is taken by %s", a, l)
		}
	}
}

// validateNodes reports mistakes in the nodes and missing ones.
func (f *File) validateNodes(r *report) {
	if len(f.VRRP) > 0 && len(f.Nodes) == 0 {
		r.invalid("node", "the nodes are missing; give each a table such as [node.lb01] with address and priority")
	}
	owner := make(map[netip.Addr]string)
	for _, name := range f.NodeNames() {
		n, at := f.Nodes[name], join("node", name)
		switch first, taken := owner[n.Address]; {
		case !n.Address.IsValid():
			r.invalid(at+".address", "a node needs an address, such as \"192.168.15.11\"")
		case n.Address.IsUnspecified() || n.Address.IsMulticast():
			r.invalid(at+".address", "%s is not the address of a node", n.Address)
		case taken:
			r.invalid(at+".address", "%s is node %s's already", n.Address, first)
		default:
			owner[n.Address] = name
		}
		if n.Priority != 0 && (n.Priority < 1 || n.Priority > vrrp.OwnerPriority) {
			r.invalid(at+".priority", "%s", priorityRange(n.Priority))
		}
	}
}

// validateRouters reports mistakes in the virtual routers.
func (f *File) validateRouters(r *report) {
	names := make(map[string]int)
	for i, v := range f.VRRP {
		at := index("vrrp", i)
		f.validateRouter(r, at, v)
		if first, ok := names[v.Name]; ok && v.Name != "" {
			r.invalid(at+".name", "%q is the name of %s already", v.Name, index("vrrp", first))
		} else {
			names[v.Name] = i
		}
		for j, other := range f.VRRP[:i] {
			if v.VRID == other.VRID && v.VRID != 0 {
				validateSameVRID(r, at, v, index("vrrp", j), other)
			}
		}
	}
	f.validateVirtualAddresses(r)
	f.validateOwners(r)
	f.validateGroups(r)
}

func (f *File) validateRouter(r *report, at string, v VRRPEntry) {
	c := f.router(v, "")
	c.Priority = 1 // judged below, for each node and where it is given
	c.Validate(r.under(at))
	validateInterface(r, at+".interface", v.Interface)
	if v.Interface == "" && len(v.Addresses) > 0 && !slices.ContainsFunc(v.Addresses, tellsInterface) {
		r.invalid(at+".interface", "the interface is missing: link-local addresses do not tell it, for their subnet is on all of them")
	}
	for _, name := range f.NodeNames() {
		if f.basePriority(v, name) == 0 {
			r.invalid(join("node", name)+".priority", "a priority is missing, 1 to 254, as %s has none for this node either", at)
		}
	}
	for name := range v.Priority.ByNode {
		if _, ok := f.Nodes[name]; !ok {
			r.dangling(join(at+".priority", name), "there is no node %s%s", name, hint(name, f.Nodes, "the file has no nodes"))
		}
	}
}

// tellsInterface reports whether the subnet of an address is that of one LAN only.
func tellsInterface(p netip.Prefix) bool {
	return p.Addr().Is4() || !p.Addr().IsLinkLocalUnicast()
}

// validateSameVRID reports that two virtual routers share an identifier unless
// they certainly live on different interfaces, or are of different families.
func validateSameVRID(r *report, at string, v VRRPEntry, otherAt string, other VRRPEntry) {
	switch {
	case len(v.Addresses) > 0 && len(other.Addresses) > 0 && v.Addresses[0].Addr().Is6() != other.Addresses[0].Addr().Is6():
		// RFC 9568 section 1.3: the two protocols do not know of each other.
	case v.Interface == other.Interface && v.Interface != "":
		r.invalid(at+".virtual_router_id", "%d is %s's already, on the same interface %s", v.VRID, otherAt, v.Interface)
	case v.Interface == "" || other.Interface == "":
		r.invalid(at+".virtual_router_id", "%d is %s's already; if they are on different interfaces, name both with the key interface", v.VRID, otherAt)
	}
}

// validateInterface reports a name that no network interface can have.
func validateInterface(r *report, at, name string) {
	if len(name) > 15 || strings.ContainsAny(name, "/ \t\n") {
		r.invalid(at, "%q cannot be the name of an interface: at most 15 bytes, no blanks or slashes", name)
	}
}
