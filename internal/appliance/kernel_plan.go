package appliance

import (
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"appliance/internal/config"
	"appliance/internal/link"
	"appliance/internal/pool"
	"appliance/l4"
	"appliance/l4/kernel"
)

// rampSteps is in how many steps a server comes to its share: each one makes the
// table of its service anew.
const rampSteps = 10

// planServices returns the services that the kernel path should carry at now, and
// where each runs that asks for it.
func planServices(s *setup, now time.Time) ([]kernel.Service, map[string]placement) {
	var services []kernel.Service
	placed := make(map[string]placement)
	for _, c := range s.node.L4 {
		if c.EffectiveMode() == l4.ModeProxy {
			continue
		}
		if reasons := s.node.OnProxy[c.Name]; len(reasons) > 0 {
			placed[c.Name] = placement{reason: strings.Join(reasons, "; "), wanted: true}
			continue
		}
		// What names of servers stand for is not known before now.
		where := located(s.node.Pools, s.hosts)[c.PoolName()]
		if obstacles := c.PoolObstacles(where.Config); len(obstacles) > 0 {
			placed[c.Name] = placement{reason: obstacles[0].Key + ": " + obstacles[0].Reason}
			continue
		}
		services = append(services, planService(s, c, where, now))
		placed[c.Name] = placement{kernel: true}
	}
	return services, placed
}

// planService returns a service as the kernel path has it.
func planService(s *setup, c l4.Config, p config.Pool, now time.Time) kernel.Service {
	service := kernel.Service{
		Name:        c.Name,
		Listen:      c.Listen,
		Protocol:    kernel.TCP,
		Mode:        modes[c.EffectiveForward()],
		ByClient:    p.Balance == pool.SourceHash,
		ResetOnDown: p.OnServerDown == pool.DownReset,
		Responses:   c.Responses,
		Timeouts:    kernel.Timeouts{Idle: c.Timeouts.Idle, HalfClose: c.Timeouts.HalfClose},
	}
	if c.UDP() {
		service.Protocol = kernel.UDP
	}
	for _, m := range s.routers {
		if serves([]kernel.Service{service}, *m.vips.Load()) {
			service.Interface = link.Index(m.config.Interface)
		}
	}
	for _, server := range s.pools[c.PoolName()].Servers() {
		if server.Endpoint().IP().Addr().IsValid() {
			service.Servers = append(service.Servers, planServer(server, p.SlowStart > 0, now))
		}
	}
	return service
}

var modes = map[l4.Forward]kernel.Mode{
	l4.ForwardNAT: kernel.NAT, l4.ForwardDNAT: kernel.DNAT, l4.ForwardDirect: kernel.Direct,
}

// planServer returns a server as the kernel path has it. With ramps its weight has
// rampSteps steps up to its share.
func planServer(server *pool.Server, ramps bool, now time.Time) kernel.Server {
	stats := server.Stats()
	one := kernel.Server{Addr: server.Endpoint().IP(), Weight: stats.Weight, Backup: stats.Backup}
	if ramps {
		one.Weight *= int(math.Ceil(server.Share(now) * rampSteps))
	}
	switch {
	case stats.Admin == pool.Maint:
		one.State = kernel.Maint
	case stats.Health.State == pool.Down:
		one.State = kernel.Down
	case stats.Admin == pool.Drain, stats.Health.State == pool.Unknown:
		one.State = kernel.Drain
	}
	return one
}

// serves reports whether one of the services has one of the addresses.
func serves(services []kernel.Service, vips []netip.Addr) bool {
	return slices.ContainsFunc(services, func(s kernel.Service) bool {
		return slices.ContainsFunc(s.Listen, func(a netip.AddrPort) bool { return slices.Contains(vips, a.Addr()) })
	})
}

// needs are the interfaces that packets of a service come in by.
type needs struct {
	interfaces []int
	missing    error // names one that is not there
}

// planInterfaces returns the interfaces that packets of services come in by, in
// order, and for each service which these are: those of its virtual addresses and
// those of its servers. active are the routers that hold addresses.
func planInterfaces(s *setup, services []kernel.Service, active map[*member]bool) ([]kernel.Interface, map[string]needs) {
	macs, all := make(map[int][]net.HardwareAddr), make(map[string]needs)
	for _, service := range services {
		var n needs
		for _, m := range s.routers {
			if !serves([]kernel.Service{service}, *m.vips.Load()) {
				continue
			}
			if i := link.Index(m.config.Interface); i != 0 {
				n.interfaces = append(n.interfaces, i)
			} else {
				n.missing = fmt.Errorf("interface %s does not exist", m.config.Interface)
			}
		}
		for _, server := range service.Servers {
			if i := link.RouteTo(server.Addr.Addr()); i != 0 {
				n.interfaces = append(n.interfaces, i)
			}
		}
		all[service.Name] = n
		for _, i := range n.interfaces {
			macs[i] = nil
		}
	}
	// Servers may answer by way of a router that has no service.
	for _, m := range s.routers {
		if mac := virtualMAC(m.config); mac != nil && active[m] {
			i := link.Index(m.config.Interface)
			if _, looked := macs[i]; looked {
				macs[i] = append(macs[i], mac)
			}
		}
	}
	var interfaces []kernel.Interface
	for _, i := range slices.Sorted(maps.Keys(macs)) {
		interfaces = append(interfaces, kernel.Interface{Index: i, VirtualMACs: macs[i]})
	}
	return interfaces, all
}
