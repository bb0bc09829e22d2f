package listen

import (
	"net/netip"
	"runtime"
	"sync"
	"time"
)

// idleWorkers is how many goroutines wait for another connection at most.
const idleWorkers = 64

// What handshakes and the stacks of goroutines have taken is given back to the system
// after a collection, which also halves the stacks of those that stay. But the collector
// is begun for the growth of the heap, and when many connections have come and are idle
// that does not grow any more. So it is begun here, too: if there are collectLeast
// connections, when as many, and an eighth of all, have come since it was the last time,
// and not more than a tenth of that in the latest collectAfter. By then the idle ones
// have been parked.
const (
	collectLeast = 1000
	collectAfter = 2 * time.Second
)

// conns are the connections that handlers serve. The zero value is empty and
// ready to use.
type conns struct {
	tasks sync.WaitGroup // one for each goroutine, and for each connection in lot
	lot   lot            // where connections wait without one

	mu    sync.Mutex
	all   map[*Conn]struct{}
	idle  []chan<- work // of workers; who became idle last comes first
	ended bool          // no worker is to become idle any more

	added      int         // how many connections have come since the latest collection
	before     int         // added when it was looked at last
	collection *time.Timer // that is to come, or under way; nil: there is none
}

// work is a connection and who serves it.
type work struct {
	handler Handler
	conn    *Conn
}

// serve hands c to h, on a goroutine of its own as long as ServeConn lasts.
func (s *conns) serve(h Handler, c *Conn) {
	c.parks = true
	s.add(c)
	s.hand(work{h, c})
}

// hand hands w to a goroutine.
//
// Goroutines are kept for other connections, a few of them: the stack of a new
// one has to grow several times before it is large enough for a handler, which
// is more than a tenth of what a short connection costs.
func (s *conns) hand(w work) {
	if next := s.worker(); next != nil {
		next <- w // has room for it
		return
	}
	s.tasks.Go(func() { s.work(w) })
}

// work serves w, and what comes after it.
func (s *conns) work(w work) {
	next := make(chan work, 1)
	for ok := true; ok; w, ok = <-next {
		if !s.finish(w) {
			s.remove(w.conn)
		}
		if !s.rest(next) {
			return
		}
		w = work{} // nothing of it is kept meanwhile
	}
}

// finish serves w until its connection has ended, or waits without a goroutine: then it
// is true, and others may have the connection already.
func (s *conns) finish(w work) (parked bool) {
	for {
		w.handler.ServeConn(w.conn)
		p := w.conn.next
		if p == nil {
			return false
		}
		w.conn.next = nil
		if s.park(p) {
			return true
		}
		w.handler = p.handler
	}
}

// wait returns when every connection has ended. None must begin any more.
func (s *conns) wait() {
	s.dismiss()
	s.lot.end()
	s.tasks.Wait()
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
	if s.collection != nil && s.collection.Stop() {
		s.tasks.Done()
	}
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

// add notes c.
func (s *conns) add(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[*Conn]struct{})
	}
	s.all[c] = struct{}{}
	s.added++
	if s.collection == nil && s.added >= max(collectLeast, len(s.all)/8) && len(s.all) >= collectLeast && !s.ended {
		s.tasks.Add(1)
		s.before = s.added
		s.collection = time.AfterFunc(collectAfter, s.collect)
	}
}

// worker returns a worker that was idle, nil if none is.
func (s *conns) worker() chan<- work {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.idle) - 1
	if last < 0 {
		return nil
	}
	next := s.idle[last]
	s.idle = s.idle[:last]
	return next
}

// collect carries a collection out if few connections come now, and another one: after
// the first the runtime keeps what the heap may grow by until the next, the more the more
// it has grown before.
func (s *conns) collect() {
	if s.many() {
		return
	}
	defer s.tasks.Done()
	runtime.GC()
	runtime.GC()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.collection, s.added = nil, 0
}

// many reports whether many connections have come lately; then it is looked again later.
func (s *conns) many() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	came := s.added - s.before
	s.before = s.added
	if came <= collectLeast/10 || s.ended {
		return false
	}
	s.collection.Reset(collectAfter)
	return true
}

// remove forgets c, which has ended.
func (s *conns) remove(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, c)
}

// rest reports whether a worker is idle now and waits for what comes by next; if not,
// it is to end.
func (s *conns) rest(next chan<- work) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || len(s.idle) >= idleWorkers {
		return false
	}
	s.idle = append(s.idle, next)
	return true
}
