package link

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Topology builds the networks of a laboratory: bridges, and cables (veth
// pairs) that join network namespaces to them. It acts on the namespace of the
// thread that opened it, whatever thread calls its methods, and may be used
// from several goroutines.
type Topology struct {
	handle *netlink.Handle
}

// OpenTopology returns the Topology of the calling thread's network namespace.
// The caller closes it.
func OpenTopology() (*Topology, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	return &Topology{handle: h}, nil
}

// Close releases the netlink socket. What was built stays until its namespace
// ends.
func (t *Topology) Close() { t.handle.Close() }

// AddBridge makes a switch named name and brings it up. It forwards from the
// first moment on: it speaks no spanning tree, and floods multicast without
// waiting for memberships.
func (t *Topology) AddBridge(name string, mac net.HardwareAddr) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	attrs.HardwareAddr = mac // else it changes with the ports, and the switch is taken for another host
	snooping := false
	b := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
	if err := t.handle.LinkAdd(b); err != nil {
		return fmt.Errorf("bridge %s: %w", name, err)
	}
	return t.SetUp(name, true)
}

// FarEnd is the end of a cable that lies in another namespace.
type FarEnd struct {
	Namespace *os.File // the network namespace, an open /proc/.../ns/net
	Name      string   // the interface's name there
	MAC       net.HardwareAddr
}

// AddCable joins a namespace to a bridge: port is the cable's near end, plugged
// into bridge and up; the far end is left down, without addresses. index is to be
// that of the port, and must be free; 0 leaves the choice to the kernel.
func (t *Topology) AddCable(port string, index int, bridge string, far FarEnd) error {
	b, err := t.handle.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", bridge, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Index = port, index
	attrs.MasterIndex = b.Attrs().Index
	v := netlink.NewVeth(attrs)
	v.PeerName = far.Name
	v.PeerHardwareAddr = far.MAC
	v.PeerNamespace = netlink.NsFd(int(far.Namespace.Fd()))
	if err := t.handle.LinkAdd(v); err != nil {
		return fmt.Errorf("cable %s: %w", port, err)
	}
	return t.SetUp(port, true)
}

// SetUp brings an interface up or down. The far end of a cable loses its
// carrier with its near end.
func (t *Topology) SetUp(name string, up bool) error {
	l, err := t.handle.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	set := t.handle.LinkSetDown
	if up {
		set = t.handle.LinkSetUp
	}
	if err := set(l); err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	return nil
}

// Plug puts a port into a bridge.
func (t *Topology) Plug(port, bridge string) error {
	p, err := t.handle.LinkByName(port)
	if err != nil {
		return fmt.Errorf("port %s: %w", port, err)
	}
	b, err := t.handle.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", bridge, err)
	}
	if err := t.handle.LinkSetMaster(p, b); err != nil {
		return fmt.Errorf("port %s: %w", port, err)
	}
	return nil
}

// Unplug takes a port out of its bridge. The cable's far end keeps its carrier
// and notices nothing but silence.
func (t *Topology) Unplug(port string) error {
	p, err := t.handle.LinkByName(port)
	if err != nil {
		return fmt.Errorf("port %s: %w", port, err)
	}
	if err := t.handle.LinkSetNoMaster(p); err != nil {
		return fmt.Errorf("port %s: %w", port, err)
	}
	return nil
}

// Isolate keeps a port from the bridge's other isolated ports: they no longer
// reach each other, and all others reach all of them.
func (t *Topology) Isolate(port string, on bool) error {
	p, err := t.handle.LinkByName(port)
	if err != nil {
		return fmt.Errorf("port %s: %w", port, err)
	}
	if err := t.handle.LinkSetIsolated(p, on); err != nil {
		return fmt.Errorf("port %s: %w", port, err)
	}
	return nil
}

// Delete removes an interface, and the other end of its cable.
func (t *Topology) Delete(name string) error {
	l, err := t.handle.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	if err := t.handle.LinkDel(l); err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	return nil
}

// AddAddress gives an interface an address. An IPv6 address is usable at once,
// without duplicate address detection.
func (t *Topology) AddAddress(name string, prefix netip.Prefix) error {
	l, err := t.handle.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{
		IP:   prefix.Addr().AsSlice(),
		Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
	}}
	if prefix.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := t.handle.AddrAdd(l, addr); err != nil {
		return fmt.Errorf("address %s on %s: %w", prefix, name, err)
	}
	return nil
}

// DeleteAddress takes an address from an interface.
func (t *Topology) DeleteAddress(name string, prefix netip.Prefix) error {
	l, err := t.handle.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{
		IP:   prefix.Addr().AsSlice(),
		Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
	}}
	if err := t.handle.AddrDel(l, addr); err != nil {
		return fmt.Errorf("address %s on %s: %w", prefix, name, err)
	}
	return nil
}

// HasAddress reports whether an interface holds an address, other than loopback,
// for which no LAN gets an answer.
func (t *Topology) HasAddress(addr netip.Addr) (bool, error) {
	lo, err := t.handle.LinkByName(loopback)
	if err != nil {
		return false, fmt.Errorf("interface %s: %w", loopback, err)
	}
	list, err := listAddresses(t.handle, nil, netlink.FAMILY_ALL)
	if err != nil {
		return false, fmt.Errorf("listing addresses: %w", err)
	}
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap() == addr && a.LinkIndex != lo.Attrs().Index {
			return true, nil
		}
	}
	return false, nil
}

// Index returns an interface's index, the number by which a Tap names it.
func (t *Topology) Index(name string) (int, error) {
	l, err := t.handle.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", name, err)
	}
	return l.Attrs().Index, nil
}
