package l7

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"appliance/internal/listen"
	"appliance/l7/http1"
)

// The states of a client's connection.
const (
	stateFresh   = iota // no request has come yet
	stateIdle           // waits for another one; may be woken
	stateWoken          // was idle, and has been woken
	stateReading        // has a part of a head
	stateBusy           // has a request
)

// http1Conn is a connection to a client that speaks HTTP/1, and the goroutine
// that reads its requests, carries them out and writes the answers.
//
// While it is idle it holds no buffer: the rest of what a request needs is
// http1Work. When it has been idle for a while it holds no goroutine, either.
type http1Conn struct {
	server *server
	tcp    *listen.Conn
	raw    syscall.RawConn
	rw     net.Conn // tcp, or TLS on it
	secure bool
	peer   *peer
	began  time.Time
	now    time.Time // about when the last answer was finished
	state  atomic.Int32

	waking  sync.Mutex // held while wake changes the deadline
	readBy  time.Time  // the deadlines, as the poller has them
	writeBy time.Time

	headBegan time.Time // when the head began to come that did not come at once

	work    *http1Work // nil while there is no request
	fd      int        // valid within turn, else -1
	next    next       // what turn has come to
	lingers bool       // the client may be sending still
	broken  bool       // what the client has got is not whole
	pace    int64      // of the last body that was spliced: see intake
	waited  bool       // for the client to take what there is of an answer, perhaps
	holding atomic.Pointer[exchange]
	// busySince is when the exchange under way began, in nanoseconds of Unix time.
	busySince atomic.Int64
	turnFunc  func(fd uintptr) bool
	// preface is what the client has sent if it speaks HTTP/2, unasked, and may.
	preface []byte
}

// next is what is to be done with a connection.
type next uint8

const (
	nextWait    next = iota // for another request
	nextMore                // read the rest of a head
	nextRequest             // carry out a request, outside of turn
	nextHTTP2               // leave the connection to that version
	nextClose
)

// http1Work is what a request needs. It is used again for others.
type http1Work struct {
	in     inbox
	head   int // the length of the request's head at in.r; 0: not parsed yet
	seen   int // what of in has been searched for the end of the head that is not whole
	req    http1.Request
	ex     exchange
	answer http1Answer
	body   http1Body
}

// stayAwake is for how long an idle connection keeps its goroutine, or up to twice that.
const stayAwake = 500 * time.Millisecond

const (
	workSize = 4 << 10  // of the buffers to begin with
	workMost = 16 << 10 // of the buffers that are kept
)

var works = sync.Pool{New: func() any {
	return &http1Work{in: inbox{b: make([]byte, workSize)}, answer: http1Answer{out: make([]byte, 0, workSize)}}
}}

func newHTTP1Conn(s *server, tcp *listen.Conn, t *tls.Conn, p *peer) *http1Conn {
	raw, _ := tcp.SyscallConn() // fails only without a connection
	c := &http1Conn{server: s, tcp: tcp, raw: raw, rw: tcp, peer: p, fd: -1}
	if t != nil {
		c.rw, c.secure = t, true
	}
	c.began = time.Now()
	c.now = c.began
	if c.turnFunc = c.turn; c.secure {
		c.turnFunc = c.turnTLS
	}
	return c
}

// begin gets what a request needs.
func (c *http1Conn) begin() {
	if c.work == nil {
		c.work = works.Get().(*http1Work)
		c.work.answer.conn, c.work.body.conn = c, c
	}
}

// end gives it back.
func (c *http1Conn) end() {
	w := c.work
	if w == nil {
		return
	}
	c.work = nil
	if len(w.in.b) > workMost || cap(w.answer.out) > workMost {
		return
	}
	w.in.r, w.in.w, w.head, w.seen = 0, 0, 0, 0
	works.Put(w)
}

// run is described at runningConn.
func (c *http1Conn) run() (parked bool) {
	if c.armRead(c.began, c.server.set.header) == nil && c.serve() {
		return true
	}
	c.close()
	return false
}

// ServeConn goes on with a connection that was parked.
func (c *http1Conn) ServeConn(*listen.Conn) {
	if c.serve() {
		return
	}
	c.close()
	d := c.server.door
	d.place.remove(c)
	d.over(c.peer.addr, c.peer.counted)
}

// serve serves the connection until it is to be closed, or has been parked.
func (c *http1Conn) serve() (parked bool) {
	for {
		err := c.raw.Read(c.turnFunc)
		c.fd = -1
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			// It is to be parked, was woken, or its time is up.
			if c.stays() {
				if c.tcp.Park(c) {
					return true
				}
				continue
			}
			if !c.lastLook() {
				return false
			}
		default:
			return false
		}
		if c.next == nextMore || c.next == nextRequest {
			c.next = c.outside()
		}
		if c.next == nextHTTP2 {
			in := &c.work.in
			c.preface = append(c.preface, in.b[in.r:in.w]...)
			return false
		}
		if c.next == nextClose {
			return false
		}
	}
}

// turn is called by RawConn.Read when there may be something to read. It carries
// out all requests that are complete and need nothing more from the client. As
// long as it does not return true, nothing that the poller notices is lost, so
// that an idle connection costs no read(2) in vain and no buffer.
//
// That holds for what comes after the poller was asked last. A read that has filled
// its buffer has left something, perhaps, that the poller has told of already, so
// another one follows. See also stays.
func (c *http1Conn) turn(fd uintptr) bool {
	c.begin()
	c.fd = int(fd)
	in := &c.work.in
	for served := false; ; served = true {
		room := in.b[in.w:]
		n, err := readSocket(fd, room)
		if err == syscall.EAGAIN {
			return c.drained(served)
		}
		if err != nil || n == 0 {
			c.next = nextClose
			return true
		}
		in.w += n
		if c.next = c.requests(true); c.next != nextWait {
			return true
		}
		if n < len(room) {
			return c.drained(true)
		}
		in.room()
	}
}

// turnTLS is turn by TLS. What crypto/tls has read and not given out yet, the poller
// does not know of, so it is asked until it would have to wait; it asks the socket
// only if that may have more, see conn. To wait here, and not below crypto/tls, takes
// half of the stack.
func (c *http1Conn) turnTLS(fd uintptr) bool {
	c.begin()
	c.fd = int(fd)
	below := belowTLS(c.rw)
	below.beginTurn(fd)
	defer below.endTurn()
	in := &c.work.in
	for served := false; ; served = true {
		n, err := c.rw.Read(in.b[in.w:])
		if err == errNothing {
			return c.drained(served)
		}
		if n == 0 {
			c.next = nextClose
			return true
		}
		in.w += n
		if c.next = c.requests(true); c.next != nextWait {
			return true
		}
		in.room()
	}
}

// drained ends a turn in which all was read that there is. It reports whether the
// connection is to wait no more.
func (c *http1Conn) drained(served bool) bool {
	if !served {
		c.end()
		return false
	}
	c.next = c.idle()
	return c.next != nextWait
}

// idle makes the connection wait for another request: with its goroutine at first,
// which costs less than to come back without one.
func (c *http1Conn) idle() next {
	c.end()
	soon := min(c.server.awake, c.server.set.idle/2)
	if left := c.readBy.Sub(c.now); left < soon || left > 2*soon {
		c.readBy = c.now.Add(2 * soon)
		if c.tcp.SetReadDeadline(c.readBy) != nil {
			return nextClose
		}
	}
	c.state.Store(stateIdle)
	if !c.server.keep.Load() {
		// The latest answer did not say that it was the last: another request may be here.
		c.wake(c.server)
	}
	return nextWait
}

// stays reports whether a connection whose deadline has passed goes on waiting: it has
// been idle for a while, and not for as long as it may. The wait begins with a look. A
// client that closes its side together with its last request (shutdown(2)) is noticed
// once, by the poller, which tells of something to read and not of what; and to look for
// the end after each request would be a system call for each.
func (c *http1Conn) stays() bool {
	c.waking.Lock() // or wake's deadline could be replaced by this one
	defer c.waking.Unlock()
	until := c.now.Add(c.server.set.idle)
	if c.state.Load() != stateIdle || !time.Now().Before(until) {
		return false
	}
	c.readBy = until
	return c.tcp.SetReadDeadline(until) == nil
}

// awake ends the state idle, in which wake may interfere.
func (c *http1Conn) awake(state int32) {
	if c.state.Swap(state) == stateWoken {
		c.waking.Lock() // wake has done what it does
		c.readBy = time.Time{}
		c.waking.Unlock()
	}
}

// wake makes the connection look whether it is to be closed, if it is idle. It
// is called by other goroutines.
func (c *http1Conn) wake(s *server) {
	if c.server != s {
		return
	}
	c.waking.Lock()
	defer c.waking.Unlock()
	if c.state.CompareAndSwap(stateIdle, stateWoken) {
		_ = c.tcp.SetReadDeadline(time.Unix(1, 0)) // fails only if closed
	}
}

// lastLook looks for a request that has come just as the time was up.
func (c *http1Conn) lastLook() bool {
	if c.state.Load() != stateFresh {
		c.awake(stateReading)
	}
	if c.secure {
		// What has come may be anything. A moment more shows.
		if c.armRead(time.Now(), time.Millisecond) != nil {
			return false
		}
		if c.raw.Read(c.turnFunc) == nil {
			return c.next != nextClose
		}
		state := c.state.Load() // idle: a request has come, and has got its answer
		return state == stateIdle || state == stateWoken
	}
	if c.armRead(time.Now(), c.server.set.header) != nil {
		return false
	}
	c.begin()
	n, err := 0, error(nil)
	in := &c.work.in
	ctl := c.raw.Control(func(fd uintptr) { n, err = readSocket(fd, in.b[in.w:]) })
	if ctl != nil || err != nil || n == 0 {
		return false
	}
	in.w += n
	c.next = nextMore
	return true
}

// underWay is described at clientConn.
func (c *http1Conn) underWay(now, since time.Time) int {
	switch c.state.Load() {
	case stateBusy:
		if since.IsZero() || c.busySince.Load() >= since.UnixNano() {
			return 1
		}
	case stateFresh:
		if now.Sub(c.began) < freshTime {
			return 1
		}
	}
	return 0
}

// cut breaks the connection off. It is called by other goroutines. What the
// exchange waits for ends first, because Close waits for the exchange.
func (c *http1Conn) cut() {
	if ex := c.holding.Load(); ex != nil {
		ex.interrupt()
	}
	c.tcp.Close()
}

// outside goes on with a request that turn must not carry out, because more of
// it has to be read, and with all that follow at once.
func (c *http1Conn) outside() next {
	began := time.Now()
	c.headBegan = began
	if c.state.Load() == stateFresh && !c.secure {
		began = c.began
	}
	for {
		switch n := c.requests(false); n {
		case nextMore:
			if c.headBegan.IsZero() { // it is that of another request
				began = time.Now()
				c.headBegan = began
			}
			if !c.readHead(began) {
				return nextClose
			}
		case nextWait:
			return c.idle()
		default:
			return n
		}
	}
}

// read reads what is there, and waits while there is nothing. It must not be
// called within turn.
func (c *http1Conn) read(p []byte) (int, error) {
	if c.secure {
		return c.rw.Read(p)
	}
	return readConn(c.raw, p)
}

// write writes all of p, with flags for writeSocket, which TLS does not heed.
func (c *http1Conn) write(p []byte, flags int) (int, error) {
	if c.secure {
		return c.rw.Write(p)
	}
	return writeConnFlags(c.raw, p, flags)
}

// gone reports whether the client has closed its side.
func (c *http1Conn) gone() bool {
	hup := false
	err := c.raw.Control(func(fd uintptr) { hup = hungUp(fd) })
	return err != nil || hup
}

// armRead gives the client time d, or a little more, to send something.
func (c *http1Conn) armRead(now time.Time, d time.Duration) error {
	if left := c.readBy.Sub(now); left >= d && left <= d+d/4 {
		return nil
	}
	c.readBy = now.Add(d + d/4)
	return c.tcp.SetReadDeadline(c.readBy)
}

// armExactly gives the client time d to send something.
func (c *http1Conn) armExactly(d time.Duration) error {
	c.readBy = time.Now().Add(d)
	return c.tcp.SetReadDeadline(c.readBy)
}

// armWrite gives the client time to take something.
func (c *http1Conn) armWrite(now time.Time) error {
	c.waited = true
	if c.secure {
		return belowTLS(c.rw).begin(now)
	}
	d := stallOf(c.server.set.idle)
	if c.writeBy.Sub(now) >= d {
		return nil
	}
	c.writeBy = now.Add(d + d/4)
	return c.tcp.SetWriteDeadline(c.writeBy)
}

// close closes the connection so that the client sees how it ended.
func (c *http1Conn) close() {
	c.state.Store(stateReading)
	if c.preface != nil {
		c.end()
		return
	}
	switch {
	case c.broken:
		// An orderly close could be the orderly end of an answer.
		_ = c.tcp.ResetOnClose() // fails only if closed
		c.tcp.Close()
	case c.lingers:
		c.linger()
	}
	c.rw.Close()
	c.end()
}

// lingerTime bounds how long what nobody wants is read.
const lingerTime = 5 * time.Second

// linger reads what the client still sends, so that the answer is not lost with
// a reset before the client has got it (RFC 9112, section 9.6).
func (c *http1Conn) linger() {
	half, ok := c.rw.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || c.armExactly(lingerTime) != nil {
		return
	}
	_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c.tcp}, c.work.in.b)
}
