package l7

import (
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// http2Stream is one request by HTTP/2 and its answer. It is used again for
// others, so all that an exchange needs is there. What conn.mu guards is said so.
type http2Stream struct {
	conn    *http2Conn
	id      uint32
	ex      exchange
	answer  http2Answer
	body    http2Body
	peer    peer
	fields  fields
	scratch []byte
	key     string    // of a WebSocket
	tunnel  bool      // what comes are no parts of a body
	began   time.Time // never changes while the stream is among those of conn

	// Guarded by conn.mu.
	window int64 // what may be sent
	ended  bool  // the client has sent all it had
	gone   bool  // nobody waits for the answer
}

var http2Streams = sync.Pool{New: func() any {
	st := &http2Stream{}
	st.answer.wake = make(chan struct{}, 1)
	st.body.wake = make(chan struct{}, 1)
	return st
}}

// recycle gives the stream back.
func (st *http2Stream) recycle() {
	if st.tunnel {
		return // a tunnel may be closed once more, later
	}
	st.answer.end()
	st.body.end()
	http2Streams.Put(st)
}

// serve carries the exchange out.
func (st *http2Stream) serve() {
	d := st.conn.server.door
	defer st.conn.tasks.Done()
	// What the error says shows in the answer: it is not finished.
	_ = d.service.pipeline.serve(d.engine.ctx, d.service.state.Load(), &st.ex)
	st.finish()
}

// finish ends the stream: what is not whole is reset, so that the client does not
// take it for whole.
func (st *http2Stream) finish() {
	c := st.conn
	c.mu.Lock()
	whole := st.answer.finished
	if !st.gone {
		code := http2.ErrCodeNo // RFC 9113, section 8.1: the rest of the body is not wanted
		if !whole {
			code = st.answer.code
		}
		if !whole || !st.ended {
			out := c.queue()
			out.b = appendReset(out.b, st.id, code)
			c.remember(st.id)
		}
		if whole {
			c.nuisance.refund(refundAnswer)
		}
	}
	st.remove()
	c.unlockAndFlush()
	st.recycle()
}

// drop ends a stream that never began.
func (st *http2Stream) drop() {
	c := st.conn
	c.mu.Lock()
	st.remove()
	c.mu.Unlock()
	st.recycle()
}

// remove takes the stream from those of the connection. c.mu is held.
func (st *http2Stream) remove() {
	c := st.conn
	for i, other := range c.streams {
		if other == st {
			last := len(c.streams) - 1
			c.streams[i], c.streams[last] = c.streams[last], nil
			c.streams = c.streams[:last]
			break
		}
	}
	c.take(int64(len(st.body.buf) - st.body.r)) // what nobody has read
	st.body.buf, st.body.r = st.body.buf[:0], 0
	if len(c.streams) == 0 {
		c.idleFrom = time.Now()
		if c.lastWord {
			c.nudge()
		}
	}
}

// abandon ends the exchange: there is nobody to answer any more. c.mu is held.
func (st *http2Stream) abandon() {
	if !st.gone {
		st.gone = true
		st.ex.interrupt()
		st.answer.wakeUp()
		st.body.wakeUp()
	}
}
