package l4

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"appliance/internal/listen"
)

// maxChunk bounds what is moved before it is counted, in bytes.
const maxChunk = 256 << 10

// buffer is what a flow moves with one read and one write. Less than that is
// not worth the system calls of a splice.
type buffer [16 << 10]byte

// newBuffers returns a pool of *buffer.
func newBuffers() *sync.Pool { return &sync.Pool{New: func() any { return new(buffer) }} }

// flow is one direction of a relay.
type flow struct {
	way      string // for errors
	src, dst *net.TCPConn
	back     *flow // the other direction: from dst to src
	buffers  *sync.Pool
	count    func(n int64)

	// told is set before dst is told of the end.
	told atomic.Bool

	// These are of the flow's goroutine until it has ended.
	moved int64 // bytes
	err   error // why src's end could not be reached or passed on
}

// run copies until src has no more to say and passes that on to dst.
func (f *flow) run() {
	if err := f.copy(); err != nil {
		f.err = fmt.Errorf("%s: %w", f.way, listen.Cause(err))
	}
}

// copy does what run does. A connection that idles for hours holds neither a
// buffer nor a pipe.
func (f *flow) copy() error {
	raw, err := f.src.SyscallConn()
	if err != nil {
		return err
	}
	in := newIntake(raw, f.buffers)
	for {
		n, err := f.step(in)
		if err != nil {
			return err
		}
		switch n {
		case 0:
			return f.end()
		case len(buffer{}):
			if err := f.bulk(raw); err != nil {
				return err
			}
		}
	}
}

// step moves a buffer's worth at most, and returns how much that was; none is
// the end of src. Unlike splice(2), a read does not stop for ever at a byte of
// urgent data (RFC 9293, section 3.8.5): it leaves that byte out.
func (f *flow) step(in *intake) (n int, err error) {
	b, n, err := in.wait()
	if err != nil {
		return 0, err
	}
	defer f.buffers.Put(b)
	if n > 0 {
		n, err = f.dst.Write(b[:n])
		f.add(int64(n))
	}
	return n, err
}

// bulk splices as long as src has more at hand than a buffer holds.
//
// TCPConn.ReadFrom splices, through a pipe that it borrows from a pool, if the
// reader is a *net.TCPConn or an io.LimitedReader around one, and nothing else:
// no wrapper must come between. It would keep the pipe, two descriptors, while
// it waits for the sender, so it is asked only for what is there. What is there
// ends before urgent data, which step gets past.
func (f *flow) bulk(raw syscall.RawConn) error {
	limited := io.LimitedReader{R: f.src}
	for {
		n, err := atHand(raw)
		if err != nil || n <= len(buffer{}) {
			return err
		}
		limited.N = int64(min(n, maxChunk))
		moved, err := f.dst.ReadFrom(&limited)
		f.add(moved)
		if err != nil {
			return err
		}
	}
}

// end passes the end of src on to dst.
func (f *flow) end() error {
	// The kernel tells of a reset once. If a write of the other direction was
	// told, it looks like an end to a read, and a broken transfer like a whole
	// one. But a connection is over only if both of its sides have ended it.
	if !f.back.told.Load() && gone(f.src) {
		return os.NewSyscallError("read", unix.ECONNRESET)
	}
	f.told.Store(true)
	return f.dst.CloseWrite()
}

func (f *flow) add(n int64) {
	f.moved += n
	f.count(n)
}

// intake reads a connection into buffers of a pool, and holds none of them
// while it waits.
type intake struct {
	raw     syscall.RawConn
	buffers *sync.Pool
	try     func(fd uintptr) bool // the method read, made a value once

	b   *buffer
	n   int
	err error
}

func newIntake(raw syscall.RawConn, buffers *sync.Pool) *intake {
	in := &intake{raw: raw, buffers: buffers}
	in.try = in.read
	return in
}

// wait returns the next bytes, of which there are n; 0 says that there are no
// more. The caller gives the buffer back if there is no error.
func (in *intake) wait() (b *buffer, n int, err error) {
	if err := in.raw.Read(in.try); err != nil {
		return nil, 0, err
	}
	b, in.b = in.b, nil
	return b, in.n, in.err
}

// read reports whether there was something to read; if not, the runtime waits
// before it calls read again.
func (in *intake) read(fd uintptr) bool {
	b := in.buffers.Get().(*buffer)
	n, err := unix.Read(int(fd), b[:])
	for err == unix.EINTR {
		n, err = unix.Read(int(fd), b[:])
	}
	if err != nil {
		in.buffers.Put(b)
		in.err = os.NewSyscallError("read", err)
		return err != unix.EAGAIN
	}
	in.b, in.n, in.err = b, n, nil
	return true
}
