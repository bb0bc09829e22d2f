package vrrp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// A planned switch by the peer link: the active router offers the addresses, the
// other node becomes active, acquires and announces them and confirms, and only
// then the first one lets go. In between both are active, and neither heeds the
// other's adverts. The members of a group are offered one by one, of which the
// first makes all of the other node's active; they let go together, when each one
// has been confirmed.

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

// together yields m and the members of its group that hold addresses as well:
// what is given away over the link, all of it or nothing.
func (m *Machine) together() []*Machine {
	return append([]*Machine{m}, slices.DeleteFunc(m.mates(), func(x *Machine) bool { return x.state != Active })...)
}

// obstacle says why the addresses cannot be given away over the link; empty if they
// can. Those that stay on the node are none.
func (m *Machine) obstacle() string {
	for _, x := range m.together() {
		switch {
		case !x.cfg.Linked:
			return "there is no peer link"
		case len(x.cfg.Own) > 0:
			return fmt.Sprintf("%s is this node's own address", x.cfg.Own[0])
		}
	}
	return ""
}

// heir returns the node that would take over, as the link tells, or why there is
// none.
func (m *Machine) heir() (node, why string) {
	why = "there is no other node"
	for _, p := range m.cfg.Peers {
		why = ""
		for _, x := range m.together() {
			if why = x.lack(p.Name); why != "" {
				break
			}
		}
		if why == "" {
			return p.Name, ""
		}
	}
	return "", why
}

// lack says why a node cannot take m's addresses over; empty if it can.
func (m *Machine) lack(node string) string {
	i := slices.IndexFunc(m.cfg.Peers, func(p Peer) bool { return p.Name == node })
	v := m.view(node)
	switch {
	case i < 0:
		return fmt.Sprintf("%s has no part in %s", node, m.cfg.Name)
	case m.cfg.Peers[i].Keepalived:
		return node + " is a keepalived"
	case v == nil, v.Link == LinkNone:
		return "there has been no peer link to " + node + " yet"
	case v.Link != LinkUp:
		return fmt.Sprintf("%s is absent: the peer link: %s", node, v.Reason)
	case !v.Known:
		return fmt.Sprintf("%s has said nothing of %s yet", node, m.cfg.Name)
	case v.State == Fault:
		return fmt.Sprintf("%s takes no part: %s", node, v.words())
	case v.State == Active:
		return node + " says that it is active"
	}
	return ""
}

// nextNode names the node that is to take over by the link, or says why there is
// none that is known before it does.
func (m *Machine) nextNode() (node, why string) {
	if why := m.obstacle(); why != "" {
		return "", why
	}
	return m.heir()
}

// unfit says why a failover would do harm; empty if it would not. Without a link
// nobody can tell.
func (m *Machine) unfit() string {
	if !m.cfg.Linked {
		return ""
	}
	node, why := m.heir()
	if node == "" {
		return why
	}
	for _, x := range m.together() {
		if v := x.view(node); v.Demoted > x.demoted() {
			return fmt.Sprintf("%s is less healthy: it is demoted by %d (%s), this node by %s", node, v.Demoted, v.words(), x.demotionWords())
		}
	}
	return ""
}

// offer offers the addresses to a node, which lacks nothing.
func (m *Machine) offer(node string) {
	h, v := &m.handover, m.view(node)
	h.offered, h.heir, h.taken = node, PeerAdvert{Address: v.Source, Priority: v.Effective}, false
	h.offerID++
	h.drainEnd = time.Time{} // the draining goes on until the addresses have gone
	m.do(Offer{ID: h.offerID, Node: node, Reason: m.moveReason()})
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

// onOffered lets go of the addresses once the other node has them, those of the
// whole group, or keeps them if it does not.
func (m *Machine) onOffered(now time.Time, ev Offered) {
	h := &m.handover
	if h.offered == "" || ev.ID != h.offerID || m.state != Active {
		return
	}
	if ev.Err != nil {
		m.keep(now, ev.Err.Error())
		return
	}
	h.taken = true
	all := slices.DeleteFunc(m.together(), func(x *Machine) bool { return x.handover.offered == "" })
	if slices.ContainsFunc(all, func(x *Machine) bool { return !x.handover.taken }) {
		return
	}
	reason, yields := m.moveReason(), !h.move.Back && !h.stopping
	for _, x := range all {
		if yields {
			x.yield(now)
		}
		if x.handover.failover == nil {
			x.handover.along = now
		}
		heir := x.handover.heir
		x.leaveActive(false, reason)
		heir.Heard = now
		x.active = heir
		x.learn(x.cfg.AdvertInterval)
	}
	for _, x := range all {
		x.answerFailover(x.active.Address)
		x.becomeBackup(now, reason)
	}
}

// keep ends a hand-over that did not come about, of the whole group.
func (m *Machine) keep(now time.Time, why string) {
	for _, x := range m.together() {
		x.handover.offered = ""
		if x.handover.stopping {
			x.becomeFault(now, "stopping")
			continue
		}
		x.endDrain()
		x.reassert(now) // the other node may have announced them already
		x.failFailover(why + "; this node stays active")
	}
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
	case m.state == Active && h.takeover == nil && m.succeeds(now) && h.predecessor == ev.Node:
		// It has become active with another one of its group.
		h.takeover = &ev.ID
		if m.holding.told {
			m.confirm()
		}
	case m.state == Active:
		m.refuse(ev.ID, "this node is active")
	default:
		m.succeed(now, ev.Node, fmt.Sprintf("%s hands over: %s", ev.Node, ev.Reason))
		h.takeover = &ev.ID
	}
}

// succeed becomes active in the place of a node that lets go in a moment. Until the
// addresses are here that node is the active one for everybody: an advert would have
// switches send here what is for the virtual MAC address.
func (m *Machine) succeed(now time.Time, node, reason string) {
	h := &m.handover
	h.predecessor, h.successionEnd = node, now.Add(successionTime)
	m.becomeActive(now, reason)
	m.evidence.rivalAt = h.successionEnd
}

// onAnnounced confirms a take-over.
func (m *Machine) onAnnounced(now time.Time, ev Announced) {
	if m.state != Active || ev.Term != m.holding.term {
		return
	}
	m.holding.told = m.holding.told || ev.Err == nil
	switch {
	case m.handover.takeover == nil:
	case ev.Err != nil:
		m.giveBack(now, "the addresses could not be announced: "+ev.Err.Error())
	default:
		m.confirm()
	}
}

// confirm says that the addresses are taken over.
func (m *Machine) confirm() {
	m.do(Reply{ID: *m.handover.takeover, Active: m.cfg.Source})
	m.handover.takeover = nil
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
	h.offered, h.taken, h.predecessor = "", false, ""
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
