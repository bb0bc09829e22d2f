package l7

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"appliance/l7/http1"
)

// http1Body is the body of a request from a client that speaks HTTP/1. It is
// read by the goroutine of an upload.
type http1Body struct {
	conn    *http1Conn
	length  int64 // -1: it comes in chunks
	left    int64 // of it
	got     int64 // of what came, in bytes, with the sizes of chunks
	began   time.Time
	chunks  http1.Chunks
	stopped atomic.Bool
	ended   atomic.Bool // all of it has come
	until   time.Time   // the deadline for reading

	tail  []byte // what came behind the last chunk: trailers, and the next request
	lines fields // the trailers
}

// A body comes at least at minRate, in bytes a second, on average from minRateFrom
// on: who sends a byte now and then holds a connection to a server for nothing.
const (
	minRate     = 128
	minRateFrom = 30 * time.Second
)

// tooSlow reports whether a body of that length (-1: unknown) of which got bytes
// came in that time is given up. One that may be half of a conversation has pauses.
func (ex *exchange) tooSlow(length, got int64, took time.Duration) bool {
	return took > minRateFrom && got < int64(took.Seconds()*minRate) && (length >= 0 || !ex.talks.Load())
}

var errSlowBody error = &timeoutError{"the body comes too slowly"}

var errStopped = errors.New("the exchange has ended")

// begin makes ready for a body of that length, -1: in chunks. whole says that it
// is in other hands.
func (b *http1Body) begin(length int64, whole bool) {
	b.length, b.left, b.got, b.chunks, b.began = length, length, 0, http1.Chunks{}, time.Time{}
	b.stopped.Store(false)
	b.ended.Store(whole)
	b.until, b.tail, b.lines = time.Time{}, b.tail[:0], b.lines[:0]
}

// whole reports whether all of the body has come.
func (b *http1Body) whole() bool { return b.ended.Load() }

// invite is described at requestBody.
func (b *http1Body) invite() error {
	return b.conn.work.answer.interim(http.StatusContinue, nil)
}

// trailers is described at requestBody.
func (b *http1Body) trailers() fields { return b.lines }

// stop is described at requestBody.
func (b *http1Body) stop() {
	b.stopped.Store(true)
	_ = b.conn.tcp.SetReadDeadline(time.Unix(1, 0)) // fails only if closed
}

// readBy returns the deadline for reading from the connection, which was before
// the body was read.
func (b *http1Body) readBy(before time.Time) time.Time {
	if b.stopped.Load() {
		return time.Time{}
	}
	if !b.until.IsZero() {
		return b.until
	}
	return before
}

// Read is described at requestBody.
func (b *http1Body) Read(p []byte) (int, error) {
	if b.ended.Load() {
		return 0, io.EOF
	}
	if b.left < 0 {
		return b.readChunks(p)
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.source(p)
	if err != nil {
		return 0, b.fail(err)
	}
	if b.left -= int64(n); b.left == 0 {
		b.ended.Store(true)
		return n, io.EOF
	}
	return n, nil
}

// source reads what came with the head, and then from the connection.
func (b *http1Body) source(p []byte) (int, error) {
	c := b.conn
	if in := &c.work.in; in.r < in.w {
		n := copy(p, in.b[in.r:in.w])
		in.r += n
		b.got += int64(n)
		return n, nil
	}
	if err := b.arm(); err != nil {
		return 0, err
	}
	n, err := c.read(p)
	if n > 0 {
		b.got += int64(n)
		return n, nil
	}
	return 0, err
}

// arm gives the client time to send more.
func (b *http1Body) arm() error { return b.armFor(time.Now(), b.conn.server.set.idle) }

// armFor gives the client the time d to send more, or a little longer.
func (b *http1Body) armFor(now time.Time, d time.Duration) error {
	if err := b.check(now); err != nil {
		return err
	}
	if left := b.until.Sub(now); left < d || left > d+d/4 {
		b.until = now.Add(d + d/4)
		if err := b.conn.tcp.SetReadDeadline(b.until); err != nil {
			return err
		}
	}
	if b.stopped.Load() {
		return errStopped
	}
	return nil
}

// check reports an error if nobody wants the rest, or it comes too slowly.
func (b *http1Body) check(now time.Time) error {
	if b.stopped.Load() {
		return errStopped
	}
	if b.began.IsZero() {
		b.began = now
	}
	if b.conn.work.ex.tooSlow(b.length, b.got, now.Sub(b.began)) {
		return errSlowBody
	}
	return nil
}

// spliceable reports whether so much of the body has still to come that fill is
// the way.
func (b *http1Body) spliceable() bool {
	in := &b.conn.work.in
	return !b.conn.secure && b.left-int64(in.w-in.r) >= spliceLeast
}

// begun reports whether a part of the body came with the head and has not been
// read.
func (b *http1Body) begun() bool { return b.conn.work.in.r < b.conn.work.in.w }

// first returns what came with the head and has not been read.
func (b *http1Body) first() []byte {
	in := &b.conn.work.in
	p := in.b[in.r:in.w]
	in.r = in.w
	b.got += int64(len(p))
	b.left -= int64(len(p))
	return p
}

// fillWait says how long fill waits.
type fillWait uint8

const (
	fillNow   fillWait = iota // not at all
	fillBatch                 // for a batch, not much longer than it should take
	fillAny                   // also after that, for anything
)

// fill is Read, but into a pipe, and not of what came with the head. Unless it
// waits for anything, syscall.EAGAIN says that nothing has come.
func (b *http1Body) fill(p *pipe, wait fillWait) error {
	err := error(syscall.EAGAIN)
	if wait != fillNow {
		err = b.collect(p)
	}
	if err == syscall.EAGAIN && wait == fillAny {
		if err = b.arm(); err == nil {
			err = p.fillFrom(b.conn.raw, b.left)
		}
	} else if err == syscall.EAGAIN {
		if err = b.check(time.Now()); err == nil {
			if err = p.tryFrom(b.conn.raw, b.left); err == syscall.EAGAIN {
				return err
			}
		}
	}
	if err != nil {
		return b.fail(err)
	}
	b.got += int64(p.n)
	if b.left -= int64(p.n); b.left == 0 {
		b.ended.Store(true)
		return io.EOF
	}
	return nil
}

// collect waits for a batch and moves it into the pipe. syscall.EAGAIN says that
// none is to be waited for any longer.
func (b *http1Body) collect(p *pipe) error {
	now := time.Now()
	if !p.from.batch(now, min(b.left, int64(p.size))) {
		return syscall.EAGAIN
	}
	if err := b.armFor(now, batchWait); err != nil {
		return err
	}
	err := p.fillFrom(b.conn.raw, b.left)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	p.from.each()
	return syscall.EAGAIN
}

// readChunks reads into p and leaves there what is data.
func (b *http1Body) readChunks(p []byte) (int, error) {
	for {
		n, err := b.source(p)
		if err != nil {
			return 0, b.fail(err)
		}
		got, rest, err := b.decode(p, p[:n])
		if err != nil {
			return 0, &bodyError{err}
		}
		if !b.chunks.Trailer() {
			if got > 0 {
				return got, nil
			}
			continue
		}
		b.tail = append(b.tail[:0], rest...)
		if err := b.readTrailer(); err != nil {
			return 0, err
		}
		b.ended.Store(true)
		return got, io.EOF
	}
}

// decode moves the data of the chunks in raw to the beginning of dst, which
// begins where raw does. rest is what follows the last chunk.
func (b *http1Body) decode(dst, raw []byte) (got int, rest []byte, err error) {
	for len(raw) > 0 && !b.chunks.Trailer() {
		n, data, err := b.chunks.Next(raw)
		if err != nil {
			return 0, nil, err
		}
		got += copy(dst[got:], data)
		raw = raw[n:]
	}
	return got, raw, nil
}

// readTrailer reads the trailers; what is left in tail is what follows them.
func (b *http1Body) readTrailer() error {
	for {
		lines, n, err := http1.ParseTrailer(b.lines[:0], b.tail)
		if err != nil {
			return &bodyError{err}
		}
		if n > 0 {
			b.lines, b.tail = lines, b.tail[n:]
			return nil
		}
		var more [1 << 10]byte
		n, err = b.source(more[:])
		if err != nil {
			return b.fail(err)
		}
		b.tail = append(b.tail, more[:n]...)
	}
}

// fail returns the error of a body that does not go on. A client that closes is
// taken for gone.
func (b *http1Body) fail(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != errStopped && !isTimeout(err) {
		b.conn.work.ex.interrupt()
	}
	return &bodyError{err}
}

// giveBack returns to in what was read behind the body, in the place of the
// request, which is not needed any more.
func (b *http1Body) giveBack(in *inbox) {
	if len(b.tail) == 0 {
		return
	}
	rest := append(append([]byte(nil), b.tail...), in.b[in.r:in.w]...)
	if len(rest) > len(in.b) {
		in.b = make([]byte, len(rest))
	}
	in.r, in.w = 0, copy(in.b, rest)
}
