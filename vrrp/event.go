package vrrp

import (
	"net/netip"
	"time"
)

// Event is what a Machine reacts to: one of the types below.
type Event interface{ event() }

// Heard is an advert of another router that was not refused.
type Heard struct {
	Source   netip.Addr
	Priority int
	Interval time.Duration
}

// Tick says that the time Deadline named has come. One too many does nothing.
type Tick struct {
	// Unread says that packets have arrived that nobody has looked at yet.
	Unread bool
}

// Demote makes Source lower the priority by N, or no longer when N is 0.
type Demote struct {
	Source string
	N      int
	Reason string
}

// SetFault raises the fault of Source, or clears it when Reason is empty.
type SetFault struct{ Source, Reason string }

// Opened says that adverts can be sent and heard, from now on with Source as
// this node's address. It clears AdvertsFault. On an active router the
// interface may be another one than before.
type Opened struct{ Source netip.Addr }

// Failover asks an active router to give the addresses away. The answer is the
// Reply of the same ID.
type Failover struct {
	ID uint64
	Move
}

// Move says how addresses are to be given away.
type Move struct {
	// By is who typed the command; empty if nobody knows.
	By string
	// Reason says in words why; empty for a command of By.
	Reason string
	// Back: the addresses go back to where a Failover took them from. This router
	// does not yield then.
	Back bool
	// Force moves them also where the other node is absent or less healthy.
	Force bool
	// Drain replaces Config.Drain for this move, unless it is nil.
	Drain *time.Duration
}

// Failback asks a router that yielded to take over again. The answer is the
// Reply of the same ID. By is as in Failover.
type Failback struct {
	ID uint64
	By string
}

// Drained says that the connections which the Drain of that ID waited for have
// ended.
type Drained struct{ ID uint64 }

// Acquired says that the Acquire or Renew of that Term succeeded. At is when
// it was begun: the lease lasts from then at least. Added are the addresses that
// were not on the interface until then.
type Acquired struct {
	Term  uint64
	At    time.Time
	Added []netip.Prefix
}

// AcquireFailed says that the Acquire or Renew of that Term failed.
type AcquireFailed struct {
	Term   uint64
	Reason string
}

// Recheck says that an address may have gone from the interface. An active
// router renews at once; what was missing comes back as Added.
type Recheck struct{}

// Claimed says that Count frames were heard in which another station, with the
// hardware address MAC, said that Address is its own.
type Claimed struct {
	Address netip.Addr
	MAC     string
	Count   int
}

// Reconfigure replaces the configuration. Name, VRID, Interface, Source,
// Version, Unicast and VirtualMAC stay what they were, and the addresses are of
// the same family.
type Reconfigure struct{ Config Config }

// Shutdown ends the machine's part: it drains if it is active, resigns, and
// says Stopped.
type Shutdown struct{}

func (Heard) event()         {}
func (Tick) event()          {}
func (Demote) event()        {}
func (SetFault) event()      {}
func (Opened) event()        {}
func (Failover) event()      {}
func (Failback) event()      {}
func (Drained) event()       {}
func (Acquired) event()      {}
func (AcquireFailed) event() {}
func (Recheck) event()       {}
func (Claimed) event()       {}
func (Reconfigure) event()   {}
func (Shutdown) event()      {}

// Action is what a Machine wants done: one of the types below. The actions of
// one step are carried out in their order.
type Action interface{ action() }

// Send wants an advert sent with this priority.
type Send struct {
	Priority int
	// Due is when the Adver_Timer wanted it sent; zero for one that the timer
	// has no part in.
	Due time.Time
}

// Acquire wants Addresses put on the interface, each with a fresh lease. The
// outcome comes back as Acquired or AcquireFailed of the same Term.
type Acquire struct {
	Addresses []netip.Prefix
	Term      uint64
}

// Renew wants the lease of Addresses renewed. The outcome comes back as for
// Acquire.
type Renew struct {
	Addresses []netip.Prefix
	Term      uint64
}

// Release wants Addresses taken off the interface.
type Release struct{ Addresses []netip.Prefix }

// Announce wants the LAN told that Addresses are here (gratuitous ARP). That it
// was is told by Announced of the same Term.
type Announce struct {
	Addresses []netip.Prefix
	Term      uint64
}

// Drain wants new connections held off while those under way end. When they
// have ended before Deadline, that is told by Drained of the same ID.
type Drain struct {
	ID       uint64
	Deadline time.Time
	// All: whoever gave the command named the time, so all connections get it.
	// Otherwise one that has lasted for longer already is not waited for: it is
	// not expected to end in that time, and new ones are held off meanwhile.
	All bool
	// Heir is the node that is about to take over by the peer link, and Alone says
	// why there is none that is known before; one of them is empty.
	Heir, Alone string
}

// Resume ends the Drain before it: new connections are welcome again.
type Resume struct{}

// Transition reports a change of state.
type Transition struct {
	From, To State
	// Reason says why, in words.
	Reason string
	At     time.Time
}

// Restored reports that Addresses were missing on the interface while this
// router was active, and are there again.
type Restored struct {
	Addresses []netip.Prefix
	// Reason says in words what took them off.
	Reason string
	// NotTold is how many of these a Router has kept from Hooks.Tell since the
	// last one, because they came too fast.
	NotTold int
}

// Foreign reports a foreign claim to an address that this router holds; the
// addresses are announced again for it. Count frames of it are new. Tell is
// false where people have heard enough of that one lately.
type Foreign struct {
	Claim Claim
	Count int
	Tell  bool
}

// Held reports that the Active_Down_Timer ran out some time ago, and that this
// router stays a backup for the reason that is given; without a reason, that this
// is over.
type Held struct{ Reason string }

// Late reports that this process was held up, so that a backup judges a silence
// By after its time or with packets unread, or an active router was itself silent
// for By: it listens for one interval before it acts.
type Late struct{ By time.Duration }

// Reply answers a Failover or Failback.
type Reply struct {
	ID uint64
	// Active is the router that is active now, when Err is nil.
	Active netip.Addr
	// Err says why the command was refused (ErrRefused) or failed.
	Err error
}

// Stopped is the last action: the machine takes no more part.
type Stopped struct{}

func (Send) action()       {}
func (Acquire) action()    {}
func (Renew) action()      {}
func (Release) action()    {}
func (Announce) action()   {}
func (Drain) action()      {}
func (Resume) action()     {}
func (Transition) action() {}
func (Restored) action()   {}
func (Foreign) action()    {}
func (Held) action()       {}
func (Late) action()       {}
func (Reply) action()      {}
func (Stopped) action()    {}
