package appliance

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"appliance/internal/config"
	"appliance/internal/link"
)

// Notes returns what a person should know about a node whose file is right: what
// is allowed and seldom meant, and what of this machine does not fit. One line each.
func Notes(node *config.Node) []string {
	notes := priorityNotes(node)
	notes = append(notes, listenNotes(node)...)
	return append(notes, machineNotes(node)...)
}

// priorityNotes tells which virtual routers have no node that is the first.
func priorityNotes(node *config.Node) (notes []string) {
	for _, v := range node.VRRP {
		for _, p := range v.Peers {
			if p.Keepalived && v.Version == 3 {
				notes = append(notes, fmt.Sprintf("vrrp %s: version 3, and the keepalived on %s speaks version 2 unless its file has vrrp_version 3; where they differ both are active", v.Name, p.Name))
			}
			if p.Priority == v.Priority {
				notes = append(notes, fmt.Sprintf("vrrp %s: %s and %s have the same priority %d: the one with the larger address comes first, and neither takes over from the other one",
					v.Name, node.Name, p.Name, v.Priority))
			}
		}
	}
	return notes
}

// listenNotes tells of services that nobody may reach as they are meant to be.
func listenNotes(node *config.Node) (notes []string) {
	known := localAddresses()
	known = append(known, node.Address)
	for _, v := range node.VRRP {
		known = append(known, vipsOf(v.Addresses)...)
		for _, p := range v.Peers {
			known = append(known, p.Address)
		}
	}
	judge := func(service string, a netip.AddrPort) {
		if at := a.Addr(); len(node.VRRP) > 0 && !at.IsUnspecified() && !at.IsLoopback() && !slices.Contains(known, at.WithZone("")) {
			notes = append(notes, fmt.Sprintf("service %s: %s is neither a virtual address nor one of a node or of this machine: clients will not come by it", service, at))
		}
	}
	for _, s := range node.L4 {
		for _, a := range s.Listen {
			judge(s.Name, a)
		}
	}
	for _, s := range node.L7 {
		for _, a := range s.Listen {
			judge(s.Name, a)
			if a.Port() == 443 && s.TLS == nil {
				notes = append(notes, fmt.Sprintf("service %s: %s without [l7.tls] speaks HTTP, not HTTPS", s.Name, a))
			}
		}
	}
	return notes
}

// machineNotes tells what of this machine does not fit the node.
func machineNotes(node *config.Node) (notes []string) {
	if len(node.VRRP) == 0 {
		return nil
	}
	if node.Address.IsValid() && !slices.Contains(localAddresses(), node.Address) {
		return []string{fmt.Sprintf("node %s: this machine has no address %s: it is missing, or this is another node (--node)", node.Name, node.Address)}
	}
	for _, v := range node.VRRP {
		if v.Interface == "" {
			if _, err := link.InterfaceFor(telling(v.Config)); err != nil {
				notes = append(notes, fmt.Sprintf("vrrp %s: %v", v.Name, err))
			}
		} else if _, err := net.InterfaceByName(v.Interface); err != nil {
			notes = append(notes, fmt.Sprintf("vrrp %s: there is no interface %s yet; until there is, this node takes no part", v.Name, v.Interface))
		}
	}
	speakers, err := link.Speakers()
	if err == nil && len(speakers) > 0 {
		notes = append(notes, fmt.Sprintf("%s speaks VRRP on this machine: if it has a virtual_router_id or an address of this file, stop it; the two do not hear each other, and both would be active",
			strings.Join(speakers, " and ")))
	}
	return notes
}

// localAddresses returns all addresses of this machine, without zones.
func localAddresses() (all []netip.Addr) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			all = append(all, p.Addr().Unmap())
		}
	}
	return all
}
