package appliance

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"appliance/internal/peer"
	"appliance/l4/kernel"
	"appliance/vrrp"
)

// activate says whether m holds addresses. It returns when frames to its virtual
// MAC address are looked at, or no longer.
func (k *kernelPath) activate(m *member, active bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.active[m] == active {
		return
	}
	if active {
		k.active[m] = true
	} else {
		delete(k.active, m)
	}
	holders := slices.Collect(maps.Keys(k.active))
	k.holders.Store(&holders)
	if k.path == nil {
		return
	}
	if virtualMAC(m.config) != nil {
		if _, _, err := k.attach(k.current()); err != nil {
			k.log.Warn().Err(err).Str("vrrp", m.config.Name).Msg("the kernel path does not see the virtual MAC address; its services run on the proxy")
		}
	}
	if active && serves(k.services, *m.vips.Load()) {
		k.path.AddressCame()
		k.chooseStrays()
		k.flows.took(m.config.Name)
	}
}

// chooseStrays has the path take strays, unless they may be of connections that go on
// on another node, which is giving one of the addresses to this one in peace. The
// caller holds the lock.
func (k *kernelPath) chooseStrays() {
	for m := range k.active {
		if m.passing.peaceful() && serves(k.services, *m.vips.Load()) {
			k.path.LeaveStrays()
			return
		}
	}
	k.path.TakeStrays()
}

// alone says that m, to which addresses have come in peace, is the only one by now
// that can know of connections to them.
func (k *kernelPath) alone(m *member) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.path != nil && k.active[m] && serves(k.services, *m.vips.Load()) {
		k.chooseStrays()
	}
}

// withoutSockets returns the addresses at which the kernel path takes connections.
func (k *kernelPath) withoutSockets() []netip.AddrPort {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []netip.AddrPort
	for _, s := range k.services {
		if s.Protocol == kernel.TCP && k.placed[s.Name].kernel {
			all = append(all, s.Listen...)
		}
	}
	return all
}

// stranded returns the services with one of the addresses that the kernel path of
// this node takes connections for and that of the other node, which takes them at
// theirs, does not. Those of which the clients are what servers see are not among
// them: the servers' answers go to the other node, which could not tell whose
// they are.
func (k *kernelPath) stranded(addresses []netip.Addr, theirs []netip.AddrPort) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var names []string
	for _, s := range k.services {
		missing := slices.ContainsFunc(s.Listen, func(a netip.AddrPort) bool {
			return slices.Contains(addresses, a.Addr()) && !slices.Contains(theirs, a)
		})
		switch {
		case !missing || s.Protocol != kernel.TCP:
		case s.Mode == kernel.DNAT:
			k.log.Warn().Str("service", s.Name).Msg("its connections cannot go on: the kernel path of the other node does not carry the service")
		default:
			names = append(names, s.Name)
		}
	}
	return names
}

// flowsOf returns how many connections the kernel path carries of services.
func (k *kernelPath) flowsOf(names []string) (n int) {
	k.mu.Lock()
	path := k.path
	k.mu.Unlock()
	if len(names) == 0 || path == nil {
		return 0
	}
	stats, err := path.Stats()
	if err != nil {
		return 0 // status tells
	}
	for _, s := range stats.Services {
		if slices.Contains(names, s.Name) {
			n += int(s.Current)
		}
	}
	return n
}

// known reports whether a flow's service has its server here.
func (k *kernelPath) known(f kernel.Flow) bool {
	return (*k.servers.Load())[pairing{f.Protocol, f.Listen, f.Server}]
}

// pairing is an address of a service and one of its servers.
type pairing struct {
	protocol       kernel.Protocol
	listen, server netip.AddrPort
}

// pairings returns all there are in services.
func pairings(services []kernel.Service) map[pairing]bool {
	all := make(map[pairing]bool)
	for _, s := range services {
		for _, listen := range s.Listen {
			for _, server := range s.Servers {
				all[pairing{s.Protocol, listen, server.Addr}] = true
			}
		}
	}
	return all
}

// holds reports whether this node is active for an address.
func (k *kernelPath) holds(vip netip.Addr) bool {
	return slices.ContainsFunc(*k.holders.Load(), func(m *member) bool { return slices.Contains(*m.vips.Load(), vip) })
}

// settleTime bounds the wait for the other node to know all flows before the link
// ends.
const settleTime = 250 * time.Millisecond

// settleFlows waits until the other nodes know all flows of this one.
func (a *Appliance) settleFlows() {
	ctx, cancel := context.WithTimeout(a.patience, settleTime)
	defer cancel()
	a.flows.settle(ctx)
}

// ours reports whether this node is active for a virtual address.
func (a *Appliance) ours(vip netip.Addr) bool { return a.kernel.holds(vip) }

// theirs reports whether another node is active for a virtual address, and this
// one is not.
func (a *Appliance) theirs(node string, vip netip.Addr) bool {
	if a.kernel.holds(vip) {
		return false
	}
	for _, s := range a.peers.statuses() {
		if s.Node != node || s.State != peer.Up {
			continue
		}
		for _, r := range s.Report.Routers {
			if r.State == vrrp.Active.String() && slices.ContainsFunc(r.Addresses, func(text string) bool {
				p, err := netip.ParsePrefix(text)
				return err == nil && p.Addr() == vip
			}) {
				return true
			}
		}
	}
	return false
}

// known reports whether a flow's service has its server here.
func (a *Appliance) known(f kernel.Flow) bool { return a.kernel.known(f) }
