package l7

import (
	"crypto/tls"
	"errors"
	"io"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"appliance/internal/listen"
)

// http2Conn is a connection to a client that speaks HTTP/2. Its goroutine, the
// reader, reads frames and begins streams; each stream has a goroutine of its own
// for its exchange. What is sent waits in the queue until one of them writes it.
//
// While it is idle it holds no buffer: what reading needs is http2Work.
type http2Conn struct {
	server *server
	tcp    *listen.Conn
	raw    syscall.RawConn
	secure bool
	began  time.Time

	// The reader's own.
	peer     *peer
	preface  []byte     // what has been read already; and then is behind it
	work     *http2Work // nil while nothing has been read that is not used
	one      [1]byte    // the first byte that comes after a wait, by TLS
	turnFunc func(fd uintptr) bool
	turnErr  error
	decoder  *hpack.Decoder
	head     http2Head      // of the block that is being read
	starting []*http2Stream // have a whole head, and may get more before they begin
	since    time.Time      // when the frame or block began that is not whole
	settled  bool           // the client has sent its settings
	kept     bool           // connections were kept when this one came; else it is served once

	// tasks are the goroutines of the streams and of the queue.
	tasks sync.WaitGroup

	frameQueue // its mu guards what follows

	streams  []*http2Stream // that are open, or whose exchange has not ended
	lastID   uint32         // the highest of the client's streams
	resets   []uint32       // streams that we have reset, the latest resetsRemembered
	resetsAt int            // where the next one goes when there are so many
	nuisance nuisance
	idleFrom time.Time // when the last exchange ended
	readBy   time.Time // the deadline for reading, as the poller has it
	leaving  time.Time // when the client was told that the connection will end; else zero
	pinged   bool      // and has not answered yet
	lastWord bool      // GOAWAY was sent with what is the last stream

	window   int64 // what may be sent on all streams together
	initial  int64 // the window of a new stream
	credit   int   // frames that the data we have sent is a reason for
	taken    int64 // of bodies, and not yet told to the client
	received int64 // what may yet be received on all streams together

	room answerRoom // for the answers of servers by HTTP/2
}

// newHTTP2Conn begins with what has been read already.
func newHTTP2Conn(s *server, tcp *listen.Conn, t *tls.Conn, p *peer, read []byte) *http2Conn {
	raw, _ := tcp.SyscallConn() // fails only without a connection
	c := &http2Conn{server: s, tcp: tcp, raw: raw, peer: p, preface: read, began: time.Now(), kept: s.keep.Load()}
	below := &conn{Conn: tcp, raw: raw, stall: stallOf(s.set.idle)}
	c.conn, c.rw, c.limit, c.frameQueue.tasks = c, below, below, &c.tasks
	if t != nil {
		c.rw, c.limit, c.secure = t, belowTLS(t), true
	}
	c.turnFunc = c.turn
	c.idleFrom = c.began
	limits := s.set.limits
	c.nuisance = nuisance{left: float64(limits.nuisance), most: float64(limits.nuisance), at: c.began}
	c.window, c.initial = 65535, 65535 // RFC 9113, section 6.9.2
	c.received = windowsPerConn * limits.window
	c.room.init()
	c.head.init(s.set.maxHeader + headSlack)
	c.decoder = hpack.NewDecoder(4096, c.head.add)
	c.decoder.SetMaxStringLength(int(s.set.maxHeader + headSlack))
	return c
}

// run serves the connection and closes it.
func (c *http2Conn) run() (parked bool) {
	defer c.close()
	c.hello()
	err := c.readPreface()
	for err == nil {
		if err = c.frames(); err == nil {
			err = c.fill()
		}
	}
	c.giveUp(err)
	return false
}

// hello sends our settings, which may come first (RFC 9113, section 3.4).
func (c *http2Conn) hello() {
	set := &c.server.set
	c.mu.Lock()
	out := c.queue()
	out.b = appendSettings(out.b,
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(set.limits.streams)},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(set.limits.window)},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: uint32(set.maxHeader)},
		http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1},
		http2.Setting{ID: http2.SettingNoRFC7540Priorities, Val: 1})
	out.b = appendWindowUpdate(out.b, 0, int(windowsPerConn*set.limits.window-65535))
	c.unlockAndFlush()
}

// frames handles the frames that are whole, and begins the streams that came of
// it.
func (c *http2Conn) frames() error {
	for c.work != nil && c.work.whole() {
		f, err := c.readFrame()
		if err == nil {
			err = c.frame(f)
		}
		if se, ok := err.(http2.StreamError); ok {
			err = c.refuseStream(se.StreamID, se.Code, costReset)
		}
		if err != nil {
			return err
		}
		c.since = time.Time{}
		if c.head.stream != 0 {
			c.since = c.head.began
		}
	}
	c.start()
	return nil
}

// start begins the streams whose heads have come.
func (c *http2Conn) start() {
	for i, st := range c.starting {
		c.starting[i] = nil
		st.begin()
	}
	c.starting = c.starting[:0]
}

// Why a connection ends without an error.
var (
	errIdle = errors.New("the connection was idle for too long")
	errLeft = errors.New("the client was asked to leave")
	errHead = errors.New("the head did not come in time")
)

// wake is described at clientConn.
func (c *http2Conn) wake(s *server) {
	if c.server == s {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.nudge()
	}
}

// nudge makes the reader look at what is wanted of it. c.mu is held.
func (c *http2Conn) nudge() {
	c.readBy = time.Time{}
	_ = c.tcp.SetReadDeadline(time.Unix(1, 0)) // fails only if closed
}

// cut is described at clientConn.
func (c *http2Conn) cut() { c.fail() }

// fail breaks the connection off: nothing goes through any more.
func (c *http2Conn) fail() {
	c.mu.Lock()
	c.abandon()
	c.mu.Unlock()
	c.tcp.Close()
}

// writeFailed is described at frameConn.
func (c *http2Conn) writeFailed(error) { c.fail() }

// abandon gives all streams up. c.mu is held.
func (c *http2Conn) abandon() {
	c.broken = true
	for _, st := range c.streams {
		st.abandon()
	}
}

// underWay is described at clientConn.
func (c *http2Conn) underWay(now, since time.Time) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, st := range c.streams {
		if since.IsZero() || !st.began.Before(since) {
			n++
		}
	}
	switch {
	case n > 0:
	case len(c.streams) == 0 && (c.out != nil || c.flushing) && !c.broken && c.lastID > 0:
		n = 1
	case c.lastID == 0 && now.Sub(c.began) < freshTime:
		n = 1
	}
	return n
}

// giveUp ends the connection for the reason err: the client is told if there is
// anything to say.
func (c *http2Conn) giveUp(err error) {
	code := http2.ErrCodeNo
	var ce http2.ConnectionError
	switch {
	case errors.As(err, &ce):
		code = http2.ErrCode(ce)
	case err == errIdle, err == errLeft, err == errHead:
	default:
		c.fail() // the client has closed, or broken off
		return
	}
	if code != http2.ErrCodeNo || err == errHead {
		c.server.door.service.pipeline.log.Debug().Str("client", c.peer.text).Err(err).Msg("HTTP/2 connection given up")
	}
	c.mu.Lock()
	if c.broken {
		c.mu.Unlock()
		return
	}
	if err != errLeft {
		out := c.queue()
		out.b = appendGoAway(out.b, c.lastID, code)
	}
	for _, st := range c.streams { // none, unless the client has made a mistake
		st.abandon()
	}
	c.unlockAndFlush()
}

// close closes the connection so that the client sees how it ended, and waits for
// all that belongs to it.
func (c *http2Conn) close() {
	for _, st := range c.starting {
		st.drop()
	}
	c.tasks.Wait()
	c.mu.Lock()
	orderly := !c.broken
	c.broken = true
	c.mu.Unlock()
	if orderly {
		c.linger()
	}
	c.rw.Close()
	if c.work != nil {
		c.work.in.r, c.work.in.w = 0, 0
		c.head.stream = 0
		putInbox(c.work.in)
		c.work = nil // the framer may be in the midst of something
	}
}

// linger reads what the client still sends, so that what it was told last is not
// lost with a reset.
func (c *http2Conn) linger() {
	half, ok := c.rw.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || c.tcp.SetReadDeadline(time.Now().Add(lingerError)) != nil {
		return
	}
	in := inboxes.Get().(*inbox)
	defer putInbox(in)
	_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c.tcp}, in.b)
}
