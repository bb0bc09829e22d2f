package vrrp

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

const (
	// claimGrace is how long after a promotion a foreign claim is no news: it may
	// be a frame of the former owner that was on its way. It is answered all the
	// same.
	claimGrace = time.Second
	// claimQuiet is the time between two reports of the same claim.
	claimQuiet = time.Minute
	// budgetReports is how many reports of a kind there are in budgetTime: who
	// forges hardware addresses, or fights for an address, must not fill the log.
	budgetReports = 8
	budgetTime    = time.Minute
	// claimsKept is how many claims are remembered; the one heard longest ago
	// makes room.
	claimsKept = 16
	// restoreGap is the least time between two restorations that somebody's
	// removals provoke: who removes in a loop must not make this node spin.
	restoreGap = 50 * time.Millisecond
)

// Claim is what is remembered of one station that said that an address of this
// router is its own while the router was active.
type Claim struct {
	Address     netip.Addr
	MAC         string // of the station
	First, Last time.Time
	Count       uint64 // frames
}

// claims is what a machine knows of foreign claims, whatever its state is now.
type claims struct {
	list    []Claim
	told    []time.Time // of each in list, when it was reported last
	reports budget
}

// budget bounds the reports of one kind. The zero value is ready.
type budget struct {
	begun time.Time
	spent int // since then
}

// allow says whether there may be a report now.
func (b *budget) allow(now time.Time) bool {
	if now.Sub(b.begun) >= budgetTime {
		*b = budget{begun: now}
	}
	if b.spent >= budgetReports {
		return false
	}
	b.spent++
	return true
}

// onClaimed answers a foreign claim to an address that this router holds. What
// others claim while it does not hold them is the active router's business.
func (m *Machine) onClaimed(now time.Time, ev Claimed) {
	h := &m.handover
	if m.state != Active || m.holding.listening() || !m.cfg.has(ev.Address) || h.offered != "" {
		return // what is offered, the heir announces
	}
	m.reassert(now)
	if now.Sub(m.since) < claimGrace || m.succeeds(now) {
		return
	}
	m.do(m.claims.note(now, ev))
}

// has says whether address is one of the virtual ones.
func (c *Config) has(address netip.Addr) bool {
	return slices.ContainsFunc(c.Addresses, func(p netip.Prefix) bool { return p.Addr() == address })
}

// note remembers a claim and returns the report of it.
func (c *claims) note(now time.Time, ev Claimed) Foreign {
	i := slices.IndexFunc(c.list, func(k Claim) bool { return k.Address == ev.Address && k.MAC == ev.MAC })
	if i < 0 {
		i = c.room()
		c.list[i] = Claim{Address: ev.Address, MAC: ev.MAC, First: now}
		c.told[i] = time.Time{}
	}
	c.list[i].Last = now
	c.list[i].Count += uint64(ev.Count)
	tell := (c.told[i].IsZero() || now.Sub(c.told[i]) >= claimQuiet) && c.reports.allow(now)
	if tell {
		c.told[i] = now
	}
	return Foreign{Claim: c.list[i], Count: ev.Count, Tell: tell}
}

// room returns the index of an entry for a new claim.
func (c *claims) room() int {
	if len(c.list) < claimsKept {
		c.list, c.told = append(c.list, Claim{}), append(c.told, time.Time{})
		return len(c.list) - 1
	}
	oldest := 0
	for i, k := range c.list {
		if k.Last.Before(c.list[oldest].Last) {
			oldest = i
		}
	}
	return oldest
}

// onRecheck looks whether the addresses are still there. To acquire what is
// there is to renew it, so a false alarm does no harm.
func (m *Machine) onRecheck(now time.Time) {
	h := &m.holding
	if m.state != Active || !h.acquired || h.listening() {
		return // who is about to acquire needs no look
	}
	if next := h.restoredAt.Add(restoreGap); now.Before(next) {
		h.renewAt = earliest(h.renewAt, next)
		return
	}
	m.do(Acquire{Addresses: m.cfg.Addresses, Term: h.term})
}

// onRestored reports addresses that a renewal had to put back, and announces
// them: nobody answered for them meanwhile. leased is when their lease began.
func (m *Machine) onRestored(now time.Time, ev Acquired, leased time.Time) {
	if len(ev.Added) == 0 {
		return
	}
	m.holding.restoredAt = now
	reason := "removed by somebody else"
	// The kernel rounds, by a quarter of a second at most.
	if by := ev.At.Sub(leased); by >= Lease-Lease/8 {
		reason = fmt.Sprintf("gone with their lease, which was not renewed for %s", round(by))
	}
	m.do(Restored{Addresses: ev.Added, Reason: reason})
	m.reassert(now)
}
