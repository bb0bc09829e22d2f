package kernel

import "net/netip"

// Stats are the counters of a Path since it was opened.
type Stats struct {
	// Services, in the order of Set.
	Services []ServiceStats
	// Flows is the number of flows in the map, half-open and installed ones
	// included, as of the latest sweep; FlowLimit is how many fit.
	Flows, FlowLimit int64
	// HalfOpen of them wait for the end of their handshake; HalfOpenLimit is how
	// many may.
	HalfOpen, HalfOpenLimit int64
	// Installed of them are the other node's.
	Installed int64
	// ChangesLost is how many changes OnChanges could not tell.
	ChangesLost int64
	// Left counts the packets to services that were left to the stack because the
	// program does not carry what they are.
	Left Left
}

// Left counts packets by what the program does not understand.
type Left struct {
	// Fragments of IP.
	Fragments int64
	// Options of IPv4, or extension headers of IPv6.
	Options int64
	// Malformed: a length or a header that cannot be.
	Malformed int64
}

// ServiceStats are the counters of one service.
type ServiceStats struct {
	Name string
	// Current is the number of established flows that this node carries, Total of
	// all that it ever began, HalfOpen of those in their handshake.
	Current, Total, HalfOpen int64
	// Refused is how many flows the server has answered with a reset.
	Refused int64
	// Broken is how many established flows ended in a reset by one of their
	// sides, TimedOut how many because nothing moved any more.
	Broken, TimedOut int64
	// Fallback counts new connections that were left to the stack, and so to the
	// proxy.
	Fallback Fallback
	// Dropped counts packets of flows that could not be sent on: too big for the
	// way out, or their TTL was over.
	Dropped int64
	// Traffic is that of all its servers.
	Traffic
	// Servers, in the order of Set, then those that Set does not name any more
	// while they still have flows.
	Servers []ServerStats
}

// Fallback counts new connections that the program left to the stack, by reason.
type Fallback struct {
	// NoServer: none is Ready.
	NoServer int64
	// Full: the map of flows is full.
	Full int64
	// HalfOpen: too many flows are half-open.
	HalfOpen int64
	// NoPort: no port towards the server was free.
	NoPort int64
	// NoRoute: the server is not reached by an interface of this node, or is this
	// node.
	NoRoute int64
}

// ServerStats are the counters of one server of a service.
type ServerStats struct {
	Addr netip.AddrPort
	// Current, Total, HalfOpen and Refused are as in ServiceStats.
	Current, Total, HalfOpen, Refused int64
	Traffic
}

// Traffic counts packets, and bytes of payload: without the headers of IP, TCP
// and UDP. What a server answers directly is not seen.
type Traffic struct {
	PacketsToServer, PacketsToClient int64
	BytesToServer, BytesToClient     int64
}

// Stats returns the counters. They are read one after the other while packets
// pass.
func (p *Path) Stats() (Stats, error) { return Stats{}, nil }
