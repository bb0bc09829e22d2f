package l4

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"appliance/internal/endpoint"
	"appliance/internal/listen"
)

// errBacklog says that a server on a unix socket is too slow to accept: there,
// unlike with TCP, the kernel says so at once.
var errBacklog = errors.New("the server's queue of connections is full")

// connectTimeout is how a connect ends that took too long.
type connectTimeout struct{}

func (connectTimeout) Error() string { return "connect timeout" }

// Timeout tells internal/pool of what kind the error is.
func (connectTimeout) Timeout() bool { return true }

// connect returns a socket with these options that is about
// to be connected to a server.
func connect(to endpoint.Endpoint, options []listen.Option) (fd int, err error) {
	if path := to.Path(); path != "" {
		return connectUnix(path)
	}
	addr := to.IP()
	family := unix.AF_INET6
	if addr.Addr().Is4() {
		family = unix.AF_INET
	}
	if fd, err = rawSocket(family); err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	for _, o := range options {
		if err := rawSetInt(fd, o.Level, o.Name, int32(o.Value)); err != nil {
			rawClose(fd)
			return -1, os.NewSyscallError("setsockopt", err)
		}
	}
	// The socket is not bound, so that each server has a range of local ports
	// of its own.
	if err := connectTo(fd, addr); err != nil && err != unix.EINPROGRESS {
		rawClose(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

// connectUnix returns a socket that is connected to the one at path.
func connectUnix(path string) (fd int, err error) {
	if fd, err = rawSocket(unix.AF_UNIX); err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	switch {
	case err == nil:
		return fd, nil
	case err == unix.EAGAIN:
		err = errBacklog
	default:
		err = os.NewSyscallError("connect", err)
	}
	rawClose(fd)
	return -1, err
}

// connectTo begins to connect fd, of the right family.
func connectTo(fd int, addr netip.AddrPort) error {
	var port uint16 // in network order
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&port))[:], addr.Port())
	if addr.Addr().Is4() {
		sa := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: addr.Addr().As4()}
		return rawConnect(fd, unsafe.Pointer(&sa), unsafe.Sizeof(sa))
	}
	sa := unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: addr.Addr().As16(), Scope_id: zone(addr.Addr())}
	return rawConnect(fd, unsafe.Pointer(&sa), unsafe.Sizeof(sa))
}

// serverOptions are those of a connection to a server, the same that
// internal/listen gives to clients.
func serverOptions(alive listen.KeepAlive) []listen.Option {
	options := append([]listen.Option{{Text: "TCP_NODELAY", Level: unix.SOL_TCP, Name: unix.TCP_NODELAY, Value: 1}}, alive.Options()...)
	// A new socket has no user timeout, and each option is a system call.
	return slices.DeleteFunc(options, func(o listen.Option) bool { return o.Value == 0 })
}

// pendingError takes the error that the kernel keeps for the socket.
func pendingError(fd int) error {
	var errno int32
	err := rawGet(fd, unix.SOL_SOCKET, unix.SO_ERROR, unsafe.Pointer(&errno), uint32(unsafe.Sizeof(errno)))
	switch {
	case err != nil:
		return err
	case errno == 0:
		return nil
	}
	return unix.Errno(errno)
}

// settled reports whether the peer has acknowledged all that it was sent, or is
// gone.
func settled(fd int) bool {
	n, err := rawUnacknowledged(fd)
	return err != nil || n == 0 || over(fd)
}

// over reports whether a connection is: reset, given up by the kernel, or ended
// by both of its sides. It asks for the state of RFC 9293, section 3.3.2:
// poll(2) tells of a hang-up also while the last bytes of a connection that both
// sides have ended are on their way.
func over(fd int) bool {
	const closed = 7 // TCP_CLOSE of netinet/tcp.h
	info, err := rawTCPInfo(fd)
	return err != nil || info.State == closed
}

// quiet returns for how long nothing has moved on any of the connections, in
// either direction. The kernel keeps that time for every TCP socket
// (tcp(7), TCP_INFO), so that copying needs no clock, and the bytes that a slow
// reader takes long to accept do not count as silence. A connection that cannot
// be asked is about to end anyway; for it the answer is 0.
func quiet(fds ...int) time.Duration {
	least := uint32(1<<32 - 1)
	for _, fd := range fds {
		info, err := rawTCPInfo(fd)
		switch {
		case err == unix.EOPNOTSUPP:
			continue // a unix socket; the other connection sees what it does
		case err != nil:
			return 0
		}
		least = min(least, info.Last_data_recv, info.Last_data_sent)
	}
	return time.Duration(least) * time.Millisecond
}

// reset closes fd so that its peer sees a reset, not an end.
func reset(fd int) {
	// Fails only on a descriptor that is no socket.
	linger := unix.Linger{Onoff: 1}
	_ = rawSet(fd, unix.SOL_SOCKET, unix.SO_LINGER, unsafe.Pointer(&linger), unsafe.Sizeof(linger))
	rawClose(fd)
}

// zone returns the index of the interface that an address names; 0 for none.
func zone(a netip.Addr) uint32 {
	if a.Zone() == "" {
		return 0
	}
	if n, err := strconv.ParseUint(a.Zone(), 10, 32); err == nil {
		return uint32(n)
	}
	ifi, err := net.InterfaceByName(a.Zone())
	if err != nil {
		return 0
	}
	return uint32(ifi.Index)
}
