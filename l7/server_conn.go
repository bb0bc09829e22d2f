package l7

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"appliance/internal/pool"
	"appliance/l7/http1"
)

// errStale says that a kept connection could not be used: it was closed, or the
// server had sent something that nobody had asked for. Nothing was sent on it.
var errStale = errors.New("the kept connection was closed")

// streamConn is a connection to a server, by TCP or through a unix socket.
type streamConn interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

var (
	_ streamConn = &net.TCPConn{}
	_ streamConn = &net.UnixConn{}
)

// serverConn is a connection to a server. One exchange at a time uses it; its
// goroutine calls all methods but those of upload.
//
// It reads and writes below package net, by net's rules for that (RawConn), to
// save system calls: see turn. TLS cannot have that: see server_tls.go.
type serverConn struct {
	tcp   streamConn
	raw   syscall.RawConn
	rw    net.Conn // tcp, or TLS on it
	tls   *tls.Conn
	watch *closeWatch // below tls
	up    *upstream
	to    destination
	of    *pool.Server // that it was used for last; under the upstream's lock
	since time.Time    // when it became idle

	deadline time.Time // for reading, as the poller has it
	writeBy  time.Time // for writing
	in       *inbox    // nil: nothing was read in this exchange
	large    bool      // the last answer was spliced: the next one may be, too
	pace     int64     // of the last body that was spliced: see intake
	little   bool      // read not much of what comes next

	// For turn, which is a field because a method value would be allocated.
	turnFunc func(fd uintptr) bool
	request  []byte // to be written; nil: it was
	probe    bool   // the connection was kept: see that nobody has spoken
	pipe     *pipe  // what is read goes there; nil: into in
	n        int
	err      error
	one      [1]byte // the first byte of an answer by TLS
}

// inbox is a buffer of what was read and not used yet.
type inbox struct {
	b    []byte
	r, w int
}

const inboxSize = 32 << 10

// littleSize is what is read at first of an answer that may be large: its head,
// and little of the body, which can be spliced then instead of being copied.
const littleSize = 2 << 10

var inboxes = sync.Pool{New: func() any { return &inbox{b: make([]byte, inboxSize)} }}

// putInbox gives an inbox back.
func putInbox(in *inbox) {
	if len(in.b) == inboxSize {
		in.r, in.w = 0, 0
		inboxes.Put(in)
	}
}

func newServerConn(u *upstream, server *pool.Server, to destination, tcp streamConn) (*serverConn, error) {
	raw, err := tcp.SyscallConn()
	if err != nil {
		tcp.Close()
		return nil, err
	}
	c := &serverConn{tcp: tcp, raw: raw, rw: tcp, up: u, to: to, of: server}
	c.turnFunc = c.turn
	return c, nil
}

// breakOff makes the exchange that uses the connection fail. It is called by other
// goroutines.
func (c *serverConn) breakOff() { c.tcp.Close() }

// close closes the connection for good.
func (c *serverConn) close() {
	c.up.mu.Lock()
	defer c.up.mu.Unlock()
	c.up.closeConn(c)
}

// turn is called by RawConn.Read, which has told the poller to forget what it
// knew, and then again whenever there is something to read. To write the request
// in between, when the connection has been found silent, makes sure that the
// answer is noticed without a read(2) in vain.
func (c *serverConn) turn(fd uintptr) bool {
	if c.request != nil {
		if c.probe {
			if err := peek(fd); err != syscall.EAGAIN {
				c.n, c.err = 0, errStale
				return true
			}
		}
		n, err := writeSocket(fd, c.request, 0)
		switch {
		case err == nil && n == len(c.request):
			c.request = nil
			return false
		case err == nil || err == syscall.EAGAIN:
			c.request = c.request[n:]
			c.n, c.err = 0, nil // the rest is written by write
		default:
			c.n, c.err = 0, os.NewSyscallError("write", err)
		}
		return true
	}
	if c.pipe != nil {
		if !c.pipe.from.ready(fd) {
			return false
		}
		c.pipe.fill(fd)
		c.err = c.pipe.err
		return c.err != syscall.EAGAIN
	}
	if c.in == nil {
		c.in = inboxes.Get().(*inbox)
	}
	in := c.in
	b := in.b[in.w:]
	if c.little {
		b = b[:min(len(b), littleSize)]
	}
	n, err := readSocket(fd, b)
	if err == syscall.EAGAIN {
		if in.w == 0 {
			putInbox(in)
			c.in = nil
		}
		return false
	}
	c.n, c.err, c.little = n, nil, false
	switch {
	case err != nil:
		c.n, c.err = 0, os.NewSyscallError("read", err)
	case n == 0:
		c.err = io.EOF
	default:
		in.w += n
	}
	return true
}

// tells returns the socket if it can be told how much must have come before it
// wakes us, else nil.
func (c *serverConn) tells() syscall.RawConn {
	if _, ok := c.tcp.(*net.TCPConn); !ok {
		return nil
	}
	return c.raw
}

// silent reports whether the server has sent nothing yet.
func (c *serverConn) silent() bool { return c.in == nil || c.in.w == 0 }

// drop gives back what the connection holds.
func (c *serverConn) drop() {
	if c.in != nil {
		putInbox(c.in)
		c.in = nil
	}
}

// arm makes the poller end a wait at most about d after now. It does so rarely,
// so what it sets is up to twice as late.
func (c *serverConn) arm(now time.Time, d time.Duration) error {
	if left := c.deadline.Sub(now); left >= d && left <= 2*d {
		return nil
	}
	c.deadline = now.Add(2 * d)
	return c.tcp.SetReadDeadline(c.deadline)
}

// armWrite gives the server time to take more.
func (c *serverConn) armWrite(now time.Time) error {
	if c.writeBy.Sub(now) >= c.up.settings.response {
		return nil
	}
	c.writeBy = now.Add(c.up.settings.response * 5 / 4)
	return c.tcp.SetWriteDeadline(c.writeBy)
}

// more waits until the server has sent more, and reads it: see vigil.
func (c *serverConn) more(ex *exchange, limit time.Duration) error {
	v := vigil{began: ex.now, limit: limit}
	if err := c.arm(v.began, v.first()/2); err != nil {
		return c.closed(ex, err)
	}
	for {
		err := c.await()
		if err == nil && c.err == nil && c.request != nil {
			// The request does not fit the socket's buffer.
			if err := c.write(c.request, time.Now()); err != nil {
				return c.closed(ex, err)
			}
			c.request = nil
			continue
		}
		if err == nil {
			if v.look > firstLook {
				ex.now = time.Now() // or it could be lastLook ago
			}
			return c.err
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return c.closed(ex, err)
		}
		wait, err := v.again(ex)
		if err != nil {
			return err
		}
		c.deadline = ex.now.Add(wait)
		if err := c.tcp.SetReadDeadline(c.deadline); err != nil {
			return c.closed(ex, err)
		}
	}
}

// await waits until there is more, or the deadline is over, which is the error;
// what came is in c.in and c.err.
func (c *serverConn) await() error {
	if c.tls != nil {
		return c.awaitTLS()
	}
	return c.raw.Read(c.turnFunc)
}

// closed returns errAborted if the connection was closed because the exchange is
// over, else err.
func (c *serverConn) closed(ex *exchange, err error) error {
	if ex.over() {
		return errAborted
	}
	return err
}

// write writes all of b.
func (c *serverConn) write(b []byte, now time.Time) error {
	if err := c.armWrite(now); err != nil {
		return err
	}
	_, err := c.writeAll(b)
	return err
}

// writePart writes all of b with flags for writeSocket, without TLS.
func (c *serverConn) writePart(b []byte, flags int) error {
	if err := c.armWrite(time.Now()); err != nil {
		return err
	}
	_, err := writeConnFlags(c.raw, b, flags)
	return err
}

// writeAll is write with the deadline that there is.
func (c *serverConn) writeAll(b []byte) (int, error) {
	if c.tls != nil {
		return c.tls.Write(b)
	}
	return writeConn(c.raw, b)
}

// ask sends the request and reads the head of the answer, with interim ones
// before it.
func (c *serverConn) ask(ex *exchange, kept bool, interim func(ex *exchange, status int, head fields)) (answer, error) {
	c.request, c.probe, c.little = ex.out.wire, kept, c.large
	up := &ex.out.upload
	up.reset()
	streams := ex.body != nil && ex.whole == nil && !ex.expect
	if streams || c.tls != nil {
		if kept {
			if err := c.fresh(); err != nil {
				return nil, err
			}
		}
		if err := c.writeHead(ex, streams); err != nil {
			return nil, err
		}
		c.request = nil
	}
	if streams {
		up.start(c, ex)
	}
	a, err := c.readHead(ex, interim)
	if err != nil {
		up.finish(ex)
		return nil, err
	}
	return a, nil
}

// writeHead writes the request. What has come of a large body follows at once.
func (c *serverConn) writeHead(ex *exchange, streams bool) error {
	if b, ok := ex.body.(*http1Body); streams && ok && c.tls == nil && b.spliceable() && b.begun() {
		return c.writePart(c.request, unix.MSG_MORE)
	}
	return c.write(c.request, ex.now)
}

// fresh reports errStale if the kept connection is of no use.
func (c *serverConn) fresh() (err error) {
	ctl := c.raw.Control(func(fd uintptr) {
		if peek(fd) != syscall.EAGAIN {
			err = errStale
		}
	})
	if ctl != nil {
		return errStale
	}
	return err
}

// readHead reads heads up to that of the final answer.
func (c *serverConn) readHead(ex *exchange, interim func(ex *exchange, status int, head fields)) (answer, error) {
	a := &ex.out.answer
	asked := false // the client's body is on its way, or there is none
	for range maxInterim {
		n, err := c.nextHead(ex, &asked)
		if err != nil {
			return nil, err
		}
		in := c.in
		if err := a.parsed.Parse(in.b[in.r:in.r+n], ex.method); err != nil {
			return nil, err
		}
		in.r += n
		switch {
		case a.parsed.Status == 100:
			if ex.expect && ex.whole == nil && !asked {
				if err := c.invite(ex); err != nil {
					return nil, err
				}
				asked = true
			}
		case a.parsed.Status == 101 || a.parsed.Status >= 200:
			a.begin(c, ex)
			if ex.whole != nil {
				ex.sent(len(ex.whole))
			}
			return a, nil
		default:
			interim(ex, a.parsed.Status, a.parsed.Fields)
		}
		ex.now = time.Now()
	}
	return nil, fmt.Errorf("more than %d interim answers", maxInterim)
}

// nextHead returns the length of the next head, once it has come.
func (c *serverConn) nextHead(ex *exchange, asked *bool) (int, error) {
	searched := 0
	for {
		if in := c.in; in != nil {
			if n := http1.End(in.b[in.r:in.w], searched); n > 0 {
				return n, nil
			}
			searched = in.w - in.r
			if searched >= maxAnswerHead {
				return 0, errors.New("the head of the answer is too large")
			}
			in.room()
			ex.now = time.Now()
		}
		switch err := c.awaitHead(ex, asked); err {
		case nil:
		case io.EOF:
			return 0, io.ErrUnexpectedEOF
		default:
			return 0, err
		}
	}
}

// awaitHead waits for more of a head.
func (c *serverConn) awaitHead(ex *exchange, asked *bool) error {
	limit := c.up.settings.response
	if ex.expect && ex.whole == nil && !*asked {
		if err := c.more(ex, min(limit, waitForContinue)); err != errTimeout {
			return err
		}
		*asked = true
		if err := c.invite(ex); err != nil {
			return err
		}
		ex.now = time.Now()
	}
	return c.more(ex, limit)
}

// invite asks the client for its body and lets it come.
func (c *serverConn) invite(ex *exchange) error {
	if err := ex.body.invite(); err != nil {
		ex.interrupt()
		return errAborted
	}
	ex.out.upload.start(c, ex)
	return nil
}

// room makes room for more at the end of an inbox.
func (in *inbox) room() {
	if in.r == in.w {
		in.r, in.w = 0, 0
	}
	if in.w < len(in.b) {
		return
	}
	if in.r > 0 {
		in.w = copy(in.b, in.b[in.r:in.w])
		in.r = 0
		return
	}
	b := make([]byte, 2*len(in.b))
	copy(b, in.b[:in.w])
	in.b = b
}

// sendBody is described at uploadTarget.
func (c *serverConn) sendBody(u *upload, p []byte, last bool) error {
	now := time.Now()
	if !u.chunked {
		if len(p) == 0 {
			return nil
		}
		return c.write(p, now)
	}
	if err := c.armWrite(now); err != nil {
		return err
	}
	v := u.vec[:0]
	if len(p) > 0 {
		v = append(v, http1.AppendChunkSize(u.size[:0], len(p)), p, crlf)
	}
	if last {
		u.end = append(u.end[:0], "0\r\n"...)
		u.end = append(http1.AppendFields(u.end, u.trailers), crlf...)
		v = append(v, u.end)
	}
	if c.tls != nil {
		// One record for all.
		_, err := c.tls.Write(slices.Concat(v...))
		return err
	}
	return writeParts(c.raw, v...)
}
