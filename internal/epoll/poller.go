package epoll

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxEvents is how many events are taken from the kernel at a time.
const maxEvents = 256

// passed stands for a deadline that is over.
const passed time.Duration = -1

// Poller is an epoll descriptor. Wake and Watch may be called from any goroutine, all
// else from one. Whoever made it calls Close.
type Poller struct {
	file   *os.File
	fd     int // of file
	raw    syscall.RawConn
	ask    func(fd uintptr) bool // the method look, made a value once
	events [maxEvents]unix.EpollEvent
	n      int // how many of events are new

	epoch time.Time
	armed time.Duration // when the runtime ends the wait; 0 if not at all, or passed
	woken atomic.Bool
}

// New returns a poller whose times are durations since epoch.
func New(epoch time.Time) (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	// Package os hands only non-blocking descriptors to the runtime's poller.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &Poller{file: os.NewFile(uintptr(fd), "epoll"), fd: fd, epoch: epoch}
	p.ask = p.look
	if p.raw, err = p.file.SyscallConn(); err == nil {
		err = p.file.SetReadDeadline(time.Time{}) // fails if the poller did not take it
	}
	if err != nil {
		p.file.Close()
		return nil, err
	}
	return p, nil
}

// Close closes the poller, which forgets all descriptors.
func (p *Poller) Close() { _ = p.file.Close() } // nothing could be done about an error

// Watch has the poller report what e says of the descriptor e.Fd, from now on and
// what there is already. That ends when the descriptor is closed, or by Forget.
func (p *Poller) Watch(e *unix.EpollEvent) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.fd), unix.EPOLL_CTL_ADD, uintptr(e.Fd), uintptr(unsafe.Pointer(e)), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("epoll_ctl", errno)
	}
	return nil
}

// Forget ends the watch of a descriptor, which is open. Wait may have taken an event
// of it before.
func (p *Poller) Forget(fd int) {
	_, _, _ = unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.fd), unix.EPOLL_CTL_DEL, uintptr(fd), 0, 0, 0)
}

// Wake ends a Wait, the next one if none is under way.
func (p *Poller) Wake() {
	if !p.woken.Swap(true) {
		_ = p.file.SetReadDeadline(time.Unix(1, 0)) // fails only if closed
	}
}

// Woken reports whether there has been a Wake since it was called last.
func (p *Poller) Woken() bool {
	if !p.woken.Swap(false) {
		return false
	}
	p.armed = passed // the deadline was used to wake up
	return true
}

// Look returns the events that there are.
func (p *Poller) Look() []unix.EpollEvent {
	p.look(uintptr(p.fd))
	return p.events[:p.n]
}

// Wait returns events when there are any, and none after Wake or at the time due, 0 if
// there is none. It may end too early. The events are good until the next call.
func (p *Poller) Wait(due time.Duration) []unix.EpollEvent {
	p.n = 0
	p.arm(due)
	// Whoever wakes says so before it ends the wait, so that the deadline that
	// arm has set does not take the place of theirs unnoticed.
	if p.woken.Load() {
		return p.Look()
	}
	if err := p.raw.Read(p.ask); errors.Is(err, os.ErrDeadlineExceeded) {
		p.armed = passed
	}
	return p.events[:p.n]
}

// arm has the wait end at due.
func (p *Poller) arm(due time.Duration) {
	switch {
	case due == p.armed, p.armed > 0 && due == 0, p.armed > 0 && p.armed < due:
		return // waking up too early costs less than moving the deadline each time
	case due == 0:
		_ = p.file.SetReadDeadline(time.Time{}) // fails only if closed
	default:
		_ = p.file.SetReadDeadline(p.epoch.Add(due))
	}
	p.armed = due
}

// look reports whether there are events; if not, the runtime waits for some before it
// calls look again. The runtime is not told of the system call, which does not wait.
func (p *Poller) look(fd uintptr) bool {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&p.events[0])), maxEvents, 0, 0, 0)
	if errno != 0 {
		n = 0 // EINTR
	}
	p.n = int(n)
	return n > 0
}
