package vrrp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// handover is what a machine knows about giving the addresses away and taking
// them back by command, and about its own end.
type handover struct {
	// yielded: the addresses were given away by command. This router does not
	// take over from a live active one until failback.
	yielded   bool
	yieldedAt time.Time
	stopping  bool // a Shutdown is under way

	draining bool
	drained  bool // it is over here; other members of the group still drain
	drainID  uint64
	drainEnd time.Time // zero unless draining

	failover, failback *uint64 // the commands that wait for their Reply
	move               Move    // of the failover
	// along is when the addresses were given away because of a failover of another
	// member of the group, until one asks for it.
	along time.Time

	// Of a switch by the peer link; see takeover.go.
	offered       string     // the node that is asked to take over; empty when none is
	taken         bool       // and has confirmed, which others of the group wait for
	heir          PeerAdvert // how that one is heard then
	offerID       uint64
	takeover      *uint64 // the TakeOver that waits for its Reply
	predecessor   string  // the node whose adverts are not heeded; empty when all are
	successionEnd time.Time
}

// onFailover begins to give the addresses away.
func (m *Machine) onFailover(now time.Time, ev Failover) {
	h := &m.handover
	switch {
	case m.joinsFailover():
		h.failover = &ev.ID
	case m.state == Backup && m.active.Address.IsValid() && now.Sub(h.along) < alongTime:
		h.along = time.Time{}
		m.do(Reply{ID: ev.ID, Active: m.active.Address})
	case m.state == Fault:
		m.refuse(ev.ID, "this node takes no part: "+m.faultWords())
	case m.state == Backup && m.active.Address.IsValid():
		m.refuse(ev.ID, fmt.Sprintf("this node is not active, %s is", m.active.Address))
	case m.state == Backup:
		m.refuse(ev.ID, "this node is not active")
	case h.stopping:
		m.refuse(ev.ID, "this node is stopping")
	case len(m.cfg.Own) > 0:
		m.refuse(ev.ID, fmt.Sprintf("%s is this node's own address and stays on it", m.cfg.Own[0]))
	case h.draining, h.offered != "":
		m.refuse(ev.ID, "a failover is already under way")
	case h.failback != nil:
		m.refuse(ev.ID, "a failback is under way")
	case !ev.Force && m.unfit() != "":
		m.refuse(ev.ID, m.unfit()+"; --force overrides")
	default:
		h.failover, h.move = &ev.ID, ev.Move
		m.drain(now, ev.drain(&m.cfg))
	}
}

// drain is how long connections get to end.
func (v Move) drain(c *Config) time.Duration {
	if v.Drain != nil {
		return *v.Drain
	}
	return c.Drain
}

// onFailback takes the addresses back from the router they were given to.
func (m *Machine) onFailback(now time.Time, ev Failback) {
	own := m.Effective()
	switch {
	case m.state == Fault:
		m.refuse(ev.ID, "this node takes no part: "+m.faultWords())
	case m.state == Active && m.mate.back && m.handover.failback == nil:
		m.handover.failback = &ev.ID
		if m.holding.acquired {
			m.answerFailback()
		}
	case m.state == Active:
		m.refuse(ev.ID, "this node is active")
	case !m.handover.yielded:
		m.refuse(ev.ID, "this node did not yield; nothing holds it back")
	case !m.active.Address.IsValid():
		m.refuse(ev.ID, "no active router is heard; this node takes over by itself if none appears")
	case own < m.active.Priority, own == m.active.Priority && m.cfg.Source.Less(m.active.Address):
		// The active router would not follow, and both would hold the addresses.
		m.refuse(ev.ID, fmt.Sprintf("this node's priority %d does not beat %d of %s; type applianctl failover on the active node",
			own, m.active.Priority, m.active.Address))
	case m.loser() != nil:
		x := m.loser()
		m.refuse(ev.ID, fmt.Sprintf("the group moves together, and %s has priority %d, which does not beat %d of %s",
			x.cfg.Name, x.Effective(), x.active.Priority, x.active.Address))
	default:
		m.handover.failback = &ev.ID
		m.becomeActive(now, fmt.Sprintf("failback from %s%s", m.active.Address, commandOf(ev.By)))
	}
}

// onShutdown resigns, after a drain if this router is active.
func (m *Machine) onShutdown(now time.Time) {
	h := &m.handover
	if h.stopping {
		return
	}
	h.stopping = true
	switch {
	case m.state != Active:
		m.becomeFault(now, "stopping")
	case !h.draining && h.offered == "":
		m.drain(now, m.cfg.Drain)
	}
	// A failover under way goes on, and ends in the stop.
}

// drain begins to let connections end; without a time for that the addresses
// go at once.
func (m *Machine) drain(now time.Time, d time.Duration) {
	h := &m.handover
	if d <= 0 {
		m.handOver(now)
		return
	}
	h.draining, h.drained = true, false
	h.drainID++
	h.drainEnd = now.Add(d)
	heir, alone := m.nextNode()
	m.do(Drain{ID: h.drainID, Deadline: h.drainEnd, All: h.move.Drain != nil && !h.stopping, Heir: heir, Alone: alone})
}

// onDrained gives the addresses away before the deadline.
func (m *Machine) onDrained(now time.Time, ev Drained) {
	if !m.handover.draining || ev.ID != m.handover.drainID {
		return
	}
	m.handover.drained = true
	if !m.matesDrain() {
		m.handOver(now)
	}
}

// endDrain lets new connections in again, if they were held off.
func (m *Machine) endDrain() {
	if !m.handover.draining {
		return
	}
	m.handover.draining = false
	m.handover.drainEnd = time.Time{}
	m.do(Resume{})
}

// alongTime is for how long a failover of another member of the group answers one
// that was meant at the same time.
const alongTime = time.Second

// handOver is the end of a drain: the addresses go, to the other node or with
// this one.
func (m *Machine) handOver(now time.Time) {
	h := &m.handover
	if h.offered != "" {
		return // it is under way
	}
	if m.obstacle() == "" {
		node, why := m.heir()
		if node != "" {
			for _, x := range m.together() {
				x.handover.move = h.move
				x.offer(node)
			}
			return
		}
		if !h.stopping && !h.move.Force {
			m.keep(now, why)
			return
		}
	}
	if h.stopping {
		m.becomeFault(now, "stopping")
		return
	}
	reason := m.moveReason()
	m.leaveActive(true, reason)
	if !h.move.Back {
		m.yield(now)
	}
	m.learn(m.cfg.AdvertInterval)
	m.becomeBackup(now, reason)
}

// commandOf names who gave a command, for the end of a reason.
func commandOf(by string) string {
	if by == "" {
		return " by command"
	}
	return " by command of " + by
}

// yield makes this router leave a live active one alone until failback.
func (m *Machine) yield(now time.Time) {
	m.handover.yielded, m.handover.yieldedAt = true, now
}

// answerFailover tells a waiting failover that the router at source is active.
func (m *Machine) answerFailover(source netip.Addr) {
	id := m.handover.failover
	if id == nil {
		return
	}
	m.handover.failover = nil
	m.do(Reply{ID: *id, Active: source})
	// With the node that is the larger one by configuration the addresses are
	// where the file wants them. There is no way back to hold off, and no
	// failback could ever win and end the hold.
	if base, known := m.baseOf(source); known && base > m.cfg.Priority {
		m.handover.yielded = false
		for _, x := range m.mates() {
			x.handover.yielded = false
		}
	}
}

// answerFailback tells a waiting failback that this router holds the addresses.
func (m *Machine) answerFailback() {
	if id := m.handover.failback; id != nil {
		m.handover.failback = nil
		m.do(Reply{ID: *id, Active: m.cfg.Source})
	}
}

// failFailback tells a waiting failback that the addresses were lost again.
func (m *Machine) failFailback(reason string) {
	if id := m.handover.failback; id != nil {
		m.handover.failback = nil
		m.do(Reply{ID: *id, Err: errors.New(reason)})
	}
}

// failFailover tells a waiting failover that nothing comes of it any more.
func (m *Machine) failFailover(reason string) {
	if id := m.handover.failover; id != nil {
		m.handover.failover = nil
		m.do(Reply{ID: *id, Err: errors.New(reason)})
	}
}

// refuse answers a command that changes nothing.
func (m *Machine) refuse(id uint64, reason string) {
	m.do(Reply{ID: id, Err: fmt.Errorf("%w: %s", ErrRefused, reason)})
}

// faultWords names the first fault.
func (m *Machine) faultWords() string {
	if len(m.faults) == 0 {
		return "stopping"
	}
	return fmt.Sprintf("fault %s: %s", m.faults[0].Source, m.faults[0].Reason)
}
