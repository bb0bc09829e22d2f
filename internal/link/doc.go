// Package link is this node's network interfaces: the only package that speaks
// netlink and AF_PACKET. It imports nothing of ours; its types satisfy the
// interfaces that others declare.
//
//   - Adverts (adverts.go) sends and receives VRRP messages in whole Ethernet
//     frames, in front of the host's firewall. frame.go builds and reads the
//     IP header, filter.go is what the kernel lets through. In unicast, messages
//     leave by a raw IP socket (unicast.go): the kernel knows the way.
//   - Addresses (addresses.go) puts virtual addresses on an interface for a
//     limited time, takes them off, and announces them by gratuitous ARP
//     (arp.go) or unsolicited neighbour advertisement (ndp.go).
//   - With a virtual MAC address (virtualmac.go) they are on an interface of their
//     own. What that changes on the machine is in a Record (record.go), so that
//     it is undone after a crash too.
//   - Filters (filters.go) are BPF programs at the ingress of an interface, where the
//     kernel has no better way.
//   - conf.go reads and changes the settings of an interface.
//   - Watch (watch.go) tells when an interface goes and comes, WatchRemovals
//     (removals.go) when an address is taken off one, WatchClaims (claims.go) when
//     another station on the LAN says that an address is its own.
//   - InterfaceFor and SourceChoice (interface.go) answer what a
//     configuration leaves out.
//
// Netlink and packet sockets belong to the network namespace of the thread that
// opens them; what is opened stays there, whoever uses it. (Announce opens anew
// each time.) Everything here needs
// CAP_NET_ADMIN or CAP_NET_RAW, but for the questions of interface.go.
package link
