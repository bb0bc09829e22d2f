package l7

import (
	"net/http"
	"slices"
	"time"

	"golang.org/x/net/http2"

	"appliance/l7/accesslog"
)

// errCalm ends the connection of a client that is a nuisance.
var errCalm = http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)

// frame handles a frame. The error is a http2.StreamError or ends the
// connection.
func (c *http2Conn) frame(f http2.Frame) error {
	if !c.settled {
		// RFC 9113, section 3.4
		if s, ok := f.(*http2.SettingsFrame); !ok || s.IsAck() {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		c.settled = true
	}
	switch f := f.(type) {
	case *http2.DataFrame:
		return c.data(f)
	case *http2.HeadersFrame:
		return c.headers(f)
	case *http2.ContinuationFrame:
		return c.continuation(f)
	case *http2.WindowUpdateFrame:
		return c.windowUpdate(f)
	case *http2.RSTStreamFrame:
		return c.reset(f)
	case *http2.SettingsFrame:
		return c.settings(f)
	case *http2.PingFrame:
		return c.ping(f)
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol) // RFC 9113, section 8.4
	}
	// PRIORITY, which nobody heeds any more, GOAWAY, after which a client brings
	// no more requests by itself, and what we do not know (section 5.5).
	return c.spend(costFrame)
}

// spend counts what is a nuisance.
func (c *http2Conn) spend(cost float64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spendLocked(cost)
}

func (c *http2Conn) spendLocked(cost float64) error {
	if !c.nuisance.spend(cost, time.Now()) {
		return errCalm
	}
	return nil
}

// find returns a stream by its id, nil if there is none. c.mu is held.
func (c *http2Conn) find(id uint32) *http2Stream {
	for _, st := range c.streams {
		if st.id == id && !st.gone {
			return st
		}
	}
	return nil
}

// idle reports whether no stream of that id was ever opened. c.mu is held.
func (c *http2Conn) idle(id uint32) bool { return id%2 == 0 || id > c.lastID && !c.lastWord }

// underWayStill reports whether a client may send frames for a stream that it has
// not heard the end of. c.mu is held.
func (c *http2Conn) underWayStill(id uint32) bool {
	return id > c.lastID || slices.Contains(c.resets, id)
}

// data takes a part of a request's body.
func (c *http2Conn) data(f *http2.DataFrame) error {
	size := int64(f.Length) // padding counts (RFC 9113, section 6.1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle(f.StreamID) {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if c.received -= size; c.received < 0 {
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	st := c.find(f.StreamID)
	if st == nil || st.ended {
		c.take(size)
		c.startFlush()
		if st == nil && c.underWayStill(f.StreamID) && len(f.Data()) > 0 {
			return nil
		}
		if err := c.spendLocked(costFrame); err != nil {
			return err
		}
		if st == nil && c.underWayStill(f.StreamID) {
			return nil
		}
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeStreamClosed}
	}
	p := f.Data()
	if len(p) == 0 && !f.StreamEnded() {
		if err := c.spendLocked(costFrame); err != nil {
			return err
		}
	}
	if code := st.body.receive(p, size, f.StreamEnded()); code != http2.ErrCodeNo {
		c.take(size)
		return http2.StreamError{StreamID: f.StreamID, Code: code}
	}
	c.take(size - int64(len(p)))
	st.body.take(size - int64(len(p)))
	c.startFlush()
	return nil
}

// headers takes the beginning of a request, or its trailers.
func (c *http2Conn) headers(f *http2.HeadersFrame) error {
	if f.StreamID%2 == 0 {
		return http2.ConnectionError(http2.ErrCodeProtocol) // RFC 9113, section 5.1.1
	}
	c.head.begin(f.StreamID, f.StreamEnded())
	return c.fragment(f.HeaderBlockFragment(), f.HeadersEnded())
}

func (c *http2Conn) continuation(f *http2.ContinuationFrame) error {
	if err := c.spend(costFrame); err != nil {
		return err
	}
	if c.head.frames++; c.head.frames > mostContinuations {
		return errCalm
	}
	return c.fragment(f.HeaderBlockFragment(), f.HeadersEnded())
}

// fragment takes a part of a head. It is decoded whatever it says, for the heads
// that follow depend on it.
func (c *http2Conn) fragment(b []byte, last bool) error {
	h := &c.head
	if h.bytes += int64(len(b)); h.bytes > 2*h.most {
		return errCalm // much more than is allowed: not worth reading
	}
	c.decoder.SetEmitEnabled(!h.tooLarge)
	if _, err := c.decoder.Write(b); err != nil {
		return http2.ConnectionError(http2.ErrCodeCompression)
	}
	if !last {
		return nil
	}
	if err := c.decoder.Close(); err != nil {
		return http2.ConnectionError(http2.ErrCodeCompression)
	}
	id := h.stream
	h.stream = 0
	return c.headEnds(id)
}

// headEnds makes of a head what it is for.
func (c *http2Conn) headEnds(id uint32) error {
	h := &c.head
	c.mu.Lock()
	defer c.mu.Unlock()
	if id <= c.lastID {
		st := c.find(id)
		switch {
		case st == nil && c.underWayStill(id):
			return c.spendLocked(costFrame)
		case st == nil:
			return http2.ConnectionError(http2.ErrCodeStreamClosed) // RFC 9113, section 5.1
		case st.ended:
			return http2.StreamError{StreamID: id, Code: http2.ErrCodeStreamClosed}
		case !h.end || h.tooLarge || st.tunnel:
			return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol} // section 8.1
		}
		if err := h.trailers(); err != nil {
			c.debug(id, err)
			return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
		}
		st.body.lines = append(st.body.lines[:0], h.fields...)
		if code := st.body.receive(nil, 0, true); code != http2.ErrCodeNo {
			return http2.StreamError{StreamID: id, Code: code}
		}
		return nil
	}
	if c.lastWord {
		return c.spendLocked(costFrame) // the client has been told that it is not carried out
	}
	c.lastID = id
	if c.open() >= c.server.set.limits.streams || len(c.streams) >= 2*c.server.set.limits.streams {
		if err := c.spendLocked(costFrame); err != nil {
			return err
		}
		c.resetStream(id, http2.ErrCodeRefusedStream)
		return nil
	}
	if h.tooLarge {
		if err := c.spendLocked(costReset); err != nil {
			return err
		}
		c.answer(id, http.StatusRequestHeaderFieldsTooLarge, h.end)
		c.noRequest(accesslog.Record{Status: http.StatusRequestHeaderFieldsTooLarge, End: accesslog.TooLarge})
		return nil
	}
	st := http2Streams.Get().(*http2Stream)
	if err := st.open(c, id); err != nil {
		c.debug(id, err)
		c.noRequest(accesslog.Record{End: accesslog.BadRequest, Problem: err.Error()})
		st.recycle()
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
	}
	c.streams = append(c.streams, st)
	c.starting = append(c.starting, st)
	if !c.server.keep.Load() && c.leaving.IsZero() {
		c.leave(time.Now())
	}
	return nil
}

func (c *http2Conn) debug(id uint32, err error) {
	c.server.door.service.pipeline.log.Debug().Str("client", c.peer.text).Uint32("stream", id).Err(err).Msg("no request")
}

// noRequest counts and logs a stream that has not become a request. What it was
// is not told: it may be anything.
func (c *http2Conn) noRequest(r accesslog.Record) {
	s := c.server.door.service
	s.pipeline.count.noRequests.Add(1)
	r.Protocol = protocolName2
	s.logNoRequest(c.peer, c.head.began, r)
}

// open returns how many streams the client has open. c.mu is held.
func (c *http2Conn) open() int {
	n := 0
	for _, st := range c.streams {
		if !st.gone {
			n++
		}
	}
	return n
}

// refuseStream resets a stream that the client has made a mistake with.
func (c *http2Conn) refuseStream(id uint32, code http2.ErrCode, cost float64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.spendLocked(cost); err != nil {
		return err
	}
	if c.idle(id) {
		c.lastID = max(c.lastID, id)
	}
	if st := c.find(id); st != nil {
		st.abandon()
	}
	c.resetStream(id, code)
	return nil
}

// resetStream resets a stream. c.mu is held, by the reader.
func (c *http2Conn) resetStream(id uint32, code http2.ErrCode) {
	c.remember(id)
	out := c.queue()
	out.b = appendReset(out.b, id, code)
	c.startFlush()
}

// remember notes that frames for a stream may be under way still. c.mu is held.
func (c *http2Conn) remember(id uint32) {
	if len(c.resets) < resetsRemembered {
		c.resets = append(c.resets, id)
		return
	}
	c.resets[c.resetsAt] = id
	c.resetsAt = (c.resetsAt + 1) % resetsRemembered
}

// answer gives an answer that is nothing but a status, below the pipeline. c.mu is
// held, by the reader.
func (c *http2Conn) answer(id uint32, status int, ended bool) {
	var buf [128]byte
	block := appendStatus(appendTableSize(buf[:0]), status)
	block = appendHeaderField(block, "content-length", "0")
	block = appendHeaderField(block, "date", c.server.date.text(time.Now()))
	out := c.queue()
	out.b = appendHead(out.b, id, block, true)
	if !ended {
		out.b = appendReset(out.b, id, http2.ErrCodeNo)
		c.remember(id)
	}
	c.startFlush()
}

// reset ends a stream that the client does not want any more.
func (c *http2Conn) reset(f *http2.RSTStreamFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle(f.StreamID) {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	st := c.find(f.StreamID)
	if st == nil {
		return c.spendLocked(costFrame)
	}
	st.abandon()
	return c.spendLocked(costReset)
}
