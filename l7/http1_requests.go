package l7

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"time"

	"appliance/l7/accesslog"
	"appliance/l7/http1"
)

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
	ex.answer, ex.client, ex.lengthOrTrailers = &w.answer, c, true
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
	err := d.service.pipeline.serve(d.engine.ctx, d.service.state.Load(), ex)
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
