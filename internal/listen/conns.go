package listen

import (
	"net/netip"
	"runtime"
	"sync"
	"time"
)

// idleWorkers is how many goroutines wait for another connection at most.
const idleWorkers = 64

// The stack of a goroutine that has served something is twice as large as an idle
// one needs. The collector halves it, but it is begun for the growth of the heap, of
// which connections take little. So it is begun here, too: when there are
// collectLeast connections, for each quarter more, and not twice in collectPause.
const (
	collectLeast = 1000
	collectPause = 100 * time.Millisecond
)

// conns are the connections that handlers serve. The zero value is empty and
// ready to use.
type conns struct {
	workers sync.WaitGroup // one for each goroutine

	mu    sync.Mutex
	all   map[*Conn]struct{}
	idle  []chan<- work // of workers; who became idle last comes first
	ended bool          // no worker is to become idle any more

	collectAt  int       // how many connections begin a collection
	collected  time.Time // when the last one was begun
	collecting bool
}

// work is a connection and who serves it.
type work struct {
	handler Handler
	conn    *Conn
}

// serve hands c to h, on a goroutine of its own as long as ServeConn lasts.
//
// Goroutines are kept for other connections, a few of them: the stack of a new
// one has to grow several times before it is large enough for a handler, which
// is more than a tenth of what a short connection costs.
func (s *conns) serve(h Handler, c *Conn) {
	w := work{h, c}
	if next := s.add(c); next != nil {
		next <- w // has room for it
		return
	}
	s.workers.Go(func() { s.work(w) })
}

// work serves w, and what comes after it.
func (s *conns) work(w work) {
	next := make(chan work, 1)
	for ok := true; ok; w, ok = <-next {
		w.handler.ServeConn(w.conn)
		if !s.remove(w.conn, next) {
			return
		}
		w = work{} // nothing of it is kept meanwhile
	}
}

// wait returns when every ServeConn has returned. None must begin any more.
func (s *conns) wait() {
	s.dismiss()
	s.workers.Wait()
}

// dismiss ends the workers: the idle ones now, the others when they would be idle.
func (s *conns) dismiss() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, next := range s.idle {
		close(next)
	}
	s.idle = nil
}

// cut resets the connections to vips and returns how many those are.
func (s *conns) cut(vips []netip.Addr) int {
	to := s.to(vips)
	for _, c := range to {
		c.reset()
	}
	return len(to)
}

// to returns the connections whose local address is one of vips.
func (s *conns) to(vips []netip.Addr) []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*Conn
	for c := range s.all {
		if Matches(vips, c.local.Addr()) {
			list = append(list, c)
		}
	}
	return list
}

// add notes c and takes a worker for it, nil if none is idle.
func (s *conns) add(c *Conn) chan<- work {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[*Conn]struct{})
	}
	s.all[c] = struct{}{}
	if len(s.all) >= s.collectAt {
		s.collect()
	}
	last := len(s.idle) - 1
	if last < 0 {
		return nil
	}
	next := s.idle[last]
	s.idle = s.idle[:last]
	return next
}

// collect begins a collection if it is time for one. The caller holds the lock.
func (s *conns) collect() {
	s.collectAt = max(collectLeast, len(s.all)+len(s.all)/4)
	now := time.Now()
	if len(s.all) < collectLeast || s.collecting || s.ended {
		return
	}
	if now.Sub(s.collected) < collectPause {
		s.collectAt = len(s.all) + collectLeast/10 // ask again soon
		return
	}
	s.collecting, s.collected = true, now
	s.workers.Go(func() {
		runtime.GC()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.collecting = false
	})
}

// remove forgets c, which has been served. It reports whether the worker is
// idle now and waits for what comes by next; if not, it is to end.
func (s *conns) remove(c *Conn, next chan<- work) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, c)
	s.collectAt = min(s.collectAt, max(collectLeast, 2*len(s.all)))
	if s.ended || len(s.idle) >= idleWorkers {
		return false
	}
	s.idle = append(s.idle, next)
	return true
}
