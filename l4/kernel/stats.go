package kernel

import (
	"fmt"
	"net/netip"
)

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
	// Early is how many segments of servers were dropped because they belonged to no
	// flow yet; see TakeStrays.
	Early int64
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
	// Strays of all those that it began were in the middle of their connections; see
	// TakeStrays.
	Strays int64
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
	// Current, Total, HalfOpen and Refused are as in ServiceStats. HalfOpen is as of
	// the latest sweep.
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
func (p *Path) Stats() (Stats, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	stats := Stats{
		Flows:         p.census.flows,
		FlowLimit:     int64(p.o.Flows),
		Installed:     p.census.installed,
		HalfOpenLimit: int64(p.o.HalfOpen),
		Services:      make([]ServiceStats, 0, len(p.registry.services)),
	}
	if err := p.objects.HalfOpen.Lookup(uint32(0), &stats.HalfOpen); err != nil {
		return Stats{}, fmt.Errorf("kernel path: %w", err)
	}
	stats.HalfOpen = max(stats.HalfOpen, 0)
	var perCPU []programPathCounts
	if err := p.objects.PathCounters.Lookup(uint32(0), &perCPU); err != nil {
		return Stats{}, fmt.Errorf("kernel path: %w", err)
	}
	for _, c := range perCPU {
		stats.ChangesLost += int64(c.ChangesLost)
		stats.Early += int64(c.Early)
		stats.Left.Fragments += int64(c.Fragments)
		stats.Left.Options += int64(c.Options)
		stats.Left.Malformed += int64(c.Malformed)
	}
	for _, s := range p.registry.services {
		ss, err := p.serviceStats(s)
		if err != nil {
			return Stats{}, fmt.Errorf("kernel path: service %s: %w", s.Name, err)
		}
		stats.Services = append(stats.Services, ss)
	}
	return stats, nil
}

// serviceStats returns the counters of s.
func (p *Path) serviceStats(s *service) (ServiceStats, error) {
	stats := ServiceStats{Name: s.Name, TimedOut: s.timedOut}
	var perCPU []programServiceCounts
	if err := p.objects.ServiceCounters.Lookup(s.id, &perCPU); err != nil {
		return stats, err
	}
	for _, c := range perCPU {
		stats.Fallback.NoServer += int64(c.NoServer)
		stats.Fallback.Full += int64(c.Full)
		stats.Fallback.HalfOpen += int64(c.HalfOpen)
		stats.Fallback.NoPort += int64(c.NoPort)
		stats.Fallback.NoRoute += int64(c.NoRoute)
		stats.Strays += int64(c.Strays)
	}
	for _, srv := range s.list() {
		c, err := p.serverCounts(srv.id)
		if err != nil {
			return stats, err
		}
		one := ServerStats{
			Addr:     srv.addr,
			Current:  max(srv.current+int64(c.Established)-int64(c.Ended), 0),
			Total:    int64(c.Begun),
			HalfOpen: srv.halfOpen,
			Refused:  int64(c.Refused),
			Traffic: Traffic{
				PacketsToServer: int64(c.PacketsToServer), PacketsToClient: int64(c.PacketsToClient),
				BytesToServer: int64(c.BytesToServer), BytesToClient: int64(c.BytesToClient),
			},
		}
		stats.Current += one.Current
		stats.Total += one.Total
		stats.HalfOpen += one.HalfOpen
		stats.Refused += one.Refused
		stats.Broken += int64(c.Broken)
		stats.Dropped += int64(c.Dropped)
		stats.PacketsToServer += one.PacketsToServer
		stats.PacketsToClient += one.PacketsToClient
		stats.BytesToServer += one.BytesToServer
		stats.BytesToClient += one.BytesToClient
		stats.Servers = append(stats.Servers, one)
	}
	return stats, nil
}

// serverCounts returns the program's counters of a server.
func (p *Path) serverCounts(id uint32) (sum programServerCounts, err error) {
	var perCPU []programServerCounts
	if err := p.objects.ServerCounters.Lookup(id, &perCPU); err != nil {
		return sum, err
	}
	for _, c := range perCPU {
		sum.PacketsToServer += c.PacketsToServer
		sum.PacketsToClient += c.PacketsToClient
		sum.BytesToServer += c.BytesToServer
		sum.BytesToClient += c.BytesToClient
		sum.Begun += c.Begun
		sum.Established += c.Established
		sum.Ended += c.Ended
		sum.Broken += c.Broken
		sum.Refused += c.Refused
		sum.Dropped += c.Dropped
	}
	return sum, nil
}

// clearServer begins the counters of a server's number from 0.
func (p *Path) clearServer(id uint32) error {
	return p.objects.ServerCounters.Put(id, make([]programServerCounts, p.cpus))
}

// clearService begins the counters of a service's number from 0.
func (p *Path) clearService(id uint32) error {
	return p.objects.ServiceCounters.Put(id, make([]programServiceCounts, p.cpus))
}
