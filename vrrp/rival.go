package vrrp

import (
	"fmt"
	"time"
)

// Two routers that are active at the same time find out by their adverts. Where
// those do not pass, the link tells, and decides as they would.

const (
	// rivalPatience and one interval is how long two nodes may be active at the
	// same time before the link decides between them: adverts do it faster.
	rivalPatience = 250 * time.Millisecond
	rivalAgain    = time.Second
)

// weighAsActive acts on news of another node.
func (m *Machine) weighAsActive(now time.Time, v *peerView) {
	h := &m.handover
	if v.Node == h.predecessor && (v.Link != LinkUp || v.Known && v.State != Active) {
		h.predecessor = ""
		// It may have sent as the virtual router after this one has announced, and
		// then switches look for that at the wrong port.
		m.reassert(now)
	}
	if m.rival(now) == nil {
		m.alarm(now, AlarmRival, "")
	}
	m.watchRival(now)
}

// watchRival sets the time at which another active router is judged, if there is
// one.
func (m *Machine) watchRival(now time.Time) {
	e := &m.evidence
	switch {
	case m.vouching() == nil:
		e.rivalAt = time.Time{}
	case e.rivalAt.IsZero():
		e.rivalAt = now.Add(m.cfg.AdvertInterval + rivalPatience)
	}
}

// rival returns a node that is active although this one is, or nil. During a
// hand-over that is as it should be.
func (m *Machine) rival(now time.Time) *peerView {
	if m.handover.offered != "" || m.succeeds(now) {
		return nil
	}
	return m.vouching()
}

// judgeRival decides between two active routers that do not hear each other's
// adverts, as adverts would do it.
func (m *Machine) judgeRival(now time.Time) {
	e := &m.evidence
	e.rivalAt = now.Add(rivalAgain)
	v := m.rival(now)
	if v == nil {
		m.alarm(now, AlarmRival, "")
		if m.vouching() == nil {
			e.rivalAt = time.Time{}
		}
		return // if there is one, a hand-over is under way
	}
	if !v.at.After(m.since) {
		// It said so before this router became active, and may be dead since then.
		e.rivalAt = now.Add(rivalPatience)
		m.do(Ask{Node: v.Node})
		return
	}
	own := m.Effective()
	if v.Effective > own || v.Effective == own && m.cfg.Source.Less(v.Source) {
		reason := fmt.Sprintf("%s says by the peer link that it is active with priority %d, this node's is %s", v.Node, v.Effective, m.priorityWords())
		m.makeWay(now, Heard{Source: v.Source, Priority: v.Effective, Interval: m.cfg.AdvertInterval}, reason)
		return
	}
	m.alarm(now, AlarmRival, fmt.Sprintf("%s says by the peer link that it is active as well; it has to give way", v.Node))
	m.reassert(now)
}
