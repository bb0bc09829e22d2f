package l7

import (
	"net"
	"runtime"
	"sync"
	"time"
)

// frameQueue is what a connection by HTTP/2, to a client or to a server, has to
// send. Frames are appended to one buffer, and one of those who had something to
// say writes it: what many say at the same time is one record and one system call.
type frameQueue struct {
	conn  frameConn
	rw    net.Conn
	limit interface {
		// begin gives the other side time to take what is written from now on.
		begin(now time.Time) error
	}
	tasks *sync.WaitGroup // has the goroutines that write when nobody else may

	// mu is the lock of the whole connection. It is held for moments.
	mu       sync.Mutex
	out      *outbox
	flushing bool
	broken   bool // nothing can be sent any more, or is to be
}

// frameConn is the connection that a frameQueue is of.
type frameConn interface {
	// wakeWriters wakes those that wait to send more. mu is held.
	wakeWriters()
	// writeFailed ends the connection.
	writeFailed(err error)
}

var (
	_ frameConn = &http2Conn{}
	_ frameConn = &muxConn{}
)

// writeLimit is the time for writing to a plain connection, or one that TLS does not
// write to by itself. Whoever writes has it.
type writeLimit struct {
	on       interface{ SetWriteDeadline(t time.Time) error }
	patience time.Duration
	until    time.Time // as the poller has it
}

func (l *writeLimit) begin(now time.Time) error {
	if l.until.Sub(now) >= l.patience {
		return nil
	}
	l.until = now.Add(l.patience + l.patience/4)
	return l.on.SetWriteDeadline(l.until)
}

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
// sees that they are: flush, unlockAndFlush or startFlush. mu is held.
func (q *frameQueue) queue() *outbox {
	if q.out == nil {
		q.out = outboxes.Get().(*outbox)
	}
	return q.out
}

// full reports whether so much waits that who has more is to wait. mu is held.
func (q *frameQueue) full() bool { return q.out != nil && len(q.out.b) >= queuedMost }

// overfull reports whether the other side is to be given up for what waits. mu is
// held.
func (q *frameQueue) overfull() bool { return q.out != nil && len(q.out.b) > overfullMost }

// flush sends what is queued, unless somebody is at it.
func (q *frameQueue) flush() {
	q.mu.Lock()
	q.unlockAndFlush()
}

// unlockAndFlush is flush for who holds mu, which it unlocks.
func (q *frameQueue) unlockAndFlush() {
	if q.out == nil || q.flushing {
		q.mu.Unlock()
		return
	}
	q.flushing = true
	q.mu.Unlock()
	if !q.write(writeRounds) {
		q.tasks.Go(q.writeAll)
	}
}

// startFlush is flush for the reader, which must not wait for another side that
// may itself wait to be read from. mu is held and stays so.
func (q *frameQueue) startFlush() {
	if q.out != nil && !q.flushing {
		q.flushing = true
		q.tasks.Go(q.writeAll)
	}
}

func (q *frameQueue) writeAll() {
	for !q.write(writeRounds) {
	}
}

// writeRounds bounds how long one stream writes for others.
const writeRounds = 8

// write writes what is queued, and what is queued meanwhile; it reports whether
// that was all. Before it writes it lets those run who are ready to: what they have
// to say goes out with it.
func (q *frameQueue) write(rounds int) bool {
	for range rounds {
		runtime.Gosched()
		q.mu.Lock()
		full := q.full()
		out := q.out
		q.out = nil
		if out == nil || q.broken {
			q.flushing = false
			q.mu.Unlock()
			return true
		}
		if full {
			q.conn.wakeWriters() // there is room again
		}
		q.mu.Unlock()
		err := q.limit.begin(time.Now())
		if err == nil {
			_, err = q.rw.Write(out.b)
		}
		putOutbox(out)
		if err != nil {
			q.conn.writeFailed(err)
		}
	}
	return false
}
