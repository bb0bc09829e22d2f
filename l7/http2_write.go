package l7

import (
	"runtime"
	"sync"
	"time"
)

// outbox is a buffer of frames that wait to be sent.
type outbox struct{ b []byte }

const outboxSize = 8 << 10

var outboxes = sync.Pool{New: func() any { return &outbox{make([]byte, 0, outboxSize)} }}

func putOutbox(o *outbox) {
	if cap(o.b) <= 2*queuedMost {
		o.b = o.b[:0]
		outboxes.Put(o)
	}
}

// queue returns where frames are appended that are to be sent. Whoever does so
// sees that they are: unlockAndFlush or startFlush. c.mu is held.
func (c *http2Conn) queue() *outbox {
	if c.out == nil {
		c.out = outboxes.Get().(*outbox)
	}
	return c.out
}

// unlockAndFlush unlocks c.mu and sends what is queued, unless somebody is at it.
func (c *http2Conn) unlockAndFlush() {
	if c.out == nil || c.flushing {
		c.mu.Unlock()
		return
	}
	c.flushing = true
	c.mu.Unlock()
	if !c.flush(flushRounds) {
		c.tasks.Go(c.flushAll)
	}
}

// startFlush is unlockAndFlush for the reader, which must not wait for a client
// that may itself wait to be read from. c.mu is held and stays so.
func (c *http2Conn) startFlush() {
	if c.out != nil && !c.flushing {
		c.flushing = true
		c.tasks.Go(c.flushAll)
	}
}

func (c *http2Conn) flushAll() {
	for !c.flush(flushRounds) {
	}
}

// flushRounds bounds how long one stream writes for others.
const flushRounds = 8

// flush writes what is queued, and what is queued meanwhile; it reports whether
// that was all. Before it writes it lets those run who are ready to: what they have
// to say goes out with it, in one record and one system call.
func (c *http2Conn) flush(rounds int) bool {
	for range rounds {
		runtime.Gosched()
		c.mu.Lock()
		out := c.out
		c.out = nil
		if out == nil || c.broken {
			c.flushing = false
			c.mu.Unlock()
			return true
		}
		if len(out.b) >= queuedMost {
			c.wakeWriters() // there is room again
		}
		c.mu.Unlock()
		err := c.armWrite()
		if err == nil {
			_, err = c.rw.Write(out.b)
		}
		putOutbox(out)
		if err != nil {
			c.fail()
		}
	}
	return false
}

// armWrite gives the client time to take something.
func (c *http2Conn) armWrite() error {
	if c.secure {
		return nil // conn has its own
	}
	now := time.Now()
	if c.writeBy.Sub(now) >= c.server.set.idle {
		return nil
	}
	c.writeBy = now.Add(c.server.set.idle * 5 / 4)
	return c.tcp.SetWriteDeadline(c.writeBy)
}

// wakeWriters wakes those that wait to send more. c.mu is held.
func (c *http2Conn) wakeWriters() {
	for _, st := range c.streams {
		st.answer.wakeUp()
	}
}

// take gives n bytes of the connection's window back. c.mu is held.
func (c *http2Conn) take(n int64) {
	if c.taken += n; c.taken >= c.server.set.limits.window && !c.broken {
		out := c.queue()
		out.b = appendWindowUpdate(out.b, 0, int(c.taken))
		c.received += c.taken
		c.taken = 0
	}
}
