package l7

import (
	"io"
	"net/http"
	"time"

	"golang.org/x/net/http2"
)

// http2Body is the body of a request by HTTP/2: what the client has sent and
// nobody has read yet, which is no more than the stream's window. It is read by
// the goroutine of an upload.
type http2Body struct {
	st     *http2Stream
	length int64 // -1: it ends where it ends
	began  time.Time
	wake   chan struct{}
	timer  *time.Timer

	// Guarded by conn.mu.
	buf     []byte
	r       int   // what of buf has been read
	got     int64 // of the body, in all
	room    int64 // what the client may still send
	read    int64 // and may send anew, but has not been told of
	heard   time.Time
	lines   fields // the trailers
	waiting bool
	stopped bool
}

// begin makes ready for a body of that length, -1: unknown.
func (b *http2Body) begin(st *http2Stream, length int64) {
	b.st, b.length, b.began, b.heard = st, length, time.Time{}, time.Time{}
	b.buf, b.r, b.got, b.read, b.room = b.buf[:0], 0, 0, 0, st.conn.server.set.limits.window
	b.lines, b.waiting, b.stopped = b.lines[:0], false, false
	select {
	case <-b.wake:
	default:
	}
}

// end frees what is too large to keep.
func (b *http2Body) end() {
	if cap(b.buf) > workMost {
		b.buf = nil
	}
}

// receive takes what has come, in a frame of that size. c.mu is held. The code says
// what is wrong with it.
func (b *http2Body) receive(p []byte, size int64, end bool) http2.ErrCode {
	b.got += int64(len(p))
	if b.room -= size; b.room < 0 {
		return http2.ErrCodeFlowControl
	}
	if b.length >= 0 && !b.st.tunnel && (b.got > b.length || end && b.got < b.length) {
		return http2.ErrCodeProtocol // RFC 9113, section 8.1.1
	}
	b.heard = time.Time{}
	b.st.ended = end
	if b.stopped {
		b.st.conn.take(int64(len(p)))
		b.take(int64(len(p)))
		return http2.ErrCodeNo
	}
	if b.r > 0 && len(b.buf)+len(p) > cap(b.buf) {
		b.buf = b.buf[:copy(b.buf, b.buf[b.r:])]
		b.r = 0
	}
	b.buf = append(b.buf, p...)
	b.wakeUp()
	return http2.ErrCodeNo
}

// take gives n bytes of the stream's window back. c.mu is held.
func (b *http2Body) take(n int64) {
	b.read += n
	if !b.st.ended && !b.st.gone && b.read >= b.st.conn.server.set.limits.window/4 {
		out := b.st.conn.queue()
		out.b = appendWindowUpdate(out.b, b.st.id, int(b.read))
		b.room += b.read
		b.read = 0
	}
}

// wakeUp ends a wait for more. c.mu is held.
func (b *http2Body) wakeUp() {
	if b.waiting {
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
}

// Read is described at requestBody. A window is opened again by what was read
// before.
func (b *http2Body) Read(p []byte) (int, error) {
	st := b.st
	c := st.conn
	c.mu.Lock()
	for {
		switch {
		case b.stopped:
			c.mu.Unlock()
			return 0, &bodyError{errStopped}
		case b.r < len(b.buf):
			n := copy(p, b.buf[b.r:])
			if b.r += n; b.r == len(b.buf) {
				b.buf, b.r = b.buf[:0], 0
				if st.tunnel {
					b.buf = nil // it may be idle for long
				}
			}
			c.take(int64(n))
			b.take(int64(n))
			var err error
			if st.ended && b.r == len(b.buf) {
				err = io.EOF
			}
			c.unlockAndFlush()
			return n, err
		case st.ended:
			c.mu.Unlock()
			return 0, io.EOF
		case st.gone || c.broken:
			c.mu.Unlock()
			return 0, &bodyError{io.ErrUnexpectedEOF}
		}
		if err := b.await(); err != nil {
			return 0, &bodyError{err}
		}
	}
}

// await waits for more. c.mu is held, but not while it waits, and not if there is
// an error.
func (b *http2Body) await() error {
	c := b.st.conn
	now := time.Now()
	if b.began.IsZero() {
		b.began = now
	}
	got, patience := b.got, c.server.set.idle
	if !b.heard.IsZero() { // a frame is on its way, slowly
		got += frameMost
		patience -= now.Sub(b.heard)
	}
	if !b.st.tunnel && b.st.ex.tooSlow(b.length, got, now.Sub(b.began)) {
		c.mu.Unlock()
		return errSlowBody
	}
	b.waiting = true
	c.mu.Unlock()
	if b.st.tunnel {
		<-b.wake
		c.mu.Lock()
		b.waiting = false
		return nil
	}
	if b.timer == nil {
		b.timer = time.NewTimer(patience)
	} else {
		b.timer.Reset(patience)
	}
	quiet := false
	select {
	case <-b.wake:
		b.timer.Stop()
	case <-b.timer.C:
		quiet = true
	}
	c.mu.Lock()
	b.waiting = false
	if quiet && time.Since(b.heard) >= c.server.set.idle {
		c.mu.Unlock()
		return errQuietBody
	}
	return nil
}

var errQuietBody error = &timeoutError{"the body does not come"}

// invite is described at requestBody.
func (b *http2Body) invite() error { return b.st.answer.WriteHead(http.StatusContinue, nil) }

// trailers is described at requestBody.
func (b *http2Body) trailers() fields {
	b.st.conn.mu.Lock()
	defer b.st.conn.mu.Unlock()
	return b.lines
}

// stop is described at requestBody.
func (b *http2Body) stop() {
	b.st.conn.mu.Lock()
	defer b.st.conn.mu.Unlock()
	b.stopped = true
	b.wakeUp()
}
