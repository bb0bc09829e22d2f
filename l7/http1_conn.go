package l7

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"appliance/l7/accesslog"
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
// http1Work.
type http1Conn struct {
	server *server
	tcp    *net.TCPConn
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
	waited  bool       // for the client to take what there is of an answer, perhaps
	one     [1]byte    // the first byte of a request by TLS
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

const (
	workSize = 4 << 10  // of the buffers to begin with
	workMost = 16 << 10 // of the buffers that are kept
)

var works = sync.Pool{New: func() any {
	return &http1Work{in: inbox{b: make([]byte, workSize)}, answer: http1Answer{out: make([]byte, 0, workSize)}}
}}

func newHTTP1Conn(s *server, tcp *net.TCPConn, t *tls.Conn, p *peer) *http1Conn {
	raw, _ := tcp.SyscallConn() // fails only without a connection
	c := &http1Conn{server: s, tcp: tcp, raw: raw, rw: tcp, peer: p, fd: -1}
	if t != nil {
		c.rw, c.secure = t, true
	}
	c.began = time.Now()
	c.now = c.began
	c.turnFunc = c.turn
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

// run serves the connection and closes it.
func (c *http1Conn) run() {
	defer c.close()
	if c.armRead(c.began, c.server.set.header) != nil {
		return
	}
	for {
		var err error
		if c.secure {
			err = c.first()
		} else {
			err = c.raw.Read(c.turnFunc)
			c.fd = -1
		}
		switch {
		case err == nil && c.next == nextWait:
			c.next = c.idle()
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			// It was woken, or its time is up.
			if !c.lastLook() {
				return
			}
		default:
			return
		}
		if c.next == nextMore || c.next == nextRequest {
			c.next = c.outside()
		}
		if c.next == nextHTTP2 {
			in := &c.work.in
			c.preface = append(c.preface, in.b[in.r:in.w]...)
			return
		}
		if c.next == nextClose {
			return
		}
	}
}

// first waits for the first byte of a request by TLS.
func (c *http1Conn) first() error {
	n, err := c.rw.Read(c.one[:])
	if n == 0 {
		return err
	}
	c.begin()
	c.work.in.b[0], c.work.in.w = c.one[0], 1
	c.next = nextMore
	return nil
}

// turn is called by RawConn.Read when there may be something to read. It carries
// out all requests that are complete and need nothing more from the client. As
// long as it does not return true, nothing that the poller notices is lost, so
// that an idle connection costs no read(2) in vain and no buffer.
func (c *http1Conn) turn(fd uintptr) bool {
	c.begin()
	c.fd = int(fd)
	in := &c.work.in
	n, err := readSocket(fd, in.b[in.w:])
	if err == syscall.EAGAIN {
		c.end()
		return false
	}
	if err != nil || n == 0 {
		c.next = nextClose
		return true
	}
	in.w += n
	if c.next = c.requests(true); c.next == nextWait {
		c.next = c.idle()
	}
	return c.next != nextWait
}

// idle makes the connection wait for another request.
func (c *http1Conn) idle() next {
	c.end()
	if c.armRead(c.now, c.server.set.idle) != nil {
		return nextClose
	}
	c.state.Store(stateIdle)
	if !c.server.keep.Load() {
		return nextClose
	}
	return nextWait
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
		if c.armRead(time.Now(), time.Millisecond) != nil || c.first() != nil {
			return false
		}
		return true
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
			if !c.readHead(began) {
				return nextClose
			}
		case nextWait:
			return c.idle()
		default:
			return n
		}
		if c.work.in.r == c.work.in.w {
			began = time.Now()
			c.headBegan = began
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

// write writes all of p.
func (c *http1Conn) write(p []byte) (int, error) {
	if c.secure {
		return c.rw.Write(p)
	}
	return writeConn(c.raw, p)
}

// readHead reads more of a head, for which the client has time from began on.
func (c *http1Conn) readHead(began time.Time) bool {
	in := &c.work.in
	if int64(in.w-in.r) >= c.server.set.maxHeader+headSlack {
		return c.refuse(&http1.Error{Status: http.StatusRequestHeaderFieldsTooLarge})
	}
	if c.state.Load() != stateFresh {
		c.awake(stateReading)
	}
	c.now = time.Now()
	in.room()
	left := c.server.set.header - time.Since(began)
	if left <= 0 || c.armExactly(left) != nil {
		return c.refuse(errSlowHead)
	}
	n, err := c.read(in.b[in.w:])
	in.w += n
	if n > 0 {
		return true
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return c.refuse(errSlowHead)
	}
	c.noRequest(accesslog.Record{End: accesslog.ClientGone})
	return false
}

// noRequest counts and logs what came and has not become a request.
func (c *http1Conn) noRequest(r accesslog.Record) {
	s := c.server.door.service
	s.pipeline.count.noRequests.Add(1)
	r.Start = firstLine(c.work.in.b[c.work.in.r:c.work.in.w])
	began := c.headBegan
	if began.IsZero() {
		began = time.Now()
	}
	s.logNoRequest(c.peer, began, r)
}

// maxStart is what is shown of the first line of what is no request, in bytes.
const maxStart = 256

// firstLine returns the first line of what came, which is not kept.
func firstLine(b []byte) string {
	b = b[:min(len(b), maxStart)]
	if i := bytes.IndexAny(b, "\r\n"); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

var errSlowHead = &http1.Error{Status: http.StatusRequestTimeout, Reason: "the head did not come in time"}

// headSlack is what a head may be longer than configured.
const headSlack = 4 << 10

// requests carries out the requests that are complete. Inside of turn only those
// for which nothing more has to be read.
func (c *http1Conn) requests(inside bool) next {
	for {
		w := c.work
		in := &w.in
		if in.r == in.w {
			return nextWait
		}
		if w.head == 0 {
			if in.b[in.r] == '\r' && in.r+1 < in.w && in.b[in.r+1] == '\n' {
				in.r += 2 // RFC 9112, section 2.2
				continue
			}
			n := http1.End(in.b[in.r:in.w], w.seen)
			if n == 0 {
				w.seen = in.w - in.r // or who sends byte by byte would have us search all for each
				return nextMore
			}
			w.seen = 0
			if c.server.set.http2 && !c.secure && c.state.Load() == stateFresh && beginsHTTP2(in.b[in.r:in.w]) {
				return nextHTTP2
			}
			if err := w.req.Parse(in.b[in.r : in.r+n]); err != nil {
				c.refuse(err)
				return nextClose
			}
			if int64(n) > c.server.set.maxHeader+headSlack {
				c.refuse(&http1.Error{Status: http.StatusRequestHeaderFieldsTooLarge})
				return nextClose
			}
			w.head = n
		}
		if inside && !w.simple() {
			return nextRequest
		}
		if !c.exchange() {
			return nextClose
		}
	}
}

// simple reports whether nothing more has to be read for the request.
func (w *http1Work) simple() bool {
	have := int64(w.in.w - w.in.r - w.head)
	return w.req.Length >= 0 && w.req.Length <= have && !fields(w.req.Fields).has("Upgrade")
}

// exchange carries out the request at the beginning of the buffer and removes it
// from there. It reports whether another one may follow.
func (c *http1Conn) exchange() bool {
	w := c.work
	in, req, ex := &w.in, &w.req, &w.ex
	in.r += w.head
	w.head = 0

	ex.reset()
	ex.method, ex.target, ex.scheme, ex.host = req.Method, req.Target, "http", req.Host
	if c.secure {
		ex.scheme = "https"
	}
	ex.fields, ex.mayLackHost, ex.peer = req.Fields, req.Minor == 0, c.peer
	ex.answer, ex.client = &w.answer, c
	ex.trail.began, ex.trail.protocol = c.headBegan, "HTTP/1.1"
	if req.Minor == 0 {
		ex.trail.protocol = "HTTP/1.0"
	}
	c.headBegan = time.Time{}
	w.answer.begin(req)
	switch have := int64(in.w - in.r); {
	case req.Length == 0:
		w.body.begin(0, true)
		if req.Minor > 0 && fields(req.Fields).has("Upgrade") {
			ex.upgrade = c.upgrade
		}
	case req.Length > 0 && req.Length <= have:
		ex.body, ex.length = &w.body, req.Length
		ex.whole = in.b[in.r : in.r+int(req.Length)]
		in.r += int(req.Length)
		w.body.begin(0, true)
	default:
		ex.body, ex.length, ex.expect = &w.body, req.Length, req.Expect
		w.body.begin(req.Length, false)
	}

	ex.now = time.Now()
	c.busySince.Store(ex.now.UnixNano())
	c.awake(stateBusy)
	c.holding.Store(ex)
	d := c.server.door
	err := d.service.pipeline.serve(d.ctx, d.service.state.Load(), ex)
	c.holding.Store(nil)
	c.now = ex.now
	if c.waited {
		c.now, c.waited = time.Now(), false // or the time for the next request could be over already
	}
	c.readBy = w.body.readBy(c.readBy)
	if err != nil || !w.answer.finished {
		c.broken = true
		return false
	}
	if ex.body != nil && !w.body.whole() {
		c.lingers = true
		return false
	}
	if w.answer.close {
		c.lingers = in.r < in.w
		return false
	}
	w.body.giveBack(in)
	return true
}

// refuse answers what is no request, and reports false.
func (c *http1Conn) refuse(err error) bool {
	var e *http1.Error
	if !errors.As(err, &e) {
		return false
	}
	c.server.door.service.pipeline.log.Debug().Str("client", c.peer.text).Int("status", e.Status).Err(e).Msg("no request")
	text := ownText(e.Status)
	c.noRequest(accesslog.Record{Status: e.Status, BytesOut: int64(len(text)), End: ownEnd(e.Status), Problem: e.Error()})
	w := c.work
	w.req = http1.Request{Minor: 1, Close: true, Fields: w.req.Fields[:0]}
	w.answer.begin(&w.req)
	if w.answer.WriteHead(e.Status, ownHead(&page{text, plainText})) != nil {
		return false
	}
	if _, err := w.answer.Write([]byte(text)); err != nil || w.answer.Finish(nil) != nil {
		return false
	}
	c.lingers = true
	return false
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
		return nil // conn has its own
	}
	d := c.server.set.idle
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
		_ = c.tcp.SetLinger(0) // fails only if closed
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

// upgrade sends the answer 101 and hands the connection over.
func (c *http1Conn) upgrade(head fields) (io.ReadWriteCloser, error) {
	w := c.work
	if err := w.answer.switchTo(head); err != nil {
		return nil, err
	}
	if err := c.tcp.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	early := append([]byte(nil), w.in.b[w.in.r:w.in.w]...)
	w.in.r = w.in.w
	return &clientStream{c, early}, nil
}

// clientStream is the connection of an upgraded exchange.
type clientStream struct {
	conn  *http1Conn
	early []byte // what was read behind the head
}

func (s *clientStream) Read(p []byte) (int, error) {
	if len(s.early) > 0 {
		n := copy(p, s.early)
		s.early = s.early[n:]
		return n, nil
	}
	return s.conn.read(p)
}

// Write fails if the client takes nothing for the time that it has.
func (s *clientStream) Write(p []byte) (int, error) {
	if err := s.conn.armWrite(time.Now()); err != nil {
		return 0, err
	}
	return s.conn.write(p)
}

// CloseWrite tells the client that nothing more comes.
func (s *clientStream) CloseWrite() error {
	return s.conn.rw.(interface{ CloseWrite() error }).CloseWrite()
}

func (s *clientStream) Close() error { return s.conn.rw.Close() }
