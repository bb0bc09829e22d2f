package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addresses puts addresses on one interface for a limited time, or with the
// hardware address of a virtual router on an interface of their own on top of
// that one. It looks the interface up by name every time, so one that was
// replaced by another of the same name is followed. It belongs to one goroutine
// at a time.
type Addresses struct {
	name    string
	lease   time.Duration
	handle  *netlink.Handle
	virtual *virtual // nil: the addresses have the interface's hardware address
}

// NewAddresses returns the addresses of the interface ifname, in the network
// namespace of the calling thread. lease is how long the kernel keeps an
// address that is not acquired again, at least 1 s and in whole seconds. The
// interface need not exist yet.
func NewAddresses(ifname string, lease time.Duration) (*Addresses, error) {
	if lease < time.Second || lease%time.Second != 0 {
		return nil, fmt.Errorf("addresses on %s: a lease of %s is not a number of seconds", ifname, lease)
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("addresses on %s: open netlink: %w", ifname, err)
	}
	return &Addresses{name: ifname, lease: lease, handle: handle}, nil
}

// NewVirtualAddresses is NewAddresses with the hardware address of the virtual
// router vrid of a family. What that changes on this machine is in record until
// it is undone.
func NewVirtualAddresses(ifname string, lease time.Duration, vrid int, ipv6 bool, record *Record) (*Addresses, error) {
	a, err := NewAddresses(ifname, lease)
	if err != nil {
		return nil, err
	}
	a.virtual = &virtual{vrid: vrid, ipv6: ipv6, record: record, parent: ifname}
	return a, nil
}

// Close closes netlink. Addresses that are held go when their lease ends.
func (a *Addresses) Close() { a.handle.Close() }

// Acquire puts addresses on the interface, or renews the lease of those that
// are there. It returns those that were not, but for one that goes in the very
// moment in which it is renewed. All are tried; the error joins those that failed.
func (a *Addresses) Acquire(addresses []netip.Prefix) (added []netip.Prefix, err error) {
	if len(addresses) == 0 {
		return nil, nil
	}
	main, err := a.link()
	if err != nil {
		return nil, err
	}
	l := main
	if a.virtual != nil {
		if l, err = a.virtual.raise(a.handle, main); err != nil {
			return nil, fmt.Errorf("the virtual MAC address on %s: %w", a.name, err)
		}
	}
	return a.acquire(l, main, addresses)
}

// acquire is Acquire on l. The LAN's other addresses are on main, which may be
// another interface on the same LAN.
func (a *Addresses) acquire(l, main netlink.Link, addresses []netip.Prefix) (added []netip.Prefix, err error) {
	routed, err := a.routed(l, main, addresses)
	if err != nil {
		return nil, err
	}
	var failed []error
	for _, p := range addresses {
		addr := a.netlinkAddr(p)
		addr.ValidLft = int(a.lease / time.Second)
		addr.PreferedLft = addr.ValidLft
		if p.Addr().Is6() {
			// Whoever had the address before may still answer for it, and
			// nobody must wait for that. No lifetime is preferred: it is not
			// for connections that this node begins.
			addr.PreferedLft = 0
			addr.Flags |= unix.IFA_F_NODAD
		}
		if routed(p) {
			addr.Flags |= unix.IFA_F_NOPREFIXROUTE
		}
		// Only an exclusive request tells whether the address was there.
		err := a.handle.AddrAdd(l, addr)
		switch {
		case err == nil:
			added = append(added, p)
		case errors.Is(err, unix.EEXIST):
			err = a.handle.AddrReplace(l, addr)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("acquire %s on %s: %w", p, a.name, err))
		}
	}
	return added, errors.Join(failed...)
}

// routed returns a function that says whether the subnet of one of addresses has
// its route without it, by an address of this node's own. Then the kernel must
// add none: in IPv6 that would be the same route, and would get the end of the
// lease as its own; by another interface it would be a second way to the LAN.
func (a *Addresses) routed(l, main netlink.Link, addresses []netip.Prefix) (func(netip.Prefix) bool, error) {
	same := l.Attrs().Index == main.Attrs().Index
	if same && !slices.ContainsFunc(addresses, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		return func(netip.Prefix) bool { return false }, nil
	}
	list, err := listAddresses(a.handle, main, family(addresses[0].Addr()))
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", main.Attrs().Name, err)
	}
	return func(p netip.Prefix) bool {
		if !same && p.Addr().IsLinkLocalUnicast() {
			return false // each interface has a subnet of its own
		}
		return slices.ContainsFunc(list, func(other netlink.Addr) bool {
			own, ok := prefixOf(other)
			return ok && !slices.Contains(addresses, own) && own.Masked() == p.Masked() && other.Flags&unix.IFA_F_NOPREFIXROUTE == 0
		})
	}, nil
}

// Release takes addresses off the interface. One that is missing is no error,
// nor is a missing interface: it has no addresses. All are tried. With the last
// address goes the interface that they have to themselves.
func (a *Addresses) Release(addresses []netip.Prefix) error {
	l, err := a.holder()
	if a.virtual != nil {
		return a.releaseVirtual(l, err, addresses)
	}
	if errors.Is(err, errMissing) {
		return nil
	} else if err != nil {
		return err
	}
	return a.release(l, addresses)
}

// releaseVirtual is Release on the interface of a virtual router, which may be
// missing.
func (a *Addresses) releaseVirtual(l netlink.Link, missing error, addresses []netip.Prefix) error {
	if missing == nil {
		if err := a.release(l, addresses); err != nil {
			return errors.Join(err, a.virtual.lower(a.handle))
		}
		left, err := listAddresses(a.handle, l, netlink.FAMILY_ALL)
		if err == nil && len(left) > 0 {
			return nil
		}
	}
	return a.virtual.lower(a.handle)
}

func (a *Addresses) release(l netlink.Link, addresses []netip.Prefix) error {
	var failed []error
	for _, p := range addresses {
		err := a.handle.AddrDel(l, a.netlinkAddr(p))
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
			failed = append(failed, fmt.Errorf("release %s on %s: %w", p, a.name, err))
		}
	}
	return errors.Join(failed...)
}

// Sweep takes off those of addresses that are on the interface, as a crash
// leaves them, and returns them for the log. A missing interface has none.
func (a *Addresses) Sweep(addresses []netip.Prefix) ([]netip.Prefix, error) {
	l, err := a.link()
	if errors.Is(err, errMissing) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if a.virtual != nil {
		// One whose record was lost.
		if err := removeVirtual(a.handle, a.virtual.nameOn(l.Attrs().Index)); err != nil {
			return nil, err
		}
	}
	list, err := listAddresses(a.handle, l, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", a.name, err)
	}
	present := make(map[netip.Prefix]bool)
	for _, addr := range list {
		if p, ok := prefixOf(addr); ok {
			present[p] = true
		}
	}
	var left []netip.Prefix
	for _, p := range addresses {
		if present[p] {
			left = append(left, p)
		}
	}
	return left, a.release(l, left)
}

// Announce tells the LAN that each of addresses is here: by a gratuitous ARP, or
// by an unsolicited neighbour advertisement. All are tried. It opens its socket
// each time, in the calling thread's network namespace, so that an interface that
// was replaced is followed.
func (a *Addresses) Announce(addresses []netip.Prefix) error {
	l, err := a.link()
	if err != nil {
		return err
	}
	mac := l.Attrs().HardwareAddr
	if a.virtual != nil {
		mac = a.virtual.mac()
	}
	return announce(l, mac, addresses)
}

// announce tells the LAN of l that addresses are at mac.
func announce(l netlink.Link, mac net.HardwareAddr, addresses []netip.Prefix) error {
	name, index := l.Attrs().Name, l.Attrs().Index
	if len(mac) != 6 {
		return fmt.Errorf("announce on %s: %w", name, errNotEthernet)
	}
	frames, err := announcements(index, mac, addresses)
	if err != nil {
		return fmt.Errorf("announce on %s: %w", name, err)
	}
	filter, err := nothingFilter()
	if err != nil {
		return err
	}
	conn, err := packet.Listen(&net.Interface{Index: index}, packet.Raw, unix.ETH_P_ARP, &packet.Config{Filter: filter})
	if err != nil {
		return fmt.Errorf("announce on %s: %w", name, err)
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return fmt.Errorf("announce on %s: %w", name, err)
	}
	var failed []error
	for i, frame := range frames {
		if _, err := conn.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]}); err != nil {
			failed = append(failed, fmt.Errorf("announce %s on %s: %w", addresses[i].Addr(), name, err))
		}
	}
	return errors.Join(failed...)
}

// announcements returns a frame for each of addresses.
func announcements(index int, mac net.HardwareAddr, addresses []netip.Prefix) ([][]byte, error) {
	router := false
	if len(addresses) > 0 && addresses[0].Addr().Is6() {
		conf, err := readConf(index)
		if err != nil {
			return nil, err
		}
		router = conf.forwarding6
	}
	frames := make([][]byte, len(addresses))
	for i, p := range addresses {
		if p.Addr().Is4() {
			frames[i] = appendGratuitousARP(nil, mac, p.Addr())
			continue
		}
		var err error
		if frames[i], err = appendUnsolicitedNA(nil, mac, p.Addr(), router); err != nil {
			return nil, err
		}
	}
	return frames, nil
}

// holder returns the interface that the addresses are on.
func (a *Addresses) holder() (netlink.Link, error) {
	if a.virtual == nil {
		return a.link()
	}
	if a.virtual.name == "" {
		return nil, errMissing // not made yet
	}
	return findLink(a.handle, a.virtual.name)
}

func (a *Addresses) link() (netlink.Link, error) {
	l, err := findLink(a.handle, a.name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", a.name, err)
	}
	return l, nil
}

// netlinkAddr converts p. No broadcast address is asked for: the library would
// make one up.
func (a *Addresses) netlinkAddr(p netip.Prefix) *netlink.Addr {
	return &netlink.Addr{
		IPNet:     &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
		Broadcast: net.IPv4zero,
	}
}
