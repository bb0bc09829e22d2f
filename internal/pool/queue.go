package pool

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ErrQueueFull says that as many wait for a server as may.
var ErrQueueFull = errors.New("all usable servers are full, and so is the queue")

// queue is who waits until a server of a pool is not full any more, in the order
// in which they came.
type queue struct {
	waiting atomic.Int64 // the length of tickets, to be read without the lock
	calls   atomic.Int64 // of serveQueue, which whoever is at it has yet to answer

	mu      sync.Mutex
	tickets []*Ticket
}

// Ticket is a place in a queue.
type Ticket struct {
	pool   *Pool
	client netip.Addr
	tried  []*Server
	ready  func(*Server)
}

// Queue has ready called, once and from any goroutine, as soon as there is a
// server for a client, other than those in tried, which it keeps; ready must not
// wait, nor join or leave the queue. Whatever it is given was picked: Done is due. The error
// is ErrQueueFull, bare.
func (p *Pool) Queue(client netip.Addr, ready func(*Server), tried ...*Server) (*Ticket, error) {
	t := &Ticket{pool: p, client: client, tried: slices.Clone(tried), ready: ready}
	if !p.queue.add(t, p.settings.Load().Queue) {
		return nil, ErrQueueFull
	}
	p.serveQueue() // a server may have become free since it was asked for
	return t, nil
}

// Leave gives the place up. It is false if a server was, or is being, given to
// ready.
func (t *Ticket) Leave() bool {
	q := &t.pool.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.tickets, t)
	if i < 0 {
		return false
	}
	q.tickets = slices.Delete(q.tickets, i, i+1)
	q.waiting.Add(-1)
	return true
}

// QueueTimeout returns how long one may wait.
func (p *Pool) QueueTimeout() time.Duration { return p.settings.Load().EffectiveQueueTimeout() }

// Waiting returns how many wait.
func (p *Pool) Waiting() int { return int(p.queue.waiting.Load()) }

func (q *queue) add(t *Ticket, limit int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.tickets) >= limit {
		return false
	}
	q.tickets = append(q.tickets, t)
	q.waiting.Add(1)
	return true
}

// serveQueue gives servers to those who wait, as far as there are any. It does not
// wait: if somebody is at it already, that one looks once more.
func (p *Pool) serveQueue() {
	q := &p.queue
	if q.waiting.Load() == 0 || q.calls.Add(1) > 1 {
		return
	}
	for answered := int64(1); ; answered = q.calls.Load() {
		p.serveOnce()
		if q.calls.CompareAndSwap(answered, 0) {
			return
		}
	}
}

// serveOnce goes through the queue once.
func (p *Pool) serveOnce() {
	q := &p.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.tickets) == 0 {
		return
	}
	free := p.free(nil)
	for i := 0; i < len(q.tickets) && len(free) > 0; {
		t := q.tickets[i]
		if !slices.ContainsFunc(free, func(s *Server) bool { return !slices.Contains(t.tried, s) }) {
			i++ // what is free is what it has tried
			continue
		}
		if s, err := p.PickFor(t.client, t.tried...); err == nil {
			q.tickets = slices.Delete(q.tickets, i, i+1)
			q.waiting.Add(-1)
			t.ready(s)
		} // else somebody was faster
		free = p.free(free[:0])
	}
}

// free appends the servers that may have one more connection to list.
func (p *Pool) free(list []*Server) []*Server {
	snap, c := p.current(), new(choice)
	for i := range snap.tiers {
		t := &snap.tiers[i]
		for k, s := range t.servers {
			if c.takes(t, k) {
				list = append(list, s)
			}
		}
	}
	return list
}

// downs are told which servers have fallen where their connections are to be
// reset.
type downs struct {
	mu    sync.Mutex
	hooks map[string]func(*Server)
}

// OnDown has f called for a server that the checks find dead in a pool whose
// OnServerDown is reset; f must not wait nor call the Pool. who tells callers
// apart: a further call takes the place of the one before.
func (p *Pool) OnDown(who string, f func(*Server)) {
	p.downs.mu.Lock()
	defer p.downs.mu.Unlock()
	if p.downs.hooks == nil {
		p.downs.hooks = make(map[string]func(*Server))
	}
	p.downs.hooks[who] = f
}

func (d *downs) tell(fell []*Server) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.hooks {
		for _, s := range fell {
			f(s)
		}
	}
}
