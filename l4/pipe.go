package l4

import "golang.org/x/sys/unix"

const (
	// pipeSize is what a pipe is made to hold, in bytes, if the kernel lets
	// us. The memory is only taken by what is in it.
	pipeSize = 1 << 20
	// sparePipes is how many unused pipes a loop keeps.
	sparePipes = 16
	// mostPipes is how many pipes a loop lends at most. What is in a pipe counts for
	// no socket, so the kernel does not bound it: clients that read slowly, or not
	// at all, would each have a pipe's worth of the machine's memory.
	mostPipes = 256
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
}

// get returns an empty pipe; nil if there is none to be had.
func (p *pipes) get() *pipe {
	if p.lent == mostPipes {
		return nil
	}
	if last := len(p.spare) - 1; last >= 0 {
		b := p.spare[last]
		p.spare = p.spare[:last]
		p.lent++
		return b
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return nil
	}
	// Without the larger size it works, with more system calls.
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize)
	p.lent++
	return &pipe{r: fds[0], w: fds[1]}
}

// put takes a pipe back, empty or not.
func (p *pipes) put(b *pipe) {
	p.lent--
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
