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

// Adverts sends and receives VRRP version 3 messages on one interface. Send and
// Receive may run at the same time, each on one goroutine; Close may be called
// at any time. An interface that went down, was replaced by another of its name
// or changed its addresses ends its use: Receive says so within half a second,
// and a new one is to be opened.
type Adverts struct {
	name   string
	index  int
	source netip.Addr
	choice SourceChoice
	mac    net.HardwareAddr
	conn   *packet.Conn
	member int // the socket that holds the membership of the group
	out    []byte
	in     []byte

	handle  *netlink.Handle       // of the goroutine in watch, once that runs
	done    chan struct{}         // closed by Close
	watched chan struct{}         // closed when watch has ended
	end     atomic.Pointer[error] // why watch has ended Receive
}

// ListenAdverts opens the interface ifname, which must be up, for adverts. They
// are sent from source and from the interface's own MAC address. The caller
// closes it.
func ListenAdverts(ifname string, source netip.Addr) (*Adverts, error) {
	if !source.Is4() {
		return nil, fmt.Errorf("adverts on %s: the source %s is not an IPv4 address", ifname, source)
	}
	return listenAdverts(ifname, func(*netlink.Handle, netlink.Link) (netip.Addr, error) { return source, nil }, SourceChoice{})
}

// OpenAdverts is ListenAdverts with the source that choice makes. When that
// address leaves the interface and choice makes another one, the use of the
// Adverts ends.
func OpenAdverts(ifname string, choice SourceChoice) (*Adverts, error) {
	return listenAdverts(ifname, choice.among, choice)
}

func listenAdverts(ifname string, source func(*netlink.Handle, netlink.Link) (netip.Addr, error), choice SourceChoice) (*Adverts, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("adverts on %s: open netlink: %w", ifname, err)
	}
	a := &Adverts{
		name: ifname, choice: choice, in: make([]byte, largestFrame),
		handle: handle, done: make(chan struct{}), watched: make(chan struct{}),
	}
	if err := a.open(source); err != nil {
		handle.Close()
		return nil, fmt.Errorf("adverts on %s: %w", ifname, err)
	}
	go a.watch()
	return a, nil
}

// open opens the sockets on the interface as it is now, or leaves none open.
func (a *Adverts) open(source func(*netlink.Handle, netlink.Link) (netip.Addr, error)) error {
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
	if a.source, err = source(a.handle, l); err != nil {
		return err
	}
	if a.member, err = joinGroup(a.index); err != nil {
		return err
	}
	if a.conn, err = openAdverts(a.index); err != nil {
		unix.Close(a.member)
		return err
	}
	return nil
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

// Source returns the address that adverts are sent from.
func (a *Adverts) Source() netip.Addr { return a.source }

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
	if !a.choice.isSet() {
		return nil
	}
	// An address that went while no other one came may well come back.
	if source, err := a.choice.keeping(a.source).among(a.handle, l); err == nil && source != a.source {
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
	return errors.Join(err, unix.Close(a.member))
}

func (a *Adverts) isClosed() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}
