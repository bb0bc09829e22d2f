package vrrp

import (
	"fmt"
	"net/netip"
	"time"
)

// A backup keepalived is silent, so nothing is known of its health, and one with
// nopreempt takes over from nobody who is heard, however small: the rule of
// health has no backup that could follow it. So a demoted active router hands
// the addresses to a keepalived by itself, as a trial.

const (
	// lendPause is how long after a trial that came to nothing, or after an advert
	// in which the keepalived said that it is demoted itself, the next trial is
	// made; every one in a row doubles it, at most lendDoublings times.
	lendPause     = time.Minute
	lendDoublings = 6
	// lendMargin is the least time, beyond its Skew_Time, that a keepalived gets
	// to take over.
	lendMargin = 200 * time.Millisecond
)

// lending is what a machine knows of the keepalived that is the other node.
type lending struct {
	// heard is its last advert; its Address is invalid before the first.
	heard PeerAdvert
	// since is since when this active router has been the less healthy one without
	// a break; zero while it is not.
	since time.Time
	// lent: the addresses were given to it, and this router has not been active
	// since then.
	lent bool
	// waiting: it has not taken over yet.
	waiting  bool
	failures int       // trials in a row that came to nothing
	notUntil time.Time // no trial before
}

// keepalived returns the other node that is a keepalived. In a file with several
// it is the largest of them.
func (m *Machine) keepalived() (peer Peer, ok bool) {
	for _, p := range m.cfg.Peers {
		if p.Keepalived && (!ok || p.Priority > peer.Priority) {
			peer, ok = p, true
		}
	}
	return peer, ok
}

// noteKeepalived remembers what the keepalived says of itself. Smaller than it is
// configured it is demoted, and may be so for a while.
func (m *Machine) noteKeepalived(now time.Time, source netip.Addr, priority int) {
	p, ok := m.keepalived()
	if !ok || priority == 0 || source != p.Address && len(m.cfg.Peers) > 1 {
		return
	}
	l := &m.lending
	l.heard = PeerAdvert{Address: source, Priority: priority, Heard: now}
	if next := now.Add(l.pause()); priority < p.Priority && next.After(l.notUntil) {
		l.notUntil = next
	}
}

func (l *lending) pause() time.Duration { return lendPause << min(l.failures, lendDoublings) }

// expected is the priority with which the keepalived p would take over now, as
// far as anybody can tell: the one it was heard with lately, else the configured
// one.
func (l *lending) expected(now time.Time, p Peer) int {
	if l.heard.Address.IsValid() && now.Sub(l.heard.Heard) < l.pause() {
		return min(l.heard.Priority, p.Priority)
	}
	return p.Priority
}

// considerLending gives the addresses to the keepalived when this active router
// has been less healthy than that for Config.Settle. It says whether it did.
func (m *Machine) considerLending(now time.Time) bool {
	l := &m.lending
	p, ok := m.keepalived()
	if !ok {
		return false
	}
	mine := m.cfg.Priority - m.Effective()
	theirs := l.expected(now, p)
	if mine <= p.Priority-theirs || m.Effective() >= theirs || m.handover.draining {
		l.since = time.Time{}
		return false
	}
	if l.since.IsZero() {
		l.since = now
	}
	if now.Sub(l.since) < m.cfg.Settle || now.Before(l.notUntil) {
		return false
	}
	m.lend(now, p, theirs)
	return true
}

// lend resigns, and stays back for as long as the keepalived needs to take over.
func (m *Machine) lend(now time.Time, p Peer, theirs int) {
	reason := fmt.Sprintf("this node is demoted by %s, for %s; the keepalived %s, with priority %d, is to take over",
		m.demotionWords(), round(now.Sub(m.lending.since)), p.Name, theirs)
	m.leaveActive(true, reason)
	m.learn(m.cfg.AdvertInterval)
	m.becomeBackup(now, reason)
	m.lending.since = time.Time{}
	m.lending.lent, m.lending.waiting = true, true
	skew := skewTime(m.cfg.Version, theirs, m.cfg.AdvertInterval)
	m.backup.downAt = now.Add(skew + max(m.cfg.AdvertInterval, lendMargin))
	// For the others of a group: whoever is silent from here on has gone.
	m.backup.goneAt = now
}

// endLending judges a trial, when this router becomes active again. One that did
// not last until this node was well came to nothing.
func (m *Machine) endLending(now time.Time) {
	l := &m.lending
	if !l.lent {
		return
	}
	l.lent, l.waiting = false, false
	if m.Effective() == m.cfg.Priority {
		l.failures, l.notUntil = 0, time.Time{}
		return
	}
	l.notUntil = now.Add(l.pause())
	l.failures++
}
