package listen

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"appliance/internal/epoll"
)

// lot is where connections wait that have no goroutine. One goroutine waits for all
// of them. The zero value is empty and ready to use; end ends the goroutine.
//
// A connection is watched (EPOLLONESHOT, level-triggered) as long as it is in the lot
// and no longer, so that those that are in use pay nothing.
type lot struct {
	mu     sync.Mutex
	poller *epoll.Poller // nil: there is no goroutine
	epoch  time.Time
	timers epoll.Timers[*parked]
	all    []*parked // by descriptor
	count  int
	ended  bool
}

// parked is a connection in a lot, or on its way there.
type parked struct {
	conns   *conns // whose lot it is
	conn    *Conn
	handler Handler // that is to go on with it
	timer   epoll.Timer[*parked]
}

// park has a connection wait, without its worker. It is false if it does not, and is to
// be served by p.handler at once.
func (s *conns) park(p *parked) bool {
	p.conns, p.timer.Owner = s, p
	s.tasks.Add(1)
	if s.lot.put(p) {
		return true
	}
	s.tasks.Done()
	return false
}

// goOn has the handler go on with what has been taken out of a lot; nil: with nothing.
func (p *parked) goOn() {
	if p == nil {
		return
	}
	p.conns.hand(work{p.handler, p.conn})
	p.conns.tasks.Done()
}

// put has a connection wait in the lot. It is false if that has nothing to wait for, or
// cannot wait here.
func (l *lot) put(p *parked) bool {
	c := p.conn
	known, err := c.poll()
	if err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || !l.open(&p.conns.tasks) {
		return false
	}
	// Who closes the connection or changes its deadline does that first and looks for
	// p then. So either they see p, or what they did is seen here.
	c.parked.Store(p)
	by, closed := c.fate()
	if closed || !by.IsZero() && !by.After(time.Now()) {
		c.parked.Store(nil)
		return false
	}
	watched := false
	// The descriptor is not closed, and no other connection's, meanwhile.
	_ = known.raw.Control(func(fd uintptr) {
		watched = l.poller.Watch(&unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(fd)}) == nil
	})
	if !watched {
		c.parked.Store(nil)
		return false
	}
	for len(l.all) <= c.fd {
		l.all = append(l.all, nil)
	}
	l.all[c.fd] = p
	l.count++
	if !by.IsZero() {
		first := l.timers.First()
		l.timers.Set(&p.timer, max(1, by.Sub(l.epoch)))
		if l.timers.First() != first {
			l.poller.Wake()
		}
	}
	return true
}

// open has the goroutine begin, unless it has. It reports whether there is one.
func (l *lot) open(tasks *sync.WaitGroup) bool {
	if l.poller != nil {
		return true
	}
	l.epoch = time.Now()
	p, err := epoll.New(l.epoch)
	if err != nil {
		return false
	}
	l.poller = p
	tasks.Go(func() { l.watch(p) })
	return true
}

// end ends the goroutine when the lot is empty. None can be put there any more.
func (l *lot) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	if l.poller != nil {
		l.poller.Wake()
	}
}

// watch is the lot's goroutine.
func (l *lot) watch(p *epoll.Poller) {
	var back []*parked
	var due time.Duration
	for over := false; !over; {
		events := p.Wait(due)
		p.Woken()
		back, due, over = l.ready(events, back[:0])
		for _, parked := range back {
			parked.goOn()
		}
		clear(back)
	}
	p.Close()
}

// ready takes out of the lot those for whom there are events, or whose time is over,
// and appends them to list. It returns also when the next one's time is over, and
// whether the lot has ended.
func (l *lot) ready(events []unix.EpollEvent, list []*parked) (_ []*parked, due time.Duration, over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range events {
		// One may have been taken out meanwhile. If there is another one with its
		// descriptor, that one goes on for nothing.
		if p := l.all[events[i].Fd]; p != nil {
			l.remove(p)
			list = append(list, p)
		}
	}
	for now := time.Since(l.epoch); ; {
		t := l.timers.Pop(now)
		if t == nil {
			break
		}
		p := t.Owner
		l.remove(p)
		list = append(list, p)
	}
	return list, l.timers.First(), l.ended && l.count == 0
}

// take takes p out of the lot. It is false if p was not there any more.
func (l *lot) take(p *parked) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.conn.fd >= len(l.all) || l.all[p.conn.fd] != p {
		return false
	}
	l.remove(p)
	return true
}

// remove does so. The caller holds the lock.
func (l *lot) remove(p *parked) {
	l.all[p.conn.fd] = nil
	l.count--
	l.timers.Remove(&p.timer)
	p.conn.parked.Store(nil)
	if known := p.conn.polled.Load(); known != nil {
		_ = known.raw.Control(func(fd uintptr) { l.poller.Forget(int(fd)) }) // fails if it is closed, which is enough
	}
	if l.ended && l.count == 0 {
		l.poller.Wake()
	}
}

// unpark takes c out of where it waits, if it does.
func (c *Conn) unpark() *parked {
	if p := c.parked.Load(); p != nil && p.conns.lot.take(p) {
		return p
	}
	return nil
}
