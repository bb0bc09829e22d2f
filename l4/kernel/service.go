package kernel

import (
	"fmt"
	"net/netip"
	"time"
)

// Mode is what happens to the addresses of a packet.
type Mode uint8

// The modes.
const (
	// NAT gives the server the service's address as the client's: its answers
	// come back here whatever its routes are.
	NAT Mode = iota
	// DNAT keeps the client's address. The servers' route to the clients must go
	// by this node: by an address that moves with the service.
	DNAT
	// Direct leaves the packet as it is and only sends it to the server's MAC
	// address. The server holds the service's address, does not answer ARP for
	// it, and answers the client itself; it is on the same network, and listens
	// on the same port.
	Direct
)

// String returns "nat", "dnat" or "direct".
func (m Mode) String() string {
	switch m {
	case NAT:
		return "nat"
	case DNAT:
		return "dnat"
	case Direct:
		return "direct"
	}
	return fmt.Sprintf("mode(%d)", uint8(m))
}

// Protocol is a transport by its number in IP.
type Protocol uint8

// The protocols.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// String returns "tcp" or "udp".
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return fmt.Sprintf("protocol(%d)", uint8(p))
}

// State says what a server may have.
type State uint8

// The states. Only Ready lets a server have new flows. The flows that a server
// has go on in every state, with two exceptions: those of TCP end when it is
// Down and the service says ResetOnDown, those of UDP go to another server when
// it is Down or Maint and the client sends again.
const (
	Ready State = iota
	Drain
	Maint
	Down
)

// Service is a set of addresses of which connections go to a set of servers.
type Service struct {
	// Name is unique.
	Name string
	// Listen are the addresses, at least one. None may be unspecified, and none
	// may be in two services of the same protocol.
	Listen []netip.AddrPort
	// Protocol is TCP or UDP.
	Protocol Protocol
	// Mode is what happens to the addresses.
	Mode Mode
	// ByClient has all flows of a client's address go to the same server, not
	// only those from the same port.
	ByClient bool
	// ResetOnDown ends the TCP flows of a server that is Down: their next packet
	// goes to the stack, which answers with a reset.
	ResetOnDown bool
	// Responses is after how many datagrams from the server a flow of UDP ends;
	// 0 for never.
	Responses int
	// Timeouts are when flows end on which nothing moves.
	Timeouts Timeouts
	// Interface is the index of the interface at which clients are found when
	// nothing better is known: that of the service's address. It counts for flows
	// of the other node on a node with forwarding off. 0 for none.
	Interface int
	// Servers, in any order. Listen and Servers must be of the same family. No
	// address may be there twice.
	Servers []Server
}

// Server is where flows go.
type Server struct {
	// Addr names the server within its service, on both nodes.
	Addr netip.AddrPort
	// Weight is its share of new flows, 1 to MaxWeight; 0 means 1.
	Weight int
	// Backup keeps it without new flows while others are Ready.
	Backup bool
	// State says what it may have.
	State State
}

// MaxWeight is the largest weight of a server.
const MaxWeight = 1 << 16

// Timeouts are when a flow ends on which nothing moves either way. They count
// whole seconds; a flow ends up to SweepInterval and one second late.
type Timeouts struct {
	// Idle is for established flows; default 1 h, with UDP 30 s.
	Idle time.Duration
	// HalfClose is for TCP flows of which one side has ended; default 10 s.
	HalfClose time.Duration
}
