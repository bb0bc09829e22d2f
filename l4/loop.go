package l4

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"appliance/internal/epoll"
)

// timed is what is told when a time that it has set is over.
type timed interface{ timeout() }

// loop carries sessions on one goroutine: everything of a session is touched by
// that goroutine alone. Others leave it mail.
//
// While it waits it takes up neither a thread nor one of the runtime's processors,
// see internal/epoll.
type loop struct {
	poller *epoll.Poller // run closes it

	epoch  time.Time
	now    time.Duration // since epoch, read once a turn
	timers epoll.Timers[timed]

	sides     []*side // by descriptor
	nonce     uint32  // of the latest side
	again     []*session
	first     *session // of all, in a list
	pipes     pipes
	spare     []*buffer // for what could not be written at once
	in        buffer    // what was just read
	datagrams *batch    // the same for datagrams; nil before there are any

	mu      sync.Mutex
	mail    []func() // guarded by mu
	closed  bool     // guarded by mu: no more mail
	stopped bool     // run is to end when there are no more sessions
	done    chan struct{}
}

// newLoop starts a loop. Whoever has it calls stop.
func newLoop() (*loop, error) {
	epoch := time.Now()
	p, err := epoll.New(epoch)
	if err != nil {
		return nil, fmt.Errorf("l4: %w", err)
	}
	l := &loop{poller: p, epoch: epoch, done: make(chan struct{})}
	go l.run()
	return l, nil
}

// post has the loop call f soon. It is false if the loop has ended.
func (l *loop) post(f func()) bool {
	if !l.enqueue(f) {
		return false
	}
	l.poller.Wake()
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
		events := l.wait()
		l.now = time.Since(l.epoch)
		for i := range events {
			l.event(&events[i])
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
	l.poller.Close()
	return true
}

// wait returns when there are events, mail, or a timer is due; at once if there
// is work left over.
func (l *loop) wait() []unix.EpollEvent {
	if len(l.again) > 0 {
		return l.poller.Look()
	}
	return l.poller.Wait(l.timers.First())
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
	if !l.poller.Woken() {
		return
	}
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
		t := l.timers.Pop(l.now)
		if t == nil {
			return
		}
		t.Owner.timeout()
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
	if err := l.poller.Watch(&e); err != nil {
		return err
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
