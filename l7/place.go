package l7

import (
	"sync"
	"time"
)

// place knows what is under way at one local IP address, for all services. The
// zero value is empty.
type place struct {
	mu  sync.Mutex
	all map[clientConn]struct{}
	cut bool
}

// clientConn is a connection to a client. Its methods are called by other
// goroutines than its own.
type clientConn interface {
	// wake makes the connection look what s wants of it now, if s is its server.
	wake(s *server)
	// cut breaks the connection off.
	cut()
	// underWay returns the number of exchanges that are not yet completely in the
	// kernel's hands, or one if the first is expected; of those that have begun
	// only the ones that did so at since or after.
	underWay(now, since time.Time) int
}

// freshTime is how long a new connection counts as active while it has brought
// no request yet. One may well be on its way, behind a TLS handshake or half
// read; but browsers open connections in advance, too, and those must not hold
// up a hand-over.
const freshTime = time.Second

func (p *place) add(c clientConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = make(map[clientConn]struct{})
	}
	p.all[c] = struct{}{}
	if p.cut {
		c.cut()
	}
}

func (p *place) remove(c clientConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, c)
}

// wake makes the connections of s look at what s wants of them now.
func (p *place) wake(s *server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.all {
		c.wake(s)
	}
}

// cutAll breaks off all connections, and those that come.
func (p *place) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for c := range p.all {
		c.cut()
	}
}

// underWay returns what is under way at p, as clientConn has it.
func (p *place) underWay(now, since time.Time) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for c := range p.all {
		n += c.underWay(now, since)
	}
	return n
}
