package listen

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// acceptDescriptors waits for connections and hands all that there are to the
// handler.
func (a *acceptor) acceptDescriptors() error {
	raw, err := a.file.SyscallConn()
	if err != nil {
		return err
	}
	accepted := 0
	waitErr := raw.Read(func(listening uintptr) bool {
		for {
			fd, peer, errno := acceptRaw(listening)
			switch errno {
			case 0:
				accepted++
				a.handOver(fd, peer)
			case unix.EINTR:
			case unix.EAGAIN:
				return accepted > 0
			default:
				err = os.NewSyscallError("accept4", errno)
				return true
			}
		}
	})
	if waitErr != nil {
		return waitErr
	}
	return err
}

// acceptRaw accepts a connection if there is one. The runtime is not told of the
// system call, for it never waits.
func acceptRaw(listening uintptr) (fd int, peer netip.AddrPort, errno unix.Errno) {
	var sa unix.RawSockaddrInet6 // the larger one of the two
	size := uint32(unsafe.Sizeof(sa))
	n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, listening, uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)),
		unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, netip.AddrPort{}, errno
	}
	return int(n), addrPort(&sa), 0
}

// localRaw returns the local address of a connection, in the same way.
func localRaw(fd int) (netip.AddrPort, error) {
	var sa unix.RawSockaddrInet6
	size := uint32(unsafe.Sizeof(sa))
	_, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return netip.AddrPort{}, errno
	}
	return addrPort(&sa), nil
}

// addrPort returns the address that the kernel has written, of IPv4 or IPv6.
func addrPort(sa *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	if sa.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr), port)
	}
	return netip.AddrPortFrom(zoned(sa.Addr, sa.Scope_id), port)
}

// zoned returns an IPv6 address on the interface with that index, if it is not 0.
func zoned(b [16]byte, index uint32) netip.Addr {
	a := netip.AddrFrom16(b)
	if index == 0 {
		return a
	}
	ifi, err := net.InterfaceByIndex(int(index))
	if err != nil {
		return a
	}
	return a.WithZone(ifi.Name)
}

// handOver gives an accepted connection to the handler.
func (a *acceptor) handOver(fd int, peer netip.AddrPort) {
	h := *a.handler.Load()
	t, ok := h.(Taker)
	if !ok {
		// A reload has replaced the handler while this goroutine waited.
		if c := connOf(fd); c != nil {
			a.conns.serve(h, c)
		}
		return
	}
	local := a.local
	if local.Addr().IsUnspecified() {
		var err error
		if local, err = localRaw(fd); err != nil {
			unix.Close(fd)
			return
		}
	}
	t.Take(fd, local, peer)
}

// connOf makes a connection of a descriptor, which is closed or part of the
// connection then. It is nil if that cannot be had.
func connOf(fd int) *net.TCPConn {
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil
	}
	return c.(*net.TCPConn)
}

// Give hands c to t, and closes it if that cannot be done.
func Give(c *net.TCPConn, t Taker) {
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	fd := -1
	if raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) }) != nil || err != nil {
		return
	}
	t.Take(fd, c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort())
}
