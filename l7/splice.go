package l7

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// spliceLeast is the size of the rest of a body from which on it goes from
	// socket to socket in the kernel: below, a copy costs less.
	spliceLeast = 128 << 10
	// pipeSize is what a pipe is asked to hold.
	pipeSize = 1 << 20
	// modestPipe is asked for instead where that may not be, and while an upstream lends
	// largePipes: what other upstreams and l4 may have is not to be used up.
	modestPipe = 256 << 10
	largePipes = 32
	// moreLeast is how much at a time says that the sender is quick, so that more is
	// likely to be there already.
	moreLeast = 64 << 10
	// leastPipe is what it must hold: to copy costs less than to splice a few KiB.
	leastPipe = 64 << 10
	// sparePipes is how many an upstream keeps for others. The size of those that are
	// empty, too, counts for what the user may have, see makePipe.
	sparePipes = 16
	// mostPipes is how many an upstream lends at most. What is in a pipe counts for no
	// socket, so the kernel does not bound it otherwise: clients that read slowly would
	// each have a pipe's worth of the machine's memory.
	mostPipes = 256
	// pipePause is how often an upstream does without a pipe when there was none to be
	// had, and none has come back, before it tries again: one is asked for before each
	// part of a large body.
	pipePause = 1000
)

// pipe is where splice(2) puts what is on its way between two sockets.
type pipe struct {
	r, w int
	size int
	n    int // bytes in it
	from intake

	most int64 // to be put into it
	more bool  // what was put into it last is not the end, and much: more is likely to be there
	err  error
	// For RawConn, made once: a closure is allocated for each call.
	fillTurn, drainTurn func(fd uintptr) bool
	tryTurn             func(fd uintptr)
}

func newPipe(r, w, size int) *pipe {
	p := &pipe{r: r, w: w, size: size}
	p.from.init()
	p.tryTurn = p.fill
	p.fillTurn = func(fd uintptr) bool {
		if !p.from.ready(fd) {
			return false
		}
		p.fill(fd)
		return p.err != syscall.EAGAIN
	}
	p.drainTurn = func(fd uintptr) bool {
		if p.drain(fd); p.err != syscall.EAGAIN {
			return true
		}
		p.from.hush()
		return false
	}
	return p
}

// fill moves up to most bytes from the socket into the pipe, which is empty. The
// error is in err; io.EOF is the end.
func (p *pipe) fill(fd uintptr) {
	p.n, p.err = splice(int(fd), p.w, int(min(p.most, int64(p.size))), 0)
	switch {
	case p.n > 0:
		p.from.took(p.n)
		p.more = p.n >= moreLeast && int64(p.n) < p.most
	case p.err == nil:
		p.err = io.EOF
	}
}

// fillFrom is fill, and waits while there is nothing.
func (p *pipe) fillFrom(raw syscall.RawConn, most int64) error {
	p.most = most
	if err := raw.Read(p.fillTurn); err != nil {
		return err
	}
	return p.err
}

// tryFrom is fill, and does not wait: syscall.EAGAIN says that there is nothing.
func (p *pipe) tryFrom(raw syscall.RawConn, most int64) error {
	p.most = most
	if err := raw.Control(p.tryTurn); err != nil {
		return err
	}
	return p.err
}

// drain moves what is in the pipe to the socket. If more is likely to follow, the
// kernel may keep a part that does not fill a segment, see push.
func (p *pipe) drain(fd uintptr) {
	flags := 0
	if p.more {
		flags = unix.SPLICE_F_MORE
	}
	for p.n > 0 {
		n, err := splice(p.r, int(fd), p.n, flags)
		if p.err = err; err != nil {
			return
		}
		p.n -= n
	}
}

// drainTo empties the pipe into a socket, in the time that limit gives for a piece.
func (p *pipe) drainTo(raw syscall.RawConn, limit interface{ armWrite(now time.Time) error }) error {
	for {
		if err := limit.armWrite(time.Now()); err != nil {
			return err
		}
		left := p.n
		err := raw.Write(p.drainTurn)
		if err == nil {
			err = p.err
		}
		if !tookPiece(int64(left-p.n), err) {
			return err
		}
	}
}

// push has the kernel send what it keeps because more was likely to follow.
func (p *pipe) push(raw syscall.RawConn) {
	if !p.more {
		return
	}
	p.more = false
	// To ask again for what is in force already pushes, too. What fails has nothing
	// to push.
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_NODELAY, 1) })
}

// splice is splice(2), like the calls in syscalls.go.
func splice(from, to, n, flags int) (int, error) {
	for {
		k, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), uintptr(flags|unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK))
		switch errno {
		case 0:
			return int(k), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

func (p *pipe) close() {
	unix.Close(p.r)
	unix.Close(p.w)
}

// pipes are the pipes of an upstream. The zero value has none.
type pipes struct {
	mu     sync.Mutex
	free   []*pipe // not in use: all empty
	lent   int
	pause  int // see pipePause
	closed bool
}

// get returns an empty pipe, nil if there is none to be had.
func (ps *pipes) get() *pipe {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.lent == mostPipes {
		return nil
	}
	var p *pipe
	switch n := len(ps.free); {
	case n > 0:
		p, ps.free = ps.free[n-1], ps.free[:n-1]
	case ps.pause > 0:
		ps.pause--
		return nil
	default:
		size := pipeSize
		if ps.lent >= largePipes {
			size = modestPipe
		}
		if p = makePipe(size); p == nil {
			ps.pause = pipePause
			return nil
		}
	}
	ps.lent++
	return p
}

// makePipe makes a pipe of want bytes, or of what may be; nil if that is too little.
// The kernel makes tiny ones once a user has many (fs.pipe-user-pages-soft, 64 MiB),
// unless the process has CAP_SYS_RESOURCE, which a service need not have.
func makePipe(want int) *pipe {
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return nil
	}
	size, err := unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, want)
	if err != nil && want > modestPipe {
		size, err = unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, modestPipe)
	}
	if err != nil {
		size, err = unix.FcntlInt(uintptr(fds[1]), unix.F_GETPIPE_SZ, 0)
	}
	p := newPipe(fds[0], fds[1], size)
	if err != nil || size < leastPipe {
		p.close()
		return nil
	}
	return p
}

// put gives a pipe back. Small ones are not kept, in whose place a large one may be.
func (ps *pipes) put(p *pipe) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.lent--
	ps.pause = 0
	if p.n > 0 || ps.closed || p.size < pipeSize || len(ps.free) >= sparePipes {
		p.close()
		return
	}
	p.more = false
	ps.free = append(ps.free, p)
}

// close closes the pipes, and those that are in use when they are given back.
func (ps *pipes) close() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.closed = true
	for _, p := range ps.free {
		p.close()
	}
	ps.free = nil
}

// splice is described at answer.
func (a *http1Reply) splice(to answerWriter) error {
	w, ok := to.(*http1Answer)
	if !ok || w.conn.secure || a.conn.tls != nil || a.left < spliceLeast || w.left != a.left {
		return nil
	}
	ps := &a.conn.up.pipes
	p := ps.get()
	if p == nil {
		return nil
	}
	defer ps.put(p)
	c := a.conn
	c.large = true
	wait := p.from.begin(c.tells(), &c.pace, time.Now())
	defer p.from.end()
	err := error(syscall.EAGAIN)
	if wait {
		err = a.collect(p)
	}
	if err == syscall.EAGAIN {
		err = p.tryFrom(c.raw, a.left)
	}
	flags := 0
	if err == nil {
		flags = unix.MSG_MORE // the head goes out in one segment with the first part
	}
	if err := w.flush(flags); err != nil {
		return &clientError{err}
	}
	for {
		if err == syscall.EAGAIN {
			p.push(w.conn.raw)
			err = a.fill(p)
		}
		if err != nil {
			return broken(err)
		}
		n := int64(p.n)
		if err := w.drain(p); err != nil {
			return &clientError{err}
		}
		a.left -= n
		w.left -= n
		a.ex.received(n)
		if a.left == 0 {
			a.ex.now = time.Now()
			a.done = true
			return nil
		}
		err = p.tryFrom(c.raw, a.left)
	}
}

// fill is more, but into a pipe.
func (a *http1Reply) fill(p *pipe) error {
	if err := a.collect(p); err != syscall.EAGAIN {
		return err
	}
	c := a.conn
	c.pipe, p.most = p, a.left
	defer func() { c.pipe = nil }()
	return a.more()
}

// collect waits for a batch and moves it into the pipe. syscall.EAGAIN says that
// none is to be waited for any longer.
func (a *http1Reply) collect(p *pipe) error {
	c, now := a.conn, time.Now()
	if !p.from.batch(now, min(a.left, int64(p.size))) {
		return syscall.EAGAIN
	}
	c.pipe, p.most = p, a.left
	defer func() { c.pipe = nil }()
	err := c.arm(now, batchWait)
	if err == nil {
		err = c.await()
	}
	switch {
	case err == nil:
		return c.err
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return c.closed(a.ex, err)
	}
	p.from.each()
	return syscall.EAGAIN
}

// clientError says that it is the client that does not take the answer.
type clientError struct{ error }

func (e *clientError) Unwrap() error { return e.error }

// drain sends what is in p to the client.
func (a *http1Answer) drain(p *pipe) error { return p.drainTo(a.conn.raw, a.conn) }
