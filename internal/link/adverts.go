package link

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// sendTimeout bounds how long a full transmit queue holds up an advert.
	sendTimeout = 20 * time.Millisecond
	// checkInterval is the time between looks at the interface: a packet
	// socket is not told when its interface gets another address.
	checkInterval = 500 * time.Millisecond
	// largestFrame is more than an Ethernet frame of 1500 bytes needs. A longer
	// frame is cut, and refused because its header says that it is longer.
	largestFrame = 2048
)

// AdvertOptions say how adverts leave this node and reach it.
type AdvertOptions struct {
	// Source says which address they leave from. Its Near is of the family that
	// they are sent in.
	Source SourceChoice
	// Unicast sends to single nodes by the routing table, and joins no group.
	Unicast bool
	// MAC is the hardware address they leave from in multicast; nil is the
	// interface's own.
	MAC net.HardwareAddr
}

// Adverts sends and receives VRRP messages on one interface. Send and
// Receive may run at the same time, each on one goroutine; Close may be called
// at any time. An interface that went down, was replaced by another of its name
// or changed its addresses ends its use: Receive says so within half a second,
// and a new one is to be opened.
type Adverts struct {
	name    string
	index   int
	options AdvertOptions
	source  netip.Addr
	mac     net.HardwareAddr // the interface's own
	conn    *packet.Conn
	helper  int // the socket that holds the membership of the group; in unicast the one that sends
	out     []byte
	in      []byte

	handle  *netlink.Handle       // of the goroutine in watch, once that runs
	done    chan struct{}         // closed by Close
	watched chan struct{}         // closed when watch has ended
	end     atomic.Pointer[error] // why watch has ended Receive
}

// OpenAdverts opens the interface ifname, which must be up, for adverts. The
// caller closes it. When the address they leave from leaves the interface and
// o.Source chooses another one, the use of the Adverts ends.
func OpenAdverts(ifname string, o AdvertOptions) (*Adverts, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("adverts on %s: open netlink: %w", ifname, err)
	}
	a := &Adverts{
		name: ifname, options: o, in: make([]byte, largestFrame),
		handle: handle, done: make(chan struct{}), watched: make(chan struct{}),
	}
	if err := a.open(); err != nil {
		handle.Close()
		return nil, fmt.Errorf("adverts on %s: %w", ifname, err)
	}
	go a.watch()
	return a, nil
}

// open opens the sockets on the interface as it is now, or leaves none open.
func (a *Adverts) open() error {
	l, err := findLink(a.handle, a.name)
	if err != nil {
		return err
	}
	attrs := l.Attrs()
	a.index, a.mac = attrs.Index, attrs.HardwareAddr
	switch {
	case len(a.mac) != 6 || attrs.RawFlags&unix.IFF_LOOPBACK != 0:
		return errNotEthernet
	case attrs.RawFlags&unix.IFF_UP == 0:
		return errDown
	}
	if a.source, err = a.options.Source.among(a.handle, l); err != nil {
		return err
	}
	if a.options.Unicast {
		a.helper, err = openSender(a.name, a.index, a.source)
	} else {
		a.helper, err = joinGroup(a.index, advertGroup(a.source))
	}
	if err != nil {
		return err
	}
	if a.conn, err = openAdverts(a.index, a.source); err != nil {
		unix.Close(a.helper)
		return err
	}
	return nil
}

// openAdverts opens the packet socket with its filter.
func openAdverts(index int, source netip.Addr) (*packet.Conn, error) {
	filter, err := advertFilter(source)
	if err != nil {
		return nil, err
	}
	protocol := unix.ETH_P_IP
	if source.Is6() {
		protocol = unix.ETH_P_IPV6
	}
	return packet.Listen(&net.Interface{Index: index}, packet.Raw, protocol, &packet.Config{Filter: filter})
}

// joinGroup makes the interface a member of the advert group, and returns the
// socket that holds the membership. A packet socket can ask the card for the
// group's frames, but a switch that listens to IGMP or MLD hears of a member only
// from the IP stack.
func joinGroup(index int, group netip.Addr) (fd int, err error) {
	domain := unix.AF_INET
	if group.Is6() {
		domain = unix.AF_INET6
	}
	fd, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open the socket for the group: %w", err)
	}
	if group.Is4() {
		err = unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(index)})
	} else {
		err = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(index)})
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("join %s: %w", group, err)
	}
	return fd, nil
}

// Source returns the address that adverts are sent from.
func (a *Adverts) Source() netip.Addr { return a.source }

// Send sends msg with a TTL of 255 to the group, or in unicast to the node at to.
// It waits for at most 20 ms.
func (a *Adverts) Send(msg []byte, to netip.Addr) error {
	var err error
	if to.IsMulticast() {
		err = a.sendToGroup(msg, to)
	} else {
		err = sendTo(a.helper, a.index, msg, to)
	}
	if err != nil {
		return fmt.Errorf("send an advert on %s: %w", a.name, err)
	}
	return nil
}

func (a *Adverts) sendToGroup(msg []byte, group netip.Addr) error {
	mac := a.options.MAC
	if mac == nil {
		mac = a.mac
	}
	a.out = appendAdvert(a.out[:0], mac, a.source, msg)
	if err := a.attempt(); !errors.Is(err, unix.EAGAIN) {
		return err
	}
	if err := a.conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	_, err := a.conn.WriteTo(a.out, &packet.Addr{HardwareAddr: groupMAC(group)})
	return err
}

// attempt sends the frame in out without waiting. It needs no deadline, which on a
// busy machine may have passed before the socket is tried.
func (a *Adverts) attempt() error {
	raw, err := a.conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.Send(int(fd), a.out, unix.MSG_DONTWAIT) })
	return errors.Join(err, failed)
}

// Receive waits for a VRRP packet to the group or this node and puts its payload
// into buf.
// It returns the payload's length and the header's source, destination and
// TTL. The error is a FrameError if the packet was malformed, and the next one
// can be received; any other one, net.ErrClosed after Close, is the end.
func (a *Adverts) Receive(buf []byte) (n int, src, dst netip.Addr, ttl uint8, err error) {
	read, _, err := a.conn.ReadFrom(a.in)
	if err != nil {
		// The end shows in several ways; its cause has one name.
		if end := a.end.Load(); a.isClosed() {
			err = net.ErrClosed
		} else if end != nil {
			err = *end
		}
		return 0, netip.Addr{}, netip.Addr{}, 0, fmt.Errorf("receive adverts on %s: %w", a.name, err)
	}
	got, err := parseAdvert(a.in[:read])
	if err != nil {
		return 0, netip.Addr{}, netip.Addr{}, 0, err
	}
	if len(got.payload) > len(buf) {
		return 0, netip.Addr{}, netip.Addr{}, 0, ErrTooLong
	}
	return copy(buf, got.payload), got.src, got.dst, got.ttl, nil
}

// Unread says whether a packet has arrived that no Receive has returned yet. It
// does not wait, and may be called at the same time as Receive.
func (a *Adverts) Unread() bool {
	raw, err := a.conn.SyscallConn()
	if err != nil {
		return false
	}
	var size int // of the first packet that waits
	var failed error
	err = raw.Control(func(fd uintptr) { size, failed = unix.IoctlGetInt(int(fd), unix.SIOCINQ) })
	return err == nil && failed == nil && size > 0
}

// watch looks at the interface until Close, and ends Receive when it is not the
// same any more. It is apart from Receive because netlink waits for whoever holds
// the kernel's lock, and an advert must not.
func (a *Adverts) watch() {
	defer close(a.watched)
	ticker := time.NewTicker(checkInterval)
	defer ticker.Stop()
	for {
		select {
		case <-a.done:
			return
		case <-ticker.C:
		}
		if err := a.check(); err != nil {
			a.end.Store(&err)
			// It fails only if the socket is closed, which ends Receive as well.
			_ = a.conn.SetReadDeadline(time.Unix(1, 0))
			return
		}
	}
}

// check says why the interface is not the one any more that was opened.
func (a *Adverts) check() error {
	l, err := findLink(a.handle, a.name)
	if err != nil {
		return err
	}
	switch attrs := l.Attrs(); {
	case attrs.Index != a.index:
		return errReplaced
	case !bytes.Equal(attrs.HardwareAddr, a.mac):
		return fmt.Errorf("the MAC address is %s now, not %s", attrs.HardwareAddr, a.mac)
	}
	// An address that went while no other one came may well come back.
	if source, err := a.options.Source.keeping(a.source).among(a.handle, l); err == nil && source != a.source {
		return fmt.Errorf("this node's address is %s now, not %s", source, a.source)
	}
	return nil
}

// Close leaves the group and ends a Receive under way. It may wait for the kernel.
// It is to be called once.
func (a *Adverts) Close() error {
	close(a.done)
	// The frames end first, then what watches them.
	err := a.conn.Close()
	<-a.watched
	a.handle.Close()
	return errors.Join(err, unix.Close(a.helper))
}

func (a *Adverts) isClosed() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}
