package l7

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"appliance/internal/listen"
)

// A client has a time, stall, for each piece of what waits for it: 32 KiB, or less if
// there is no more. However long it may pause otherwise, that is never less than
// minRate, or it could keep a server busy for as long as it likes.
const stallMost = inboxSize / minRate * time.Second

// stallOf returns how long a client may take for a piece if it may pause for idle.
func stallOf(idle time.Duration) time.Duration { return min(idle, stallMost) }

// tookPiece reports whether a write that ran out of time is to be given more, because the
// other side has taken a piece meanwhile.
func tookPiece(n int64, err error) bool {
	return n >= inboxSize && errors.Is(err, os.ErrDeadlineExceeded)
}

// conn is a connection to a client below TLS. A client that does not take a piece in
// the time stall fails the write; begin says where one begins. During the handshake
// it stands for the connection at its place.
type conn struct {
	*listen.Conn
	raw   syscall.RawConn
	stall time.Duration
	began time.Time
	armed atomic.Int64 // the deadline for writing that begin or Write has set
	fixed atomic.Bool  // another one has been set, which holds: crypto/tls does so to close

	// Between beginTurn and endTurn, which the only goroutine that reads and writes calls:
	turn  bool    // RawConn.Read has called, so that Read must not wait
	fd    uintptr // the socket
	empty bool    // all was read that there was: what comes, the poller will tell
	piece bool    // a piece begins with the next write that has to wait
	stuck bool    // there was one
}

// beginTurn is called within RawConn.Read. From then on Read does not wait.
func (c *conn) beginTurn(fd uintptr) { c.turn, c.fd, c.empty = true, fd, false }

// endTurn ends that.
func (c *conn) endTurn() { c.turn = false }

// errNothing says that there is nothing to read yet. crypto/tls goes on after it, for
// it is temporary.
var errNothing error = &timeoutError{"nothing has come yet"}

// begin gives the client the time stall, or a little more, for what is written from
// now on, be it in many records.
func (c *conn) begin(now time.Time) error { return c.arm(now, c.stall) }

// arm sees that a write has the time least.
func (c *conn) arm(now time.Time, least time.Duration) error {
	if c.fixed.Load() || c.armed.Load()-now.UnixNano() >= int64(least) {
		return nil
	}
	until := now.Add(c.stall + c.stall/4)
	c.armed.Store(until.UnixNano())
	return c.Conn.SetWriteDeadline(until)
}

// Write writes p. What no piece is begun for, as crypto/tls writes by itself, has a
// time of its own if that of the latest piece is over.
func (c *conn) Write(p []byte) (int, error) {
	if c.turn {
		return c.writeNow(p)
	}
	if err := c.arm(time.Now(), 0); err != nil {
		return 0, err
	}
	return writeConn(c.raw, p)
}

// writeNow is Write within a turn. Nearly always all of it goes out at once, so that
// nobody has to know the time.
func (c *conn) writeNow(p []byte) (int, error) {
	n, err := writeSocket(c.fd, p, 0)
	if err == nil && n == len(p) {
		return n, nil
	}
	least := time.Duration(0)
	if c.piece {
		least = c.stall
	}
	c.piece, c.stuck = false, true
	if err := c.arm(time.Now(), least); err != nil {
		return n, err
	}
	m, err := writeConn(c.raw, p[n:]) // an error but EAGAIN comes again
	return n + m, err
}

// belowTLS returns the connection below that of a client.
func belowTLS(t net.Conn) *conn { return t.(*tls.Conn).NetConn().(*conn) }

// Read reads what is there, and waits while there is nothing, unless it must not:
// then the error is errNothing.
func (c *conn) Read(p []byte) (int, error) {
	if !c.turn {
		return readConn(c.raw, p)
	}
	if c.empty {
		return 0, errNothing
	}
	n, err := readSocket(c.fd, p)
	c.empty = err == nil && 0 < n && n < len(p)
	switch {
	case err == syscall.EAGAIN:
		return 0, errNothing
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// SetWriteDeadline sets a deadline in the place of stall.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.fixed.Store(!t.IsZero())
	c.armed.Store(0)
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline sets the deadlines for reading and writing.
func (c *conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// wake is described at clientConn.
func (c *conn) wake(*server) {}

// cut is described at clientConn.
func (c *conn) cut() { c.Conn.Close() }

// underWay is described at clientConn.
func (c *conn) underWay(now, _ time.Time) int {
	if now.Sub(c.began) < freshTime {
		return 1
	}
	return 0
}
