package kernel

import (
	"errors"
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
func (p *Path) sweepOnce(now, since uint32) (told []Change) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := make(map[uint32]programServerCounts)
	for id := range p.registry.servers {
		if c, err := p.serverCounts(id); err == nil {
			before[id] = c
		}
	}
	c := census{perServer: make(map[uint32]*headcount)}
	err := p.each(func(k *programKey, f *programFlow) bool {
		if f.Reverse != 0 {
			if since > 0 {
				p.sweepOrphan(now, k, f)
			}
			return true
		}
		idle := age(now, f.Seen)
		limit := p.limit(k, f)
		if f.Phase != phaseNew && (idle > limit || since > 0 && idle >= since) {
			// The answers have an entry of their own. Those to a client that does not
			// come back do not count.
			var back programFlow
			other := otherKey(k, f)
			if p.objects.Flows.Lookup(&other, &back) == nil {
				idle = min(idle, age(now, back.Seen))
			}
		}
		if idle > limit {
			told = p.expire(told, k, f, now)
			return true
		}
		c.count(f)
		if since > 0 && idle < since && f.Phase == phaseEstablished && f.Flags&flagInstalled == 0 {
			if flow, ok := p.flow(k, f, now); ok {
				flow.Idle = time.Duration(idle) << 30
				told = append(told, Change{Kind: Refreshed, Flow: flow})
			}
		}
		return true
	})
	if err != nil {
		return told // the rest is for the next sweep; what was counted is too little
	}
	p.conclude(c, before)
	if p.o.Route != nil {
		for _, srv := range p.registry.servers {
			v := p.serverValue(srv)
			v.State, v.Reset = srv.value.State, srv.value.Reset
			_ = p.putServer(srv, v) // again at the next sweep
		}
	}
	return told
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

// conclude corrects what is counted otherwise by what a sweep found. before are
// the program's counters at its beginning.
func (p *Path) conclude(c census, before map[uint32]programServerCounts) {
	p.census = c
	// What began meanwhile is missing in it until the next sweep.
	_ = p.objects.HalfOpen.Put(uint32(0), c.halfOpen)
	inUse := make(map[uint32]bool)
	for id, srv := range p.registry.servers {
		h := c.perServer[id]
		if h == nil {
			h = &headcount{}
		}
		b := before[id]
		srv.current = h.current - (int64(b.Established) - int64(b.Ended))
		srv.halfOpen = h.halfOpen
		if h.all > 0 || srv.listed {
			inUse[srv.service.id] = true
			continue
		}
		// What began with it since would have been counted: it is not in a table.
		delete(p.registry.servers, id)
		p.addrs[id].Store(nil)
		delete(srv.service.servers, srv.addr)
	}
	for id, s := range p.registry.byID {
		if p.registry.names[s.Name] != s && !inUse[id] {
			delete(p.registry.byID, id)
		}
	}
}

// limit returns how many ticks a flow may go without a packet.
func (p *Path) limit(k *programKey, f *programFlow) uint32 {
	idle, halfClose := time.Hour, 10*time.Second
	if Protocol(k.Proto) == UDP {
		idle = 30 * time.Second
	}
	if s := p.registry.byID[f.Service]; s != nil {
		if s.Timeouts.Idle > 0 {
			idle = s.Timeouts.Idle
		}
		if s.Timeouts.HalfClose > 0 {
			halfClose = s.Timeouts.HalfClose
		}
	}
	switch {
	case f.Phase == phaseClosed:
		return ticks(linger)
	case f.Phase == phaseNew:
		return ticks(min(handshake, idle))
	case f.Flags&(flagClientFIN|flagServerFIN) != 0:
		return ticks(halfClose)
	}
	return ticks(idle)
}

// expire removes a flow and adds what is to be told of it.
func (p *Path) expire(told []Change, k *programKey, f *programFlow, now uint32) []Change {
	other := otherKey(k, f)
	_ = p.objects.Flows.Delete(&other)
	if err := p.objects.Flows.Delete(k); err != nil {
		return told
	}
	if f.Phase != phaseEstablished || f.Flags&flagInstalled != 0 {
		return told
	}
	if s := p.registry.byID[f.Service]; s != nil {
		s.timedOut++
	}
	if flow, ok := p.flow(k, f, now); ok {
		told = append(told, Change{Kind: Ended, Flow: flow})
	}
	return told
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
func (p *Path) each(f func(*programKey, *programFlow) bool) error {
	keys := make([]programKey, batch)
	values := make([]programFlow, batch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := p.objects.Flows.BatchLookup(&cursor, keys, values, nil)
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
