package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Parked are virtual addresses that another node has now, kept deliverable on
// this one: connections that it has by them can go on, for as long as somebody
// sends their packets to the hardware address of its interface. They are on
// loopback, each for a limited time as Addresses are, and the interface on the LAN
// is made quiet for them: it neither answers ARP for them nor names them as the
// sender when it asks. IPv6 has no need of that. They are in a Record meanwhile.
// It belongs to one goroutine at a time.
type Parked struct {
	name      string
	lease     time.Duration
	record    *Record
	handle    *netlink.Handle
	addresses []netip.Addr // those put there; not one that was there all along
	looked    bool         // what was there all along is known
	others    []netip.Addr // that
}

// loopback is the name of that interface in every network namespace.
const loopback = "lo"

// NewParked returns no addresses yet of the interface ifname, in the network
// namespace of the calling thread. lease is as for NewAddresses. The caller calls
// Close.
func NewParked(ifname string, lease time.Duration, record *Record) (*Parked, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("addresses of %s: open netlink: %w", ifname, err)
	}
	return &Parked{name: ifname, lease: lease, record: record, handle: handle}, nil
}

// Park keeps addresses deliverable, or renews their lease; it returns whether one
// was not there. They may be on the interface still: nothing is in between. After
// an error some of them may be parked; see Close.
func (p *Parked) Park(addresses []netip.Addr) (added bool, err error) {
	l, err := findLink(p.handle, p.name)
	if err != nil {
		return false, fmt.Errorf("interface %s: %w", p.name, err)
	}
	lo, err := findLink(p.handle, loopback)
	if err != nil {
		return false, fmt.Errorf("interface %s: %w", loopback, err)
	}
	if err := p.look(lo); err != nil {
		return false, err
	}
	for _, a := range addresses {
		if !slices.Contains(p.addresses, a) && !slices.Contains(p.others, a) {
			p.addresses = append(p.addresses, a)
		}
	}
	v4 := slices.ContainsFunc(addresses, netip.Addr.Is4)
	if err := p.record.park(p.name, l.Attrs().Index, p.addresses, v4); err != nil {
		return false, err
	}
	for _, a := range p.addresses {
		addr := onLoopback(a)
		addr.ValidLft = int(p.lease / time.Second)
		addr.PreferedLft = 0 // for no connection that this node begins
		err := p.handle.AddrAdd(lo, addr)
		switch {
		case err == nil:
			added = true
		case errors.Is(err, unix.EEXIST):
			err = p.handle.AddrReplace(lo, addr)
		}
		if err != nil {
			return added, fmt.Errorf("park %s: %w", a, err)
		}
	}
	if added {
		err = p.settle(func(l int) bool { return l == lo.Attrs().Index })
	}
	return added, err
}

// settleTime bounds settle, and settlePace is how often it looks.
const (
	settleTime = time.Second
	settlePace = time.Millisecond
)

// settle returns when packets to the addresses are delivered by those interfaces
// that have them and are meant. The kernel makes the route to an address of IPv6 in
// its own time, also where there is nothing to be waited for.
func (p *Parked) settle(meant func(index int) bool) error {
	list, err := listAddresses(p.handle, nil, netlink.FAMILY_V6)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, addr := range list {
		own, ok := prefixOf(addr)
		if !ok || !slices.Contains(p.addresses, own.Addr()) || !meant(addr.LinkIndex) {
			continue
		}
		for deadline := time.Now().Add(settleTime); ; time.Sleep(settlePace) {
			routes, err := whole(func() ([]netlink.Route, error) {
				return p.handle.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{
					Table: unix.RT_TABLE_LOCAL, LinkIndex: addr.LinkIndex, Dst: onLoopback(own.Addr()).IPNet,
				}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_OIF|netlink.RT_FILTER_DST)
			})
			if err != nil {
				return fmt.Errorf("list routes: %w", err)
			}
			if len(routes) > 0 {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("the kernel has made no route to %s", own.Addr())
			}
		}
	}
	return nil
}

// look notes which addresses loopback has of others.
func (p *Parked) look(lo netlink.Link) error {
	if p.looked {
		return nil
	}
	list, err := listAddresses(p.handle, lo, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", loopback, err)
	}
	for _, addr := range list {
		if own, ok := prefixOf(addr); ok {
			p.others = append(p.others, own.Addr())
		}
	}
	p.looked = true
	return nil
}

// Close ends the parking and undoes what it has changed. All is tried. Packets to
// an address that is on another interface by then are delivered without a break.
func (p *Parked) Close() error {
	defer p.handle.Close()
	if len(p.addresses) == 0 {
		return nil
	}
	lo, err := findLink(p.handle, loopback)
	if err == nil {
		err = p.settle(func(l int) bool { return l != lo.Attrs().Index })
	}
	return errors.Join(err, takeOffLoopback(p.handle, p.addresses), p.record.unpark(p.handle, p.name, p.addresses))
}

// takeOffLoopback removes addresses that were parked; one that is missing is no
// error.
func takeOffLoopback(handle *netlink.Handle, addresses []netip.Addr) error {
	if len(addresses) == 0 {
		return nil
	}
	lo, err := findLink(handle, loopback)
	if err != nil {
		return fmt.Errorf("interface %s: %w", loopback, err)
	}
	var failed []error
	for _, a := range addresses {
		if err := handle.AddrDel(lo, onLoopback(a)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			failed = append(failed, fmt.Errorf("take %s off %s: %w", a, loopback, err))
		}
	}
	return errors.Join(failed...)
}

// onLoopback is a as it is parked: alone, and not what the kernel would choose as
// the source of anything.
func onLoopback(a netip.Addr) *netlink.Addr {
	addr := &netlink.Addr{
		IPNet:     &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())},
		Broadcast: net.IPv4zero,
	}
	if a.Is4() {
		addr.Scope = unix.RT_SCOPE_HOST
	} else {
		// A prefix by loopback would be one that is rejected.
		addr.Flags = unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE
	}
	return addr
}

// Ethernet returns the index and the hardware address of an interface.
func Ethernet(ifname string) (index int, mac net.HardwareAddr, err error) {
	l, err := net.InterfaceByName(ifname)
	if err != nil {
		return 0, nil, fmt.Errorf("interface %s: %w", ifname, err)
	}
	if len(l.HardwareAddr) != 6 {
		return 0, nil, fmt.Errorf("interface %s: %w", ifname, errNotEthernet)
	}
	return l.Index, l.HardwareAddr, nil
}
