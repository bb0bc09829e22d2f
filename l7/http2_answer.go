package l7

import (
	"net/http"
	"time"

	"golang.org/x/net/http2"
)

// http2Answer writes an answer to a client that speaks HTTP/2. The head and what
// is small wait for what follows.
type http2Answer struct {
	st       *http2Stream
	bodyless bool   // the method is HEAD
	tunnel   bool   // a head that says 2xx would open a tunnel
	discard  bool   // the body goes nowhere
	block    []byte // the head that has not been sent yet; empty: it has
	body     []byte // a part of the body that waits
	left     int64  // of the body; -1 if that is not known
	finished bool
	code     http2.ErrCode // says why the answer is not whole

	wake    chan struct{}
	waiting bool // for a window or for room; guarded by conn.mu
	closed  bool // nothing is sent any more; guarded by conn.mu
	timer   *time.Timer
}

// begin makes ready for an answer.
func (a *http2Answer) begin(st *http2Stream, method string) {
	a.st, a.bodyless, a.tunnel = st, method == http.MethodHead, false
	a.block, a.body, a.left, a.finished, a.code = a.block[:0], a.body[:0], 0, false, http2.ErrCodeInternal
	a.discard, a.waiting, a.closed = false, false, false
	select {
	case <-a.wake:
	default:
	}
}

// end frees what is too large to keep.
func (a *http2Answer) end() {
	if cap(a.block) > workMost {
		a.block = nil
	}
}

// WriteHead is described at answerWriter.
func (a *http2Answer) WriteHead(status int, head fields) error {
	if a.tunnel && status >= 200 && status < 300 {
		// It would mean that the tunnel is open (RFC 8441, section 5).
		status, head, a.discard = http.StatusBadGateway, nil, true
	}
	c := a.st.conn
	b := appendStatus(appendTableSize(a.block[:0]), status)
	facts := headFacts{length: -1}
	for i := range head {
		f := &head[i]
		ok, err := facts.note(status, f)
		if err != nil {
			return err
		}
		if ok {
			b = appendHeaderField(b, f.Name, f.Value)
		}
	}
	a.left = facts.length
	if status < 200 {
		a.block = b
		return a.interim()
	}
	if !facts.dated {
		// RFC 9110, section 6.6.1
		b = appendHeaderField(b, "date", c.server.date.text(time.Now()))
	}
	if a.bodyless || status == http.StatusNoContent || status == http.StatusNotModified {
		a.left = 0
	}
	a.block = b
	return nil
}

// interim sends an interim answer.
func (a *http2Answer) interim() error {
	if err := a.send(nil, false); err != nil {
		return err
	}
	a.st.conn.flush()
	return nil
}

// smallMost is how much of a body waits for what follows.
const smallMost = 8 << 10

// Write is described at answerWriter.
func (a *http2Answer) Write(p []byte) (int, error) {
	if len(p) == 0 || a.discard {
		return len(p), nil
	}
	if a.left >= 0 {
		if int64(len(p)) > a.left {
			return 0, errAborted
		}
		a.left -= int64(len(p))
	}
	if len(a.body)+len(p) <= smallMost {
		a.body = append(a.body, p...)
		return len(p), nil
	}
	if err := a.send(a.body, false); err != nil {
		return 0, err
	}
	a.body = a.body[:0]
	if err := a.send(p, false); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush is described at answerWriter.
func (a *http2Answer) Flush() error {
	if err := a.send(a.body, false); err != nil {
		return err
	}
	a.body = a.body[:0]
	a.st.conn.mu.Lock()
	a.st.conn.unlockAndFlush()
	return nil
}

// Finish is described at answerWriter.
func (a *http2Answer) Finish(trailers fields) error {
	if a.left > 0 {
		return errAborted
	}
	if err := a.send(a.body, len(trailers) == 0); err != nil {
		return err
	}
	if len(trailers) > 0 {
		a.block = a.block[:0]
		for i := range trailers {
			a.block = appendHeaderField(a.block, trailers[i].Name, trailers[i].Value)
		}
		if err := a.send(nil, true); err != nil {
			return err
		}
	}
	a.finished = true
	c := a.st.conn
	c.mu.Lock()
	c.unlockAndFlush()
	return nil
}

// errSlowReader says that the client does not take a piece in time.
var errSlowReader error = &timeoutError{"the client takes too little"}

// send queues the head, if it waits, and p. It waits while the client's windows
// are shut, and while enough is queued: a client that takes nothing gets no more
// ready for it, be it heads alone.
func (a *http2Answer) send(p []byte, end bool) error {
	st := a.st
	c := st.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	var until time.Time // for all of p, or a client could open its window byte by byte
	for {
		if st.gone || c.broken || a.closed {
			return errAborted
		}
		if len(a.block) > 0 && !c.full() {
			out := c.queue()
			only := end && len(p) == 0
			out.b = appendHead(out.b, st.id, a.block, only)
			a.block = a.block[:0]
			end = end && !only
		}
		for len(p) > 0 {
			n := min(int64(len(p)), frameMost, st.window, c.window)
			if n <= 0 || c.full() {
				break
			}
			out := c.queue()
			last := end && n == int64(len(p))
			out.b = appendData(out.b, st.id, p[:n], last)
			if n == int64(len(p)) || n >= creditLeast {
				c.credit = min(c.credit+creditData, creditMost)
			}
			p = p[n:]
			st.window -= n
			c.window -= n
			end = end && !last
		}
		if len(p) == 0 && len(a.block) == 0 {
			if end {
				out := c.queue()
				out.b = appendData(out.b, st.id, nil, true)
			}
			return nil
		}
		if until.IsZero() {
			until = time.Now().Add(stallOf(c.server.set.idle))
		}
		if err := a.await(until); err != nil {
			return err
		}
	}
}

// A client opens the windows as it takes data: for each frame it may do so for
// the stream and the connection, and send a PING, by which gRPC measures the way;
// unless it lets us send it in crumbs.
const (
	creditData  = 3
	creditLeast = 512
	creditMost  = 1 << 20
)

// await waits until more may be sent, and no longer than until; meanwhile it sends
// what is queued. c.mu is held, but not while it waits.
func (a *http2Answer) await(until time.Time) error {
	c := a.st.conn
	a.waiting = true // from now on, who opens a window says so
	defer func() { a.waiting = false }()
	if c.out != nil && !c.flushing {
		c.unlockAndFlush()
		c.mu.Lock()
		if len(a.block) > 0 || a.st.window > 0 && c.window > 0 {
			return nil
		}
	}
	c.mu.Unlock()
	defer c.mu.Lock()
	if a.timer == nil {
		a.timer = time.NewTimer(time.Until(until))
	} else {
		a.timer.Reset(time.Until(until))
	}
	select {
	case <-a.wake:
		a.timer.Stop()
		return nil
	case <-a.timer.C:
		a.code = http2.ErrCodeCancel
		return errSlowReader
	}
}

// wakeUp ends await. c.mu is held.
func (a *http2Answer) wakeUp() {
	if a.waiting {
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}
}
