package l4

import "golang.org/x/sys/unix"

const (
	// pipeSize is what a pipe is made to hold, in bytes, if the kernel lets
	// us. The memory is only taken by what is in it.
	pipeSize = 1 << 20
	// sparePipes is how many unused pipes a loop keeps.
	sparePipes = 16
)

// pipe is what splice(2) moves bytes through.
type pipe struct {
	r, w int
	held int // bytes in it
}

// pipes are a loop's pipes that are not in use: all empty.
type pipes struct{ spare []*pipe }

// get returns an empty pipe; nil if there is none to be had.
func (p *pipes) get() *pipe {
	if last := len(p.spare) - 1; last >= 0 {
		b := p.spare[last]
		p.spare = p.spare[:last]
		return b
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return nil
	}
	// Without the larger size it works, with more system calls.
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize)
	return &pipe{r: fds[0], w: fds[1]}
}

// put takes a pipe back, empty or not.
func (p *pipes) put(b *pipe) {
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
