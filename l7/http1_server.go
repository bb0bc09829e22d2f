package l7

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// http1Server is what the connections of a door that speak HTTP/1 have in
// common. It is replaced, not changed, when the door's settings change.
type http1Server struct {
	door *door
	set  doorSettings
	keep atomic.Bool // connections are kept for another request
	date dates
}

func newHTTP1Server(d *door, set doorSettings, keep bool) *http1Server {
	s := &http1Server{door: d, set: set}
	s.keep.Store(keep)
	return s
}

// retire lets the clients go: idle connections are closed, the others when their
// answers are out, which say so.
func (s *http1Server) retire() {
	s.keep.Store(false)
	s.door.place.wake(s)
}

// serve serves a connection, by way of t if that is not nil, and returns when it
// is closed.
func (s *http1Server) serve(tcp *net.TCPConn, t *tls.Conn, p *peer) {
	c := newHTTP1Conn(s, tcp, t, p)
	if c == nil {
		tcp.Close()
		return
	}
	s.door.place.add(c)
	defer s.door.place.remove(c)
	c.run()
}

// http1Conns are connections. The zero value is empty.
type http1Conns struct {
	mu  sync.Mutex
	all map[*http1Conn]struct{}
	cut bool
}

func (p *http1Conns) add(c *http1Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = make(map[*http1Conn]struct{})
	}
	p.all[c] = struct{}{}
	if p.cut {
		c.cut()
	}
}

func (p *http1Conns) remove(c *http1Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, c)
}

// wake makes the idle connections of s look at what s wants of them now.
func (p *http1Conns) wake(s *http1Server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.all {
		if c.server == s {
			c.wake()
		}
	}
}

// cutAll breaks off all connections, and those that come.
func (p *http1Conns) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for c := range p.all {
		c.cut()
	}
}

// count returns how many connections count as active, without exchanges that
// began before since.
func (p *http1Conns) count(now, since time.Time) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for c := range p.all {
		switch c.state.Load() {
		case stateBusy:
			if since.IsZero() || c.busySince.Load() >= since.UnixNano() {
				n++
			}
		case stateFresh:
			if now.Sub(c.began) < freshTime {
				n++
			}
		}
	}
	return n
}

// dates makes the values of Date fields, once a second.
type dates struct{ last atomic.Pointer[date] }

type date struct {
	second int64
	text   string
}

func (d *dates) text(now time.Time) string {
	second := now.Unix()
	if last := d.last.Load(); last != nil && last.second == second {
		return last.text
	}
	next := &date{second, now.UTC().Format(http.TimeFormat)}
	d.last.Store(next)
	return next.text
}
