package vrrp

import (
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// Status is a router at one moment.
type Status struct {
	Name      string
	VRID      int
	Interface string
	// Source is this node's address on the interface; invalid until adverts
	// were listened for.
	Source    netip.Addr
	Addresses []netip.Prefix
	State     State
	// Since is when the state was entered, Reason why.
	Since  time.Time
	Reason string
	// Base is the configured priority, Effective what is left of it after
	// Demotions.
	Base, Effective int
	Demotions       []Demotion
	Faults          []FaultReport
	// Active is the active router; its Address is not valid when none is
	// known. On the active node it is the node itself, and Heard is zero.
	Active PeerAdvert
	// Group is the group that the router moves with; empty for none.
	Group string
	// Waiting is why this router is a backup though its Active_Down_Timer has
	// run out; empty while that is not so.
	Waiting string
	// Yielded: the addresses were given away by command and failback has not
	// been called.
	Yielded bool
	// Alarms are what is wrong and of which the election makes the best.
	Alarms []FaultReport
	// Published is when this was the state last: an active router says so more
	// than once in the time of RenewInterval.
	Published time.Time
	// Draining: the addresses are about to be given away by command or stop.
	Draining bool
	// Claims are the foreign claims to the addresses while this router was
	// active, as many as are remembered.
	Claims []Claim
	// Refused is the latest advert that was refused, others than RefusedVRID; its
	// Refusal is Accepted if there was none.
	Refused RefusedAdvert
	// Lateness is that of the adverts since the router was created.
	Lateness Lateness
	Counters Counters
}

// RefusedAdvert says of an advert why it was refused, who sent it, and when it came,
// to a second.
type RefusedAdvert struct {
	Refusal Refusal
	Source  netip.Addr
	At      time.Time
}

// Counters count since the router was created.
type Counters struct {
	Sent     uint64 // adverts
	Received uint64 // packets, before any was refused
	// Refused counts received packets by Refusal label; every label is there.
	Refused map[string]uint64
	// Checksums counts accepted adverts by Checksum label.
	Checksums map[string]uint64
	// ReceiveErrors counts the transport's errors by their label.
	ReceiveErrors map[string]uint64
	SendErrors    uint64
	// AddressErrors counts failures to acquire, renew, release or announce.
	AddressErrors uint64
	// AddressMismatches counts adverts whose list is not this router's.
	AddressMismatches uint64
	Transitions       uint64
	// Late counts how often this process had been held up and listened before
	// it judged a silence or went on as the active router: false take-overs that
	// did not happen are among them.
	Late uint64
	// AddressesRestored counts addresses that were missing while this router was
	// active and were put back.
	AddressesRestored uint64
	// ForeignClaims counts frames in which another station claimed an address
	// while this router was active.
	ForeignClaims uint64
}

// counters are Counters while they count.
type counters struct {
	sent, received, sendErrors, addressErrors atomic.Uint64
	addressMismatches, transitions, late      atomic.Uint64
	addressesRestored, foreignClaims          atomic.Uint64
	refused                                   [refusals]atomic.Uint64
	checksums                                 [ChecksumPlain + 1]atomic.Uint64
	receiveErrors                             atomic.Pointer[map[string]uint64]
}

// read copies the counters.
func (c *counters) read() Counters {
	out := Counters{
		Sent:              c.sent.Load(),
		Received:          c.received.Load(),
		Refused:           make(map[string]uint64),
		Checksums:         make(map[string]uint64),
		ReceiveErrors:     make(map[string]uint64),
		SendErrors:        c.sendErrors.Load(),
		AddressErrors:     c.addressErrors.Load(),
		AddressMismatches: c.addressMismatches.Load(),
		Transitions:       c.transitions.Load(),
		Late:              c.late.Load(),
		AddressesRestored: c.addressesRestored.Load(),
		ForeignClaims:     c.foreignClaims.Load(),
	}
	for r := Accepted + 1; r < refusals; r++ {
		out.Refused[r.String()] = c.refused[r].Load()
	}
	for form := range c.checksums {
		out.Checksums[Checksum(form).String()] = c.checksums[form].Load()
	}
	if errs := c.receiveErrors.Load(); errs != nil {
		maps.Copy(out.ReceiveErrors, *errs)
	}
	return out
}

// Status returns the router as it is now. The caller may keep and change it.
func (r *Router) Status() Status {
	s := *r.status.Load()
	s.Addresses = slices.Clone(s.Addresses)
	s.Demotions = slices.Clone(s.Demotions)
	s.Faults = slices.Clone(s.Faults)
	s.Alarms = slices.Clone(s.Alarms)
	s.Claims = slices.Clone(s.Claims)
	s.Lateness, s.Counters = r.lateness.read(), r.counters.read()
	if refused := r.refused.Load(); refused != nil {
		s.Refused = *refused
	}
	return s
}

// publish makes the machine's state what Status returns.
func (r *Router) publish() {
	r.groups.mu.Lock()
	s := r.machine.snapshot()
	r.groups.mu.Unlock()
	s.Published = time.Now()
	before := r.status.Swap(&s)
	if r.hooks.Changed != nil && (before == nil || before.headline() != s.headline()) {
		r.hooks.Changed()
	}
}

// snapshot describes the machine; what the router counts is left out.
func (m *Machine) snapshot() Status {
	s := Status{
		Name:      m.cfg.Name,
		VRID:      m.cfg.VRID,
		Interface: m.cfg.Interface,
		Source:    m.cfg.Source,
		Addresses: m.cfg.Addresses, // replaced as a whole, never written to
		State:     m.state,
		Since:     m.since,
		Reason:    m.reason,
		Base:      m.cfg.Priority,
		Effective: m.Effective(),
		Demotions: slices.Clone(m.demotions),
		Faults:    slices.Clone(m.faults),
		Alarms:    slices.Clone(m.evidence.alarms),
		Active:    m.active,
		Group:     m.cfg.Group,
		Waiting:   m.mate.waiting,
		Yielded:   m.handover.yielded,
		Draining:  m.handover.draining,
		Claims:    slices.Clone(m.claims.list),
	}
	if m.state == Active {
		s.Active = PeerAdvert{Address: m.cfg.Source, Priority: s.Effective}
	}
	return s
}
