package appliance

import (
	"cmp"
	"hash/fnv"
	"net"
	"net/netip"
	"slices"

	"appliance/internal/control"
	"appliance/internal/ingress"
	"appliance/l4"
	"appliance/l4/kernel"
)

// maxFlowsShown bounds how many flows of the kernel path are described as sessions.
const maxFlowsShown = 10000

// kernelView is the kernel path at one moment.
type kernelView struct {
	loaded     bool
	trouble    error       // why it is not loaded, or not all of it in force
	way        ingress.Way // of attachment
	placed     map[string]placement
	interfaces []kernel.Interface
	stats      kernel.Stats
	services   map[string]kernel.ServiceStats
	rates      map[string]int64
}

// placements says where the services run that ask for the kernel path. It waits for
// nobody.
func (k *kernelPath) placements() map[string]placement {
	if all := k.published.Load(); all != nil {
		return *all
	}
	return nil
}

// view returns what the kernel path is now.
func (k *kernelPath) view() *kernelView {
	k.mu.Lock()
	path := k.path
	v := &kernelView{
		loaded: k.path != nil, trouble: cmp.Or(k.trouble, k.refused), placed: k.placed, interfaces: k.interfaces,
		services: make(map[string]kernel.ServiceStats), rates: k.rates,
	}
	k.mu.Unlock()
	if path == nil {
		return v
	}
	v.way = path.Way()
	var err error
	if v.stats, err = path.Stats(); err != nil {
		v.trouble = err
	}
	for _, s := range v.stats.Services {
		v.services[s.Name] = s
	}
	return v
}

// describe describes the program; nil while no service asks for it.
func (v *kernelView) describe() *control.Kernel {
	if len(v.placed) == 0 && !v.loaded {
		return nil
	}
	d := &control.Kernel{
		Loaded: v.loaded, Attach: string(v.way), Interfaces: []string{},
		Flows: v.stats.Flows, FlowLimit: v.stats.FlowLimit,
		HalfOpen: v.stats.HalfOpen, HalfOpenLimit: v.stats.HalfOpenLimit,
		Installed: v.stats.Installed, ChangesLost: v.stats.ChangesLost, Early: v.stats.Early,
		Left: map[string]int64{
			"fragments": v.stats.Left.Fragments, "options": v.stats.Left.Options, "malformed": v.stats.Left.Malformed,
		},
	}
	for _, s := range v.stats.Services {
		d.Strays += s.Strays
	}
	if v.trouble != nil {
		d.Reason = v.trouble.Error()
	}
	for _, i := range v.interfaces {
		if l, err := net.InterfaceByIndex(i.Index); err == nil {
			d.Interfaces = append(d.Interfaces, l.Name)
		}
	}
	return d
}

// addTo adds to a service what the kernel path has carried of it.
func (v *kernelView) addTo(s *control.Service) {
	p, asks := v.placed[s.Name]
	if !asks {
		return
	}
	if s.Path, s.PathReason = "proxy", p.reason; p.kernel {
		s.Path = "kernel"
	}
	k, ok := v.services[s.Name]
	if !ok {
		return
	}
	s.Current += k.Current + k.HalfOpen
	s.Total += uint64(k.Total)
	s.Rate += v.rates[s.Name]
	s.BytesIn += uint64(k.BytesToServer)
	s.BytesOut += uint64(k.BytesToClient)
	s.Errors["broken"] += uint64(k.Broken)
	s.Errors["timed_out"] += uint64(k.TimedOut)
	s.Errors["lost"] += uint64(k.Dropped)
	s.Fallback = map[string]int64{
		"no_server": k.Fallback.NoServer, "full": k.Fallback.Full, "half_open": k.Fallback.HalfOpen,
		"no_port": k.Fallback.NoPort, "no_route": k.Fallback.NoRoute,
	}
}

// addToServer adds to a server of a pool what the kernel path has carried to it,
// for all services that have the pool.
func (v *kernelView) addToServer(services []l4.Config, pool string, address netip.AddrPort, s *control.Server) {
	for _, c := range services {
		if c.PoolName() != pool {
			continue
		}
		for _, k := range v.services[c.Name].Servers {
			if k.Addr != address {
				continue
			}
			s.Current += k.Current + k.HalfOpen
			s.Total += uint64(k.Total)
			s.ConnectErrors += uint64(k.Refused)
			s.Errors["refused"] += uint64(k.Refused)
			s.BytesIn += uint64(k.BytesToServer)
			s.BytesOut += uint64(k.BytesToClient)
		}
	}
}

// describeFlows describes the exchange of flows with a node.
func describeFlows(f flowStatus) *control.FlowCopy {
	c := &control.FlowCopy{
		Complete: f.Complete, Copying: f.Copying, Told: f.Told,
		Sent: f.Sent, Waiting: f.Waiting,
		LagSeconds: f.Lag.Seconds(), LastLagSeconds: f.LastLag.Seconds(), MaxLagSeconds: f.MaxLag.Seconds(),
		Heard: f.Heard, Ended: f.Ended,
		Dropped: map[string]uint64{
			"unknown": f.Unknown, "refused": f.Refused, "malformed": f.Malformed, "stale": f.Stale, "missing": f.Missing,
			"untellable": f.Untellable, "forgotten": f.Forgotten,
		},
	}
	if f.Complete {
		c.Completed = &f.CompleteAt
	}
	return c
}

// labels returns the names of pools and servers by the addresses of services and
// servers.
func (s *setup) labels() map[pairing][2]string {
	all := make(map[pairing][2]string)
	for _, c := range s.node.L4 {
		if c.EffectiveMode() == l4.ModeProxy {
			continue
		}
		protocol := kernel.TCP
		if c.UDP() {
			protocol = kernel.UDP
		}
		for _, server := range s.pools[c.PoolName()].Servers() {
			for _, listen := range c.Listen {
				all[pairing{protocol, listen, server.Endpoint().IP()}] = [2]string{c.PoolName(), server.Label()}
			}
		}
	}
	return all
}

// servicesAt returns the names of services by protocol and address.
func (s *setup) servicesAt() map[pairing]string {
	all := make(map[pairing]string)
	for _, c := range s.node.L4 {
		protocol := kernel.TCP
		if c.UDP() {
			protocol = kernel.UDP
		}
		for _, listen := range c.Listen {
			all[pairing{protocol: protocol, listen: listen}] = c.Name
		}
	}
	return all
}

// sessions describes the flows of the kernel path, maxFlowsShown at most.
func (k *kernelPath) sessions() []control.Session {
	k.mu.Lock()
	path := k.path
	k.mu.Unlock()
	s := k.current()
	if path == nil || s.node == nil {
		return nil
	}
	var all []control.Session
	describe := k.describer(s)
	if err := path.Flows(func(f kernel.Flow) bool {
		all = append(all, describe(f))
		return len(all) < maxFlowsShown
	}); err != nil {
		k.log.Error().Err(err).Msg("flows cannot be read")
	}
	slices.SortFunc(all, func(a, b control.Session) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Client, b.Client))
	})
	return all
}

// describer returns what describes a flow as a session.
func (k *kernelPath) describer(s *setup) func(kernel.Flow) control.Session {
	labels, services := s.labels(), s.servicesAt()
	return func(f kernel.Flow) control.Session {
		label, known := labels[pairing{f.Protocol, f.Listen, f.Server}]
		if !known {
			label = [2]string{"", f.Server.String()}
		}
		return control.Session{
			ID: flowID(f), Service: services[pairing{protocol: f.Protocol, listen: f.Listen}], State: "kernel",
			Client: f.Client.String(), Address: f.Listen.String(), Pool: label[0], Server: label[1], IdleSeconds: f.Idle.Seconds(),
		}
	}
}

// cut ends the flows that are meant, and returns how many those were.
func (k *kernelPath) cut(meant func(control.Session) bool) int {
	k.mu.Lock()
	path := k.path
	k.mu.Unlock()
	s := k.current()
	if path == nil || s.node == nil {
		return 0
	}
	describe := k.describer(s)
	n, err := path.Cut(func(f kernel.Flow) bool { return meant(describe(f)) })
	if err != nil {
		k.log.Error().Err(err).Msg("not all flows that were to be cut were")
	}
	return n
}

// flowID returns a number for a flow that is the same as long as it lasts, and
// larger than those of the proxy's sessions ever get. It has 53 bits, as much as
// a number of JSON holds everywhere.
func flowID(f kernel.Flow) uint64 {
	h := fnv.New64a()
	h.Write([]byte{byte(f.Protocol)})
	for _, a := range []netip.AddrPort{f.Client, f.Listen} {
		b := a.Addr().As16()
		h.Write(b[:])
		h.Write([]byte{byte(a.Port() >> 8), byte(a.Port())})
	}
	return h.Sum64()>>12 | 1<<52
}
