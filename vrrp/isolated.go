package vrrp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Look wants Hosts asked, now, whether they are there. The answer is the Looked
// of the same ID.
type Look struct {
	ID    uint64
	Hosts []netip.Addr
}

// Looked answers a Look: these of its hosts did not answer.
type Looked struct {
	ID      uint64
	Missing []netip.Addr
}

func (Look) action()  {}
func (Looked) event() {}

// LookPatience is how long a Look may take.
const LookPatience = 250 * time.Millisecond

// lookout is what a machine knows of a Look under way.
type lookout struct {
	id       uint64
	asked    bool
	answered bool
	missing  []netip.Addr
}

// isolated says whether this backup, which hears nobody by any way, may be the
// one that is cut off: it does not reach a host that both nodes should reach, and
// that it did reach while the active router was heard. It asks those hosts first,
// for what it knows of them may be older than the silence.
//
// A host that was missing before says nothing: the gateway is down, and somebody
// must have the addresses all the same. Nor is there anything to doubt for a node
// that has heard nobody since its start.
func (m *Machine) isolated(now time.Time) bool {
	l := &m.lookout
	if len(m.cfg.Reach) == 0 || !m.active.Address.IsValid() || m.lending.waiting || m.hasLink() {
		m.alarm(now, AlarmIsolated, "")
		return false
	}
	if !l.asked {
		l.id++
		l.asked, l.answered = true, false
		m.backup.downAt = now.Add(LookPatience)
		m.do(Look{ID: l.id, Hosts: m.cfg.Reach})
		return true
	}
	missing := l.missing
	if !l.answered {
		missing = m.cfg.Reach
	}
	l.asked, l.missing = false, nil
	for _, host := range missing {
		if since, failed := m.missingSince(host); failed && !since.After(m.active.Heard) {
			continue
		}
		ways := "no advert"
		if m.cfg.Linked {
			ways += " and no peer link"
		}
		m.alarm(now, AlarmIsolated, fmt.Sprintf("%s, and this node may be the one that is cut off: it does not reach %s", ways, host))
		m.backup.downAt = now.Add(m.activeDownInterval())
		return true
	}
	// One that was cut off until now has not had the time to hear anybody.
	back := slices.ContainsFunc(m.evidence.alarms, func(f FaultReport) bool { return f.Source == AlarmIsolated })
	m.alarm(now, AlarmIsolated, "")
	if back {
		m.backup.downAt = now.Add(m.activeDownInterval())
	}
	return back
}

// onLooked judges the silence anew.
func (m *Machine) onLooked(now time.Time, ev Looked) {
	l := &m.lookout
	if m.state != Backup || !l.asked || ev.ID != l.id {
		return
	}
	l.answered, l.missing = true, ev.Missing
	m.backup.downAt = now
	m.tickAsBackup(now, false)
}

// missingSince is since when a tracked host has been known to be missing.
func (m *Machine) missingSince(host netip.Addr) (since time.Time, failed bool) {
	for _, d := range m.demotions {
		if name, ok := strings.CutPrefix(d.Source, ReachSource); ok && name == host.String() {
			return d.Since, true
		}
	}
	return time.Time{}, false
}

// ReachSource is the beginning of the source of a demotion because of a host in
// Config.Reach; its address follows.
const ReachSource = "reach "

// hasLink says whether another node is heard by the peer link, as far as this one
// knows: one that was asked and has not answered is not.
func (m *Machine) hasLink() bool {
	for i := range m.evidence.peers {
		if v := &m.evidence.peers[i]; v.Link == LinkUp && v.Node != m.evidence.asked {
			return true
		}
	}
	return false
}
