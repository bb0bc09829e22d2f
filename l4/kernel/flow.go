package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
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
// meanwhile may or may not be among them: subscribe by OnChanges first. f may
// call the Path.
func (p *Path) Flows(f func(Flow) bool) error {
	now := tick()
	err := p.each(func(k *programKey, v *programFlow) bool {
		if v.Reverse != 0 || v.Phase != phaseEstablished {
			return true
		}
		flow, ok := p.flow(k, v, now)
		return !ok || f(flow)
	})
	if err != nil {
		return fmt.Errorf("kernel path: reading the flows: %w", err)
	}
	return nil
}

// flow returns the flow whose direction from the client k and f are. It is not ok
// if its server is forgotten.
func (p *Path) flow(k *programKey, f *programFlow, now uint32) (Flow, bool) {
	addr := p.addrs[f.Server%maxServers].Load()
	if addr == nil {
		return Flow{}, false
	}
	flow := describe(k, f, *addr)
	flow.Idle = time.Duration(age(now, f.Seen)) << 30
	return flow, true
}

// describe returns the flow whose direction from the client k and f are, idle for no time.
func describe(k *programKey, f *programFlow, server netip.AddrPort) Flow {
	return Flow{
		Protocol:    Protocol(k.Proto),
		Client:      addrPort(k.Saddr, k.Sport),
		Listen:      addrPort(k.Daddr, k.Dport),
		Server:      server,
		Port:        port(f.Sport),
		Mode:        Mode(f.Mode),
		ClientEnded: f.Flags&flagClientFIN != 0,
		ServerEnded: f.Flags&flagServerFIN != 0,
	}
}

// Install takes over flows of the other node, so that their packets may come
// here. A flow that is here already is replaced, unless packets of it have come
// here later than there. It returns how many found no place: their service is not
// here, what they say cannot be, or there is no room. Installed flows age like
// others, but live 40 s longer, for as long as the other node may say nothing of a
// flow in use; and are not told by OnChanges before their packets come here.
func (p *Path) Install(flows []Flow) (refused int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := tick()
	for i := range flows {
		if !p.install(&flows[i], flagInstalled, now) {
			refused++
		}
	}
	return refused
}

// install installs one flow, or returns false. flag is flagInstalled, or 0 for a flow
// that is this node's.
func (p *Path) install(flow *Flow, flag, now uint32) bool {
	s := p.registry.listen[listenKey(flow.Protocol, flow.Listen)]
	if s == nil || !flow.possible() {
		return false
	}
	k := flowKey(flow.Protocol, flow.Client, flow.Listen)
	seen := now - uint32(min(max(flow.Idle, 0)>>30, time.Duration(now)))

	var old programFlow
	switch err := p.objects.Flows.Lookup(&k, &old); {
	case err == nil:
		if old.Flags&flagInstalled == 0 && age(now, old.Seen) <= age(now, seen) {
			return true // it has come here, and is ours
		}
	case !errors.Is(err, ebpf.ErrKeyNotExist):
		return false
	}
	srv, err := p.server(s, flow.Server)
	if err != nil {
		return false
	}
	there, back := p.entries(s, srv, flow, &k, flag, seen)
	if old.Flags&flagInstalled != 0 && there.sameWay(&old) {
		// The usual case: it is still there. Its way back is what it was.
		old.Seen, old.Flags = there.Seen, there.Flags
		return p.objects.Flows.Update(&k, &old, ebpf.UpdateExist) == nil
	}
	backKey := otherKey(&k, &there)
	var taken programFlow
	if p.objects.Flows.Lookup(&backKey, &taken) == nil && otherKey(&backKey, &taken) != k {
		return false // another client's flow has this port
	}
	if old.Service != 0 {
		if oldBack := otherKey(&k, &old); oldBack != backKey {
			_ = p.objects.Flows.Delete(&oldBack)
		}
	}
	if err := p.objects.Flows.Put(&backKey, &back); err != nil {
		return false
	}
	if err := p.objects.Flows.Put(&k, &there); err != nil {
		_ = p.objects.Flows.Delete(&backKey)
		return false
	}
	return true
}

// sameWay reports whether f makes of packets what g makes of them.
func (f *programFlow) sameWay(g *programFlow) bool {
	return f.Service == g.Service && f.Server == g.Server && f.Mode == g.Mode &&
		f.Saddr == g.Saddr && f.Daddr == g.Daddr && f.Sport == g.Sport && f.Dport == g.Dport
}

// possible reports whether packets can have the addresses of flow.
func (flow *Flow) possible() bool {
	is6 := flow.Listen.Addr().Is6()
	for _, a := range []netip.AddrPort{flow.Client, flow.Server} {
		if !a.IsValid() || a.Port() == 0 || a.Addr().Is6() != is6 || a.Addr().Is4In6() || a.Addr().Zone() != "" ||
			a.Addr().IsUnspecified() || a.Addr().IsMulticast() {
			return false
		}
	}
	switch flow.Mode {
	case NAT:
		return flow.Port != 0
	case DNAT:
		return flow.Port == flow.Client.Port()
	case Direct:
		return flow.Port == flow.Client.Port() && flow.Server.Port() == flow.Listen.Port()
	}
	return false
}

// entries returns both directions of a flow that did not begin here, whose direction
// from the client has the key k.
func (p *Path) entries(s *service, srv *server, flow *Flow, k *programKey, flag, seen uint32) (there, back programFlow) {
	there = programFlow{
		Phase: phaseEstablished, Flags: flag, Seen: seen,
		Server: srv.id, Service: s.id, Mode: uint8(flow.Mode),
		Saddr: k.Saddr, Sport: port(flow.Port),
		Daddr: words(flow.Server.Addr()), Dport: port(flow.Server.Port()),
	}
	switch flow.Mode {
	case NAT:
		there.Saddr = k.Daddr
	case Direct:
		there.Daddr = k.Daddr
	}
	if flow.ClientEnded {
		there.Flags |= flagClientFIN
	}
	if flow.ServerEnded {
		there.Flags |= flagServerFIN
	}
	backKey := otherKey(k, &there)
	back = programFlow{
		Phase: phaseEstablished, Flags: flag, Seen: seen,
		Server: srv.id, Service: s.id, Mode: uint8(flow.Mode), Reverse: 1,
		Saddr: k.Daddr, Sport: k.Dport, Daddr: k.Saddr, Dport: k.Sport,
		Hint: uint32(max(s.Interface, 0)),
	}
	there.AddrDiff, there.PortDiff = addrDiff(k, &there), portDiff(k, &there)
	back.AddrDiff, back.PortDiff = addrDiff(&backKey, &back), portDiff(&backKey, &back)
	// The route is looked for at the first packet.
	there.RouteAt, back.RouteAt = seen-1, seen-1
	return there, back
}

// lately is how many ticks ago a packet of a flow may have come here for the flow to
// be this node's, whatever the other one says of its end.
const lately = 1

// seen reports whether a packet of the direction with this key came lately.
func (p *Path) seen(k *programKey, now uint32) bool {
	var f programFlow
	return p.objects.Flows.Lookup(k, &f) == nil && age(now, f.Seen) <= lately
}

// Remove forgets flows that have just ended on the other node. Only Protocol,
// Client and Listen count. here says of an address whether it is this node's by
// now: a flow of it stays if its packets have come here lately. One that came
// here before its address moved does not.
func (p *Path) Remove(flows []Flow, here func(netip.Addr) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := tick()
	for i := range flows {
		k := flowKey(flows[i].Protocol, flows[i].Client, flows[i].Listen)
		var there programFlow
		if p.objects.Flows.Lookup(&k, &there) != nil || there.Reverse != 0 {
			continue
		}
		back := otherKey(&k, &there)
		if there.Flags&flagInstalled == 0 && here(flows[i].Listen.Addr()) && (age(now, there.Seen) <= lately || p.seen(&back, now)) {
			continue
		}
		_ = p.objects.Flows.Delete(&k)
		_ = p.objects.Flows.Delete(&back)
	}
}
