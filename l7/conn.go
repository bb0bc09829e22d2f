package l7

import (
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// conn is a connection to a client below TLS. A client that takes nothing for
// the time stall fails the write. During the handshake it stands for the
// connection at its place.
type conn struct {
	*net.TCPConn
	raw   syscall.RawConn
	stall time.Duration
	began time.Time
	armed atomic.Int64 // the deadline for writing that Write has set
	fixed atomic.Bool  // another one has been set, which holds: crypto/tls does so to close
}

// Write writes p; it fails if the client does not take it within stall, or a
// little more.
func (c *conn) Write(p []byte) (int, error) {
	if now := time.Now(); !c.fixed.Load() && c.armed.Load()-now.UnixNano() < int64(c.stall) {
		until := now.Add(c.stall + c.stall/4)
		c.armed.Store(until.UnixNano())
		if err := c.TCPConn.SetWriteDeadline(until); err != nil {
			return 0, err
		}
	}
	return writeConn(c.raw, p)
}

// Read reads what is there, and waits while there is nothing.
func (c *conn) Read(p []byte) (int, error) { return readConn(c.raw, p) }

// SetWriteDeadline sets a deadline in the place of stall.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.fixed.Store(!t.IsZero())
	c.armed.Store(0)
	return c.TCPConn.SetWriteDeadline(t)
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
func (c *conn) cut() { c.TCPConn.Close() }

// underWay is described at clientConn.
func (c *conn) underWay(now, _ time.Time) int {
	if now.Sub(c.began) < freshTime {
		return 1
	}
	return 0
}
