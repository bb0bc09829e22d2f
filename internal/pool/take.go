package pool

import (
	"slices"
	"time"
)

// Take counts one more connection of the server, which the caller has chosen for
// a reason of its own, and reports whether it may have it: it is of the pool,
// usable and not full. If so, Done is due.
func (p *Pool) Take(s *Server) bool {
	snap := p.current()
	if !slices.Contains(snap.tiers[0].servers, s) && !slices.Contains(snap.tiers[1].servers, s) {
		return false
	}
	limit := int64(s.state.Load().maxConnections)
	if s.current.Add(1) > limit && limit > 0 {
		s.Done()
		return false
	}
	s.count(time.Now())
	return true
}
