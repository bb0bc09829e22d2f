package l7

import (
	"io"
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
	pipeSize = 256 << 10
	// maxPipes bounds the pipes that are kept for others.
	maxPipes = 64
)

// pipe is where splice(2) puts what is on its way between two sockets.
type pipe struct {
	r, w int
	size int
	n    int // bytes in it
}

// fill moves up to most bytes from the socket into the pipe, which is empty;
// io.EOF is the end.
func (p *pipe) fill(fd uintptr, most int64) error {
	n, err := splice(int(fd), p.w, int(min(most, int64(p.size))))
	p.n = n
	if n == 0 && err == nil {
		return io.EOF
	}
	return err
}

// drain moves what is in the pipe to the socket.
func (p *pipe) drain(fd uintptr) error {
	for p.n > 0 {
		n, err := splice(p.r, int(fd), p.n)
		if err != nil {
			return err
		}
		p.n -= n
	}
	return nil
}

// splice is splice(2), like the calls in syscalls.go.
func splice(from, to, n int) (int, error) {
	for {
		k, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
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

// pipes are pipes that wait for use. The zero value is empty.
type pipes struct {
	mu     sync.Mutex
	free   []*pipe
	closed bool
}

// get returns an empty pipe, nil if there cannot be one.
func (ps *pipes) get() *pipe {
	ps.mu.Lock()
	if n := len(ps.free); n > 0 {
		p := ps.free[n-1]
		ps.free = ps.free[:n-1]
		ps.mu.Unlock()
		return p
	}
	ps.mu.Unlock()
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return nil
	}
	// Who may not have that much gets what is usual.
	size, err := unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize)
	if err != nil {
		size = 64 << 10
	}
	return &pipe{r: fds[0], w: fds[1], size: size}
}

// put gives a pipe back.
func (ps *pipes) put(p *pipe) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p.n > 0 || ps.closed || len(ps.free) >= maxPipes {
		p.close()
		return
	}
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
	for a.left > 0 {
		a.conn.pipe, a.conn.pipeMost = p, a.left
		err := a.more()
		a.conn.pipe = nil
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
	}
	a.done = true
	return nil
}

// clientError says that it is the client that does not take the answer.
type clientError struct{ error }

func (e *clientError) Unwrap() error { return e.error }

// drain sends what is in p to the client.
func (a *http1Answer) drain(p *pipe) error { return drainTo(a.conn.raw, p, a.conn) }

// drainTo empties p into a socket, in the time that limit gives for a piece.
func drainTo(raw syscall.RawConn, p *pipe, limit interface{ armWrite(now time.Time) error }) error {
	for {
		if err := limit.armWrite(time.Now()); err != nil {
			return err
		}
		var err error
		left := p.n
		if ctl := raw.Write(func(fd uintptr) bool {
			err = p.drain(fd)
			return err != syscall.EAGAIN
		}); ctl != nil {
			err = ctl
		}
		if !tookPiece(int64(left-p.n), err) {
			return err
		}
	}
}
