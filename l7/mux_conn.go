package l7

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"appliance/internal/pool"
)

// muxConn is a connection to a server by HTTP/2, which many exchanges use at the
// same time. It has one goroutine, the reader, that takes apart what comes and
// wakes whoever waits for it. What is sent waits in the queue until the goroutine of
// one of the exchanges writes it, or, if the reader has to say something, one that
// is started for that.
type muxConn struct {
	up  *upstream
	to  destination
	tcp streamConn

	// The reader's own.
	framer  *http2.Framer
	decoder *hpack.Decoder
	head    muxHead // of the block that is being read

	frameQueue // its mu guards what follows

	streams  map[uint32]*muxStream
	next     uint32 // the number of the next stream
	most     int    // how many streams the server wants at a time
	initial  int64  // the window of a new stream
	window   int64  // what may be sent on all streams together
	received int64  // and has not been given back to the server
	leaving  bool   // there are to be no more streams
	connects bool   // the server takes extended CONNECT
	err      error  // why nothing can be sent or read any more; then the queue is broken
	idleFrom time.Time
	heard    time.Time // when something came last
	pinged   time.Time // when it was asked for a sign of life; zero: it was not, or has answered
	watch    *time.Timer
}

// maxStreams is what a server is taken to allow that names no bound, and as many as
// there are in any case.
const maxStreams = 1000

func newMuxConn(u *upstream, to destination, tcp streamConn, t *tls.Conn) *muxConn {
	c := &muxConn{
		up: u, to: to, tcp: tcp, streams: make(map[uint32]*muxStream),
		next: 1, most: maxStreams, initial: 65535, window: 65535, // RFC 9113, section 6.9.2
	}
	c.conn, c.rw, c.limit, c.tasks = c, tcp, &writeLimit{on: tcp, patience: u.settings.response}, &u.tasks
	if t != nil {
		c.rw = t
	}
	c.framer = http2.NewFramer(nil, bufio.NewReaderSize(c.rw, 32<<10))
	c.framer.SetMaxReadFrameSize(frameMost)
	c.framer.SetReuseFrames()
	c.head.init(maxAnswerHead)
	c.decoder = hpack.NewDecoder(4096, c.head.add)
	c.decoder.SetMaxStringLength(maxAnswerHead)
	return c
}

// greet sends our preface and waits for the server's (RFC 9113, section 3.4).
func (c *muxConn) greet(until time.Time) error {
	b := []byte(http2.ClientPreface)
	b = appendSettings(b,
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: muxLeast},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxAnswerHead})
	b = appendWindowUpdate(b, 0, muxConnWindow-65535)
	if err := c.tcp.SetDeadline(until); err != nil {
		return err
	}
	if _, err := c.rw.Write(b); err != nil {
		return err
	}
	f, err := c.framer.ReadFrame()
	switch {
	case isTimeout(err):
		return fmt.Errorf("the server does not speak HTTP/2: it did not say so in time: %w", err)
	case isAlert(err):
		return inTLSWords(err)
	case err == io.EOF:
		return errors.New("the server does not speak HTTP/2: it has hung up")
	}
	settings, ok := f.(*http2.SettingsFrame)
	if !ok || settings.IsAck() {
		return errors.New("the server does not speak HTTP/2: it began with something else")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if code := c.setUp(settings); code != http2.ErrCodeNo {
		return fmt.Errorf("the server's settings are impossible: %s", code)
	}
	c.heard = time.Now()
	c.idleFrom = c.heard
	return c.tcp.SetDeadline(time.Time{})
}

// open begins a stream, if the connection has room for one more.
func (c *muxConn) open(st *muxStream) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.leaving || len(c.streams) >= c.most || c.next > 1<<31-1 {
		return false
	}
	st.conn, st.id, st.window = c, c.next, c.initial
	c.next += 2
	c.streams[st.id] = st
	ex := st.ex
	if len(c.streams) == 1 {
		c.heard = time.Now() // only from now on it has to say something
	}
	out := c.queue()
	st.connects = st.connect != nil && c.connects
	if st.connects {
		out.b = appendHead(out.b, st.id, st.connect, false)
		return true
	}
	out.b = appendHead(out.b, st.id, ex.out.wire, ex.body == nil)
	st.sent = ex.body == nil
	st.rest = ex.whole != nil
	if n := int64(len(ex.whole)); st.rest && n <= min(st.window, c.window, frameMost) {
		out.b = appendData(out.b, st.id, ex.whole, true)
		st.window -= n
		c.window -= n
		st.sent, st.rest = true, false
	}
	return true
}

// alive reports whether the connection has not failed yet.
func (c *muxConn) alive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err == nil
}

// remove ends a stream. c.mu is held.
func (c *muxConn) remove(st *muxStream) {
	if c.streams[st.id] != st {
		return
	}
	delete(c.streams, st.id)
	if len(c.streams) > 0 {
		return
	}
	c.idleFrom = time.Now()
	if c.leaving {
		c.fail(errUnprocessed)
	}
}

// retire has the connection closed when its last stream has ended.
func (c *muxConn) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving = true
	if len(c.streams) == 0 {
		c.fail(errUnprocessed)
	}
}

// reset breaks off what is under way with a server.
func (c *muxConn) reset(server *pool.Server) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, st := range c.streams {
		if st.server == server {
			st.fail(net.ErrClosed)
		}
	}
}

// fail ends the connection and all that is under way on it. c.mu is held.
func (c *muxConn) fail(err error) {
	if c.err != nil {
		return
	}
	c.err, c.leaving, c.broken = err, true, true
	for _, st := range c.streams {
		st.fail(err)
	}
	if c.watch != nil {
		c.watch.Stop()
	}
	c.tcp.Close() // the reader ends, and does the rest
}

// startWatch begins to look after the connection now and then.
func (c *muxConn) startWatch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watch = time.AfterFunc(c.watchEvery(), c.look)
}

// watchEvery is how long a server that has something to do may be silent before it
// is asked for a sign of life, and then how long it may take for that. So one that
// is gone is noticed in less than the time for an answer.
func (c *muxConn) watchEvery() time.Duration { return min(c.up.settings.response/4, keepIdle) }

// look closes the connection if it has been idle for long, or if the server is
// dead.
func (c *muxConn) look() {
	c.mu.Lock()
	now, every := time.Now(), c.watchEvery()
	switch {
	case c.err != nil:
		c.mu.Unlock()
		return
	case len(c.streams) == 0 && now.Sub(c.idleFrom) >= keepIdle:
		c.leaving = true
		out := c.queue()
		out.b = appendGoAway(out.b, 0, http2.ErrCodeNo)
		c.unlockAndFlush()
		c.mu.Lock()
		c.fail(errUnprocessed)
		c.mu.Unlock()
		return
	case !c.pinged.IsZero() && now.Sub(c.pinged) >= every:
		c.fail(errSilent)
		c.mu.Unlock()
		return
	case len(c.streams) > 0 && c.pinged.IsZero() && now.Sub(c.heard) >= every:
		c.pinged = now
		out := c.queue()
		out.b = appendPing(out.b, false, [8]byte{'a', 'l', 'i', 'v', 'e'})
	}
	c.watch.Reset(max(every/2, time.Millisecond))
	c.unlockAndFlush()
}

// wakeWriters wakes those that wait to send more. c.mu is held.
func (c *muxConn) wakeWriters() {
	for _, st := range c.streams {
		st.roomForMore()
	}
}

// writeFailed is described at frameConn.
func (c *muxConn) writeFailed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(fmt.Errorf("write: %w", err))
}
