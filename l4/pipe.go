package l4

import "golang.org/x/sys/unix"

const (
	// pipeSize is what a pipe is made to hold, in bytes. The memory is only taken by
	// what is in it.
	pipeSize = 256 << 10
	// leastPipe is what it must hold: to copy costs less than to splice a few KiB. The
	// kernel makes such pipes once a user has many (fs.pipe-user-pages-soft, 64 MiB),
	// unless the process has CAP_SYS_RESOURCE, which a service need not have.
	leastPipe = 64 << 10
	// sparePipes is how many unused pipes a loop keeps.
	sparePipes = 16
	// mostPipes is how many pipes a loop lends at most. What is in a pipe counts for
	// no socket, so the kernel does not bound it otherwise: clients that read slowly,
	// or not at all, would each have a pipe's worth of the machine's memory.
	mostPipes = 256
	// pipePause is how often a loop does without a pipe when there was none to be had,
	// and none has come back, before it tries again.
	pipePause = 1000
)

// pipe is what splice(2) moves bytes through.
type pipe struct {
	r, w int
	held int // bytes in it
}

// pipes are a loop's pipes.
type pipes struct {
	spare []*pipe // not in use: all empty
	lent  int
	pause int // see pipePause
}

// get returns an empty pipe; nil if there is none to be had.
func (p *pipes) get() *pipe {
	var b *pipe
	switch last := len(p.spare) - 1; {
	case p.lent == mostPipes:
		return nil
	case last >= 0:
		b, p.spare = p.spare[last], p.spare[:last]
	case p.pause > 0:
		p.pause--
		return nil
	default:
		if b = newPipe(); b == nil {
			p.pause = pipePause
			return nil
		}
	}
	p.lent++
	return b
}

// newPipe makes a pipe that is large enough; nil if it cannot.
func newPipe() *pipe {
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return nil
	}
	size, err := unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize)
	if err != nil {
		size, err = unix.FcntlInt(uintptr(fds[0]), unix.F_GETPIPE_SZ, 0)
	}
	if err != nil || size < leastPipe {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil
	}
	return &pipe{r: fds[0], w: fds[1]}
}

// put takes a pipe back, empty or not.
func (p *pipes) put(b *pipe) {
	p.lent--
	p.pause = 0
	if b.held > 0 || len(p.spare) >= sparePipes {
		unix.Close(b.r)
		unix.Close(b.w)
		return
	}
	p.spare = append(p.spare, b)
}

func (p *pipes) close() {
	for _, b := range p.spare {
		unix.Close(b.r)
		unix.Close(b.w)
	}
	p.spare = nil
}
