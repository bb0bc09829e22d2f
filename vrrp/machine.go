package vrrp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

const (
	// Lease is how long the kernel keeps a virtual address that is not
	// renewed.
	Lease = 2 * time.Second
	// RenewInterval is the time between renewals while active.
	RenewInterval = 500 * time.Millisecond

	// announceRefresh is the time between announcements in the long run; the
	// first ones are in announceAfter.
	announceRefresh = 60 * time.Second
	// announceGap is the time between announcements that others provoke by
	// adverts or claims, once announceBurst of them have come at once: a neighbour
	// that does not hear us must not become an ARP storm.
	announceGap   = time.Second
	announceBurst = 4
	// holdOff is how long a router that could not keep its addresses leaves a
	// live active router alone; every failure in a row doubles it, at most
	// holdOffDoublings times. Without it a larger priority would take over,
	// fail and resign for ever.
	holdOff          = 10 * time.Second
	holdOffDoublings = 5

	lowestPriority = 1 // RFC 9568 section 5.2.4: 0 means that the sender resigns
)

// announceAfter are the times after a promotion at which the announcement is
// repeated: a switch may drop the first one while it learns the port.
var announceAfter = [...]time.Duration{time.Second, 5 * time.Second}

// ErrRefused is the kind of error with which a command is answered that does
// not fit the state of the router. Nothing has changed then.
var ErrRefused = errors.New("refused")

// State is what a router is in the election.
type State uint8

const (
	// Fault: the router takes no part (Initialize, RFC 9568 section 6.4.1).
	Fault State = iota
	// Backup: it watches the active router (RFC 9568 section 6.4.2).
	Backup
	// Active: it holds the virtual addresses (RFC 9568 section 6.4.3).
	Active
)

// String returns the state as users read it and metrics name it.
func (s State) String() string {
	switch s {
	case Backup:
		return "backup"
	case Active:
		return "active"
	}
	return "fault"
}

// PeerAdvert is the last advert heard from one router.
type PeerAdvert struct {
	Address  netip.Addr
	Priority int
	Heard    time.Time
}

// Machine is the election of one virtual router. It is not safe for concurrent
// use. Its zero value is not usable: see NewMachine.
type Machine struct {
	cfg       Config
	state     State
	since     time.Time // of state
	reason    string    // of the last transition
	demotions []Demotion
	faults    []FaultReport
	active    PeerAdvert // of the active router; Address is invalid when none is known
	claims    claims
	gaveUp    time.Time // when the addresses went against this node's will; zero while active
	stopped   bool

	backup   backup
	holding  holding
	handover handover
	mate     mate
	lending  lending
	lookout  lookout
	evidence evidence

	out []Action // of the step under way
}

// NewMachine returns a machine in state Fault: the fault "startup" keeps it
// there until it is cleared, so that nothing is promoted before it can serve.
func NewMachine(cfg Config, now time.Time) *Machine {
	cfg.Addresses, cfg.Peers = slices.Clone(cfg.Addresses), slices.Clone(cfg.Peers)
	m := &Machine{cfg: cfg, since: now, reason: "starting"}
	m.faults = setFault(nil, now, StartupFault, "not ready yet")
	return m
}

// The faults that this package knows by name.
const (
	// StartupFault is the one every machine is created with, for its owner to
	// clear.
	StartupFault = "startup"
	// AdvertsFault is in force while a Router can send or receive no adverts.
	AdvertsFault = "adverts"
)

// Step lets the machine react to ev at the time now, and returns what it wants
// done. Times must not run backwards.
func (m *Machine) Step(now time.Time, ev Event) []Action {
	m.out = nil
	m.step(now, ev)
	return m.out
}

// step is Step, with the actions left in m.out after those that are there.
func (m *Machine) step(now time.Time, ev Event) {
	if m.stopped {
		return
	}
	// A process that was stopped for longer than the lease wakes up without
	// its addresses and probably with another router active: it must not go
	// on as if it had never been away.
	if m.state == Active && now.Sub(m.holding.leased) > Lease {
		m.resign(now, fmt.Sprintf("the addresses were not renewed for %s", round(now.Sub(m.holding.leased))))
	}
	if m.state == Active {
		m.noticeSilence(now)
	}
	switch ev := ev.(type) {
	case Heard:
		m.onHeard(now, ev)
	case Tick:
		m.onTick(now, ev)
	case Demote:
		before := m.Effective()
		m.demotions = setDemotion(m.demotions, now, ev.Source, ev.N, ev.Reason)
		if m.Effective() != before {
			m.onPriority(now)
		}
	case SetFault:
		m.onFault(now, ev)
	case Opened:
		m.onOpened(now, ev)
	case Failover:
		m.onFailover(now, ev)
	case Failback:
		m.onFailback(now, ev)
	case Drained:
		m.onDrained(now, ev)
	case Acquired:
		m.onAcquired(now, ev)
	case AcquireFailed:
		m.onAcquireFailed(now, ev)
	case Recheck:
		m.onRecheck(now)
	case Claimed:
		m.onClaimed(now, ev)
	case PeerReport:
		m.onPeerReport(now, ev)
	case TakeOver:
		m.onTakeOver(now, ev)
	case Withdrawn:
		m.onWithdrawn(now, ev)
	case Offered:
		m.onOffered(now, ev)
	case Looked:
		m.onLooked(now, ev)
	case Announced:
		m.onAnnounced(now, ev)
	case Reconfigure:
		m.onReconfigure(now, ev.Config)
	case Shutdown:
		m.onShutdown(now)
	}
}

// Deadline returns when the machine wants a Tick, or the zero time if nothing
// is due at any time.
func (m *Machine) Deadline() time.Time {
	switch {
	case m.stopped:
		return time.Time{}
	case m.state == Backup && m.mate.waiting != "":
		return m.mate.reportAt
	case m.state == Backup:
		return m.backup.downAt
	case m.state == Active && m.holding.listening():
		return earliest(m.holding.listenUntil, m.handover.drainEnd)
	case m.state == Active:
		return earliest(m.holding.advertAt, m.holding.renewAt, m.holding.announceAt, m.handover.drainEnd, m.evidence.rivalAt)
	}
	return time.Time{}
}

// State returns the state the machine is in.
func (m *Machine) State() State { return m.state }

// Effective returns the effective priority: the base less every demotion, at
// least 1.
func (m *Machine) Effective() int {
	p := m.cfg.Priority
	for _, d := range m.demotions {
		p -= d.N
	}
	return max(p, lowestPriority)
}

// onHeard takes an advert in.
func (m *Machine) onHeard(now time.Time, ev Heard) {
	m.noteKeepalived(now, ev.Source, ev.Priority)
	switch m.state {
	case Backup:
		m.heardAsBackup(now, ev)
	case Active:
		m.heardAsActive(now, ev)
	case Fault:
		// Who is active is worth knowing without taking part.
		m.follow(now, ev)
	}
}

// onTick acts on the timers that have run out.
func (m *Machine) onTick(now time.Time, ev Tick) {
	switch m.state {
	case Backup:
		m.tickAsBackup(now, ev.Unread)
	case Active:
		m.tickAsActive(now)
	}
}

// onPriority tells those whom a change of the effective priority concerns.
func (m *Machine) onPriority(now time.Time) {
	switch m.state {
	case Backup:
		m.reconsider(now)
	case Active:
		// The backups weigh what they hear, so they hear it now.
		m.advertise(now)
	}
}

// onFault enters Fault with the first fault and leaves it with the last.
func (m *Machine) onFault(now time.Time, ev SetFault) {
	m.faults = setFault(m.faults, now, ev.Source, ev.Reason)
	switch {
	case m.state != Fault && len(m.faults) > 0:
		f := m.faults[0]
		m.becomeFault(now, fmt.Sprintf("fault %s: %s", f.Source, f.Reason))
	case m.state == Fault && len(m.faults) == 0:
		m.ready(now, readyReason(ev.Source))
	}
}

// readyReason says why a router takes part again: the fault of source was the
// last one.
func readyReason(source string) string {
	switch source {
	case StartupFault, AdvertsFault:
		return "ready"
	case GroupFault:
		return "ready, with its group"
	}
	return "ready: the fault " + source + " is over"
}

// onOpened takes the address that adverts leave from now on. Whatever was on the
// interface may be gone if another one has its name, and its MAC address may
// have changed: an active router acquires and announces anew.
func (m *Machine) onOpened(now time.Time, ev Opened) {
	m.cfg.Source = ev.Source
	if m.state == Active {
		m.acquireAnew()
		m.advertise(now)
	}
	if m.state == Backup {
		m.repeatFarewell(now)
	}
	m.onFault(now, SetFault{Source: AdvertsFault})
}

// onReconfigure takes the new configuration over without leaving the state.
func (m *Machine) onReconfigure(now time.Time, cfg Config) {
	old := m.cfg
	cfg.Name, cfg.VRID, cfg.Interface = old.Name, old.VRID, old.Interface
	cfg.Source, cfg.Version = old.Source, old.Version
	cfg.Unicast, cfg.VirtualMAC = old.Unicast, old.VirtualMAC
	cfg.Addresses, cfg.Peers = slices.Clone(cfg.Addresses), slices.Clone(cfg.Peers)
	before := m.Effective()
	m.cfg = cfg
	m.forgetPeers(now)
	if b := &m.backup; !b.preemptAt.IsZero() {
		b.preemptAt = b.preemptAt.Add(cfg.PreemptDelay - old.PreemptDelay)
	}

	moved := !slices.Equal(old.Addresses, cfg.Addresses)
	if m.state == Active && moved {
		m.changeAddresses(old.Addresses)
	}
	if m.state == Backup {
		m.onInterval(now, old.AdvertInterval)
	}
	if moved || old.AdvertInterval != cfg.AdvertInterval || old.Authentication != cfg.Authentication || old.Checksum != cfg.Checksum || m.Effective() != before ||
		old.Preempt != cfg.Preempt || !slices.Equal(old.Peers, cfg.Peers) {
		m.onPriority(now)
	}
}

// onInterval takes a configured interval over, as a backup.
func (m *Machine) onInterval(now time.Time, old time.Duration) {
	switch {
	case m.cfg.Version == 2 && m.cfg.AdvertInterval != old:
		// The active router's adverts are refused until its interval is the
		// same: it gets as much time for that as a silence has.
		m.learn(m.cfg.AdvertInterval)
		m.restart(now)
	case !m.active.Address.IsValid():
		m.learn(m.cfg.AdvertInterval)
	}
}

// becomeFault stops taking part (to Initialize, RFC 9568 section 6.4.1).
func (m *Machine) becomeFault(now time.Time, reason string) {
	m.clearWait()
	if m.state == Active {
		m.leaveActive(true, reason)
		m.gaveUp = now
	}
	if m.state != Fault {
		m.transition(now, Fault, reason)
	}
	m.failFailover(reason)
	if m.handover.stopping {
		m.stop()
	}
}

// becomeBackup watches the active router from now on. The interval to expect
// of it has been learnt.
func (m *Machine) becomeBackup(now time.Time, reason string) {
	m.backup = backup{interval: m.backup.interval, holdOff: m.backup.holdOff, failures: m.backup.failures}
	// RFC 9568 section 6.4.1, and 6.4.3 on giving way: set Active_Down_Timer
	// to Active_Down_Interval and transition to Backup.
	m.restart(now)
	m.lending.waiting = false
	m.transition(now, Backup, reason)
	if m.handover.stopping {
		m.becomeFault(now, "stopping")
	}
}

// becomeActive takes the addresses. The announcement follows when they are on
// the interface (onAcquired).
func (m *Machine) becomeActive(now time.Time, reason string) {
	if m.state != Backup && !(m.state == Fault && m.isOwner()) {
		panic("vrrp: only a backup and the owner become active")
	}
	m.failFailover(fmt.Sprintf("no other node took over within %s; this node is active again",
		round(now.Sub(m.handover.yieldedAt))))
	m.handover.yielded = false
	m.active = PeerAdvert{}
	m.clearWait()
	m.endLending(now)
	m.gaveUp = time.Time{}
	m.holding = holding{
		term:    m.holding.term + 1,
		leased:  now,
		renewAt: now.Add(RenewInterval),
	}
	// RFC 9568 section 6.4.2: when the Active_Down_Timer fires, send an
	// ADVERTISEMENT, ... set the Adver_Timer to Advertisement_Interval and
	// transition to Active.
	if m.holding.mute = m.handover.predecessor != ""; !m.holding.mute {
		m.holding.advertAt = now
		m.advertise(now)
	}
	m.do(Acquire{Addresses: m.cfg.Addresses, Term: m.holding.term})
	m.transition(now, Active, reason)
	m.watchRival(now)
}

// transition is the end of every becomeX: the actions the state is entered
// with come first, the report last.
func (m *Machine) transition(now time.Time, to State, reason string) {
	from := m.state
	m.state, m.since, m.reason = to, now, reason
	m.trust(now)
	m.do(Transition{From: from, To: to, Reason: reason, At: now})
}

// stop ends the machine.
func (m *Machine) stop() {
	m.stopped = true
	m.do(Stopped{})
}

// do adds an action to those of the step under way.
func (m *Machine) do(a Action) { m.out = append(m.out, a) }

// follow notes who is active according to ev.
func (m *Machine) follow(now time.Time, ev Heard) {
	switch {
	case ev.Priority > 0:
		m.active = PeerAdvert{Address: ev.Source, Priority: ev.Priority, Heard: now}
	case ev.Source == m.active.Address:
		m.active = PeerAdvert{}
	}
}

// earliest returns the earliest of the times that are not zero.
func earliest(times ...time.Time) time.Time {
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// round shortens a duration for people.
func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
