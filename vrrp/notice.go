package vrrp

import (
	"slices"
	"time"
)

// Notice is something that a Router tells people: one of Transition, Demoted,
// Faulted, Restored, Foreign, Held, Alarm and Late.
type Notice interface{ notice() }

// Demoted says that Source demotes the router by N from now on; N is 0 when it
// no longer does.
type Demoted struct {
	Source string
	N      int
	Reason string
}

// Faulted says that Source keeps the router out of the election from now on;
// Reason is empty when it no longer does.
type Faulted struct{ Source, Reason string }

func (Transition) notice() {}
func (Demoted) notice()    {}
func (Faulted) notice()    {}
func (Restored) notice()   {}
func (Foreign) notice()    {}
func (Held) notice()       {}
func (Late) notice()       {}

func (r *Router) tell(n Notice) {
	if r.hooks.Tell != nil {
		r.hooks.Tell(n)
	}
}

// standing is how much the source of ev demotes the router, or for a fault
// whether there is one, 1 or 0; 0 for other events.
func (r *Router) standing(ev Event) int {
	switch ev := ev.(type) {
	case Demote:
		for _, d := range r.machine.demotions {
			if d.Source == ev.Source {
				return d.N
			}
		}
	case SetFault:
		if slices.ContainsFunc(r.machine.faults, func(f FaultReport) bool { return f.Source == ev.Source }) {
			return 1
		}
	case Opened:
		return r.standing(SetFault{Source: AdvertsFault})
	}
	return 0
}

// tellStanding tells what ev has changed. A start begins with faults that
// nobody needs to hear of: only the end of one that was told is told.
func (r *Router) tellStanding(ev Event, before, now int) {
	if now == before {
		return
	}
	switch ev := ev.(type) {
	case Demote:
		r.tell(Demoted{Source: ev.Source, N: now, Reason: ev.Reason})
	case SetFault:
		r.tellFault(ev)
	case Opened:
		r.tellFault(SetFault{Source: AdvertsFault})
	}
}

func (r *Router) tellFault(ev SetFault) {
	raised := ev.Reason != ""
	if raised || r.raised[ev.Source] {
		r.tell(Faulted(ev))
	}
	if raised {
		r.raised[ev.Source] = true
	} else {
		delete(r.raised, ev.Source)
	}
}

// reportRestored tells of addresses that were put back.
func (r *Router) reportRestored(a Restored) {
	r.counters.addressesRestored.Add(uint64(len(a.Addresses)))
	if !r.restored.allow(time.Now()) {
		r.untold++
		return
	}
	a.NotTold, r.untold = r.untold, 0
	r.tell(a)
	r.log.Warn().Interface("addresses", a.Addresses).Str("reason", a.Reason).Int("not_logged", a.NotTold).
		Msg("addresses were missing on the interface; they are put back and announced")
}

// reportForeign tells of a foreign claim.
func (r *Router) reportForeign(a Foreign) {
	r.counters.foreignClaims.Add(uint64(a.Count))
	if !a.Tell {
		return
	}
	r.tell(a)
	r.log.Warn().Stringer("address", a.Claim.Address).Str("mac", a.Claim.MAC).Uint64("count", a.Claim.Count).
		Msg("another station claims an address of this node; it is announced again")
}
