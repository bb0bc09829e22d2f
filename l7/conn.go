package l7

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// place knows what is under way at one local IP address, for all services.
type place struct {
	http1Conns

	// active is what the other connections have under way: those by HTTP/2 and
	// those whose TLS handshake is not over.
	active atomic.Int64

	// flushing is when an HTTP/2 connection here last became idle, in
	// nanoseconds of Unix time.
	flushing atomic.Int64
}

// flushTime is how long an HTTP/2 connection that became idle is taken to be
// active still: net/http reports it idle just before the goroutine that hands
// the last frame to the kernel begins.
const flushTime = 20 * time.Millisecond

// freshTime is how long a new connection counts as active while it has brought
// no request yet. One may well be on its way, behind a TLS handshake or half
// read; but browsers open connections in advance, too, and those must not hold
// up a hand-over.
const freshTime = time.Second

// underWay returns the number of exchanges at p that are not yet completely in
// the kernel's hands, and of connections that are expected to begin one; by
// HTTP/1.1 only of those that began at since or after.
func (p *place) underWay(now, since time.Time) int {
	n := p.active.Load()
	if n == 0 && now.UnixNano()-p.flushing.Load() < int64(flushTime) {
		n = 1
	}
	return int(n) + p.count(now, since)
}

// conn is a connection to a client. A client that takes nothing for the time
// stall fails the write. It has users: the server that reads requests from it,
// and each request; when the last one leaves it is over.
type conn struct {
	*net.TCPConn
	peer  netip.Addr
	place *place
	stall time.Duration
	http2 bool // set when that is known

	fresh    atomic.Bool  // place counts it as it is: no request has come yet
	aged     *time.Timer  // ends that
	open     atomic.Int64 // requests that place counts
	users    atomic.Int64
	hijacked atomic.Bool  // the server has left it to a request
	writeBy  atomic.Int64 // the deadline that SetWriteDeadline has set, 0 if none
	over     chan struct{}
	uncut    func() bool // ends the watch for the cut
}

// newConn wraps an accepted connection, with its server as the first user. It
// is closed, whoever uses it, when cut ends.
func newConn(cut context.Context, tcp *net.TCPConn, at *place, stall time.Duration) *conn {
	c := &conn{TCPConn: tcp, peer: peerAddr(tcp), place: at, stall: stall, over: make(chan struct{})}
	c.users.Store(1)
	c.fresh.Store(true)
	at.active.Add(1)
	c.aged = time.AfterFunc(freshTime, c.grownUp)
	c.uncut = context.AfterFunc(cut, func() { tcp.Close() })
	return c
}

// grownUp ends the time in which the connection counts without a request.
func (c *conn) grownUp() {
	if c.fresh.CompareAndSwap(true, false) {
		c.place.active.Add(-1)
	}
}

// leave ends the use of the connection by one of its users.
func (c *conn) leave() {
	if c.users.Add(-1) == 0 {
		c.aged.Stop()
		c.grownUp()
		c.settle() // of a request that began after the server had gone
		c.uncut()
		close(c.over)
	}
}

// begin counts a request that begins. It reports false if the connection is
// over: then there is nobody to answer, and end must not be called.
func (c *conn) begin() bool {
	for {
		n := c.users.Load()
		if n == 0 {
			return false
		}
		if c.users.CompareAndSwap(n, n+1) {
			c.open.Add(1)
			c.place.active.Add(1)
			c.grownUp()
			return true
		}
	}
}

// end ends a request. The last one on the connection goes on counting until
// the server says that its answer is out, see settle.
func (c *conn) end() {
	defer c.leave()
	if c.hijacked.Load() {
		c.settle()
		return
	}
	for {
		n := c.open.Load()
		if n <= 1 {
			return
		}
		if c.open.CompareAndSwap(n, n-1) {
			c.place.active.Add(-1)
			return
		}
	}
}

// settle takes back what is counted: nothing is under way on the connection.
func (c *conn) settle() {
	n := c.open.Swap(0)
	if n > 0 && c.http2 {
		c.place.flushing.Store(time.Now().UnixNano())
	}
	c.place.active.Add(-n)
}

// Write writes p; it fails if the client does not take it within stall, or by
// the deadline if that is sooner.
func (c *conn) Write(p []byte) (int, error) {
	deadline := time.Now().Add(c.stall)
	if by := c.writeBy.Load(); by != 0 && by < deadline.UnixNano() {
		deadline = time.Unix(0, by)
	}
	if err := c.TCPConn.SetWriteDeadline(deadline); err != nil {
		return 0, err
	}
	return c.TCPConn.Write(p)
}

// SetWriteDeadline sets a deadline besides stall; crypto/tls does so to close.
func (c *conn) SetWriteDeadline(t time.Time) error {
	by := int64(0)
	if !t.IsZero() {
		by = t.UnixNano()
	}
	c.writeBy.Store(by)
	return c.TCPConn.SetWriteDeadline(t)
}

// SetDeadline sets the deadlines for reading and writing.
func (c *conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}
