package link

import (
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
	// largestFrame is more than an Ethernet frame of 1500 bytes needs, and
	// less than any packet of ours.
	largestFrame = 2048
)

// Adverts sends and receives VRRP version 3 messages on one interface. Send and
// Receive may run at the same time, each on one goroutine; Close may be called
// at any time. Replacing the interface by another of the same name ends its
// use: open a new one then.
type Adverts struct {
	name   string
	source netip.Addr
	mac    net.HardwareAddr
	conn   *packet.Conn
	closed atomic.Bool
	member int // the socket that holds the membership of the group
	out    []byte
	in     []byte
}

// ListenAdverts opens the interface ifname for adverts. They are sent from
// source and from the interface's own MAC address.
func ListenAdverts(ifname string, source netip.Addr) (*Adverts, error) {
	if !source.Is4() {
		return nil, fmt.Errorf("adverts on %s: the source %s is not an IPv4 address", ifname, source)
	}
	l, err := netlink.LinkByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("adverts on %s: %w", ifname, err)
	}
	attrs := l.Attrs()
	if len(attrs.HardwareAddr) != 6 {
		return nil, fmt.Errorf("adverts on %s: the interface is not an Ethernet", ifname)
	}
	member, err := joinGroup(attrs.Index)
	if err != nil {
		return nil, fmt.Errorf("adverts on %s: %w", ifname, err)
	}
	conn, err := openAdverts(attrs.Index)
	if err != nil {
		unix.Close(member)
		return nil, fmt.Errorf("adverts on %s: %w", ifname, err)
	}
	return &Adverts{
		name: ifname, source: source, mac: attrs.HardwareAddr,
		conn: conn, member: member, in: make([]byte, largestFrame),
	}, nil
}

// openAdverts opens the packet socket with its filter.
func openAdverts(index int) (*packet.Conn, error) {
	filter, err := advertFilter()
	if err != nil {
		return nil, err
	}
	return packet.Listen(&net.Interface{Index: index}, packet.Raw, unix.ETH_P_IP, &packet.Config{Filter: filter})
}

// joinGroup makes the interface a member of the advert group, and returns the
// socket that holds the membership. A packet socket can ask the card for the
// group's frames, but a switch that listens to IGMP hears of a member only from
// the IP stack.
func joinGroup(index int) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open the socket for the group: %w", err)
	}
	group, _ := advertGroup()
	mreq := unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(index)}
	if err := unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &mreq); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("join %s: %w", group, err)
	}
	return fd, nil
}

// Send sends msg to the group with a TTL of 255. It waits for at most 20 ms.
func (a *Adverts) Send(msg []byte) error {
	_, groupMAC := advertGroup()
	a.out = appendAdvert(a.out[:0], a.mac, a.source, msg)
	if err := a.conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return fmt.Errorf("send an advert on %s: %w", a.name, err)
	}
	if _, err := a.conn.WriteTo(a.out, &packet.Addr{HardwareAddr: groupMAC}); err != nil {
		return fmt.Errorf("send an advert on %s: %w", a.name, err)
	}
	return nil
}

// Receive waits for a VRRP packet to the group and puts its payload into buf.
// It returns the payload's length and the header's source, destination and
// TTL. The error is a FrameError if the packet was malformed, net.ErrClosed
// after Close, and else the socket's.
func (a *Adverts) Receive(buf []byte) (n int, src, dst netip.Addr, ttl uint8, err error) {
	read, _, err := a.conn.ReadFrom(a.in)
	// The descriptor's end shows in several ways; it has one name here.
	if err != nil && a.closed.Load() {
		err = net.ErrClosed
	}
	if err != nil {
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

// Close leaves the group and ends a Receive under way. It is to be called once.
func (a *Adverts) Close() error {
	a.closed.Store(true)
	return errors.Join(a.conn.Close(), unix.Close(a.member))
}
