package l7

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"appliance/internal/listen"
)

// Why a connection is refused.
var (
	errFullService = errors.New("the service has as many connections as it may")
	errFullClient  = errors.New("too many connections of this client")
)

// refusedEvery is how often connections that are refused are a warning; the others go
// to the debug log.
const refusedEvery = time.Second

// connCounts are the connections of clients that a service has, whoever they are and
// by client. The zero value has none.
type connCounts struct {
	all     atomic.Int64
	refused atomic.Int64 // ever

	seldom seldom
	unsaid atomic.Int64 // refused since the last warning

	mu sync.Mutex
	by map[netip.Addr]int // of those that were counted for their client
}

// letIn finds out who a connection is from and lets it in if there may be one more;
// if not, it has closed it. counted says that it is counted for its client. In
// either case over is due.
func (d *door) letIn(tcp *listen.Conn) (client netip.Addr, counted, ok bool) {
	s, st := d.service, d.service.state.Load()
	if n := s.conns.all.Add(1); st.cfg.MaxConnections > 0 && n > int64(st.cfg.MaxConnections) {
		s.refuse(tcp, plainAddr(tcp.Peer().Addr()), errFullService)
		return client, false, false
	}
	client, err := st.clientOf(d.engine.ctx, tcp)
	if err != nil {
		s.pipeline.log.Debug().Stringer("proxy", client).Err(err).Msg("no PROXY header")
		tcp.Close()
		return client, false, false
	}
	if most := st.maxPerClient(client); most > 0 {
		if !s.conns.enter(client, most) {
			s.refuse(tcp, client, errFullClient)
			return client, false, false
		}
		counted = true
	}
	return client, counted, true
}

// enter counts a connection for its client, and reports false if that has most
// already.
func (c *connCounts) enter(client netip.Addr, most int) bool {
	key := clientOf(client)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by[key] >= most {
		return false
	}
	if c.by == nil {
		c.by = make(map[netip.Addr]int)
	}
	c.by[key]++
	return true
}

// leave ends a connection.
func (c *connCounts) leave(client netip.Addr, counted bool) {
	c.all.Add(-1)
	if !counted {
		return
	}
	key := clientOf(client)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by[key]--; c.by[key] <= 0 {
		delete(c.by, key)
	}
}

// maxPerClient returns how many connections the client of a connection may have, 0 for
// any number. A proxy whose word about clients counts is none.
func (st *state) maxPerClient(client netip.Addr) int {
	if st.cfg.PerClient == nil || st.cfg.PerClient.MaxConnections == 0 || st.identity.trusted.contain(client) {
		return 0
	}
	return st.cfg.PerClient.MaxConnections
}

// refuse resets a connection that is one too many: nothing of HTTP is spoken yet.
func (s *service) refuse(tcp *listen.Conn, client netip.Addr, why error) {
	s.conns.refused.Add(1)
	event := s.pipeline.log.Debug()
	if s.conns.seldom.may(time.Now(), refusedEvery) {
		event = s.pipeline.log.Warn().Int64("suppressed", s.conns.unsaid.Swap(0))
	} else {
		s.conns.unsaid.Add(1)
	}
	event.Stringer("client", client).Err(why).Msg("connection refused")
	_ = tcp.ResetOnClose() // fails only if closed
	tcp.Close()
}

// seldom lets something happen now and then, whatever clients do. The zero value
// has not let it happen yet.
type seldom struct{ last atomic.Int64 } // in nanoseconds of Unix time

// may reports whether it may happen now: it has not for that time.
func (s *seldom) may(now time.Time, every time.Duration) bool {
	last := s.last.Load()
	return now.UnixNano()-last >= int64(every) && s.last.CompareAndSwap(last, now.UnixNano())
}
