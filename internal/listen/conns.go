package listen

import (
	"net"
	"net/netip"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// conns are the connections that handlers serve. The zero value is empty and
// ready to use.
type conns struct {
	serving sync.WaitGroup // one for each ServeConn under way

	mu    sync.Mutex
	local map[*net.TCPConn]netip.Addr // their local addresses
}

// serve hands c to h, on a goroutine of its own.
func (s *conns) serve(h Handler, c *net.TCPConn) {
	s.add(c)
	s.serving.Go(func() {
		defer s.remove(c)
		h.ServeConn(c)
	})
}

// wait returns when every ServeConn has returned.
func (s *conns) wait() { s.serving.Wait() }

// cut resets the connections to vips and returns how many those are.
func (s *conns) cut(vips []netip.Addr) int {
	to := s.to(vips)
	for _, c := range to {
		reset(c)
	}
	return len(to)
}

// reset resets c at once, whatever its handler is doing. Close would wait for a
// handler that is in the middle of a read or of what it does in a RawConn, and
// until then the client would hear nothing. A socket that is connected to
// nobody is reset (connect(2), AF_UNSPEC); its handler finds that out, and
// closes it.
func reset(c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return // its handler has just closed it
	}
	var nobody unix.RawSockaddr // AF_UNSPEC
	_ = raw.Control(func(fd uintptr) {
		_, _, _ = syscall.Syscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&nobody)), unsafe.Sizeof(nobody))
	})
}

// to returns the connections whose local address is one of vips.
func (s *conns) to(vips []netip.Addr) []*net.TCPConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*net.TCPConn
	for c, local := range s.local {
		if Matches(vips, local) {
			list = append(list, c)
		}
	}
	return list
}

func (s *conns) add(c *net.TCPConn) {
	local := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.local == nil {
		s.local = make(map[*net.TCPConn]netip.Addr)
	}
	s.local[c] = local
}

func (s *conns) remove(c *net.TCPConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.local, c)
}
