package listen

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// acceptMost is how many connections are accepted before it is looked whether the
// listener has been closed, or has raised a fault that is over.
const acceptMost = 128

// accept waits for connections and hands those that there are to the handler.
func (a *acceptor) accept() error {
	raw, err := a.file.SyscallConn()
	if err != nil {
		return err
	}
	accepted := 0
	waitErr := raw.Read(func(listening uintptr) bool {
		for accepted < acceptMost {
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
		return true
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
	local := a.local
	if local.Addr().IsUnspecified() {
		var err error
		if local, err = localRaw(fd); err != nil {
			unix.Close(fd)
			return
		}
	}
	h := *a.handler.Load()
	if t, ok := h.(Taker); ok {
		t.Take(fd, local, peer)
		return
	}
	a.conns.serve(h, NewConn(fd, local, peer))
}
