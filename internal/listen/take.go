package listen

import (
	"net"
	"net/netip"
	"os"

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
			fd, sa, acceptErr := unix.Accept4(int(listening), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			switch {
			case acceptErr == unix.EINTR:
				continue
			case acceptErr == unix.EAGAIN:
				return accepted > 0
			case acceptErr != nil:
				err = os.NewSyscallError("accept4", acceptErr)
				return true
			}
			accepted++
			a.handOver(fd, addrPort(sa))
		}
	})
	if waitErr != nil {
		return waitErr
	}
	return err
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
		sa, err := unix.Getsockname(fd)
		if err != nil {
			unix.Close(fd)
			return
		}
		local = addrPort(sa)
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

// addrPort returns the address of a TCP socket.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			if ifi, err := net.InterfaceByIndex(int(sa.ZoneId)); err == nil {
				a = a.WithZone(ifi.Name)
			}
		}
		return netip.AddrPortFrom(a, uint16(sa.Port))
	}
	return netip.AddrPort{}
}
