package vrrp

import (
	"context"
	"net/netip"
)

// Here is what a Router needs of the node that it runs on.

// Transport carries adverts between this node and the LAN.
type Transport interface {
	// Send sends one message with a TTL of 255 to the group or, in unicast, to
	// another node. It must not block for long: the election waits for it.
	Send(msg []byte, to netip.Addr) error
	// Receive waits for a packet of protocol 112, puts its payload into buf
	// and returns the payload's length with the header's source, destination
	// and TTL. An error is counted, under its Label() string if it has one:
	// then it concerns one packet, and the next one is waited for. Any other
	// error is the end of the Transport.
	Receive(buf []byte) (n int, src, dst netip.Addr, ttl uint8, err error)
	// Close ends a Receive under way.
	Close() error
}

// Backlog is what a Transport may be too: one that knows what it has not been
// asked for yet.
type Backlog interface {
	// Unread says whether a packet has arrived that no Receive has returned.
	// It must not block.
	Unread() bool
}

// Open opens a Transport and says which address it sends from. The Router
// closes it, and opens another one when it has come to its end; the calls are
// made one at a time.
type Open func() (Transport, netip.Addr, error)

// Addresses puts virtual addresses on the interface and takes them off. The
// methods are called one at a time.
type Addresses interface {
	// Acquire makes addresses present, each for the time of Lease from now, and
	// returns those that were not. It is the renewal too, so an address that is
	// present is no error.
	Acquire(addresses []netip.Prefix) (added []netip.Prefix, err error)
	// Release makes addresses absent. One that is missing is no error.
	Release(addresses []netip.Prefix) error
	// Announce tells the LAN that addresses are at this interface.
	Announce(addresses []netip.Prefix) error
}

// Traffic is what is done to connections while addresses are given away.
type Traffic interface {
	// Hold keeps new connections off, and returns when those under way have
	// ended or ctx ends, which it does at d.Deadline. It may return before if they
	// can go on after the addresses have gone to d.Heir. It runs on a goroutine of
	// its own.
	Hold(ctx context.Context, d Drain)
	// Resume lets new connections in again. It follows every Hold, after that
	// has returned and the addresses are gone or are kept after all.
	Resume()
}

// Hooks are what a Router tells others. Each may be nil.
type Hooks struct {
	// Traffic lets connections end before a planned hand-over.
	Traffic Traffic
	// Tell is told what people want to read afterwards, in its order. It is
	// called from the goroutine of the election, which it must not hold up.
	Tell func(Notice)
	// Missing returns those of hosts that do not answer, within LookPatience. It
	// runs on a goroutine of its own. Without it all answer.
	Missing func(ctx context.Context, hosts []netip.Addr) []netip.Addr
	// Groups are the groups of the process; without them the router moves alone.
	Groups *Groups
	// Peer is the link to the other nodes.
	Peer PeerLink
	// Changed is called when Status has changed in what other nodes want to know
	// at once. It must not block.
	Changed func()
}
