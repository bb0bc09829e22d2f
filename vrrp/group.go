package vrrp

import (
	"fmt"
	"slices"
	"time"
)

// GroupFault is the fault of a router that takes no part because another one of
// its group cannot.
const GroupFault = "group"

// group is the machines of one node that move together, as the two arms of a
// node between two LANs must: all are active, or none is. It is pure as they
// are: it steps one machine, and in the same instant makes the others follow.
// What each of them wants done is then in its out.
//
// Whatever one of them cannot do, all cannot: a fault of one is the others' as
// well. When one gives way or resigns, all do, and when one becomes active, all
// do. But a silence on one LAN is not believed while the other node is heard to
// be active on another one: who took over then would have half of the addresses
// and fight for the rest.
type group struct {
	name    string
	members []*Machine
}

// mate is what a machine knows as a member of a group.
type mate struct {
	group *group // nil outside
	// joining: this machine came to a group that is alive already and has not
	// been ready yet. Until then its faults are its own.
	joining bool
	// waiting is why the Active_Down_Timer has run out and this machine is a
	// backup still; empty while that is not so. At reportAt people hear of it.
	waiting  string
	reportAt time.Time
	reported bool
	// back: a failback of another member has made this one active.
	back bool
}

// mates yields the other members of m's group that take part in what it does.
func (m *Machine) mates() []*Machine {
	if m.mate.group == nil {
		return nil
	}
	var others []*Machine
	for _, x := range m.mate.group.members {
		if x != m && !x.mate.joining {
			others = append(others, x)
		}
	}
	return others
}

// join makes m a member. Between one that takes part already and one that has
// only been made, the latter is of the group's election when it is ready.
func (g *group) join(now time.Time, m *Machine) {
	alive := slices.ContainsFunc(g.members, func(x *Machine) bool { return x.state != Fault && !x.mate.joining })
	if !alive && m.state != Fault {
		for _, x := range g.members {
			x.mate.joining = x.hasFault(StartupFault)
		}
	}
	m.mate = mate{group: g, joining: alive && m.state == Fault}
	g.members = append(g.members, m)
	g.spread(now)
	g.unite(now)
}

// leave ends the membership of m, which goes on alone. Those who waited for it
// wait no more.
func (g *group) leave(now time.Time, m *Machine) {
	g.members = slices.DeleteFunc(g.members, func(x *Machine) bool { return x == m })
	m.endWait(now)
	m.mate = mate{}
	if !m.stopped && m.hasFault(GroupFault) {
		m.onFault(now, SetFault{Source: GroupFault})
	}
	g.spread(now)
	for _, x := range g.members {
		x.endWait(now)
	}
}

// step lets m react to ev, and the others follow.
func (g *group) step(now time.Time, m *Machine, ev Event) {
	before := m.state
	m.step(now, ev)
	switch ev.(type) {
	case Heard, Tick:
		if m.state == before {
			return // nearly always
		}
	}
	if m.handover.stopping {
		g.stop(now, m)
		return
	}
	if m.mate.joining && m.state != Fault {
		m.mate.joining = false
		g.spread(now)
		g.unite(now)
		return
	}
	g.spread(now)
	switch {
	case m.mate.joining:
	case m.state == Active && m.handover.draining:
		for _, x := range m.mates() {
			if x.state == Active && !x.handover.draining {
				x.handover.move = m.handover.move
				x.drain(now, m.handover.move.drain(&m.cfg))
			}
		}
	case m.state == Active:
		for _, x := range m.mates() {
			if x.state == Backup {
				x.mate.back = m.handover.failback != nil
				reason := fmt.Sprintf("with %s: %s", m.cfg.Name, m.reason)
				if node := m.handover.predecessor; node != "" {
					x.succeed(now, node, reason)
				} else {
					x.becomeActive(now, reason)
				}
			}
		}
	case m.state == Backup && before != Backup:
		for _, x := range m.mates() {
			if x.state == Active {
				x.giveUp(now, fmt.Sprintf("with %s: %s", m.cfg.Name, m.reason), m.handover.yielded)
			}
		}
	}
}

// stop ends all members together: the process is about to end.
func (g *group) stop(now time.Time, m *Machine) {
	for _, x := range m.mates() {
		x.onShutdown(now)
		if m.stopped && !x.stopped {
			x.handOver(now)
		}
	}
	g.members = slices.DeleteFunc(g.members, func(x *Machine) bool { return x.stopped })
}

// giveUp gives the addresses up because another member does.
func (m *Machine) giveUp(now time.Time, reason string, yields bool) {
	if yields || m.handover.failover != nil {
		m.yield(now)
	}
	// Whose place this one was about to take is active still, and knows.
	m.leaveActive(m.handover.predecessor == "", reason)
	m.learn(m.cfg.AdvertInterval)
	m.becomeBackup(now, reason)
}

// spread makes the first fault of every member the others' as well. What a
// member has by that is not spread again.
func (g *group) spread(now time.Time) {
	for _, m := range g.members {
		reason := ""
		for _, x := range m.mates() {
			i := slices.IndexFunc(x.faults, func(f FaultReport) bool { return f.Source != GroupFault })
			if i >= 0 {
				reason = fmt.Sprintf("%s has the fault %s: %s", x.cfg.Name, x.faults[i].Source, x.faults[i].Reason)
				break
			}
		}
		if reason != "" || m.hasFault(GroupFault) {
			m.onFault(now, SetFault{Source: GroupFault, Reason: reason})
		}
		if m.state != Fault {
			m.mate.joining = false
		}
	}
}

func (m *Machine) hasFault(source string) bool {
	return slices.ContainsFunc(m.faults, func(f FaultReport) bool { return f.Source == source })
}

// unite ends that some members are active and others are not, as a new member
// may find it: the others become active if each of them can win that, or else
// none is.
func (g *group) unite(now time.Time) {
	var active, backup []*Machine
	wins := true
	for _, m := range g.members {
		switch {
		case m.mate.joining:
		case m.state == Active:
			active = append(active, m)
		case m.state == Backup:
			backup = append(backup, m)
			wins = wins && m.wins()
		}
	}
	if len(active) == 0 {
		return
	}
	for _, m := range backup {
		if wins {
			m.becomeActive(now, fmt.Sprintf("with %s of group %s", active[0].cfg.Name, g.name))
		}
	}
	for _, m := range active {
		if !wins {
			m.giveUp(now, fmt.Sprintf("with %s of group %s", backup[0].cfg.Name, g.name), false)
		}
	}
}

// wins says whether the active router that this backup knows, if any, would give
// way to it.
func (m *Machine) wins() bool {
	own, other := m.Effective(), m.active
	return !other.Address.IsValid() || own > other.Priority ||
		own == other.Priority && other.Address.Less(m.cfg.Source)
}

// waits says whether m, whose Active_Down_Timer has run out for that reason, is
// to stay a backup for the sake of its group. The last member whose timer runs
// out makes all of them active.
func (m *Machine) waits(now time.Time, reason string) bool {
	for _, x := range m.mates() {
		if x.state != Backup || x.agrees(now, m.backup.goneAt) {
			continue
		}
		heard := "has not listened for long enough"
		if x.active.Address.IsValid() {
			heard = fmt.Sprintf("hears %s with priority %d", x.active.Address, x.active.Priority)
		}
		m.mate.waiting = fmt.Sprintf("%s, but %s of group %s %s", reason, x.cfg.Name, m.mate.group.name, heard)
		if m.mate.reportAt.IsZero() {
			m.mate.reportAt = now.Add(max(m.activeDownInterval(), x.activeDownInterval()))
		}
		return true
	}
	return false
}

// agrees says whether this backup does not object to a take-over: its own timer
// has run out, or another member heard at the time gone that the other node
// resigns, and nothing has been heard here since.
func (m *Machine) agrees(now, gone time.Time) bool {
	return m.mate.waiting != "" || !now.Before(m.backup.downAt) || !gone.IsZero() && !m.active.Heard.After(gone)
}

// tickAsWaiting tells people of a wait that lasts.
func (m *Machine) tickAsWaiting(now time.Time) {
	if !m.mate.reportAt.IsZero() && !now.Before(m.mate.reportAt) {
		m.mate.reportAt, m.mate.reported = time.Time{}, true
		m.do(Held{Reason: m.mate.waiting})
	}
}

// clearWait ends the wait of a machine whose timer no longer is run out.
func (m *Machine) clearWait() {
	if m.mate.reported {
		m.do(Held{})
	}
	m.mate.waiting, m.mate.reportAt, m.mate.reported = "", time.Time{}, false
}

// endWait judges the silence anew that m has waited with.
func (m *Machine) endWait(now time.Time) {
	if m.mate.waiting == "" {
		return
	}
	m.clearWait()
	if m.state == Backup {
		m.backup.downAt = now
	}
}

// matesDrain says whether another member of m's group still lets connections end.
func (m *Machine) matesDrain() bool {
	return slices.ContainsFunc(m.mates(), func(x *Machine) bool { return x.handover.draining && !x.handover.drained })
}

// joinsFailover says whether a failover of m is one that is under way for the
// whole group, and m has not been asked yet.
func (m *Machine) joinsFailover() bool {
	return m.handover.failover == nil && !m.handover.stopping &&
		(m.handover.draining || m.handover.offered != "" || m.state == Backup && m.handover.yielded) &&
		slices.ContainsFunc(m.mates(), func(x *Machine) bool { return x.handover.failover != nil })
}

// loser returns a member that would not win the addresses back; nil if all would.
func (m *Machine) loser() *Machine {
	for _, x := range m.mates() {
		if x.state == Backup && !x.wins() {
			return x
		}
	}
	return nil
}
