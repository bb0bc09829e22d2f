package l4

import (
	"cmp"
	"fmt"
	"slices"

	"appliance/internal/endpoint"
	"appliance/internal/pool"
)

// Mode says what carries the packets of a service.
type Mode string

// The modes.
const (
	ModeProxy  Mode = "proxy"  // this process
	ModeKernel Mode = "kernel" // a program in the kernel; this process where that cannot be loaded
	ModeAuto   Mode = "auto"   // the kernel where it can do what the file asks for, else this process
)

// Forward says how the kernel path carries packets to a server and back.
type Forward string

// The ways of forwarding.
const (
	// ForwardNAT has the server see the virtual address as the client.
	ForwardNAT Forward = "nat"
	// ForwardDNAT has the server see the client; the server's way back to it must
	// be the active node.
	ForwardDNAT Forward = "dnat"
	// ForwardDirect hands packets over unchanged on the LAN; the server has the
	// virtual address too and answers the client itself.
	ForwardDirect Forward = "direct"
)

// EffectiveMode returns Mode with its default applied.
func (c Config) EffectiveMode() Mode { return cmp.Or(c.Mode, ModeProxy) }

// EffectiveForward returns Forward with its default applied.
func (c Config) EffectiveForward() Forward { return cmp.Or(c.Forward, ForwardNAT) }

// validateMode reports mistakes in what says where packets are carried.
func (c Config) validateMode(problem func(key, message string)) {
	if !slices.Contains([]Mode{"", ModeProxy, ModeKernel, ModeAuto}, c.Mode) {
		problem("mode", fmt.Sprintf("unknown mode %q; known: proxy, kernel, auto", c.Mode))
	}
	switch {
	case !slices.Contains([]Forward{"", ForwardNAT, ForwardDNAT, ForwardDirect}, c.Forward):
		problem("forward", fmt.Sprintf("unknown word %q; known: nat, dnat, direct", c.Forward))
	case c.Forward != "" && c.EffectiveMode() == ModeProxy:
		problem("forward", "the proxy makes connections of its own; forward goes with mode = \"kernel\" or \"auto\"")
	}
}

// Obstacle is something that a file asks for and the kernel path cannot do.
type Obstacle struct {
	// Key is the path of the key that asks for it, below the table that it is in.
	Key string
	// Reason says what cannot be done, and why.
	Reason string
}

// Obstacles returns what of c's own keys the kernel path cannot do, in the order
// of their names; empty if it can carry the service.
func (c Config) Obstacles() []Obstacle {
	var all []Obstacle
	add := func(is bool, key, reason string) {
		if is {
			all = append(all, Obstacle{key, reason})
		}
	}
	add(c.AcceptProxy != nil, "accept_proxy", "the kernel path does not read what clients send, so it knows no PROXY header")
	add(c.KeepAlive != (KeepAlive{}), "keepalive", "the kernel path has no connections of its own; clients and servers ask each other")
	for i, a := range c.Listen {
		add(a.Addr().IsUnspecified(), fmt.Sprintf("listen[%d]", i), "the kernel path serves virtual addresses one by one, not all addresses of the machine")
	}
	add(c.MaxConnections != 0, "max_connections", "the kernel path does not bound the connections of a service")
	add(c.PerClient != (PerClient{}), "per_client", "the kernel path does not bound what one client gets")
	add(len(c.Routes) > 0, "route", "the kernel path does not read what clients send, so it knows no name")
	return all
}

// PoolObstacles returns what of the keys of a pool the kernel path cannot do for
// the service c; empty if it can.
func (c Config) PoolObstacles(p pool.Config) []Obstacle {
	var all []Obstacle
	add := func(is bool, key, reason string) {
		if is {
			all = append(all, Obstacle{key, reason})
		}
	}
	switch p.Balance {
	case "", pool.RoundRobin, pool.SourceHash:
	default:
		add(true, "balance", fmt.Sprintf("the kernel path chooses by a hash, as round_robin and source_hash allow; it does not know what %s asks for", p.Balance))
	}
	add(p.Outlier != nil, "outlier", "the kernel path does not see which connections fail")
	add(p.Queue > 0, "queue", "the kernel path has no connections wait")
	add(p.SendProxy != "", "send_proxy", "the kernel path adds nothing to what clients send, so no PROXY header")
	seen := make(map[endpoint.Endpoint]bool)
	for i, s := range p.Servers {
		at := func(field string) string { return fmt.Sprintf("servers[%d].%s", i, field) }
		add(s.MaxConnections > 0, at("max_connections"), "the kernel path does not bound the connections of a server")
		add(s.SendProxy != "" && s.SendProxy != "none", at("send_proxy"), "the kernel path adds nothing to what clients send, so no PROXY header")
		if e, err := endpoint.Parse(s.Address); err == nil {
			why := c.serverObstacle(e)
			if seen[e] {
				why = "the kernel path tells servers apart by their addresses, and another one of the pool has this one"
			}
			add(why != "", at("address"), why)
			seen[e] = true
		}
	}
	return all
}

// serverObstacle says why the kernel path cannot carry packets of c to a server;
// empty if it can.
func (c Config) serverObstacle(e endpoint.Endpoint) string {
	if e.Path() != "" {
		return "the kernel path carries packets; a unix socket takes none"
	}
	address := e.IP()
	if !address.Addr().IsValid() {
		return "" // the host has none yet
	}
	if address.Addr().IsLoopback() {
		return "the kernel path carries packets to other machines, not to this one"
	}
	for _, listen := range c.Listen {
		if address.Addr().Is4() != listen.Addr().Is4() {
			return fmt.Sprintf("the kernel path does not turn IPv4 into IPv6, or back; %s is of the other family", listen.Addr())
		}
		if c.EffectiveForward() == ForwardDirect && address.Port() != listen.Port() {
			return fmt.Sprintf("with forward = \"direct\" packets are not changed; the server's port must be that of %s", listen)
		}
	}
	return ""
}
