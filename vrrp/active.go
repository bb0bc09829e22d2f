package vrrp

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// holding is what a machine knows while it is Active.
type holding struct {
	// term numbers the acquisitions, so that the outcome of one that has been
	// given up is told from the present one's.
	term        uint64
	acquired    bool      // the acquisition of this term has succeeded
	told        bool      // and the addresses were announced
	leased      time.Time // begin of the lease
	mute        bool      // no advert is sent before the addresses are there
	advertAt    time.Time // Adver_Timer; zero while mute
	sentAt      time.Time // the last advert
	listenUntil time.Time // after a silence of its own; zero unless it listens
	renewAt     time.Time
	announceAt  time.Time // zero until the addresses are there
	announced   int       // how many announcements of the schedule are over
	// provokedUntil is when the announcements that claims have provoked would be
	// over if they were announceGap apart; deferred: one more waits for its time.
	provokedUntil time.Time
	deferred      bool
	restoredAt    time.Time // the last time that addresses were put back
}

// advertise sends an advert and sets the Adver_Timer. The rhythm is kept from
// the time at which the last one was due, so that the timer's lateness does
// not add up.
func (m *Machine) advertise(now time.Time) {
	h := &m.holding
	if h.listening() || h.mute {
		return
	}
	send := Send{Priority: m.Effective(), Due: h.advertAt}
	if h.advertAt.After(now) {
		h.advertAt, send.Due = now, time.Time{}
	}
	m.do(send)
	h.sentAt = now
	if h.advertAt = h.advertAt.Add(m.cfg.AdvertInterval); !h.advertAt.After(now) {
		h.advertAt = now.Add(m.cfg.AdvertInterval)
	}
}

// announce tells the LAN where the addresses are.
func (m *Machine) announce(now time.Time) {
	if m.holding.deferred {
		m.countProvoked(now)
	}
	m.do(Announce{Addresses: m.cfg.Addresses, Term: m.holding.term})
}

// listening says whether the router leaves open for a moment if it is active.
func (h *holding) listening() bool { return !h.listenUntil.IsZero() }

// noticeSilence makes an active router that was held up for so long that others
// may have taken over listen for one interval before it goes on: a process that
// was stopped must not act on what it knew before. The lease goes on meanwhile,
// so where nobody took over, nothing is lost.
func (m *Machine) noticeSilence(now time.Time) {
	h := &m.holding
	if h.mute {
		return
	}
	last := h.sentAt
	if h.listening() {
		last = h.listenUntil // stopped again
	}
	// That of a backup with this priority.
	down := activeDownInterval(m.cfg.Version, m.Effective(), m.cfg.AdvertInterval)
	if by := now.Sub(last); by > down {
		h.listenUntil = now.Add(m.cfg.AdvertInterval)
		m.do(Late{By: by})
	}
}

// tickAsActive is RFC 9568 section 6.4.3 for the timers of an active router.
func (m *Machine) tickAsActive(now time.Time) {
	h := &m.holding
	if end := m.handover.drainEnd; !end.IsZero() && !now.Before(end) {
		m.handOver(now)
		return
	}
	if now.Before(h.listenUntil) {
		return
	}
	if at := m.evidence.rivalAt; !at.IsZero() && !now.Before(at) {
		if m.judgeRival(now); m.state != Active {
			return
		}
	}
	h.listenUntil = time.Time{}
	if m.considerLending(now) {
		return
	}
	// RFC 9568 section 6.4.3: if the Adver_Timer fires, send an ADVERTISEMENT
	// and reset the Adver_Timer to Advertisement_Interval.
	if !h.mute && !now.Before(h.advertAt) {
		m.advertise(now)
	}
	if !now.Before(h.renewAt) {
		h.renewAt = now.Add(RenewInterval)
		m.do(Renew{Addresses: m.cfg.Addresses, Term: h.term})
	}
	if !h.announceAt.IsZero() && !now.Before(h.announceAt) {
		m.announce(now)
		m.scheduleAnnounce(now)
	}
}

// scheduleAnnounce sets the time of the next announcement: after the times of
// announceAfter, then every announceRefresh.
func (m *Machine) scheduleAnnounce(now time.Time) {
	h := &m.holding
	if h.announced >= len(announceAfter) {
		h.announceAt = now.Add(announceRefresh)
		return
	}
	wait := announceAfter[h.announced]
	if h.announced > 0 {
		wait -= announceAfter[h.announced-1]
	}
	h.announced++
	h.announceAt = now.Add(wait)
}

// heardAsActive is RFC 9568 section 6.4.3 for a received ADVERTISEMENT.
func (m *Machine) heardAsActive(now time.Time, ev Heard) {
	own := m.Effective()
	switch {
	case m.heedless(now, ev):
	case m.holding.listening() && ev.Priority > 0:
		m.giveWayAfterSilence(now, ev)
	case ev.Priority == 0:
		// RFC 9568 section 6.4.3: if the Priority in the ADVERTISEMENT is 0,
		// send an ADVERTISEMENT and reset the Adver_Timer.
		m.advertise(now)
	case ev.Priority > own, ev.Priority == own && m.cfg.Source.Less(ev.Source):
		// RFC 9568 section 6.4.3: if the Priority is greater than the local
		// one, or equal and the sender's primary address is greater than the
		// local one by an unsigned comparison, set Active_Adver_Interval to
		// the one of the ADVERTISEMENT and transition to Backup.
		m.giveWay(now, ev)
	default:
		// RFC 9568 section 6.4.3: else discard the ADVERTISEMENT and
		// immediately send one to assert the Active state.
		m.advertise(now)
		m.reassert(now)
	}
}

// reassert announces the addresses because another router has claimed them: that
// heals the ARP caches which the claim has misled. It begins the schedule anew,
// for the other router's own announcement may be on its way still. A few come at
// once, for a LAN that parts and heals brings several claims; more of them are
// announceGap apart.
func (m *Machine) reassert(now time.Time) {
	h := &m.holding
	if !h.acquired {
		return // onAcquired announces
	}
	h.announced = 0
	if next := h.provokedUntil.Add(-(announceBurst - 1) * announceGap); now.Before(next) {
		h.announceAt, h.deferred = next, true
		return
	}
	m.countProvoked(now)
	m.announce(now)
	m.scheduleAnnounce(now)
}

// countProvoked notes an announcement that a claim has provoked.
func (m *Machine) countProvoked(now time.Time) {
	h := &m.holding
	if h.provokedUntil.Before(now) {
		h.provokedUntil = now
	}
	h.provokedUntil, h.deferred = h.provokedUntil.Add(announceGap), false
}

// giveWay becomes Backup behind the sender of a winning advert.
func (m *Machine) giveWay(now time.Time, ev Heard) {
	// The RFC gives way in silence. But where both were active until now, the
	// winner may not know: it hears of the claim and announces the addresses.
	if !m.holding.mute {
		m.do(Send{Priority: m.Effective()})
	}
	m.makeWay(now, ev, fmt.Sprintf("%s is active with priority %d, this node's is %s", ev.Source, ev.Priority, m.priorityWords()))
}

// giveWayAfterSilence becomes Backup behind a router that took over while this
// one was held up, and leaves it alone for a while, whatever the priorities say.
func (m *Machine) giveWayAfterSilence(now time.Time, ev Heard) {
	m.backup.holdOff = now.Add(holdOff)
	m.makeWay(now, ev, fmt.Sprintf("this node was silent for %s, and %s has taken over",
		round(now.Sub(m.holding.sentAt)), ev.Source))
}

// makeWay becomes Backup behind the sender of ev.
func (m *Machine) makeWay(now time.Time, ev Heard, reason string) {
	if m.handover.failover != nil {
		m.yield(now)
	}
	m.leaveActive(false, reason)
	m.follow(now, ev)
	m.learn(ev.Interval)
	m.answerFailover(ev.Source)
	m.becomeBackup(now, reason)
}

// resign gives the addresses up because they could not be kept.
func (m *Machine) resign(now time.Time, reason string) {
	if m.handover.failover != nil {
		m.yield(now)
	}
	m.leaveActive(true, reason)
	m.gaveUp = now
	m.learn(m.cfg.AdvertInterval)
	m.backup.holdOff = now.Add(holdOff << min(m.backup.failures, holdOffDoublings))
	m.backup.failures++
	m.becomeBackup(now, reason)
}

// leaveActive undoes what becomeActive and a drain have done. With goodbye the
// backups are told, before the addresses go: RFC 9568 section 6.4.3 on
// Shutdown has an ADVERTISEMENT with Priority 0 sent. Who was mute has nothing to
// take back.
func (m *Machine) leaveActive(goodbye bool, reason string) {
	if goodbye && !m.holding.mute {
		m.do(Send{Priority: 0})
	}
	m.do(Release{Addresses: m.cfg.Addresses})
	m.holding = holding{term: m.holding.term}
	m.mate.back = false
	m.endDrain()
	m.endTakeOver(reason)
	m.failFailback(reason)
}

// onAcquired counts the lease, and announces the addresses when they are new or
// were missing.
func (m *Machine) onAcquired(now time.Time, ev Acquired) {
	h := &m.holding
	if m.state != Active || ev.Term != h.term {
		return
	}
	before := h.leased
	if ev.At.After(h.leased) {
		h.leased = ev.At
	}
	if h.acquired {
		m.onRestored(now, ev, before)
		return
	}
	h.acquired = true
	if h.mute {
		h.mute, h.advertAt = false, now
		m.advertise(now)
	}
	m.backup.failures = 0
	h.announced = 0
	m.announce(now)
	m.scheduleAnnounce(now)
	m.answerFailback()
}

// onAcquireFailed resigns: a router without the addresses must not keep
// another one from taking them.
func (m *Machine) onAcquireFailed(now time.Time, ev AcquireFailed) {
	if m.state != Active || ev.Term != m.holding.term {
		return
	}
	m.resign(now, "the addresses could not be acquired: "+ev.Reason)
}

// changeAddresses goes from the old list of addresses to the configured one
// while active. What stays is never taken off, and a kernel that drops an
// address together with another one of its subnet gets it back at once.
func (m *Machine) changeAddresses(old []netip.Prefix) {
	var dropped []netip.Prefix
	for _, a := range old {
		if !slices.Contains(m.cfg.Addresses, a) {
			dropped = append(dropped, a)
		}
	}
	if len(dropped) > 0 {
		m.do(Release{Addresses: dropped})
	}
	m.acquireAnew()
}

// acquireAnew acquires all addresses while active; the announcement follows.
func (m *Machine) acquireAnew() {
	m.holding.term++
	m.holding.acquired, m.holding.told = false, false
	m.do(Acquire{Addresses: m.cfg.Addresses, Term: m.holding.term})
}
