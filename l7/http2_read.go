package l7

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http2"
)

// http2Work is what reading needs. It is used again for others.
type http2Work struct {
	in     *inbox
	framer *http2.Framer
}

var http2Works = sync.Pool{New: func() any {
	w := &http2Work{}
	w.framer = http2.NewFramer(nil, w)
	w.framer.SetMaxReadFrameSize(frameMost)
	w.framer.SetReuseFrames()
	return w
}}

// Read gives the framer what is there: it is asked for whole frames only.
func (w *http2Work) Read(p []byte) (int, error) {
	if w.in.r == w.in.w {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(p, w.in.b[w.in.r:w.in.w])
	w.in.r += n
	return n, nil
}

// whole reports whether there is a frame that can be read, or refused.
func (w *http2Work) whole() bool {
	b := w.in.b[w.in.r:w.in.w]
	if len(b) < frameHeaderSize {
		return false
	}
	n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	return n > frameMost || len(b) >= frameHeaderSize+n
}

// readPreface reads what every client begins with. It has the time of a head.
func (c *http2Conn) readPreface() error {
	c.since = c.began
	c.begin()
	in := c.work.in
	in.w = copy(in.b, c.preface)
	c.preface = nil
	for in.w-in.r < len(clientPreface) {
		if err := c.read(); err != nil {
			return err
		}
		n := min(len(clientPreface), in.w-in.r)
		if string(in.b[in.r:in.r+n]) != string(clientPreface[:n]) {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
	}
	in.r += len(clientPreface)
	c.since = time.Time{}
	return nil
}

// readFrame reads a frame that is whole.
func (c *http2Conn) readFrame() (http2.Frame, error) {
	in := c.work.in
	kind := http2.FrameType(in.b[in.r+3])
	f, err := c.work.framer.ReadFrame()
	switch err.(type) {
	case nil, http2.ConnectionError:
		return f, err
	case http2.StreamError:
		if kind != http2.FrameHeaders {
			return nil, err
		}
		// The head was not decoded, and those that follow depend on it.
	}
	if err == http2.ErrFrameTooLarge {
		return nil, http2.ConnectionError(http2.ErrCodeFrameSize)
	}
	return nil, http2.ConnectionError(http2.ErrCodeProtocol)
}

// begin gets what reading needs.
func (c *http2Conn) begin() {
	if c.work == nil {
		c.work = http2Works.Get().(*http2Work)
		c.work.in = inboxes.Get().(*inbox)
	}
}

// end gives it back, unless it is in the midst of something.
func (c *http2Conn) end() {
	w := c.work
	if w == nil || w.in.r < w.in.w || c.head.stream != 0 {
		return
	}
	putInbox(w.in)
	c.work, w.in = nil, nil
	http2Works.Put(w)
}

// fill waits for more and reads it.
func (c *http2Conn) fill() error {
	c.end()
	if c.work != nil {
		return c.read()
	}
	if err := c.arm(); err != nil {
		return err
	}
	for {
		var err error
		if c.secure {
			err = c.first()
		} else if err = c.raw.Read(c.turnFunc); err == nil {
			err = c.turnErr
		}
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err := c.arm(); err != nil {
			return err
		}
	}
}

// first waits for the first byte by TLS, and reads what comes with it.
func (c *http2Conn) first() error {
	n, err := c.rw.Read(c.one[:])
	if n == 0 {
		return err
	}
	c.begin()
	c.work.in.b[0], c.work.in.w = c.one[0], 1
	c.since = time.Now()
	return c.read()
}

// turn is called by RawConn.Read until it returns true.
func (c *http2Conn) turn(fd uintptr) bool {
	c.begin()
	in := c.work.in
	n, err := readSocket(fd, in.b)
	if err == syscall.EAGAIN {
		c.end()
		return false
	}
	in.w, c.turnErr = n, nil
	switch {
	case err != nil:
		c.turnErr = os.NewSyscallError("read", err)
	case n == 0:
		c.turnErr = io.EOF
	}
	return true
}

// read reads more of what is not whole.
func (c *http2Conn) read() error {
	in := c.work.in
	in.room()
	if c.since.IsZero() {
		c.since = time.Now()
	}
	for {
		if err := c.arm(); err != nil {
			return err
		}
		n, err := c.rw.Read(in.b[in.w:])
		in.w += n
		if n > 0 {
			c.progress()
			return nil
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// progress notes for a stream whose body comes in pieces that are no whole frame
// that it does come.
func (c *http2Conn) progress() {
	id, ok := c.halfData()
	if !ok || c.work.whole() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if st := c.find(id); st != nil {
		st.body.heard = time.Now()
	}
}

// halfData reports whether what is there begins with a frame DATA, and of which
// stream.
func (c *http2Conn) halfData() (stream uint32, ok bool) {
	b := c.work.in.b[c.work.in.r:c.work.in.w]
	if len(b) < frameHeaderSize || http2.FrameType(b[3]) != http2.FrameData {
		return 0, false
	}
	return uint32(b[5]&0x7f)<<24 | uint32(b[6])<<16 | uint32(b[7])<<8 | uint32(b[8]), true
}

// arm sets the deadline for the read that follows. It returns an error if there
// is nothing to wait for any more.
func (c *http2Conn) arm() error {
	now := time.Now()
	set := &c.server.set
	half := false
	if !c.since.IsZero() {
		_, data := c.halfDataOrNone()
		half = !data
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken {
		return errLeft
	}
	if c.leaving.IsZero() && !c.server.keep.Load() && (c.lastID > 0 || c.kept && c.settled) {
		c.leave(now)
	}
	if !c.leaving.IsZero() && !c.lastWord && (!c.pinged || now.Sub(c.leaving) >= goAwayTime) {
		c.sayLast()
	}
	var left time.Duration
	switch {
	case c.lastWord && len(c.streams) == 0:
		return errLeft
	case half:
		if left = set.header - now.Sub(c.since); left <= 0 {
			return errHead
		}
	case len(c.streams) > 0:
		left = set.idle
	default:
		if left = set.idle - now.Sub(c.idleFrom); left <= 0 {
			return errIdle
		}
	}
	slack := set.idle / 4 // so that the deadline is set rarely
	if half {
		slack = 0
	}
	if !c.leaving.IsZero() && !c.lastWord {
		left, slack = min(left, goAwayTime-now.Sub(c.leaving)), 0
	}
	if has := c.readBy.Sub(now); has >= left && has <= left+slack {
		return nil
	}
	c.readBy = now.Add(left + slack)
	return c.tcp.SetReadDeadline(c.readBy)
}

// halfDataOrNone is halfData, for when nothing may be there.
func (c *http2Conn) halfDataOrNone() (uint32, bool) {
	if c.work == nil || c.head.stream != 0 {
		return 0, false
	}
	return c.halfData()
}
