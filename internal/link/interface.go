package link

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What an interface can lack.
var (
	errMissing     = errors.New("the interface does not exist")
	errDown        = errors.New("the interface is administratively down")
	errNoCarrier   = errors.New("the interface has no carrier")
	errReplaced    = errors.New("the interface was replaced")
	errNotEthernet = errors.New("the interface is not an Ethernet")
)

// IsAbsent says whether an error means no more than that an interface is missing
// or down.
func IsAbsent(err error) bool {
	for _, absent := range []error{errMissing, errDown, unix.ENETDOWN, unix.ENODEV, unix.ENXIO} {
		if errors.Is(err, absent) {
			return true
		}
	}
	return false
}

// InterfaceFor returns the name of the interface that has an address in the
// subnet of prefix. It is an error if none has, or more than one. Those of virtual
// MAC addresses do not count: what they have is virtual.
func InterfaceFor(prefix netip.Prefix) (string, error) {
	links, err := listLinks(&netlink.Handle{})
	if err != nil {
		return "", fmt.Errorf("list interfaces: %w", err)
	}
	found := ""
	for _, l := range links {
		has, err := hasSubnet(l, prefix)
		if err != nil {
			return "", err
		}
		if !has || isVirtual(l) {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("%s is in the subnet of both %s and %s: name the interface", prefix, found, l.Attrs().Name)
		}
		found = l.Attrs().Name
	}
	if found == "" {
		return "", fmt.Errorf("no interface has an address in the subnet of %s yet: name the interface, so that it is waited for", prefix)
	}
	return found, nil
}

// hasSubnet says whether an address of l has a subnet that holds prefix's
// address. The virtual address itself, left by a crash, does not count.
func hasSubnet(l netlink.Link, prefix netip.Prefix) (bool, error) {
	list, err := listAddresses(&netlink.Handle{}, l, family(prefix.Addr()))
	if err != nil {
		return false, fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err)
	}
	for _, a := range list {
		own, ok := prefixOf(a)
		if ok && own.Addr() != prefix.Addr() && own.Masked().Contains(prefix.Addr()) {
			return true, nil
		}
	}
	return false, nil
}

// SourceChoice says which of an interface's addresses is this node's own: the
// first of Prefer that is there, else the first whose subnet holds Near, else the
// first of all; never one that is Virtual. It is of Near's family, and of IPv6 a
// link-local one (RFC 9568 section 5.1.2.1).
type SourceChoice struct {
	Prefer []netip.Addr
	Near   netip.Addr
	// Only, where it is valid, is the address itself: the interface has it, or
	// there is none.
	Only netip.Addr
	// Virtual says whether an address is one that moves between the nodes: the
	// interface may have it while this node is active. It must not be nil.
	Virtual func(netip.Addr) bool
}

// keeping returns c with a before all others.
func (c SourceChoice) keeping(a netip.Addr) SourceChoice {
	c.Prefer = append([]netip.Addr{a}, c.Prefer...)
	return c
}

// among chooses among the addresses of l.
func (c SourceChoice) among(handle *netlink.Handle, l netlink.Link) (netip.Addr, error) {
	list, err := listAddresses(handle, l, family(c.Near))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list addresses: %w", err)
	}
	var own []netip.Prefix
	for _, a := range list {
		p, ok := prefixOf(a)
		if !ok || c.Virtual(p.Addr()) || a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
			continue
		}
		if c.Only == p.Addr() {
			return c.Only, nil
		}
		if p.Addr().Is4() || p.Addr().IsLinkLocalUnicast() {
			own = append(own, p)
		}
	}
	switch {
	case c.Only.IsValid():
		return netip.Addr{}, fmt.Errorf("the interface has not the address %s, by which the other nodes know this one", c.Only)
	case len(own) == 0 && c.Near.Is6():
		return netip.Addr{}, errors.New("the interface has no IPv6 link-local address of its own")
	case len(own) == 0:
		return netip.Addr{}, errors.New("the interface has no IPv4 address of its own")
	}
	for _, want := range c.Prefer {
		if slices.ContainsFunc(own, func(p netip.Prefix) bool { return p.Addr() == want }) {
			return want, nil
		}
	}
	if i := slices.IndexFunc(own, func(p netip.Prefix) bool { return p.Masked().Contains(c.Near) }); i >= 0 {
		return own[i].Addr(), nil
	}
	return own[0].Addr(), nil
}

// findLink asks for an interface by name.
func findLink(handle *netlink.Handle, name string) (netlink.Link, error) {
	l, err := handle.LinkByName(name)
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
		return nil, errMissing
	}
	return l, err
}

// prefixOf converts an address as netlink gives it.
func prefixOf(a netlink.Addr) (netip.Prefix, bool) {
	addr, ok := netip.AddrFromSlice(a.IP)
	if !ok {
		return netip.Prefix{}, false
	}
	ones, _ := a.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), ones), true
}

// family returns netlink's name for the family of addr.
func family(addr netip.Addr) int {
	if addr.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}
