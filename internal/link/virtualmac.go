package link

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// VirtualMAC returns the hardware address of a virtual router (RFC 9568 section
// 7.3).
func VirtualMAC(vrid int, ipv6 bool) net.HardwareAddr {
	family := byte(1)
	if ipv6 {
		family = 2
	}
	return net.HardwareAddr{0x00, 0x00, 0x5e, 0x00, family, byte(vrid)}
}

// virtual is the interface that has the hardware address of a virtual router: a
// macvlan on the LAN's interface, its parent. It exists while addresses are on it
// and no longer: whatever it sent while another node is active would teach the
// switches the wrong port.
type virtual struct {
	vrid   int
	ipv6   bool
	record *Record
	parent string
	name   string // as it was made the last time; empty before
}

// What an interface needs to answer for its own addresses alone, and to name none
// of another interface as the sender when it asks.
const (
	arpIgnore   = 1 // answer only for addresses of the interface asked
	arpAnnounce = 2 // ask with an address of the interface that asks
	rpLoose     = 2 // take packets whose answers leave by another interface
)

func (v *virtual) mac() net.HardwareAddr { return VirtualMAC(v.vrid, v.ipv6) }

// nameOn returns the interface's name on a parent: at most 15 bytes, and one of
// its own for every parent, virtual router and family.
func (v *virtual) nameOn(parent int) string {
	family := 4
	if v.ipv6 {
		family = 6
	}
	return fmt.Sprintf("vrrp%d-%d-%s", family, v.vrid, strconv.FormatInt(int64(parent), 36))
}

// raise returns the interface on parent, up and ready for addresses. It makes
// what is missing.
func (v *virtual) raise(handle *netlink.Handle, parent netlink.Link) (netlink.Link, error) {
	index := parent.Attrs().Index
	v.name = v.nameOn(index)
	l, err := findLink(handle, v.name)
	if err == nil && l.Attrs().RawFlags&unix.IFF_UP != 0 && v.record.holds(v.parent, index, v.name) {
		return l, nil
	}
	if err != nil && !errors.Is(err, errMissing) {
		return nil, err
	}
	// The record comes first, so that a crash leaves nothing that it does not
	// know; then whatever would speak out of turn is silenced; then it speaks.
	if err := v.record.add(v.parent, index, v.name, !v.ipv6); err != nil {
		return nil, err
	}
	if l == nil {
		if l, err = v.make(handle, index); err != nil {
			return nil, err
		}
	}
	if !isVirtual(l) {
		return nil, fmt.Errorf("%s is the interface of somebody else; remove it", v.name)
	}
	if err := handle.LinkSetUp(l); err != nil {
		return nil, fmt.Errorf("bring up %s: %w", v.name, err)
	}
	return l, nil
}

// make adds the interface, which is down.
func (v *virtual) make(handle *netlink.Handle, parent int) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.HardwareAddr = v.name, parent, v.mac()
	// In this mode a frame from the virtual address itself, another node's advert,
	// is still seen on the parent; in "private" it is not.
	if err := handle.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}); err != nil {
		return nil, fmt.Errorf("add %s: %w", v.name, err)
	}
	l, err := findLink(handle, v.name)
	if err != nil {
		return nil, fmt.Errorf("add %s: %w", v.name, err)
	}
	// No address of its own: its only ones are the virtual ones. A kernel without
	// IPv6 gives it none anyway.
	if err := handle.LinkSetIP6AddrGenMode(l, addrGenModeNone); err != nil && v.ipv6 {
		return nil, fmt.Errorf("set up %s: %w", v.name, err)
	}
	if err := writeConf(l.Attrs().Index, map[uint16]uint32{
		confARPIgnore: arpIgnore, confARPAnnounce: arpAnnounce, confARPFilter: 0, confRPFilter: rpLoose,
	}); err != nil {
		return nil, fmt.Errorf("set up %s: %w", v.name, err)
	}
	return l, nil
}

// lower removes the interface, and gives the parent its settings back if it was
// the last one there.
func (v *virtual) lower(handle *netlink.Handle) error {
	if v.name == "" {
		return nil
	}
	return errors.Join(removeVirtual(handle, v.name), v.record.remove(handle, v.parent, v.name))
}

// removeVirtual removes an interface of this package; a missing one is no error.
func removeVirtual(handle *netlink.Handle, name string) error {
	l, err := findLink(handle, name)
	if errors.Is(err, errMissing) || err == nil && !isVirtual(l) {
		return nil
	}
	if err == nil {
		err = handle.LinkDel(l)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// isVirtual says whether an interface is one with the hardware address of a
// virtual router.
func isVirtual(l netlink.Link) bool {
	_, ok := l.(*netlink.Macvlan)
	mac := l.Attrs().HardwareAddr
	return ok && len(mac) == 6 && slices.Equal(mac[:4], net.HardwareAddr{0x00, 0x00, 0x5e, 0x00}) && (mac[4] == 1 || mac[4] == 2)
}
