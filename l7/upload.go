package l7

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"appliance/l7/http1"
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
// a goroutine that has ended when end returns.
type upload struct {
	state atomic.Int32
	until atomic.Int64 // when it ended, in nanoseconds of Unix time
	task  sync.WaitGroup
	vec   [3][]byte
	size  [20]byte
}

// reset makes ready for another request.
func (u *upload) reset() {
	u.state.Store(uploadNone)
	u.until.Store(0)
}

// start begins to carry the body of ex to c.
func (u *upload) start(c *serverConn, ex *exchange) {
	u.state.Store(uploadRunning)
	u.task.Add(1)
	go u.run(c, ex)
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

// settled reports whether end returns at once.
func (u *upload) settled() bool {
	s := u.state.Load()
	return s == uploadNone || s == uploadSent || s == uploadFailed
}

// end waits for the upload's end, which it brings about if the client has not
// sent all yet, and reports whether the server got all.
func (u *upload) end(c *serverConn, ex *exchange) bool {
	if u.state.Load() == uploadNone {
		return true
	}
	if u.state.CompareAndSwap(uploadRunning, uploadStopped) {
		c.tcp.Close()
		ex.body.stop()
	}
	u.task.Wait()
	return u.state.Load() == uploadSent
}

func (u *upload) run(c *serverConn, ex *exchange) {
	defer u.task.Done()
	err := u.carry(c, ex)
	u.until.Store(time.Now().UnixNano())
	var be *bodyError
	switch {
	case err == nil:
		u.state.CompareAndSwap(uploadLast, uploadSent)
	case errors.As(err, &be):
		if u.state.CompareAndSwap(uploadRunning, uploadFailed) {
			ex.failed.Store(be)
			c.tcp.Close() // who waits for the answer waits in vain
		}
	default:
		// The server takes no more. It may have refused the body, then its
		// answer has to get through.
		u.state.CompareAndSwap(uploadRunning, uploadFailed)
		u.state.CompareAndSwap(uploadLast, uploadFailed)
	}
}

func (u *upload) carry(c *serverConn, ex *exchange) error {
	in := inboxes.Get().(*inbox)
	defer putInbox(in)
	for {
		if b, ok := ex.body.(*http1Body); ok && b.spliceable() {
			if done, err := u.splice(c, ex, b); done || err != nil {
				return err
			}
		}
		n, err := ex.body.Read(in.b)
		if err != nil && err != io.EOF {
			return err
		}
		if err == io.EOF && !u.state.CompareAndSwap(uploadRunning, uploadLast) {
			return errAborted
		}
		if n > 0 {
			if err := u.write(c, in.b[:n], ex.length < 0); err != nil {
				return err
			}
			ex.sent(n)
		}
		if err == io.EOF {
			break
		}
	}
	if ex.length >= 0 {
		return nil
	}
	end := append(in.b[:0], "0\r\n"...)
	end = http1.AppendFields(end, trailerFields(ex.body.trailers()))
	return c.write(append(end, "\r\n"...), time.Now())
}

// splice carries what is left of a large body past us, if there is a pipe for it.
func (u *upload) splice(c *serverConn, ex *exchange, b *http1Body) (done bool, err error) {
	p := c.up.pipes.get()
	if p == nil {
		return false, nil
	}
	defer c.up.pipes.put(p)
	for {
		err := b.fill(p)
		if err != nil && err != io.EOF {
			return false, err
		}
		if err == io.EOF && !u.state.CompareAndSwap(uploadRunning, uploadLast) {
			return false, errAborted
		}
		n := p.n
		if err := c.armWrite(time.Now()); err != nil {
			return false, err
		}
		if err := drainTo(c.raw, p); err != nil {
			return false, err
		}
		ex.sent(n)
		if err == io.EOF {
			return true, nil
		}
	}
}

// write writes a part of the body, by itself or as a chunk.
func (u *upload) write(c *serverConn, p []byte, chunked bool) error {
	now := time.Now()
	if !chunked {
		return c.write(p, now)
	}
	if err := c.armWrite(now); err != nil {
		return err
	}
	u.vec = [3][]byte{http1.AppendChunkSize(u.size[:0], len(p)), p, crlf}
	v := net.Buffers(u.vec[:])
	_, err := v.WriteTo(c.tcp)
	return err
}

var crlf = []byte("\r\n")
