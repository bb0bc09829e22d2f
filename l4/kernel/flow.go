package kernel

import (
	"net/netip"
	"time"
)

// Flow is one established connection, or what one client sends from one port by
// UDP, in words that mean the same on both nodes.
type Flow struct {
	Protocol Protocol
	// Client is the client's address, Listen the service's.
	Client, Listen netip.AddrPort
	// Server is the server's address.
	Server netip.AddrPort
	// Port is the port that stands for the client towards the server: with NAT
	// the service's address has it; otherwise it is the client's own.
	Port uint16
	// Mode is that of the service when the flow began.
	Mode Mode
	// ClientEnded and ServerEnded say which sides have ended their direction, by
	// FIN.
	ClientEnded, ServerEnded bool
	// Idle is for how long nothing has moved, in whole seconds.
	Idle time.Duration
}

// ChangeKind is what happened to a flow.
type ChangeKind uint8

// The kinds of a Change.
const (
	// Established: the handshake is complete; with UDP, the server has answered.
	Established ChangeKind = iota + 1
	// Refreshed: the flow is still in use, or its state has changed. It is told
	// every RefreshInterval for flows that have been used since.
	Refreshed
	// Ended: both sides have ended, one has reset it, or it timed out.
	Ended
)

// Change is one thing that happened to a flow that this node carries. What
// Install and Remove do is none.
type Change struct {
	Kind ChangeKind
	Flow Flow
}

// The rhythm of the goroutine that looks at all flows.
const (
	// SweepInterval is how often flows are looked at.
	SweepInterval = 5 * time.Second
	// RefreshInterval is how often a flow in use is Refreshed.
	RefreshInterval = 30 * time.Second
)

// Flows calls f with each established flow, those of the other node that were
// installed here included, until f returns false. Flows that begin or end
// meanwhile may or may not be among them: subscribe by OnChanges first.
func (p *Path) Flows(f func(Flow) bool) error { return nil }

// OnChanges has f called with what happens to flows from now on, in batches, by
// one goroutine of the Path. nil ends it: after it has returned, f is not called
// any more. A change is told about 5 ms after it happened. f must not keep the
// slice, nor call OnChanges. While f takes long, changes wait in the kernel; what
// finds no room there is lost and counted (Stats.ChangesLost), and made good by
// the next Refreshed.
func (p *Path) OnChanges(f func([]Change)) {}

// Install takes over flows of the other node, so that their packets may come
// here. What is here already by the same addresses is replaced. It returns how
// many found no place: their service is not here, or there is no room.
// Installed flows age like others, and are not told by OnChanges before their
// packets come here.
func (p *Path) Install(flows []Flow) (refused int) { return 0 }

// Remove forgets installed flows that have ended on the other node. Only
// Protocol, Client and Listen count. A flow whose packets come here by now stays.
func (p *Path) Remove(flows []Flow) {}
