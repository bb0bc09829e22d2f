package l4

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxEvents is how many events a loop takes from the kernel at a time.
const maxEvents = 256

// passed stands for a deadline that is over.
const passed time.Duration = -1

// loop carries sessions on one goroutine: everything of a session is touched by
// that goroutine alone. Others leave it mail.
//
// It has an epoll descriptor of its own and waits for that one with the
// runtime's poller, as if it were a socket. So a loop that waits takes up
// neither a thread nor one of the runtime's processors, which the election in
// the same process is in need of.
type loop struct {
	epoll  *os.File // run closes it
	fd     int      // of epoll
	raw    syscall.RawConn
	poll   func(fd uintptr) bool // the method ask, made a value once
	events [maxEvents]unix.EpollEvent
	n      int // how many of events are new

	epoch  time.Time
	now    time.Duration // since epoch, read once a turn
	armed  time.Duration // when the poller ends the wait; 0 if not at all, or passed
	timers timers

	sides     []*side // by descriptor
	nonce     uint32  // of the latest side
	again     []*session
	first     *session // of all, in a list
	pipes     pipes
	spare     []*buffer // for what could not be written at once
	in        buffer    // what was just read
	datagrams *batch    // the same for datagrams; nil before there are any

	mu      sync.Mutex
	mail    []func()    // guarded by mu
	closed  bool        // guarded by mu: no more mail
	mailed  atomic.Bool // there may be mail
	stopped bool        // run is to end when there are no more sessions
	done    chan struct{}
}

// newLoop starts a loop. Whoever has it calls stop.
func newLoop() (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("l4: %w", os.NewSyscallError("epoll_create1", err))
	}
	// Package os hands only non-blocking descriptors to the runtime's poller.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("l4: %w", os.NewSyscallError("fcntl", err))
	}
	l := &loop{fd: fd, epoll: os.NewFile(uintptr(fd), "epoll"), epoch: time.Now(), done: make(chan struct{})}
	l.poll = l.ask
	if l.raw, err = l.epoll.SyscallConn(); err == nil {
		err = l.epoll.SetReadDeadline(time.Time{}) // fails if the poller did not take it
	}
	if err != nil {
		l.epoll.Close()
		return nil, fmt.Errorf("l4: %w", err)
	}
	go l.run()
	return l, nil
}

// post has the loop call f soon. It is false if the loop has ended.
func (l *loop) post(f func()) bool {
	if !l.enqueue(f) {
		return false
	}
	if !l.mailed.Swap(true) {
		_ = l.epoll.SetReadDeadline(time.Unix(1, 0)) // fails only if the loop has ended
	}
	return true
}

func (l *loop) enqueue(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.mail = append(l.mail, f)
	return true
}

// call has the loop call f and waits until it has. It is false, and f has not
// been called, if the loop has ended.
func (l *loop) call(f func()) bool {
	called := make(chan struct{})
	if !l.post(func() { f(); close(called) }) {
		return false
	}
	<-called
	return true
}

// stop ends the loop as soon as it has no more sessions, and waits for that.
func (l *loop) stop() {
	l.post(func() { l.stopped = true })
	<-l.done
}

func (l *loop) run() {
	defer close(l.done)
	for {
		l.wait()
		l.now = time.Since(l.epoch)
		for i := range l.events[:l.n] {
			l.event(&l.events[i])
		}
		l.goOn()
		l.open()
		l.expire()
		if l.stopped && l.first == nil && l.end() {
			return
		}
	}
}

// end closes the loop unless there is mail.
func (l *loop) end() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mail) > 0 {
		return false
	}
	l.closed = true
	l.pipes.close()
	_ = l.epoll.Close()
	return true
}

// wait returns when there are events, mail, or a timer is due; at once if there
// is work left over.
func (l *loop) wait() {
	l.n = 0
	if len(l.again) > 0 {
		l.ask(uintptr(l.fd))
		return
	}
	l.arm()
	// Whoever leaves mail says so before it ends the wait, so that the deadline
	// that arm has set does not take the place of theirs unnoticed.
	if l.mailed.Load() {
		l.ask(uintptr(l.fd))
		return
	}
	if err := l.raw.Read(l.poll); errors.Is(err, os.ErrDeadlineExceeded) {
		l.armed = passed
	}
}

// arm has the wait end when the first timer is due.
func (l *loop) arm() {
	due := l.timers.first()
	switch {
	case due == l.armed, l.armed > 0 && due == 0, l.armed > 0 && l.armed < due:
		return // waking up too early costs less than moving the deadline each time
	case due == 0:
		_ = l.epoll.SetReadDeadline(time.Time{}) // fails only if closed
	default:
		_ = l.epoll.SetReadDeadline(l.epoch.Add(due))
	}
	l.armed = due
}

// ask reports whether there are events; if not, the runtime waits for some
// before it calls ask again.
func (l *loop) ask(fd uintptr) bool {
	n, err := rawEpollWait(int(fd), l.events[:])
	if err != nil {
		n = 0 // EINTR
	}
	l.n = n
	return n > 0
}

// event passes an event on to the session that it concerns.
func (l *loop) event(e *unix.EpollEvent) {
	if int(e.Fd) >= len(l.sides) {
		return
	}
	d := l.sides[e.Fd]
	if d == nil || d.nonce != uint32(e.Pad) {
		return // of a descriptor that was closed in this turn
	}
	if d.ready != nil {
		l.serve(d, e.Events)
		return
	}
	d.note(e.Events)
	d.session.step()
}

// serve lets a socket that is not a session's do its work, in turns.
func (l *loop) serve(d *side, events uint32) {
	if d.ready(events) {
		nonce := d.nonce
		l.post(func() {
			if d.fd >= 0 && d.nonce == nonce {
				l.serve(d, events)
			}
		})
	}
}

// goOn continues with the sessions that stopped only to let others have a turn.
func (l *loop) goOn() {
	if len(l.again) == 0 {
		return
	}
	work := l.again
	l.again = nil
	for _, s := range work {
		s.queued = false
		s.step()
	}
}

// open reads the mail.
func (l *loop) open() {
	if !l.mailed.Swap(false) {
		return
	}
	l.armed = passed // the deadline was used to wake up
	l.mu.Lock()
	mail := l.mail
	l.mail = nil
	l.mu.Unlock()
	for _, f := range mail {
		f()
	}
}

// expire tells the sessions whose time has come.
func (l *loop) expire() {
	for {
		t := l.timers.pop(l.now)
		if t == nil {
			return
		}
		t.owner.timeout()
	}
}

// watch has the kernel report what happens to d, from now on and what there is
// already. Reports are made once for each change (EPOLLET), which saves the
// system calls that would switch them off and on.
func (l *loop) watch(d *side) error {
	l.nonce++
	d.nonce = l.nonce
	e := unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLET,
		Fd:     int32(d.fd), Pad: int32(d.nonce),
	}
	if err := rawWatch(l.fd, d.fd, &e); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	for len(l.sides) <= d.fd {
		l.sides = append(l.sides, nil)
	}
	l.sides[d.fd] = d
	return nil
}

// forget is called before d's descriptor is closed, which ends the watch.
func (l *loop) forget(d *side) {
	if d.fd < len(l.sides) && l.sides[d.fd] == d {
		l.sides[d.fd] = nil
	}
}
