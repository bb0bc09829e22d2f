package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Dial connects to a TCP address from the host. The caller closes the
// connection. The error is the kernel's, wrapped, or that of ctx.
func (h *Host) Dial(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", to, err)
	}
	var fd int
	err := h.Do(func() (err error) {
		family := unix.AF_INET
		if to.Addr().Is6() {
			family = unix.AF_INET6
		}
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", to, err)
	}
	// The socket is the host's from here on. Connecting takes its time and is
	// not for the host's only thread.
	file := os.NewFile(uintptr(fd), "tcp")
	defer file.Close()
	stop := context.AfterFunc(ctx, func() { file.SetDeadline(time.Unix(1, 0)) })
	err = connect(file, to)
	stop()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", to, err)
	}
	c, err := net.FileConn(file) // a duplicate
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", to, err)
	}
	return c.(*net.TCPConn), nil
}

// connect connects a socket that does not block, and waits for the outcome.
func connect(file *os.File, to netip.AddrPort) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	begun := false
	err = raw.Write(func(fd uintptr) (done bool) {
		if !begun {
			begun = true
			failed = unix.Connect(int(fd), sockaddr(to))
			return failed != unix.EINPROGRESS
		}
		if code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			failed = err
			if err == nil {
				failed = syscall.Errno(code)
			}
			return true
		}
		// Not every wake-up means an outcome.
		if _, err := unix.Getpeername(int(fd)); err != nil {
			return false
		}
		failed = nil
		return true
	})
	if err != nil {
		return err
	}
	return failed
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// DialContext is Dial in the shape that http.Transport wants; address is an IP
// address and a port, network is ignored.
func (h *Host) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	return h.Dial(ctx, to)
}

// Listen opens a TCP listener on the host. The caller closes it.
func (h *Host) Listen(on netip.AddrPort) (*net.TCPListener, error) {
	var l *net.TCPListener
	err := h.Do(func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(on))
		return err
	})
	return l, err
}

// ListenUDP opens a UDP socket on the host. The caller closes it.
func (h *Host) ListenUDP(on netip.AddrPort) (*net.UDPConn, error) {
	var c *net.UDPConn
	err := h.Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(on))
		return err
	})
	return c, err
}
