package pool

import (
	"math"
	"slices"
	"time"
)

// snapshot is everything that readers of a pool need. It is never changed.
type snapshot struct {
	balance Balance
	servers []*Server // all, in the order of the configuration
	tiers   [2]tier   // the usable ones: first the normal servers, then the backups
	// readmission is when the first ejected server is let in again; zero while
	// none is out.
	readmission time.Time
}

// tier is a set of servers that share the connections.
type tier struct {
	servers []*Server
	weights []int
	// order holds indices of servers; one round of it gives every server as
	// many turns as its weight asks for, well mixed.
	order []int
}

func newSnapshot(balance Balance, servers []*Server) *snapshot {
	snap := &snapshot{balance: balance, servers: servers}
	snap.fill((*state).usable)
	if snap.usable() == 0 {
		// One that was ejected is better than none.
		snap.fill((*state).fit)
	}
	for _, s := range servers {
		if e := s.state.Load().ejection; e.out && (snap.readmission.IsZero() || e.Until.Before(snap.readmission)) {
			snap.readmission = e.Until
		}
	}
	for i := range snap.tiers {
		snap.tiers[i].order = interleave(snap.tiers[i].weights)
	}
	return snap
}

// fill puts the servers whose state will do into the tiers.
func (snap *snapshot) fill(will func(*state) bool) {
	for _, s := range snap.servers {
		st := s.state.Load()
		if !will(st) {
			continue
		}
		t := &snap.tiers[0]
		if st.backup {
			t = &snap.tiers[1]
		}
		t.servers = append(t.servers, s)
		t.weights = append(t.weights, st.weight)
	}
}

func (snap *snapshot) usable() int {
	for i := range snap.tiers {
		if n := len(snap.tiers[i].servers); n > 0 {
			return n
		}
	}
	return 0
}

// pick returns the server for the pick numbered turn, or nil.
func (snap *snapshot) pick(turn uint64, tried []*Server) *Server {
	for i := range snap.tiers {
		t := &snap.tiers[i]
		if len(t.servers) == 0 {
			continue
		}
		var s *Server
		if snap.balance == LeastConn {
			s = t.leastConn(turn, tried)
		} else {
			s = t.roundRobin(turn, tried)
		}
		if s != nil {
			return s
		}
	}
	return nil
}

// roundRobin returns the server whose turn it is, or the next one not tried.
func (t *tier) roundRobin(turn uint64, tried []*Server) *Server {
	n := uint64(len(t.order))
	for i := range n {
		if s := t.servers[t.order[(turn+i)%n]]; !slices.Contains(tried, s) {
			return s
		}
	}
	return nil
}

// leastConn returns the server with the fewest connections per unit of weight.
// The search begins with the server whose turn it is, so that servers which are
// equally busy, such as idle ones, take turns as their weights ask for.
func (t *tier) leastConn(turn uint64, tried []*Server) *Server {
	start := t.order[turn%uint64(len(t.order))]
	var best *Server
	least := math.Inf(1)
	for i := range t.servers {
		k := (start + i) % len(t.servers)
		s := t.servers[k]
		load := float64(s.current.Load()) / float64(t.weights[k])
		if load < least && !slices.Contains(tried, s) {
			best, least = s, load
		}
	}
	return best
}

// interleave returns the order in which servers of these weights take turns:
// smooth weighted round robin. In each step every server earns its weight, and
// the richest takes the turn and pays what all have earned together; 5, 1, 1
// gives a a b a c a a, not a a a a a b c.
func interleave(weights []int) []int {
	if len(weights) == 0 {
		return nil
	}
	// Weights of 100, 200 and 100 are worth no more than 1, 2 and 1.
	divisor := 0
	for _, w := range weights {
		divisor = gcd(divisor, w)
	}
	sum := 0
	for _, w := range weights {
		sum += w / divisor
	}
	credit := make([]int, len(weights))
	order := make([]int, 0, sum)
	for range sum {
		richest := 0
		for i, w := range weights {
			credit[i] += w / divisor
			if credit[i] > credit[richest] {
				richest = i
			}
		}
		credit[richest] -= sum
		order = append(order, richest)
	}
	return order
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
