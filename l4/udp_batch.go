package l4

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// udpBatch is how many datagrams a system call moves at most.
	udpBatch = 32
	// maxDatagram is more than the largest payload of UDP, in bytes.
	maxDatagram = 64 << 10
)

// control is a control message about an address (ip(7), IP_PKTINFO).
type control struct {
	head unix.Cmsghdr
	body [unix.SizeofInet6Pktinfo + 4]byte // the larger one of the two, aligned
}

// batch is room for datagrams that one system call receives, and others send on
// from where they are. The memory of a datagram is only taken once there has
// been one of that length. It belongs to a loop and must not be copied.
type batch struct {
	got, out [udpBatch]unix.Mmsghdr
	gotVec   [udpBatch]unix.Iovec
	outVec   [udpBatch]unix.Iovec
	names    [udpBatch]unix.RawSockaddrInet6 // the larger one of the two
	controls [udpBatch]control
	data     []byte // udpBatch times maxDatagram

	to   unix.RawSockaddrInet6 // where what is sent goes
	from control               // and where it comes from
}

func newBatch() *batch {
	b := &batch{data: make([]byte, udpBatch*maxDatagram)}
	for i := range b.got {
		b.gotVec[i].Base = &b.data[i*maxDatagram]
		b.gotVec[i].SetLen(maxDatagram)
		b.outVec[i].Base = b.gotVec[i].Base
		b.got[i].Hdr.Iov, b.out[i].Hdr.Iov = &b.gotVec[i], &b.outVec[i]
		b.got[i].Hdr.SetIovlen(1)
		b.out[i].Hdr.SetIovlen(1)
	}
	return b
}

// receive receives up to udpBatch datagrams, and who they are from and where
// they were sent to if from is set.
func (b *batch) receive(fd int, from bool) (int, error) {
	for i := range b.got {
		h := &b.got[i].Hdr
		h.Name, h.Namelen, h.Control, h.Flags = nil, 0, nil, 0
		h.SetControllen(0)
		if from {
			h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.names[i])), uint32(unsafe.Sizeof(b.names[i]))
			h.Control = (*byte)(unsafe.Pointer(&b.controls[i]))
			h.SetControllen(int(unsafe.Sizeof(b.controls[i])))
		}
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.got)), udpBatch, unix.MSG_DONTWAIT, 0, 0)
	return rawResult(n, errno)
}

// size returns the length of the received datagram i.
func (b *batch) size(i int) int { return int(b.got[i].Len) }

// source returns who has sent the datagram i.
func (b *batch) source(i int) netip.AddrPort {
	sa := &b.names[i]
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	if sa.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr), port)
	}
	a := netip.AddrFrom16(sa.Addr)
	if sa.Scope_id != 0 {
		a = a.WithZone(fmt.Sprint(sa.Scope_id))
	}
	return netip.AddrPortFrom(a, port)
}

// destination returns the address that the datagram i was sent to; invalid if
// the kernel did not tell.
func (b *batch) destination(i int) netip.Addr {
	// The socket asks for no other message, so it is the first one.
	c := &b.controls[i]
	switch {
	case int(b.got[i].Hdr.Controllen) < unix.SizeofCmsghdr:
	case c.head.Level == unix.SOL_IP && c.head.Type == unix.IP_PKTINFO:
		return netip.AddrFrom4((*unix.Inet4Pktinfo)(unsafe.Pointer(&c.body)).Addr)
	case c.head.Level == unix.SOL_IPV6 && c.head.Type == unix.IPV6_PKTINFO:
		return netip.AddrFrom16((*unix.Inet6Pktinfo)(unsafe.Pointer(&c.body)).Addr)
	}
	return netip.Addr{}
}

// prepare makes the received datagrams from first to before end ready for send
// or sendTo, and returns how many bytes they are.
func (b *batch) prepare(first, end int) (bytes int) {
	for i := first; i < end; i++ {
		b.outVec[i].SetLen(b.size(i))
		b.out[i].Hdr.Name, b.out[i].Hdr.Namelen, b.out[i].Hdr.Control = nil, 0, nil
		b.out[i].Hdr.SetControllen(0)
		bytes += b.size(i)
	}
	return bytes
}

// send sends prepared datagrams by a connected socket, and returns how many the
// kernel has taken; an error is that of the first one alone.
func (b *batch) send(fd, first, end int) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.out[first])), uintptr(end-first),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	return rawResult(n, errno)
}

// address makes prepared datagrams leave for to and, if local is valid, from
// there.
func (b *batch) address(first, end int, to netip.AddrPort, local netip.Addr) {
	size := putSockaddr(&b.to, to)
	control := putSource(&b.from, local)
	for i := first; i < end; i++ {
		h := &b.out[i].Hdr
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.to)), size
		if control > 0 {
			h.Control = (*byte)(unsafe.Pointer(&b.from))
			h.SetControllen(control)
		}
	}
}

// putSockaddr writes an address in the kernel's form and returns its size.
func putSockaddr(sa *unix.RawSockaddrInet6, a netip.AddrPort) uint32 {
	var port uint16 // in network order
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&port))[:], a.Port())
	if a.Addr().Is4() {
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(sa)) = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: a.Addr().As4()}
		return unix.SizeofSockaddrInet4
	}
	*sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: a.Addr().As16(), Scope_id: zone(a.Addr())}
	return unix.SizeofSockaddrInet6
}

// putSource writes the message that has datagrams leave from local, and returns
// its size; 0 without an address.
func putSource(c *control, local netip.Addr) int {
	*c = control{}
	switch {
	case local.Is4():
		c.head.Level, c.head.Type = unix.SOL_IP, unix.IP_PKTINFO
		c.head.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
		(*unix.Inet4Pktinfo)(unsafe.Pointer(&c.body)).Spec_dst = local.As4()
		return unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	case local.Is6():
		c.head.Level, c.head.Type = unix.SOL_IPV6, unix.IPV6_PKTINFO
		c.head.SetLen(unix.CmsgLen(unix.SizeofInet6Pktinfo))
		(*unix.Inet6Pktinfo)(unsafe.Pointer(&c.body)).Addr = local.As16()
		return unix.CmsgSpace(unix.SizeofInet6Pktinfo)
	}
	return 0
}
