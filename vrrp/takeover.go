package vrrp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// A planned switch by the peer link: the active router offers the addresses, the
// other node becomes active, acquires and announces them and confirms, and only
// then the first one lets go. In between both are active, and neither heeds the
// other's adverts.

// OfferTime is how long the other node gets to confirm. After that the offer is
// taken back and nothing has changed.
const OfferTime = 2 * time.Second

// successionTime is for how long at most the new router does not heed the
// adverts of the one whose place it takes.
const successionTime = OfferTime + time.Second

// Offer wants Node asked to take over, for Reason. The answer is the Offered of
// the same ID, within OfferTime.
type Offer struct {
	ID     uint64
	Node   string
	Reason string
}

// Offered says that the node which the Offer of that ID was made to has the
// addresses and has announced them, or why not.
type Offered struct {
	ID  uint64
	Err error
}

// TakeOver asks a backup to become active, because Node lets go of the addresses
// as soon as this one has announced them: then comes the Reply of the same ID.
// Without a Node nobody waits any more, and it is refused.
type TakeOver struct {
	ID           uint64
	Node, Reason string
}

// Withdrawn says that nobody waits for the Reply to the TakeOver of that ID any
// more.
type Withdrawn struct{ ID uint64 }

// Announced says that the Announce of that Term was carried out, or why not.
type Announced struct {
	Term uint64
	Err  error
}

func (Offered) event()   {}
func (TakeOver) event()  {}
func (Withdrawn) event() {}
func (Announced) event() {}
func (Offer) action()    {}

// switches says whether the addresses are given away over the link. Those that
// stay on the node cannot be; and the members of a group, which cannot change one
// after the other, say priority 0 together.
func (m *Machine) switches() bool {
	return m.cfg.Linked && len(m.cfg.Own) == 0 && m.mate.group == nil
}

// heir returns the node that would take over, as the link tells, or why there is
// none.
func (m *Machine) heir() (*peerView, string) {
	why := "there is no other node"
	for _, p := range m.cfg.Peers {
		v := m.view(p.Name)
		switch {
		case p.Keepalived:
			why = p.Name + " is a keepalived"
		case v == nil, v.Link == LinkNone:
			why = "there has been no peer link to " + p.Name + " yet"
		case v.Link != LinkUp:
			why = fmt.Sprintf("%s is absent: the peer link: %s", v.Node, v.Reason)
		case !v.Known:
			why = fmt.Sprintf("%s has said nothing of %s yet", v.Node, m.cfg.Name)
		case v.State == Fault:
			why = fmt.Sprintf("%s takes no part: %s", v.Node, v.words())
		case v.State == Active:
			why = v.Node + " says that it is active"
		default:
			return v, ""
		}
	}
	return nil, why
}

// nextNode names the node that is to take over by the link, or says why there is
// none that is known before it does.
func (m *Machine) nextNode() (node, why string) {
	switch {
	case !m.cfg.Linked:
		return "", "there is no peer link"
	case m.mate.group != nil:
		return "", "the members of a group change together, by adverts"
	case len(m.cfg.Own) > 0:
		return "", fmt.Sprintf("%s is this node's own address", m.cfg.Own[0])
	}
	v, why := m.heir()
	if v == nil {
		return "", why
	}
	return v.Node, ""
}

// unfit says why a failover would do harm; empty if it would not. Without a link
// nobody can tell.
func (m *Machine) unfit() string {
	if !m.cfg.Linked {
		return ""
	}
	v, why := m.heir()
	if v != nil && v.Demoted > m.demoted() {
		why = fmt.Sprintf("%s is less healthy: it is demoted by %d (%s), this node by %s", v.Node, v.Demoted, v.words(), m.demotionWords())
	}
	return why
}

// offer offers the addresses to v.
func (m *Machine) offer(v *peerView) {
	h := &m.handover
	h.offered, h.heir = v.Node, PeerAdvert{Address: v.Source, Priority: v.Effective}
	h.offerID++
	h.drainEnd = time.Time{} // the draining goes on until the addresses have gone
	m.do(Offer{ID: h.offerID, Node: v.Node, Reason: m.moveReason()})
}

// moveReason says why the addresses are given away.
func (m *Machine) moveReason() string {
	h := &m.handover
	switch {
	case h.stopping:
		return "stopping"
	case h.move.Reason != "":
		return h.move.Reason
	case h.move.Back:
		return "failback" + commandOf(h.move.By)
	}
	return "failover" + commandOf(h.move.By)
}

// onOffered lets go of the addresses once the other node has them, or keeps them
// if it does not.
func (m *Machine) onOffered(now time.Time, ev Offered) {
	h := &m.handover
	if h.offered == "" || ev.ID != h.offerID || m.state != Active {
		return
	}
	heir := h.heir
	h.offered = ""
	if ev.Err != nil {
		m.keep(now, ev.Err.Error())
		return
	}
	reason := m.moveReason()
	if !h.move.Back && h.failover != nil {
		m.yield(now)
	}
	m.leaveActive(false, reason)
	heir.Heard = now
	m.active = heir
	m.learn(m.cfg.AdvertInterval)
	m.answerFailover(heir.Address)
	m.becomeBackup(now, reason)
}

// keep ends a hand-over that did not come about.
func (m *Machine) keep(now time.Time, why string) {
	if m.handover.stopping {
		m.becomeFault(now, "stopping")
		return
	}
	m.endDrain()
	m.reassert(now) // the other node may have announced them already
	m.failFailover(why + "; this node stays active")
}

// onTakeOver becomes active in place of a router that lets go.
func (m *Machine) onTakeOver(now time.Time, ev TakeOver) {
	h := &m.handover
	switch {
	case ev.Node == "":
		m.refuse(ev.ID, "the offer has been taken back")
	case h.stopping:
		m.refuse(ev.ID, "this node is stopping")
	case m.state == Fault:
		m.refuse(ev.ID, "this node takes no part: "+m.faultWords())
	case m.state == Active:
		m.refuse(ev.ID, "this node is active")
	default:
		m.becomeActive(now, fmt.Sprintf("%s hands over: %s", ev.Node, ev.Reason))
		h.takeover = &ev.ID
		h.predecessor, h.successionEnd = ev.Node, now.Add(successionTime)
		m.evidence.rivalAt = h.successionEnd // by then it has let go
	}
}

// onAnnounced confirms a take-over.
func (m *Machine) onAnnounced(now time.Time, ev Announced) {
	h := &m.handover
	if h.takeover == nil || m.state != Active || ev.Term != m.holding.term {
		return
	}
	if ev.Err != nil {
		m.giveBack(now, "the addresses could not be announced: "+ev.Err.Error())
		return
	}
	m.do(Reply{ID: *h.takeover, Active: m.cfg.Source})
	h.takeover = nil
}

// onWithdrawn gives up a take-over that is not confirmed yet.
func (m *Machine) onWithdrawn(now time.Time, ev Withdrawn) {
	if h := &m.handover; h.takeover != nil && *h.takeover == ev.ID && m.state == Active {
		m.giveBack(now, h.predecessor+" has taken its offer back")
	}
}

// giveBack leaves the addresses to the router that has not let go of them yet.
func (m *Machine) giveBack(now time.Time, reason string) {
	m.leaveActive(false, reason)
	m.learn(m.cfg.AdvertInterval)
	m.becomeBackup(now, reason)
}

// endTakeOver is the part of leaveActive that concerns a switch.
func (m *Machine) endTakeOver(reason string) {
	h := &m.handover
	h.offered, h.predecessor = "", ""
	if h.takeover != nil {
		m.do(Reply{ID: *h.takeover, Err: errors.New(reason)})
		h.takeover = nil
	}
}

// heedless says whether an advert is one of the other router of a switch, which
// is as active as this one for a moment.
func (m *Machine) heedless(now time.Time, ev Heard) bool {
	h := &m.handover
	switch {
	case h.offered != "":
		return m.sends(h.offered, ev.Source)
	case m.succeeds(now):
		return ev.Priority > 0 && m.sends(h.predecessor, ev.Source)
	}
	return false
}

// succeeds says whether the router whose place this one takes may be active
// still.
func (m *Machine) succeeds(now time.Time) bool {
	h := &m.handover
	if h.predecessor != "" && !now.Before(h.successionEnd) {
		h.predecessor = ""
	}
	return h.predecessor != ""
}

// sends says whether adverts of a node come from source.
func (m *Machine) sends(node string, source netip.Addr) bool {
	if v := m.view(node); v != nil && v.Source == source {
		return true
	}
	for _, p := range m.cfg.Peers {
		if p.Name == node && p.Address == source {
			return true
		}
	}
	return false
}
