package vrrp

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// LinkState is what is known of the link to another node.
type LinkState uint8

const (
	// LinkNone: there has been none yet, or none since it was set up anew.
	LinkNone LinkState = iota
	// LinkUp: the other node is heard by it.
	LinkUp
	// LinkLost: the other node has fallen silent, or the network to it.
	LinkLost
	// LinkDied: the other node's process is dead, and its host lives to tell.
	LinkDied
	// LinkGoodbye: the other node has stopped in order.
	LinkGoodbye
)

// PeerReport is news of another node by the link to it: of the link itself, and
// of what the node says of its router for the same virtual addresses.
type PeerReport struct {
	Node string
	Link LinkState
	// Reason says in words why the link is what it is.
	Reason string
	// Known says that the node has told of its router since the link is up.
	// Without it the fields below mean nothing.
	Known bool
	// Source is where the node's adverts come from.
	Source    netip.Addr
	State     State
	Effective int // priority
	// Demoted is the sum of its demotions, Why these or its faults in words.
	Demoted int
	Why     string
}

func (PeerReport) event() {}

// Ask wants the other node to report at once by the link.
type Ask struct{ Node string }

// AskYield wants the other node asked to give its addresses to this one, because
// this one is healthier.
type AskYield struct{ Node string }

// Alarm reports that something is wrong of which the election makes the best. An
// empty Reason ends it.
type Alarm struct{ Name, Reason string }

func (Ask) action()      {}
func (AskYield) action() {}
func (Alarm) action()    {}
func (Alarm) notice()    {}

// The names of alarms.
const (
	// AlarmAdverts: the active router's adverts are not heard, and the peer link
	// says that it is alive and active.
	AlarmAdverts = "adverts"
	// AlarmLink: the peer link has broken.
	AlarmLink = "peer link"
	// AlarmIsolated: neither adverts nor the peer link are heard, and this node
	// does not reach what it should (Config.Reach).
	AlarmIsolated = "isolated"
	// AlarmRival: the other node says by the peer link that it is active as well.
	AlarmRival = "two active"
)

const (
	// askGraceMin and askGraceMax bound the time that the other node gets for an
	// answer before a silence is believed; in between it is one interval.
	askGraceMin = MinAdvertInterval
	askGraceMax = 500 * time.Millisecond
	// yieldAgain is the least time between two requests to yield.
	yieldAgain = time.Second
)

// evidence is what a machine knows by the links to other nodes.
type evidence struct {
	peers  []peerView
	alarms []FaultReport
	// asked is the node that was asked whether it lives, before its silence is
	// believed; empty when none was.
	asked string
	// believed: the silence has lasted, and the link has answered for the active
	// router.
	believed bool
	// healthierSince is since when a router that only the link answers for is
	// less healthy than this one; after a request to yield a time to come.
	healthierSince time.Time
	rivalAt        time.Time // when two active routers are judged; zero while there is one
}

// peerView is what is known of one other node.
type peerView struct {
	PeerReport
	at time.Time // of the latest report
	// broken says that the link broke, and why; empty when it did not.
	broken string
}

// view returns what is known of a node, or nil.
func (m *Machine) view(node string) *peerView {
	for i := range m.evidence.peers {
		if v := &m.evidence.peers[i]; v.Node == node {
			return v
		}
	}
	return nil
}

// onPeerReport takes news of another node in.
func (m *Machine) onPeerReport(now time.Time, ev PeerReport) {
	if !m.cfg.links(ev.Node) {
		return
	}
	v := m.view(ev.Node)
	if v == nil {
		m.evidence.peers = append(m.evidence.peers, peerView{PeerReport: PeerReport{Node: ev.Node}})
		v = &m.evidence.peers[len(m.evidence.peers)-1]
	}
	before := v.PeerReport
	v.PeerReport, v.at = ev, now
	if ev.Link != LinkUp {
		// What it was when it was heard last is worth knowing.
		last := before
		last.Link, last.Reason = ev.Link, ev.Reason
		v.PeerReport = last
	}
	if v.Link != before.Link {
		m.judgeLink(now, v)
	}
	switch m.state {
	case Backup:
		m.weighAsBackup(now, v, before)
	case Active:
		m.weighAsActive(now, v)
	}
}

// links says whether there is a link to a node.
func (c *Config) links(node string) bool {
	return c.Linked && slices.ContainsFunc(c.Peers, func(p Peer) bool { return p.Name == node })
}

// forgetPeers forgets the nodes that there is no link to any more: what they said
// last must not stand for ever.
func (m *Machine) forgetPeers(now time.Time) {
	m.evidence.peers = slices.DeleteFunc(m.evidence.peers, func(v peerView) bool { return !m.cfg.links(v.Node) })
	m.alarmOfLinks(now)
}

// judgeLink notes whether a link has broken.
func (m *Machine) judgeLink(now time.Time, v *peerView) {
	switch v.Link {
	case LinkLost, LinkDied:
		v.broken = fmt.Sprintf("the peer link to %s: %s", v.Node, v.Reason)
		if m.state == Backup && m.active.Address.IsValid() && m.follows(v) {
			v.broken += fmt.Sprintf("; its last advert came %s ago", round(now.Sub(m.active.Heard)))
		}
	case LinkUp, LinkGoodbye, LinkNone:
		v.broken = ""
	}
	m.alarmOfLinks(now)
}

// alarmOfLinks raises the alarm of the first link that is broken, or ends it.
func (m *Machine) alarmOfLinks(now time.Time) {
	reason := ""
	for i := range m.evidence.peers {
		if reason = m.evidence.peers[i].broken; reason != "" {
			break
		}
	}
	m.alarm(now, AlarmLink, reason)
}

// alarm raises an alarm, or ends it when reason is empty.
func (m *Machine) alarm(now time.Time, name, reason string) {
	e := &m.evidence
	i := slices.IndexFunc(e.alarms, func(f FaultReport) bool { return f.Source == name })
	if i < 0 && reason == "" || i >= 0 && e.alarms[i].Reason == reason {
		return
	}
	e.alarms = setFault(e.alarms, now, name, reason)
	m.do(Alarm{Name: name, Reason: reason})
}

// follows says whether v is the active router as far as this one can tell, or
// could be: nobody else is heard.
func (m *Machine) follows(v *peerView) bool {
	return !m.active.Address.IsValid() || m.active.Address == v.Source
}

// weighAsBackup acts on news of another node. before is what was known until
// now.
func (m *Machine) weighAsBackup(now time.Time, v *peerView, before PeerReport) {
	// Only with one other node there is nobody else who could take over.
	relied := len(m.cfg.Peers) == 1 && m.follows(v)
	wasActive := before.Known && before.State == Active || m.backup.resigned.IsValid()
	switch {
	case v.Link == LinkDied && before.Link != LinkDied && relied && wasActive:
		m.becomeActive(now, fmt.Sprintf("the process of %s died: %s", v.Node, v.Reason))
	case v.Link == LinkGoodbye && before.Link != LinkGoodbye && relied && wasActive:
		m.becomeActive(now, fmt.Sprintf("%s has stopped", v.Node))
	case v.Link == LinkUp && v.Known && v.State != Active && relied && before.Known && before.State == Active && now.Sub(m.since) >= m.activeDownInterval():
		// Who was active itself until now waits for the timer: two nodes that both
		// cannot stay active must not take turns at the pace of the link.
		m.becomeActive(now, fmt.Sprintf("%s is %s: %s", v.Node, v.State, v.words()))
	case v.Link == LinkUp && v.Known && v.State == Active && m.evidence.asked == v.Node:
		m.believe(now, v)
	case (v.Link == LinkLost || v.Link == LinkNone) && m.evidence.believed, m.evidence.asked == v.Node && v.Known && v.State != Active:
		// What kept this node back is gone.
		m.backup.downAt = now
		m.tickAsBackup(now, false)
	}
}

// words says why the node is what it is.
func (v *peerView) words() string {
	if v.Why == "" {
		return "it has given the addresses up"
	}
	return v.Why
}

// vouching returns a node that says by the link that it is active, or nil.
func (m *Machine) vouching() *peerView {
	for i := range m.evidence.peers {
		if v := &m.evidence.peers[i]; v.Link == LinkUp && v.Known && v.State == Active {
			return v
		}
	}
	return nil
}

// heldBack says whether a silence is no reason to take over: the link says that
// the active router lives, or this node may be the one that is cut off. It has
// set the timer anew then.
func (m *Machine) heldBack(now time.Time) bool {
	b, e := &m.backup, &m.evidence
	if b.resigned.IsValid() || b.ignoring != "" {
		return false
	}
	v := m.vouching()
	switch {
	case !m.cfg.Linked:
	case v != nil && e.believed:
		m.considerHealth(now, v)
		b.downAt = now.Add(m.activeDownInterval())
		return true
	case v != nil && e.asked == "":
		e.asked = v.Node
		b.downAt = now.Add(min(max(b.interval, askGraceMin), askGraceMax))
		m.do(Ask{Node: v.Node})
		return true
	}
	e.believed = false
	if m.isolated(now) {
		return true
	}
	e.asked = ""
	return false
}

// believe leaves the active router alone because the link has answered for it.
func (m *Machine) believe(now time.Time, v *peerView) {
	e := &m.evidence
	e.asked, e.believed = "", true
	what := fmt.Sprintf("no advert of %s is heard", v.Node)
	if m.active.Address.IsValid() {
		what = fmt.Sprintf("no advert of %s for %s", v.Node, round(now.Sub(m.active.Heard)))
	}
	m.alarm(now, AlarmAdverts, what+", and it says by the peer link that it is active: this node does not take over")
	m.backup.downAt = now.Add(m.activeDownInterval())
}

// considerHealth asks a router that only the link answers for to give way, when
// this one has been healthier for long enough. It never takes over from it.
func (m *Machine) considerHealth(now time.Time, v *peerView) {
	e := &m.evidence
	switch {
	case m.handover.yielded || v.Demoted <= m.demoted() || v.Effective >= m.Effective():
		e.healthierSince = time.Time{}
	case e.healthierSince.IsZero():
		e.healthierSince = now
	case now.Sub(e.healthierSince) >= m.cfg.Settle:
		e.healthierSince = now.Add(yieldAgain)
		m.do(AskYield{Node: v.Node})
	}
}

// trust ends all doubts: an advert of the active router has come, or this router
// is something else than it was.
func (m *Machine) trust(now time.Time) {
	e := &m.evidence
	e.asked, e.believed, e.healthierSince, e.rivalAt = "", false, time.Time{}, time.Time{}
	m.lookout.asked = false
	m.alarm(now, AlarmAdverts, "")
	m.alarm(now, AlarmIsolated, "")
	m.alarm(now, AlarmRival, "")
}

// demoted returns the sum of this router's demotions. More than the priority can
// be lowered by, it still tells who is less healthy.
func (m *Machine) demoted() (sum int) {
	for _, d := range m.demotions {
		sum += d.N
	}
	return sum
}

// compareHealth returns by how much this router and the sender of an advert with
// priority p are demoted: by the link exactly, else by what is left of their
// priorities.
func (m *Machine) compareHealth(source netip.Addr, base, p int, known bool) (mine, theirs int) {
	for i := range m.evidence.peers {
		if v := &m.evidence.peers[i]; v.Link == LinkUp && v.Known && v.Source == source {
			return m.demoted(), v.Demoted
		}
	}
	if known {
		theirs = max(0, base-p)
	}
	return m.cfg.Priority - m.Effective(), theirs
}
