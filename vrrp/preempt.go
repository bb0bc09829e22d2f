package vrrp

import (
	"slices"
	"time"
)

// preempts says whether this router takes over from the active router,
// whose priority is lower, only because of that. base is the configured priority
// of the active router, if it is known.
func (m *Machine) preempts(now time.Time, base int, known bool) bool {
	if m.isOwner() {
		// RFC 9568 section 6.1, Preempt_Mode: the router that owns the addresses
		// always preempts, independent of the setting of this flag.
		return true
	}
	// RFC 9568 section 6.1, Preempt_Mode: a higher priority takes over from a
	// lower one. Between equal base priorities only health differs, so that is
	// left to the rule of health.
	if !m.cfg.Preempt || known && m.cfg.Priority <= base {
		return false
	}
	b := &m.backup
	if b.preemptAt.IsZero() {
		b.preemptAt = now.Add(m.cfg.PreemptDelay)
	}
	return !now.Before(b.preemptAt)
}

// delayPreemption begins the delay of a router that takes part from now on: it
// counts from here, whatever is heard first.
func (m *Machine) delayPreemption(now time.Time) {
	m.backup.preemptAt = now.Add(m.cfg.PreemptDelay)
}

// isOwner says whether this router speaks with the priority of the owner. One
// that is demoted does not, and can be taken over from.
func (m *Machine) isOwner() bool { return m.Effective() == OwnerPriority }

// ready leaves Fault, now that the fault of source, the last one, is over.
func (m *Machine) ready(now time.Time, reason string) {
	m.learn(m.cfg.AdvertInterval)
	alone := !slices.ContainsFunc(m.mates(), func(x *Machine) bool { return !x.isOwner() })
	if m.isOwner() && alone && !m.handover.yielded && !now.Before(m.backup.holdOff) {
		// RFC 9568 section 6.4.1: if the Priority is equal to 255, send an
		// ADVERTISEMENT, ... set the Adver_Timer to Advertisement_Interval and
		// transition to the Active state.
		m.becomeActive(now, reason+"; the owner of the addresses is active at once")
		return
	}
	m.repeatFarewell(now)
	m.becomeBackup(now, reason)
	m.delayPreemption(now)
}

// repeatFarewell says goodbye again after a fault that is over so soon that others
// may still wait for this node's next advert: by an interface that was down, for
// example, the goodbye of leaveActive did not get out, nor anything that was sent
// before adverts could be sent again.
func (m *Machine) repeatFarewell(now time.Time) {
	longest := activeDownInterval(m.cfg.Version, lowestPriority, m.cfg.AdvertInterval)
	if !m.gaveUp.IsZero() && !m.active.Address.IsValid() && now.Sub(m.gaveUp) < longest {
		m.do(Send{Priority: 0})
	}
}
