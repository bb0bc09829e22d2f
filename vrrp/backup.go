package vrrp

import (
	"fmt"
	"net/netip"
	"time"
)

const (
	// unreadPause is how long a backup lets what is unread be read before it
	// judges a silence.
	unreadPause = 10 * time.Millisecond
	// unreadIntervals bounds how long it does so again and again.
	unreadIntervals = 3
)

// backup is what a machine knows while it is Backup.
type backup struct {
	interval time.Duration // Active_Adver_Interval
	downAt   time.Time     // Active_Down_Timer
	holdOff  time.Time     // no live active router is taken over from before
	failures int           // to keep the addresses, in a row
	resigned netip.Addr    // who said priority 0 since the timer was set
	goneAt   time.Time     // when it was said
	// ignoring says why the adverts of the active router no longer set the
	// timer back; empty while they do.
	ignoring string
	// healthierSince is since when the active router has been less healthy
	// than this one without a break; zero while it is not.
	healthierSince time.Time
	// preemptAt is when a smaller active router is taken over from only because
	// it is smaller; zero while there is none.
	preemptAt time.Time
	// late is since when the timer has run out while this process was held up;
	// zero until it does.
	late time.Time
}

// restart sets the Active_Down_Timer to the whole interval.
func (m *Machine) restart(now time.Time) {
	b := &m.backup
	b.downAt = now.Add(m.activeDownInterval())
	b.resigned, b.goneAt, b.ignoring, b.late = netip.Addr{}, time.Time{}, "", time.Time{}
	m.clearWait()
}

// heardAsBackup is RFC 9568 section 6.4.2 for a received ADVERTISEMENT, with
// the rule of health in place of the plain comparison.
func (m *Machine) heardAsBackup(now time.Time, ev Heard) {
	m.follow(now, ev)
	m.trust(now)
	// RFC 9568 section 6.4.2: if the Priority in the ADVERTISEMENT is 0, set
	// the Active_Down_Timer to Skew_Time.
	if ev.Priority == 0 {
		m.backup.downAt = now.Add(m.skewTime())
		m.backup.resigned, m.backup.goneAt, m.backup.late = ev.Source, now, time.Time{}
		m.clearWait()
		return
	}
	m.answerFailover(ev.Source)
	m.lending.waiting = false
	// RFC 9568 section 6.4.2: else (that is, with preemption and a lower
	// priority) discard the ADVERTISEMENT: the timer keeps running.
	if m.backup.ignoring = m.ignores(now, ev.Source, ev.Priority); m.backup.ignoring != "" {
		return
	}
	// RFC 9568 section 6.4.2: otherwise set Active_Adver_Interval to the Max
	// Advertise Interval of the ADVERTISEMENT, recompute Skew_Time and
	// Active_Down_Interval, and set the Active_Down_Timer to
	// Active_Down_Interval.
	m.learn(ev.Interval)
	m.restart(now)
}

// ignores says why an advert of source with priority p, above 0, does not set
// the timer back, or "" if it does. It keeps the settling clock.
func (m *Machine) ignores(now time.Time, source netip.Addr, p int) string {
	b := &m.backup
	effective := m.Effective()
	base, known := m.baseOf(source)
	mine, theirs := m.compareHealth(source, base, p, known)
	beats := effective > p
	if !beats || mine >= theirs {
		b.healthierSince = time.Time{}
	} else if b.healthierSince.IsZero() {
		b.healthierSince = now
	}
	switch {
	case !beats:
		b.preemptAt = time.Time{}
		return ""
	case m.handover.yielded:
		// The addresses were given away on purpose.
		return ""
	case now.Before(b.holdOff):
		return ""
	case m.preempts(now, base, known):
		return fmt.Sprintf("its own priority %d is above %d of %s", effective, p, source)
	case !b.healthierSince.IsZero() && now.Sub(b.healthierSince) >= m.cfg.Settle:
		return fmt.Sprintf("%s is demoted by %d and this node by %s, for %s",
			source, theirs, m.demotionWords(), round(now.Sub(b.healthierSince)))
	}
	return ""
}

// baseOf returns the configured base priority of the sender of an advert. A
// sender that is not listed is taken for the only peer if there is just one:
// its adverts may leave from another of its addresses.
func (m *Machine) baseOf(source netip.Addr) (base int, known bool) {
	for _, p := range m.cfg.Peers {
		if p.Address == source {
			return p.Priority, true
		}
	}
	if len(m.cfg.Peers) == 1 {
		return m.cfg.Peers[0].Priority, true
	}
	return 0, false
}

// reconsider asks again whether the active router's last advert is ignored,
// after something about this node has changed. Only a timer that runs down in
// spite of live adverts is set back by it.
func (m *Machine) reconsider(now time.Time) {
	if m.backup.ignoring == "" || !m.active.Address.IsValid() {
		return
	}
	if m.ignores(now, m.active.Address, m.active.Priority) == "" {
		m.restart(now)
	}
}

// tickAsBackup is RFC 9568 section 6.4.2 for the Active_Down_Timer.
func (m *Machine) tickAsBackup(now time.Time, unread bool) {
	b := &m.backup
	if m.mate.waiting != "" {
		m.tickAsWaiting(now)
		return
	}
	if now.Before(b.downAt) {
		return
	}
	// A tick that comes late was held up, and so were the adverts that may be
	// waiting: they are heard before the silence is believed, once. Packets that
	// are known to wait are worth more patience. They may be no adverts for this
	// router, though: that must not go on for ever.
	by := now.Sub(b.downAt)
	switch {
	case b.late.IsZero() && by > b.interval:
		b.late, b.downAt = now, now.Add(b.interval)
		m.do(Late{By: by})
		return
	case b.late.IsZero() && unread:
		b.late, b.downAt = now, now.Add(unreadPause)
		m.do(Late{By: by})
		return
	case unread && now.Sub(b.late) < unreadIntervals*b.interval:
		b.downAt = now.Add(unreadPause)
		return
	}
	if m.heldBack(now) {
		return
	}
	if reason := m.silence(now); !m.waits(now, reason) {
		m.becomeActive(now, reason)
	}
}

// silence says in words why the Active_Down_Timer ran out.
func (m *Machine) silence(now time.Time) string {
	b := m.backup
	switch {
	case b.resigned.IsValid():
		return fmt.Sprintf("%s resigned", b.resigned)
	case b.ignoring != "":
		return b.ignoring
	case m.lending.waiting:
		return fmt.Sprintf("the keepalived did not take over within %s; this node is demoted and goes on", round(now.Sub(m.since)))
	case m.active.Address.IsValid():
		silent := now.Sub(m.active.Heard)
		return fmt.Sprintf("no advert from %s for %s: %d missed, one is due every %s",
			m.active.Address, round(silent), silent/b.interval, b.interval)
	}
	return fmt.Sprintf("no active router heard for %s", round(now.Sub(m.since)))
}
