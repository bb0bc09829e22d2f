package l4

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// bulkFrom is the size of a read from which on bytes are spliced. For less,
	// one read and one write cost less than two splices.
	bulkFrom = 16 << 10
	// turn is how many bytes a flow moves before others have theirs.
	turn = 1 << 20
	// spareBuffers is how many unused buffers a loop keeps: a crowd of slow readers
	// leaves no memory behind that nobody needs.
	spareBuffers = 64
)

// buffer is what a flow reads at a time when it does not splice.
type buffer [bulkFrom]byte

// flow is one direction of a session.
type flow struct {
	src, dst *side
	way      string // for errors

	moved int64 // bytes that dst has taken
	bulk  bool  // src sends more than is worth copying

	// What src has said and dst has not taken yet is in one of these.
	rest []byte  // a part of kept
	kept *buffer // from the loop's spare ones
	pipe *pipe

	ended bool  // src has said its last
	told  bool  // dst has been told so
	err   error // nothing moves any more, and why
}

// over reports whether nothing is left to do for the flow.
func (f *flow) over() bool { return f.told || f.err != nil }

// pump moves what can be moved now. It reports whether it stopped only because
// its turn is over.
func (f *flow) pump(l *loop) (more bool) {
	for began := f.moved; !f.over(); {
		if f.rest != nil || f.pipe != nil && f.pipe.held > 0 {
			if !f.dst.writable || !f.flush(l) {
				return false
			}
			continue
		}
		f.drop(l)
		switch {
		case f.ended:
			f.end()
			return false
		case !f.src.readable:
			return false
		case f.moved-began >= turn:
			return true
		case f.bulk && !f.src.urgent:
			f.splice(l)
		default:
			f.copy(l)
		}
	}
	return false
}

// copy reads a buffer's worth and writes it.
func (f *flow) copy(l *loop) {
	n, err := rawRead(f.src.fd, l.in[:])
	switch {
	case err == errAgain:
		f.src.readable = false
	case err == unix.EINTR:
	case err != nil:
		f.fail("read", err)
	case n == 0:
		f.ended = true
	default:
		if n == len(l.in) {
			f.bulk = true
		} else if !f.src.final && !f.src.urgent {
			// There was no more: the kernel reports what comes from now on.
			// It would not report what it has reported, such as an end; and a
			// read ends where urgent data begins.
			f.src.readable = false
		}
		f.write(l, l.in[:n])
	}
}

// write writes b and keeps what dst does not take.
func (f *flow) write(l *loop, b []byte) {
	if f.dst.writable {
		n, err := rawWrite(f.dst.fd, b)
		switch {
		case err == errAgain:
			f.dst.writable = false
		case err == unix.EINTR:
		case err != nil:
			f.fail("write", err)
			return
		default:
			f.add(n)
			b = b[n:]
		}
	}
	if len(b) > 0 {
		f.kept = l.buffer()
		f.rest = f.kept[:copy(f.kept[:], b)]
	}
}

// splice moves bytes into a pipe and from there to dst. Unlike a read it does
// not get past urgent data (RFC 9293, section 3.8.5), so it must not be used
// where there was any.
func (f *flow) splice(l *loop) {
	if f.pipe == nil {
		if f.pipe = l.pipes.get(); f.pipe == nil {
			f.copy(l) // there are none left, or no descriptors
			return
		}
	}
	n, err := rawSplice(f.src.fd, f.pipe.w, pipeSize)
	switch {
	case err == errAgain:
		f.src.readable = false
	case err == unix.EINTR:
	case err != nil:
		f.fail("read", err)
	case n == 0:
		f.bulk = false // the end, or urgent data: a read tells
	default:
		f.pipe.held = n
		f.bulk = n >= bulkFrom
		if f.dst.writable {
			f.flush(l)
		}
	}
}

// flush passes on what was kept, and reports whether that is all.
func (f *flow) flush(l *loop) bool {
	var n int
	var err error
	if f.rest != nil {
		n, err = rawWrite(f.dst.fd, f.rest)
	} else {
		n, err = rawSplice(f.pipe.r, f.dst.fd, f.pipe.held)
	}
	switch {
	case err == errAgain:
		f.dst.writable = false
		return false
	case err == unix.EINTR:
		return true
	case err != nil:
		f.fail("write", err)
		return false
	}
	f.add(n)
	if f.rest == nil {
		f.pipe.held -= n
	} else if f.rest = f.rest[n:]; len(f.rest) == 0 {
		f.rest = nil
	}
	return true
}

// drop gives back what the flow holds and is in no need of: a session that
// idles for hours has neither a buffer nor a pipe.
func (f *flow) drop(l *loop) {
	if f.kept != nil && f.rest == nil {
		if len(l.spare) < spareBuffers {
			l.spare = append(l.spare, f.kept)
		}
		f.kept = nil
	}
	if f.pipe != nil && (!f.src.readable || !f.bulk || f.ended) && f.pipe.held == 0 {
		l.pipes.put(f.pipe)
		f.pipe = nil
	}
}

// release gives back everything.
func (f *flow) release(l *loop) {
	f.rest = nil
	if f.pipe != nil {
		l.pipes.put(f.pipe)
		f.pipe = nil
	}
	f.drop(l)
}

// end passes the end of src on to dst. When the other direction has ended too,
// closing does that, see session.finish.
func (f *flow) end() {
	s := f.dst.session
	back := &s.toServer
	if f == back {
		back = &s.toClient
	}
	// The kernel tells of a reset once. If a write of the other direction was
	// told, it looks like an end to a read, and a broken transfer like a whole
	// one.
	if f.src.failed || back.err != nil {
		f.fail("read", unix.ECONNRESET)
		return
	}
	f.told = true
	if back.told {
		return
	}
	if err := rawShutdown(f.dst.fd); err != nil {
		f.fail("shutdown", err)
	}
}

func (f *flow) fail(call string, err error) {
	f.err = fmt.Errorf("%s: %w", f.way, os.NewSyscallError(call, err))
}

func (f *flow) add(n int) {
	f.moved += int64(n)
	f.dst.session.count(f, int64(n))
}

// buffer returns a buffer for what could not be written.
func (l *loop) buffer() *buffer {
	if last := len(l.spare) - 1; last >= 0 {
		b := l.spare[last]
		l.spare = l.spare[:last]
		return b
	}
	return new(buffer)
}
