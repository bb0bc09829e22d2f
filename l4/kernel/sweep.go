package kernel

import (
	"errors"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The phases and flags of the program.
const (
	phaseNew         = 0
	phaseEstablished = 1
	phaseClosed      = 2

	flagClientFIN = 1 << 1
	flagServerFIN = 1 << 2
	flagInstalled = 1 << 5
)

const (
	// handshake is how long a handshake of TCP may take without a packet, and a
	// datagram may wait for an answer. A flow of datagrams that go one way only is
	// begun anew after that, and finds the same server.
	handshake = 10 * time.Second
	// linger is how long a flow that has ended is kept for packets that are sent
	// once more.
	linger = 10 * time.Second
	// newsAfter is how long it takes at most to hear again of a flow that is in use
	// on the other node: until it looks, with the time that takes.
	newsAfter = RefreshInterval + 2*SweepInterval
	// batch is how many entries are read by one system call.
	batch = 4096
)

// ticks turns a duration into ticks of the program, 2^30 ns each, and rounds up.
func ticks(d time.Duration) uint32 { return uint32((d + 1<<30 - 1) >> 30) }

// tick returns the program's time.
func tick() uint32 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &ts); err != nil {
		return 0 // the kernel has this clock
	}
	return uint32(ts.Nano() >> 30)
}

// age returns how many ticks ago then was. What is seen while a sweep is under
// way may be later than its time.
func age(now, then uint32) uint32 {
	if int32(now-then) < 0 {
		return 0
	}
	return now - then
}

// census is what a sweep counted.
type census struct {
	flows, installed, halfOpen int64
	perServer                  map[uint32]*headcount
}

// headcount is the flows of one server.
type headcount struct{ current, halfOpen, all int64 }

// sweep looks at all flows every SweepInterval until Close.
func (p *Path) sweep() {
	ticker := time.NewTicker(SweepInterval)
	defer ticker.Stop()
	refreshed := tick()
	for {
		select {
		case <-p.stop:
			return
		case <-ticker.C:
		}
		now := tick()
		p.setSettings(func(s *programSettings) { s.Tended = now })
		since := age(now, refreshed)
		if since < ticks(RefreshInterval) {
			since = 0
		} else {
			refreshed = now
		}
		p.reports.deliver(p.sweepOnce(now, since))
	}
}

// sweepOnce ends flows on which nothing has moved for too long, counts the
// others, and forgets services and servers that are gone and have none. Flows
// that were used in the last since ticks are Refreshed; 0 for none. It returns
// what is to be told.
func (p *Path) sweepOnce(now, since uint32) []Change {
	r := p.beginRound(now, since)
	err := r.look(p)
	p.conclude(r, err)
	return r.told
}

// round is one look at all flows. It takes long where there are many, so it goes
// without the lock, for which a router may wait that is about to become active.
type round struct {
	now, since uint32
	timeouts   map[uint32]Timeouts            // of services, by their numbers
	before     map[uint32]programServerCounts // of servers, at the beginning

	told     []Change
	census   census
	timedOut map[uint32]int64 // by service

	here func(netip.Addr) bool
	away map[[4]uint32]bool // addresses of services that are not here, of those asked for
}

// beginRound notes what look needs to know.
func (p *Path) beginRound(now, since uint32) *round {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &round{
		now: now, since: since,
		timeouts: make(map[uint32]Timeouts), before: make(map[uint32]programServerCounts), timedOut: make(map[uint32]int64),
		here: p.o.Here, away: make(map[[4]uint32]bool),
		census: census{perServer: make(map[uint32]*headcount)},
	}
	for id, s := range p.registry.byID {
		r.timeouts[id] = s.Timeouts
	}
	for id, srv := range p.registry.servers {
		srv.used = srv.listed
		if c, err := p.serverCounts(id); err == nil {
			r.before[id] = c
		}
	}
	return r
}

// look looks at all flows.
func (r *round) look(p *Path) error {
	return p.each(func(k *programKey, f *programFlow) bool {
		switch {
		case f.Reverse == 0:
			r.visit(p, k, f)
		case r.since > 0:
			p.sweepOrphan(r.now, k, f)
		}
		return true
	})
}

// visit looks at a flow, whose direction from the client k and f are.
func (r *round) visit(p *Path, k *programKey, f *programFlow) {
	idle, over := r.idle(p, k, f)
	if over {
		// It was read together with thousands of others. By now its ports may be those
		// of another one.
		if p.objects.Flows.Lookup(k, f) != nil {
			return
		}
		if idle, over = r.idle(p, k, f); over {
			r.expire(p, k, f)
			return
		}
	}
	r.census.count(f)
	if r.since > 0 && idle < r.since && f.Phase == phaseEstablished && f.Flags&flagInstalled == 0 {
		if flow, ok := p.flow(k, f, r.now); ok {
			flow.Idle = time.Duration(idle) << 30
			r.told = append(r.told, Change{Kind: Refreshed, Flow: flow})
		}
	}
}

// idle returns for how many ticks nothing has moved on a flow, and whether that is
// too long. Where it matters, the answers count, too, which have an entry of their
// own; but not those to a client that does not come back.
func (r *round) idle(p *Path, k *programKey, f *programFlow) (idle uint32, over bool) {
	idle = age(r.now, f.Seen)
	limit := r.limit(k, f)
	if f.Phase != phaseNew && (idle > limit || r.since > 0 && idle >= r.since) {
		var back programFlow
		other := otherKey(k, f)
		if p.objects.Flows.Lookup(&other, &back) == nil {
			idle = min(idle, age(r.now, back.Seen))
		}
	}
	return idle, idle > limit
}

// count counts the flow that f is.
func (c *census) count(f *programFlow) {
	h := c.perServer[f.Server]
	if h == nil {
		h = &headcount{}
		c.perServer[f.Server] = h
	}
	c.flows++
	h.all++
	switch {
	case f.Flags&flagInstalled != 0:
		c.installed++
	case f.Phase == phaseNew:
		c.halfOpen++
		h.halfOpen++
	case f.Phase == phaseEstablished:
		h.current++
	}
}

// conclude corrects what is counted otherwise by what a round found, unless that
// ended early: then it is too little, and the next round does.
func (p *Path) conclude(r *round, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, n := range r.timedOut {
		if s := p.registry.byID[id]; s != nil {
			s.timedOut += n
		}
	}
	if err != nil {
		return
	}
	c := r.census
	p.census = c
	// What began meanwhile is missing in it until the next sweep.
	_ = p.objects.HalfOpen.Put(uint32(0), c.halfOpen)
	inUse := make(map[uint32]bool)
	for id, srv := range p.registry.servers {
		h := c.perServer[id]
		if h == nil {
			h = &headcount{}
		}
		b, known := r.before[id]
		if !known { // it is new
			inUse[srv.service.id] = true
			continue
		}
		srv.current = h.current - (int64(b.Established) - int64(b.Ended))
		srv.halfOpen = h.halfOpen
		if h.all > 0 || srv.listed || srv.used {
			inUse[srv.service.id] = true
			continue
		}
		// It was in no table during the round, and Install did not ask for it. So no
		// flow began that was not counted.
		delete(p.registry.servers, id)
		p.addrs[id].Store(nil)
		delete(srv.service.servers, srv.addr)
	}
	for _, s := range p.registry.listen { // after a Set that failed, others than names
		inUse[s.id] = true
	}
	for id, s := range p.registry.byID {
		if p.registry.names[s.Name] != s && !inUse[id] {
			delete(p.registry.byID, id)
		}
	}
	if p.o.Route != nil {
		for _, srv := range p.registry.servers {
			v := p.serverValue(srv)
			v.State, v.Reset = srv.value.State, srv.value.Reset
			_ = p.putServer(srv, v) // again at the next sweep
		}
	}
}

// limit returns how many ticks a flow may go without a packet.
func (r *round) limit(k *programKey, f *programFlow) uint32 {
	idle, halfClose := time.Hour, 10*time.Second
	if Protocol(k.Proto) == UDP {
		idle = 30 * time.Second
	}
	t := r.timeouts[f.Service]
	if t.Idle > 0 {
		idle = t.Idle
	}
	if t.HalfClose > 0 {
		halfClose = t.HalfClose
	}
	switch {
	case f.Phase == phaseClosed:
		return ticks(linger)
	case f.Phase == phaseNew:
		return ticks(min(handshake, idle))
	case f.Flags&(flagClientFIN|flagServerFIN) != 0:
		idle = halfClose
	}
	if f.Flags&flagInstalled != 0 || r.elsewhere(k.Daddr) {
		idle += newsAfter
	}
	return ticks(idle)
}

// elsewhere reports whether the other node has an address now, and would tell that a
// flow of it is in use.
func (r *round) elsewhere(vip [4]uint32) bool {
	if r.here == nil {
		return false
	}
	away, asked := r.away[vip]
	if !asked {
		away = !r.here(address(vip))
		r.away[vip] = away
	}
	return away
}

// expire removes a flow and notes what is to be told of it.
func (r *round) expire(p *Path, k *programKey, f *programFlow) {
	other := otherKey(k, f)
	_ = p.objects.Flows.Delete(&other)
	if err := p.objects.Flows.Delete(k); err != nil {
		return
	}
	if f.Phase != phaseEstablished || f.Flags&flagInstalled != 0 {
		return
	}
	r.timedOut[f.Service]++
	if flow, ok := p.flow(k, f, r.now); ok {
		r.told = append(r.told, Change{Kind: Ended, Flow: flow})
	}
}

// sweepOrphan removes the way back of a flow that has no way there: what is left
// when two processors begin and end the same flow at the same time.
func (p *Path) sweepOrphan(now uint32, k *programKey, f *programFlow) {
	if age(now, f.Seen) < ticks(handshake) {
		return
	}
	first := otherKey(k, f)
	var there programFlow
	if errors.Is(p.objects.Flows.Lookup(&first, &there), ebpf.ErrKeyNotExist) {
		_ = p.objects.Flows.Delete(k)
	}
}

// each calls f with all entries of the map of flows until it returns false.
func (p *Path) each(f func(*programKey, *programFlow) bool) error { return each(p.objects.Flows, f) }

func each(flows *ebpf.Map, f func(*programKey, *programFlow) bool) error {
	keys := make([]programKey, batch)
	values := make([]programFlow, batch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := flows.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		for i := range n {
			if !f(&keys[i], &values[i]) {
				return nil
			}
		}
		if err != nil {
			return nil
		}
	}
}
