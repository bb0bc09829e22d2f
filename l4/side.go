package l4

import "golang.org/x/sys/unix"

// side is one of the two connections of a session, or another socket that a loop
// watches.
type side struct {
	session *session // nil if ready is set
	// ready is called with the events of a socket that is not a session's; it
	// reports whether it stopped only because its turn is over.
	ready func(events uint32) (more bool)
	fd    int    // -1 if there is none
	nonce uint32 // tells it from others that had its descriptor

	// What the kernel has reported, and no system call has disproved since.
	readable, writable bool
	final              bool // nothing comes after what is there
	urgent             bool // there has been urgent data
	failed             bool // reset, or given up by the kernel
}

// note takes events of epoll(7) down.
func (d *side) note(events uint32) {
	const end = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	if events&(unix.EPOLLIN|end) != 0 {
		d.readable = true
	}
	if events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		d.writable = true
	}
	if events&end != 0 {
		d.final = true
	}
	if events&unix.EPOLLPRI != 0 {
		d.urgent = true
	}
	if events&unix.EPOLLERR != 0 {
		d.failed = true
	}
}

// reset closes d so that its peer sees a reset, not an end.
func (d *side) reset(l *loop) {
	if d.fd < 0 {
		return
	}
	l.forget(d)
	reset(d.fd)
	d.fd = -1
}

// close closes d; what was written before still reaches its peer.
func (d *side) close(l *loop) {
	if d.fd < 0 {
		return
	}
	l.forget(d)
	rawClose(d.fd)
	d.fd = -1
}
