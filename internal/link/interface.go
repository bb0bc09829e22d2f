package link

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// InterfaceFor returns the name of the interface that has an address in the
// subnet of prefix. It is an error if none has, or more than one.
func InterfaceFor(prefix netip.Prefix) (string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return "", fmt.Errorf("list interfaces: %w", err)
	}
	found := ""
	for _, l := range links {
		has, err := hasSubnet(l, prefix)
		if err != nil {
			return "", err
		}
		if !has {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("%s is in the subnet of both %s and %s: name the interface", prefix, found, l.Attrs().Name)
		}
		found = l.Attrs().Name
	}
	if found == "" {
		return "", fmt.Errorf("no interface has an address in the subnet of %s: name the interface", prefix)
	}
	return found, nil
}

// hasSubnet says whether an address of l has a subnet that holds prefix's
// address. The virtual address itself, left by a crash, does not count.
func hasSubnet(l netlink.Link, prefix netip.Prefix) (bool, error) {
	list, err := netlink.AddrList(l, family(prefix.Addr()))
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

// SourceAddress returns the primary IPv4 address of the interface ifname: the
// first one that is not secondary to another of its subnet.
func SourceAddress(ifname string) (netip.Addr, error) {
	l, err := netlink.LinkByName(ifname)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("interface %s: %w", ifname, err)
	}
	list, err := netlink.AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list addresses of %s: %w", ifname, err)
	}
	for _, a := range list {
		if own, ok := prefixOf(a); ok && a.Flags&unix.IFA_F_SECONDARY == 0 {
			return own.Addr(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("interface %s has no IPv4 address", ifname)
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
