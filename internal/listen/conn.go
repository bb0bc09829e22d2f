package listen

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn is a connection that a listener has accepted. It does what a *net.TCPConn
// does, but the runtime's poller gets to know it only when there is something to
// wait for: a client whose request has come already, and who leaves with the
// answer, costs neither that, nor timers for deadlines, nor the objects of package
// net.
//
// One goroutine at a time may read, and one write. All else may be called by others
// meanwhile.
type Conn struct {
	local, peer netip.AddrPort
	fd          int

	// polled is what waits, nil before the first wait. It owns the descriptor.
	polled atomic.Pointer[polled]

	parks  bool                   // the connection is a Set's, which can have it wait
	next   *parked                // where the connection is to wait when ServeConn has returned
	parked atomic.Pointer[parked] // where it waits

	mu              sync.Mutex
	users           int       // calls that use fd without polled
	readBy, writeBy time.Time // the deadlines
	closed          bool
}

// polled is a descriptor that the poller knows.
type polled struct {
	*os.File
	raw syscall.RawConn
}

var (
	_ net.Conn        = (*Conn)(nil)
	_ syscall.Conn    = (*Conn)(nil)
	_ syscall.RawConn = (*rawConn)(nil)
)

// NewConn makes a connection of the non-blocking socket fd, which it owns from now
// on, between these two addresses.
func NewConn(fd int, local, peer netip.AddrPort) *Conn {
	return &Conn{fd: fd, local: local, peer: peer}
}

// Local returns our address, Peer that of the other side.
func (c *Conn) Local() netip.AddrPort { return c.local }

// Peer returns the address of the other side.
func (c *Conn) Peer() netip.AddrPort { return c.peer }

// LocalAddr returns our address.
func (c *Conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.local) }

// RemoteAddr returns the address of the other side.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.peer) }

// SyscallConn returns access to the descriptor, by the rules of package net.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return (*rawConn)(c), nil }

// Read reads what is there, and waits while there is nothing.
func (c *Conn) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	waitErr := (*rawConn)(c).Read(func(fd uintptr) bool {
		for {
			if n, err = unix.Read(int(fd), p); err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	switch {
	case waitErr != nil:
		return 0, waitErr
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write writes all of p.
func (c *Conn) Write(p []byte) (sent int, err error) {
	waitErr := (*rawConn)(c).Write(func(fd uintptr) bool {
		for sent < len(p) {
			var n int
			n, err = unix.SendmsgN(int(fd), p[sent:], nil, nil, unix.MSG_NOSIGNAL)
			switch err {
			case nil:
				sent += n
			case unix.EINTR:
			default:
				return err != unix.EAGAIN
			}
		}
		return true
	})
	if waitErr != nil {
		return sent, waitErr
	}
	return sent, os.NewSyscallError("write", err)
}

// CloseWrite tells the other side that nothing more comes.
func (c *Conn) CloseWrite() error {
	var err error
	if ctl := (*rawConn)(c).Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_WR) }); ctl != nil {
		return ctl
	}
	return os.NewSyscallError("shutdown", err)
}

// ResetOnClose makes Close reset the connection.
func (c *Conn) ResetOnClose() error {
	var err error
	if ctl := (*rawConn)(c).Control(func(fd uintptr) {
		err = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}); ctl != nil {
		return ctl
	}
	return os.NewSyscallError("setsockopt SO_LINGER", err)
}

// reset resets the connection at once, whatever its handler is doing. Close would
// wait for a handler that is in the middle of a read or of what it does in a RawConn,
// and until then the client would hear nothing. A socket that is connected to
// nobody is reset (connect(2), AF_UNSPEC); its handler finds that out, and
// closes it.
func (c *Conn) reset() {
	var nobody unix.RawSockaddr                  // AF_UNSPEC
	_ = (*rawConn)(c).Control(func(fd uintptr) { // fails if its handler has just closed it
		_, _, _ = syscall.Syscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&nobody)), unsafe.Sizeof(nobody))
	})
}

// SetDeadline sets the deadlines for reading and writing.
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadlines(&t, &t) }

// SetReadDeadline sets the deadline for reading. After it nothing is read, be it there
// already. A connection that is parked goes on.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadlines(&t, nil) }

// SetWriteDeadline sets the deadline for writing. After it nothing is written.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(nil, &t) }

// setDeadlines sets the deadlines that are not nil.
func (c *Conn) setDeadlines(read, write *time.Time) error {
	if err := c.changeDeadlines(read, write); err != nil {
		return err
	}
	if read != nil {
		c.unpark().goOn()
	}
	return nil
}

func (c *Conn) changeDeadlines(read, write *time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	p := c.polled.Load()
	if read != nil {
		c.readBy = *read
		if p != nil {
			if err := p.SetReadDeadline(*read); err != nil {
				return err
			}
		}
	}
	if write != nil {
		c.writeBy = *write
		if p != nil {
			return p.SetWriteDeadline(*write)
		}
	}
	return nil
}

// fate returns the deadline for reading, and whether the connection has been closed.
func (c *Conn) fate() (readBy time.Time, closed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.readBy, c.closed
}

// Park has the connection wait without a goroutine: when a Read would not wait any
// more, or a deadline for reading is set, h.ServeConn is called with it. The ServeConn
// that calls Park returns next, and does nothing more with the connection, which it
// has not closed. If the connection cannot wait so, for want of descriptors perhaps,
// h.ServeConn is called at once, and is to wait. Park is false, and has done nothing,
// if no Set has accepted the connection.
func (c *Conn) Park(h Handler) bool {
	if c.parks {
		c.next = &parked{conn: c, handler: h}
	}
	return c.parks
}

// Close closes the connection. Calls under way fail soon. Once the poller knows the
// connection, it waits for them.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return net.ErrClosed
	}
	c.closed = true
	p, used := c.polled.Load(), c.users > 0
	if used && p != nil {
		// The last user closes the descriptor; who waits does so no more.
		_ = p.SetDeadline(time.Unix(1, 0))
	}
	c.mu.Unlock()
	// Before another connection can have the descriptor.
	defer c.unpark().goOn()
	if used {
		return nil
	}
	return c.release(p)
}

// release closes the descriptor, which nobody uses any more but through p.
func (c *Conn) release(p *polled) error {
	if p != nil {
		return p.Close()
	}
	// The runtime is not told: close(2) of a socket does not wait without SO_LINGER.
	_, _, errno := unix.RawSyscall(unix.SYS_CLOSE, uintptr(c.fd), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("close", errno)
	}
	return nil
}

// enter has the caller use fd, until it calls leave; or, if it is not nil, what is
// returned. It fails after the deadline by, one of c's, if that is not nil: who never
// has to wait would not hear of it from the poller.
func (c *Conn) enter(by *time.Time) (*polled, error) {
	if p := c.polled.Load(); p != nil {
		return p, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.polled.Load(); p != nil {
		return p, nil
	}
	if c.closed {
		return nil, net.ErrClosed
	}
	if by != nil && !by.IsZero() && !time.Now().Before(*by) {
		return nil, os.ErrDeadlineExceeded
	}
	c.users++
	return nil, nil
}

// leave ends what enter has begun.
func (c *Conn) leave() {
	c.mu.Lock()
	c.users--
	last := c.closed && c.users == 0
	c.mu.Unlock()
	if last {
		_ = c.release(c.polled.Load()) // nobody waits for the result
	}
}

// poll makes the poller know the connection.
func (c *Conn) poll() (*polled, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.polled.Load(); p != nil {
		return p, nil
	}
	if c.closed {
		return nil, net.ErrClosed
	}
	p := &polled{File: os.NewFile(uintptr(c.fd), "")}
	p.raw, _ = p.SyscallConn() // fails only without a file
	var err error
	if !c.readBy.IsZero() {
		err = p.SetReadDeadline(c.readBy)
	}
	if !c.writeBy.IsZero() && err == nil {
		err = p.SetWriteDeadline(c.writeBy)
	}
	// In any case the file owns the descriptor now.
	c.polled.Store(p)
	return p, err
}

// rawConn is the descriptor of a Conn.
type rawConn Conn

// Control is described at syscall.RawConn.
func (r *rawConn) Control(f func(fd uintptr)) error {
	c := (*Conn)(r)
	p, err := c.enter(nil)
	if err != nil {
		return err
	}
	if p != nil {
		return c.result(p.raw.Control(f))
	}
	defer c.leave()
	f(uintptr(c.fd))
	return nil
}

// Read is described at syscall.RawConn.
func (r *rawConn) Read(f func(fd uintptr) (done bool)) error {
	p, err := (*Conn)(r).first(f, &r.readBy)
	if p == nil {
		return err
	}
	return (*Conn)(r).result(p.raw.Read(f))
}

// Write is described at syscall.RawConn.
func (r *rawConn) Write(f func(fd uintptr) (done bool)) error {
	p, err := (*Conn)(r).first(f, &r.writeBy)
	if p == nil {
		return err
	}
	return (*Conn)(r).result(p.raw.Write(f))
}

// first calls f if the poller does not know the connection yet, unless the deadline by
// is over. It returns what f is to go on with, nil if it is done.
func (c *Conn) first(f func(fd uintptr) (done bool), by *time.Time) (*polled, error) {
	p, err := c.enter(by)
	if p != nil || err != nil {
		return p, err
	}
	done := f(uintptr(c.fd))
	c.leave()
	if done {
		return nil, nil
	}
	if p, err = c.poll(); err != nil {
		return nil, err
	}
	return p, nil
}

// result returns err in package net's words: a file that is closed is a connection
// that is.
func (c *Conn) result(err error) error {
	if err == nil || os.IsTimeout(err) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	return err
}
