package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"appliance/internal/endpoint"
)

// This file opens the connections of the checks. It does without net.Dialer,
// which makes twice as many system calls for each, and a goroutine: a thousand
// checks a second should not be noticed.

// socketFlags are those of every socket.
const socketFlags = unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC

// dial connects to a target, by TCP unless its address is a path, and binds the
// connection to ctx. What the check begins with is sent. The caller closes it.
func dial(ctx context.Context, target Target) (*boundConn, error) {
	conn, err := open(ctx, target.Address.Network(), unix.SOCK_STREAM, target.Address)
	if err != nil {
		return nil, err
	}
	if preamble := target.Check.preamble(); preamble != nil {
		if _, err := conn.Write(preamble); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	return conn, nil
}

// dialUDP returns a socket that only hears of address, bound to ctx. The caller
// closes it.
func dialUDP(ctx context.Context, address endpoint.Endpoint) (*boundConn, error) {
	return open(ctx, "udp", unix.SOCK_DGRAM, address)
}

// open connects a socket of that type, which belongs to the named protocol.
func open(ctx context.Context, protocol string, kind int, address endpoint.Endpoint) (*boundConn, error) {
	fd, err := newSocket(protocol, kind, address)
	if err != nil {
		return nil, err
	}
	return connect(ctx, fd, protocol, address)
}

// newSocket returns a socket of that type for an address.
func newSocket(protocol string, kind int, address endpoint.Endpoint) (int, error) {
	domain := unix.AF_UNIX
	if ip := address.IP(); ip.IsValid() {
		domain = family(ip.Addr().Unmap())
	}
	fd, err := unix.Socket(domain, kind|socketFlags, 0)
	if err != nil {
		return -1, dialError(protocol, address, os.NewSyscallError("socket", err))
	}
	return fd, nil
}

// family returns the family of sockets for an address.
func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// connect connects the socket fd, which it takes over, to address.
func connect(ctx context.Context, fd int, protocol string, address endpoint.Endpoint) (*boundConn, error) {
	to, pending, err := startConnect(fd, protocol, address)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	// A descriptor that does not block is the runtime's to wait for.
	c := &socket{File: os.NewFile(uintptr(fd), protocol), protocol: protocol, remote: address}
	conn := bind(ctx, c)
	if pending {
		if err := c.awaitConnected(to); err != nil {
			_ = conn.Close()
			return nil, dialError(protocol, address, err)
		}
	}
	return conn, nil
}

// startConnect has the socket fd connect to address, which connected asks after by
// to where that is pending.
func startConnect(fd int, protocol string, address endpoint.Endpoint) (to unix.Sockaddr, pending bool, err error) {
	if to, err = sockaddr(address); err != nil {
		return nil, false, err
	}
	switch err := unix.Connect(fd, to); {
	case err == nil:
		return to, false, nil
	case err == unix.EINPROGRESS, err == unix.EINTR: // it goes on by itself
		return to, true, nil
	case err == unix.EAGAIN && address.Path() != "":
		return nil, false, dialError(protocol, address, errBacklog)
	default:
		return nil, false, dialError(protocol, address, err)
	}
}

func dialError(protocol string, address endpoint.Endpoint, err error) error {
	return &net.OpError{Op: "dial", Net: protocol, Addr: netAddr(address), Err: bare(err)}
}

// errBacklog says that a server on a unix socket is too slow to accept: there,
// unlike with TCP, the kernel says so at once.
var errBacklog = errors.New("the server's queue of connections is full")

// netAddr returns an address as package net has it.
func netAddr(address endpoint.Endpoint) net.Addr {
	if path := address.Path(); path != "" {
		return &net.UnixAddr{Name: path, Net: "unix"}
	}
	return net.TCPAddrFromAddrPort(address.IP())
}

// sockaddr returns an address in the kernel's form.
func sockaddr(address endpoint.Endpoint) (unix.Sockaddr, error) {
	if path := address.Path(); path != "" {
		return &unix.SockaddrUnix{Name: path}, nil
	}
	ip, port := address.IP().Addr().Unmap(), int(address.IP().Port())
	if ip.Is4() {
		return &unix.SockaddrInet4{Addr: ip.As4(), Port: port}, nil
	}
	zone, err := zoneIndex(ip.Zone())
	return &unix.SockaddrInet6{Addr: ip.As16(), Port: port, ZoneId: zone}, err
}

// zoneIndex returns the index of the interface that a zone names; 0 for none.
func zoneIndex(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	iface, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("there is no interface %s", zone)
	}
	return uint32(iface.Index), nil
}

// socket is a connected socket as a net.Conn.
type socket struct {
	*os.File
	protocol string
	remote   endpoint.Endpoint
}

var _ net.Conn = &socket{}

// awaitConnected waits until the connection to an address is made or refused.
func (s *socket) awaitConnected(to unix.Sockaddr) error {
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		var done bool
		done, failed = connected(int(fd), to)
		return done
	})
	return errors.Join(err, failed)
}

// connected reports whether an attempt to connect to an address has come to its
// end, and how. To connect once more asks the socket, and begins nothing while
// there is an attempt (connect(2)); the runtime does not tell of what happened
// before it was asked to wait.
func connected(fd int, to unix.Sockaddr) (bool, error) {
	switch err := unix.Connect(fd, to); err {
	case nil, unix.EISCONN:
		return true, nil
	case unix.EALREADY, unix.EINPROGRESS, unix.EINTR:
		return false, nil
	default:
		return true, err
	}
}

// Read reads what has come; the error is a *net.OpError, or io.EOF.
func (s *socket) Read(p []byte) (int, error) {
	n, err := s.File.Read(p)
	if errors.Is(err, io.EOF) && s.protocol != "tcp" && s.protocol != "unix" {
		return 0, nil // an empty datagram is the end of a file, but not of these
	}
	return n, s.wrap("read", err)
}

// Write sends all of p.
func (s *socket) Write(p []byte) (int, error) {
	n, err := s.File.Write(p)
	return n, s.wrap("write", err)
}

// wrap makes an error of a file one of a connection.
func (s *socket) wrap(op string, err error) error {
	var of *fs.PathError
	if !errors.As(err, &of) {
		return err
	}
	return &net.OpError{Op: op, Net: s.protocol, Addr: s.RemoteAddr(), Err: of.Err}
}

// bare returns the error behind that of a file.
func bare(err error) error {
	var of *fs.PathError
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

// RemoteAddr returns the address that the socket is connected to.
func (s *socket) RemoteAddr() net.Addr { return netAddr(s.remote) }

// LocalAddr returns the address of this end.
func (s *socket) LocalAddr() net.Addr {
	if s.remote.Path() != "" {
		return &net.UnixAddr{Net: "unix"} // has no name
	}
	local := &net.TCPAddr{}
	raw, err := s.SyscallConn()
	if err != nil {
		return local
	}
	_ = raw.Control(func(fd uintptr) {
		switch a, _ := unix.Getsockname(int(fd)); a := a.(type) {
		case *unix.SockaddrInet4:
			local.IP, local.Port = a.Addr[:], a.Port
		case *unix.SockaddrInet6:
			local.IP, local.Port = a.Addr[:], a.Port
		}
	})
	return local
}

// keepAlive lets the kernel find out when the other end is gone without a word.
func (s *socket) keepAlive() {
	if s.remote.Path() != "" {
		return // the other end is this machine's
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		for option, seconds := range map[int]int{unix.TCP_KEEPIDLE: 15, unix.TCP_KEEPINTVL: 15, unix.TCP_KEEPCNT: 4} {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, option, seconds)
		}
	})
}

// bind returns conn bound to ctx: once ctx ends, reads and writes fail as they
// do after a deadline. The caller closes what is returned instead of conn.
func bind(ctx context.Context, conn net.Conn) *boundConn {
	c := &boundConn{Conn: conn}
	c.bindTo(ctx)
	return c
}

// boundConn is a connection bound to a context.
type boundConn struct {
	net.Conn
	breaker *breaker    // that holds it, or else
	stop    func() bool // that unbinds it
}

// expire has all waits of the connection end.
func (c *boundConn) expire() { _ = c.SetDeadline(time.Unix(1, 0)) }

func (c *boundConn) bindTo(ctx context.Context) {
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline)
	// The deadline needs no goroutine, and ends most checks that do not end by
	// themselves; only who breaks one off needs more.
	ctx = breakOff(ctx)
	if b, ok := ctx.(*breaker); ok {
		c.breaker = b
		b.hold(c)
		return
	}
	c.stop = context.AfterFunc(ctx, c.expire)
}

func (c *boundConn) unbind() {
	if c.breaker != nil {
		c.breaker.drop(c)
		c.breaker = nil
		return
	}
	if c.stop != nil { // TLS closes what is below it, and so does whoever opened it
		c.stop()
		c.stop = nil
	}
}

// rebind binds the connection to ctx instead of what it was bound to, which has
// ended.
func (c *boundConn) rebind(ctx context.Context) {
	c.unbind()
	if s, ok := c.Conn.(*socket); ok {
		s.keepAlive()
	}
	c.bindTo(ctx)
}

// Close unbinds the connection from its context and closes it.
func (c *boundConn) Close() error {
	c.unbind()
	return c.Conn.Close()
}
