package appliance

import (
	"cmp"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"appliance/internal/control"
	"appliance/internal/pool"
	"appliance/vrrp"
)

// status describes the node as it is now.
func (a *Appliance) status() control.Status {
	current, known := a.current.Load(), a.wire.known.Load()
	s := control.Status{
		Version: a.options.Version,
		PID:     os.Getpid(),
		Started: a.started,
		Ready:   known.ready,
		Config:  control.Config{Path: a.options.ConfigPath, Error: *a.refused.Load()},
		Events:  control.Events{Path: a.history.Path(), Error: a.history.Trouble()},
		// Empty lists rather than null, for those who read JSON.
		VRRP: []control.VRRP{}, Peers: []control.Peer{}, Services: []control.Service{}, Pools: []control.Pool{},
		AccessLogs: []control.AccessLog{},
	}
	for _, l := range a.l7.LogStats() {
		s.AccessLogs = append(s.AccessLogs, control.AccessLog{Path: l.Path, Lines: l.Lines, Dropped: l.Dropped, Error: l.Trouble})
	}
	if current.node == nil {
		return s // asked before the first configuration is in force
	}
	s.Node = current.node.Name
	s.Config.SHA256, s.Config.Loaded = current.file.Hash, current.loaded
	for _, m := range current.routers {
		r := describeRouter(m.router.Status())
		r.VirtualMAC = virtualMAC(m.config).String()
		if r.Lingering = m.lingering.describe(); r.Lingering == nil {
			r.PassingOn = m.passing.describe()
		}
		s.VRRP = append(s.VRRP, r)
	}
	s.Peers = a.describePeers(current)
	seen := a.kernel.view()
	s.Kernel = seen.describe()
	s.Services = a.describeServices(current, known, seen)
	for _, name := range slices.Sorted(maps.Keys(current.pools)) {
		s.Pools = append(s.Pools, a.describePool(current, name, seen))
	}
	return s
}

func describeRouter(s vrrp.Status) control.VRRP {
	r := control.VRRP{
		Name:          s.Name,
		VRID:          s.VRID,
		Interface:     s.Interface,
		State:         s.State.String(),
		Since:         s.Since,
		Reason:        s.Reason,
		Addresses:     texts(s.Addresses),
		BasePriority:  s.Base,
		Priority:      s.Effective,
		Group:         s.Group,
		Waiting:       s.Waiting,
		Yielded:       s.Yielded,
		Draining:      s.Draining,
		Demotions:     []control.Condition{},
		Faults:        []control.Condition{},
		Alarms:        []control.Condition{},
		ForeignClaims: []control.ForeignClaim{},
		Counters:      routerCounters(s.Counters),
		AdvertLateness: control.Lateness{
			Count:       s.Lateness.Count,
			P50Seconds:  s.Lateness.P50.Seconds(),
			P999Seconds: s.Lateness.P999.Seconds(),
			MaxSeconds:  s.Lateness.Max.Seconds(),
		},
	}
	if s.Active.Address.IsValid() && s.State != vrrp.Active {
		r.ActiveRouter = &control.Router{Address: s.Active.Address.String(), Priority: s.Active.Priority, Heard: s.Active.Heard}
	}
	for _, d := range s.Demotions {
		r.Demotions = append(r.Demotions, control.Condition{Source: d.Source, Amount: d.N, Reason: d.Reason, Since: d.Since})
	}
	for _, f := range s.Alarms {
		r.Alarms = append(r.Alarms, control.Condition{Source: f.Source, Reason: f.Reason, Since: f.Since})
	}
	for _, f := range s.Faults {
		r.Faults = append(r.Faults, control.Condition{Source: f.Source, Reason: f.Reason, Since: f.Since})
	}
	r.RefusedAdvert = describeRefused(s.Refused, time.Now())
	for _, c := range s.Claims {
		r.ForeignClaims = append(r.ForeignClaims, control.ForeignClaim{Address: c.Address.String(), MAC: c.MAC, First: c.First, Last: c.Last, Count: c.Count})
	}
	return r
}

// refusedFor is for how long a status tells of an advert that was refused.
const refusedFor = time.Minute

func describeRefused(a vrrp.RefusedAdvert, now time.Time) *control.RefusedAdvert {
	if a.Refusal == vrrp.Accepted || now.Sub(a.At) > refusedFor {
		return nil
	}
	return &control.RefusedAdvert{Source: a.Source.String(), Refusal: a.Refusal.String(), Reason: refusalWords(a.Refusal), At: a.At}
}

// refusalWords says why an advert is refused, and what to do if the sender is to be
// the other node.
func refusalWords(r vrrp.Refusal) string {
	switch r {
	case vrrp.RefusedVersion:
		return "it speaks another version of VRRP; give both the same (keepalived: vrrp_version, 2 unless it is set)"
	case vrrp.RefusedAuthenticationType:
		return "its type of authentication is another one; give both the same"
	case vrrp.RefusedPassword:
		return "its password is another one; give both the same"
	case vrrp.RefusedIntervalMismatch:
		return "its advert interval is another one, which version 2 forbids; give both the same"
	case vrrp.RefusedMulticast:
		return "it sends to the group, and this node has unicast = true; give both the same"
	case vrrp.RefusedUnicast:
		return "it sends to this node alone, and this node has no unicast = true; give both the same"
	case vrrp.RefusedStranger:
		return "no node of the file has its address"
	case vrrp.RefusedOwn:
		return "it has this node's own address: an echo, or a second machine with that address"
	case vrrp.RefusedTTL:
		return "a router has forwarded it, or it is forged"
	case vrrp.RefusedChecksum:
		return "its checksum is wrong"
	}
	return "it is no advert that RFC 9568 allows (" + r.String() + ")"
}

func routerCounters(c vrrp.Counters) map[string]uint64 {
	m := map[string]uint64{
		"adverts_sent":       c.Sent,
		"packets_received":   c.Received,
		"send_errors":        c.SendErrors,
		"address_errors":     c.AddressErrors,
		"address_mismatches": c.AddressMismatches,
		"transitions":        c.Transitions,
		"late":               c.Late,
		"addresses_restored": c.AddressesRestored,
		"foreign_claims":     c.ForeignClaims,
	}
	for _, named := range []struct {
		prefix string
		counts map[string]uint64
	}{{"refused_", c.Refused}, {"checksum_", c.Checksums}, {"receive_error_", c.ReceiveErrors}} {
		for label, n := range named.counts {
			m[named.prefix+label] = n
		}
	}
	return m
}

func (a *Appliance) describeServices(current *setup, known *knowledge, seen *kernelView) []control.Service {
	services := []control.Service{}
	for _, s := range a.l4.Stats() {
		services = append(services, control.Service{
			Name: s.Name, Layer: 4, Listen: texts(s.Listen), Pools: slices.Clone(s.Pools),
			Usable: current.usable(s.Pools...), Fault: known.fault(s.Listen, s.UDP),
			Current: s.Current, Total: uint64(s.Total), NoServer: uint64(s.Refused),
			BytesIn: uint64(s.BytesToServer), BytesOut: uint64(s.BytesToClient),
			Rate: s.Rate, Errors: map[string]uint64{
				"limited": uint64(s.Limited), "malformed": uint64(s.Malformed),
				"broken": uint64(s.Broken), "timed_out": uint64(s.TimedOut), "lost": uint64(s.Lost),
			},
		})
		seen.addTo(&services[len(services)-1])
	}
	for _, s := range a.l7.Stats() {
		services = append(services, control.Service{
			Name: s.Name, Layer: 7, Listen: texts(s.Listen), Pools: slices.Clone(s.Pools),
			Usable: current.usable(s.Pools...), Fault: known.fault(s.Listen, false),
			Current: s.Current, Total: uint64(s.Requests), NoServer: uint64(s.NoServer),
			BytesIn: uint64(s.BytesIn), BytesOut: uint64(s.BytesOut),
			Responses:   classes(s.Responses),
			Connections: s.Connections, Errors: map[string]uint64{
				"no_request": uint64(s.NoRequests), "tls_handshake": uint64(s.TLSFailures), "too_many_connections": uint64(s.Refused),
			},
		})
		for _, c := range s.Certificates {
			last := &services[len(services)-1]
			last.Certificates = append(last.Certificates, control.Certificate{Path: c.Path, Hosts: append([]string{}, c.Names...), NotAfter: c.NotAfter})
		}
		for why, n := range s.Troubles {
			services[len(services)-1].Errors[why] = uint64(n)
		}
	}
	return services
}

// usable returns how many servers of the pools take connections.
func (s *setup) usable(pools ...string) int {
	n := 0
	for _, name := range pools {
		if p := s.pools[name]; p != nil {
			n += p.Usable()
		}
	}
	return n
}

// fault says why clients cannot be taken at one of the addresses; empty when they
// can at all.
func (k *knowledge) fault(addresses []netip.AddrPort, udp bool) string {
	for _, address := range addresses {
		if err := k.listeners[socket{address, udp}]; err != nil {
			return err.Error()
		}
	}
	return ""
}

func (a *Appliance) describePool(current *setup, name string, seen *kernelView) control.Pool {
	p, cfg := current.pools[name], current.node.Pools[name]
	d := control.Pool{Name: name, Balance: string(cmp.Or(cfg.Balance, pool.RoundRobin)), Usable: p.Usable(), Waiting: p.Waiting(), Servers: []control.Server{}}
	results := a.checker.Results()
	for _, server := range p.Servers() {
		s := server.Stats()
		one := control.Server{
			Name: s.Label, Address: s.Address, Weight: s.Weight, Backup: s.Backup,
			Health: s.Health.State.String(), Since: s.Health.Since, Admin: s.Admin.String(),
			Current: s.Current, Total: uint64(s.Total), ConnectErrors: uint64(s.ConnectErrors),
			Rate: s.Rate, Errors: map[string]uint64{
				"refused": uint64(s.Errors.Refused), "timed_out": uint64(s.Errors.TimedOut),
				"unreachable": uint64(s.Errors.Unreachable), "broken": uint64(s.Errors.Broken),
			},
			BytesIn: uint64(s.BytesToServer), BytesOut: uint64(s.BytesToClient),
			ConnectSeconds: s.ConnectTime.Seconds(), MaxConnections: s.MaxConnections,
		}
		if f := s.ConnectError; f.Reason != "" {
			one.ConnectError, one.ConnectErrorAt = f.Reason, &f.At
		}
		if e := s.Ejection; e.Out(time.Now()) {
			one.EjectedUntil, one.Ejections = &e.Until, e.Times
		}
		switch {
		case server.Endpoint().Name() != "":
			one.Check = s.Health.Reason // it has no address
		case cfg.Check != nil:
			r := results[*cfg.CheckFor(server.Endpoint(), server.Host(), server.ServerName(), server.SendProxy())]
			one.Check, one.CheckWarning, one.LatencySeconds = r.Reason, r.Warning, r.Latency.Seconds()
			one.ChecksPassed, one.ChecksFailed = r.Passed, r.Failed
		}
		seen.addToServer(current.node.L4, name, server.Endpoint().IP(), &one)
		d.Servers = append(d.Servers, one)
	}
	return d
}

// texts returns the values as people write them.
func texts[T interface{ String() string }](values []T) []string {
	s := make([]string, len(values))
	for i, v := range values {
		s[i] = v.String()
	}
	return s
}

// classes names the counts of answers from 1xx to 5xx.
func classes(counts [5]int64) map[string]uint64 {
	m := make(map[string]uint64, len(counts))
	for i, n := range counts {
		m[string(rune('1'+i))+"xx"] = uint64(n)
	}
	return m
}
