package l7

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The states of an upload.
const (
	uploadNone    = iota
	uploadRunning // the body is on its way
	uploadLast    // all of it has come from the client
	uploadSent    // and is on its way to the server
	uploadFailed
	uploadStopped // nobody wants the rest
)

// upload carries a request's body to the server while the answer is awaited, on
// a goroutine that has ended when finish returns.
type upload struct {
	state atomic.Int32
	until atomic.Int64 // when it ended, in nanoseconds of Unix time
	task  sync.WaitGroup
	to    uploadTarget // changed by the exchange alone, as replay allows it
	plain *serverConn  // the same, if that is a connection without TLS

	replay   replay
	chunked  bool
	trailers fields // once all has come
	vec      [4][]byte
	size     [20]byte
	end      []byte
}

// uploadTarget is where an upload goes: a connection to a server, or a stream of
// one.
type uploadTarget interface {
	// sendBody sends a part of the body, which may be empty. The last one ends
	// the body, with the upload's trailers. The error is errUnprocessed if nobody
	// will look at any of it.
	sendBody(u *upload, p []byte, last bool) error
	// breakOff makes whoever waits for the answer wait in vain.
	breakOff()
}

// reset makes ready for another request, unless the body of this one is to be
// moved.
func (u *upload) reset() {
	if u.replay.moving {
		return
	}
	u.state.Store(uploadNone)
	u.until.Store(0)
}

// start begins to carry the body of ex to where it goes.
func (u *upload) start(to uploadTarget, ex *exchange) {
	u.to, u.chunked, u.trailers = to, ex.length < 0, nil
	_, mux := to.(*muxStream)
	if c, ok := to.(*serverConn); ok && c.tls == nil {
		u.plain = c
	} else {
		u.plain = nil
	}
	u.replay.begin(mux)
	if u.chunked {
		ex.talks.Store(mux && isGRPC(ex)) // by HTTP/1 there is none, whatever the client says
	}
	u.state.Store(uploadRunning)
	u.task.Add(1)
	go u.run(ex)
}

// started reports whether there is an upload.
func (u *upload) started() bool { return u.state.Load() != uploadNone }

// ended returns when the upload ended, and whether it is still running.
func (u *upload) ended() (at time.Time, running bool) {
	if s := u.state.Load(); s == uploadRunning || s == uploadLast {
		return time.Time{}, true
	}
	if ns := u.until.Load(); ns != 0 {
		return time.Unix(0, ns), false
	}
	return time.Time{}, false
}

// settled reports whether finish returns at once.
func (u *upload) settled() bool {
	s := u.state.Load()
	return s == uploadNone || s == uploadSent || s == uploadFailed
}

// finish waits for the upload's end, which it brings about if the client has not
// sent all yet, and reports whether the server got all.
func (u *upload) finish(ex *exchange) bool {
	if u.state.Load() == uploadNone {
		return true
	}
	if u.state.CompareAndSwap(uploadRunning, uploadStopped) {
		u.to.breakOff()
		ex.body.stop()
	}
	u.replay.stop()
	u.task.Wait()
	u.replay.free()
	return u.state.Load() == uploadSent
}

func (u *upload) run(ex *exchange) {
	defer u.task.Done()
	err := u.carry(ex)
	u.until.Store(time.Now().UnixNano())
	var be *bodyError
	switch {
	case err == nil:
		u.state.CompareAndSwap(uploadLast, uploadSent)
	case errors.As(err, &be):
		if u.state.CompareAndSwap(uploadRunning, uploadFailed) {
			ex.failed.Store(be)
			u.breakOff()
		}
	default:
		// The server takes no more. It may have refused the body, then its
		// answer has to get through.
		u.state.CompareAndSwap(uploadRunning, uploadFailed)
		u.state.CompareAndSwap(uploadLast, uploadFailed)
	}
	if !u.replay.keeps.Load() {
		u.replay.free()
	}
}

func (u *upload) carry(ex *exchange) error {
	for {
		if b, ok := ex.body.(*http1Body); ok && u.plain != nil && b.spliceable() {
			if done, err := u.splice(u.plain, ex, b); done || err != nil {
				return err
			}
		}
		b := u.replay.room()
		n, err := ex.body.Read(b)
		if err != nil && err != io.EOF {
			return err
		}
		if err == io.EOF {
			if !u.state.CompareAndSwap(uploadRunning, uploadLast) {
				return errAborted
			}
			u.trailers = ex.requestTrailers()
		}
		if e := u.send(ex, b[:n], err == io.EOF); e != nil {
			return e
		}
		if err == io.EOF {
			return nil
		}
	}
}

// splice carries what is left of a large body past us, if there is a pipe for it.
func (u *upload) splice(c *serverConn, ex *exchange, b *http1Body) (done bool, err error) {
	p := c.up.pipes.get()
	if p == nil {
		return false, nil
	}
	defer c.up.pipes.put(p)
	wait := fillNow
	if p.from.begin(b.conn.raw, &b.conn.pace, time.Now()) {
		wait = fillBatch
	}
	defer p.from.end()
	first := b.first()
	err = b.fill(p, wait)
	if len(first) > 0 {
		flags := 0
		if p.n > 0 {
			flags = unix.MSG_MORE
		}
		if err := c.writePart(first, flags); err != nil {
			return false, err
		}
		ex.sent(len(first))
	}
	for {
		if err == syscall.EAGAIN {
			p.push(c.raw)
			err = b.fill(p, fillAny)
		}
		if err != nil && err != io.EOF {
			return false, err
		}
		if err == io.EOF && !u.state.CompareAndSwap(uploadRunning, uploadLast) {
			return false, errAborted
		}
		n := p.n
		if err := p.drainTo(c.raw, c); err != nil {
			return false, err
		}
		ex.sent(n)
		if err == io.EOF {
			return true, nil
		}
		err = b.fill(p, fillNow)
	}
}

var crlf = []byte("\r\n")
