package pool

import (
	"math"
	"math/rand/v2"
	"net/netip"
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
	// Until rampsEnd some servers get less than their share, see ramp.
	rampsEnd time.Time
}

// tier is a set of servers that share the connections.
type tier struct {
	servers []*Server
	states  []*state // of each
	// order holds indices of servers; one round of it gives every server as
	// many turns as its weight asks for, well mixed.
	order []int
}

func newSnapshot(balance Balance, servers []*Server) *snapshot {
	snap := &snapshot{balance: balance, servers: servers}
	var weights [2][]int
	snap.fill((*state).usable, &weights)
	if snap.usable() == 0 {
		// One that was ejected is better than none.
		snap.fill((*state).fit, &weights)
	}
	for _, s := range servers {
		if e := s.state.Load().ejection; e.out && (snap.readmission.IsZero() || e.Until.Before(snap.readmission)) {
			snap.readmission = e.Until
		}
	}
	for i := range snap.tiers {
		snap.tiers[i].order = interleave(weights[i])
	}
	return snap
}

// fill puts the servers whose state will do into the tiers, and their weights
// into weights.
func (snap *snapshot) fill(will func(*state) bool, weights *[2][]int) {
	for _, s := range snap.servers {
		st := s.state.Load()
		if !will(st) {
			continue
		}
		i := 0
		if st.backup {
			i = 1
		}
		t := &snap.tiers[i]
		t.servers = append(t.servers, s)
		t.states = append(t.states, st)
		weights[i] = append(weights[i], st.weight)
		if end := st.rampFrom.Add(st.slowStart); st.slowStart > 0 && end.After(snap.rampsEnd) {
			snap.rampsEnd = end
		}
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

// choice is what a pick goes by.
type choice struct {
	turn   uint64
	client netip.Addr
	tried  []*Server
	now    time.Time // zero while no server is ramping
	full   bool      // set when a server was passed over because it is full
}

// takes reports whether the server numbered k of t may be chosen.
func (c *choice) takes(t *tier, k int) bool {
	if slices.Contains(c.tried, t.servers[k]) {
		return false
	}
	if max := t.states[k].maxConnections; max > 0 && t.servers[k].current.Load() >= int64(max) {
		c.full = true
		return false
	}
	return true
}

// share returns the part of its weight that the server numbered k of t gets,
// above 0 and at most 1: less for a while after it has become usable again.
func (c *choice) share(t *tier, k int) float64 {
	if c.now.IsZero() {
		return 1
	}
	return t.states[k].ramp(c.now)
}

// pick returns a server, or nil.
func (snap *snapshot) pick(c *choice) *Server {
	if !snap.rampsEnd.IsZero() {
		if now := time.Now(); now.Before(snap.rampsEnd) {
			c.now = now
		}
	}
	for i := range snap.tiers {
		t := &snap.tiers[i]
		if len(t.servers) == 0 {
			continue
		}
		k := -1
		switch snap.balance {
		case LeastConn:
			k = t.leastConn(c)
		case Random2:
			k = t.random2(c)
		case SourceHash:
			k = t.sourceHash(c)
		case First:
			k = t.first(c)
		default:
			k = t.roundRobin(c)
		}
		if k >= 0 {
			return t.servers[k]
		}
	}
	return nil
}

// roundRobin returns the server whose turn it is, or the next one that may be
// chosen. One that gets only a share of its weight gives away other turns.
func (t *tier) roundRobin(c *choice) int {
	n := uint64(len(t.order))
	lastResort := -1
	for i := range n {
		k := t.order[(c.turn+i)%n]
		if !c.takes(t, k) {
			continue
		}
		if share := c.share(t, k); share == 1 || rand.Float64() < share {
			return k
		}
		lastResort = k
	}
	return lastResort
}

// leastConn returns the server with the fewest connections per unit of weight.
// The search begins with the server whose turn it is, so that servers which are
// equally busy, such as idle ones, take turns as their weights ask for.
func (t *tier) leastConn(c *choice) int {
	start := t.order[c.turn%uint64(len(t.order))]
	best, least := -1, math.Inf(1)
	for i := range t.servers {
		k := (start + i) % len(t.servers)
		// One more than there are, so that a small share counts for idle ones.
		load := float64(t.servers[k].current.Load())
		if share := c.share(t, k); share < 1 {
			load = (load + 1) / share
		}
		load /= float64(t.states[k].weight)
		if load < least && c.takes(t, k) {
			best, least = k, load
		}
	}
	return best
}

// random2 draws two servers, as their weights ask for, and returns the less
// busy one: nearly as even as leastConn, and several balancers that do not know
// of each other do not all choose the same.
func (t *tier) random2(c *choice) int {
	best, least := -1, math.Inf(1)
	for range 2 {
		k := t.order[rand.IntN(len(t.order))]
		load := float64(t.servers[k].current.Load()+1) / (float64(t.states[k].weight) * c.share(t, k))
		if load < least && c.takes(t, k) {
			best, least = k, load
		}
	}
	if best < 0 { // both are out of the question
		return t.roundRobin(c)
	}
	return best
}

// sourceHash returns the server that the client's address belongs to: of all
// servers the one with the highest score, which depends on the client, the
// server and its weight alone (weighted rendezvous hashing). So a server that
// leaves moves only its own clients, and both nodes of a pair agree.
func (t *tier) sourceHash(c *choice) int {
	best, highest := -1, math.Inf(-1)
	key := c.client.As16()
	for k, s := range t.servers {
		h := hash(key[:], s.labelHash)
		uniform := (float64(h>>11) + 0.5) / (1 << 53) // above 0 and below 1
		score := -float64(t.states[k].weight) * c.share(t, k) / math.Log(uniform)
		if score > highest && c.takes(t, k) {
			best, highest = k, score
		}
	}
	return best
}

// first returns the first server that is not full, so that the later ones of
// the file stay unused while they are not needed.
func (t *tier) first(c *choice) int {
	for k := range t.servers {
		if c.takes(t, k) {
			return k
		}
	}
	return -1
}

// hash mixes b into seed: FNV-1a, and a finisher that makes each bit of the
// result depend on all others, which FNV-1a does not for inputs that differ in
// their last byte alone.
func hash(b []byte, seed uint64) uint64 {
	h := seed ^ 0xcbf29ce484222325
	for _, x := range b {
		h = (h ^ uint64(x)) * 0x100000001b3
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
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
	if sum == len(weights) { // all are the same
		order := make([]int, sum)
		for i := range order {
			order[i] = i
		}
		return order
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
