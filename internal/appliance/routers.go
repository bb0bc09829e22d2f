package appliance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"appliance/internal/config"
	"appliance/internal/link"
	"appliance/vrrp"
)

// member is one virtual router that this node runs, with what it runs on.
type member struct {
	config    vrrp.Config
	detected  bool // the file leaves the interface out
	router    *vrrp.Router
	addresses *link.Addresses
	traffic   *traffic
	lingering *lingering
	passing   *passing
	// undo is the path of the record of what a virtual MAC address changes.
	undo string
	// vips are the addresses in force, which a reload may change, and own those
	// that are this node's own or were at any time.
	vips, own *atomic.Pointer[[]netip.Addr]
	// moved gets a word when vips have changed, for who watches them.
	moved chan struct{}
	stop  context.CancelFunc
	done  chan struct{} // closed when the router has ended; nil before start
}

var _ vrrp.Backlog = (*link.Adverts)(nil)

// routerChange is a staged change of the virtual routers.
type routerChange struct {
	next    []*member // in the order of the file
	started []*member // those of next that are new
	retired []*member
}

// stageRouters prepares the routers of cfgs. One whose identity did not change
// goes on with its state.
func (a *Appliance) stageRouters(old []*member, cfgs []config.VRRPNode) (*routerChange, error) {
	c := &routerChange{}
	kept := make(map[*member]bool)
	for _, cfg := range cfgs {
		m, err := a.stageRouter(old, c.next, cfg.Config)
		if err != nil {
			c.discard()
			return nil, fmt.Errorf("vrrp %s: %w", cfg.Name, err)
		}
		c.next = append(c.next, m)
		if same := sameRouter(old, m.config); same != nil {
			kept[same] = true
		} else {
			c.started = append(c.started, m)
		}
	}
	for _, m := range old {
		if !kept[m] {
			c.retired = append(c.retired, m)
		}
	}
	return c, nil
}

// stageRouter returns the member for cfg: a new one, or the one of old that goes
// on with another configuration. It refuses what clashes with those before it.
func (a *Appliance) stageRouter(old, before []*member, cfg vrrp.Config) (*member, error) {
	detected := cfg.Interface == ""
	if detected {
		var err error
		if cfg.Interface, err = detect(old, cfg); err != nil {
			return nil, err
		}
	}
	for _, m := range before {
		if m.config.Interface == cfg.Interface && m.config.VRID == cfg.VRID && isIPv6(m.config) == isIPv6(cfg) {
			return nil, fmt.Errorf("virtual_router_id %d is already that of vrrp %s on interface %s", cfg.VRID, m.config.Name, cfg.Interface)
		}
	}
	if m := sameRouter(old, cfg); m != nil {
		next := *m
		next.config, next.detected = cfg, detected
		return &next, nil
	}
	return a.newMember(cfg, detected)
}

// detect returns the interface of a router for which the file names none. One
// that runs keeps its own while its first address is the same: what the network
// looks like at the moment of a reload is no reason to move it. Link-local
// addresses say nothing: their subnet is on all interfaces.
func detect(old []*member, cfg vrrp.Config) (string, error) {
	for _, m := range old {
		if m.detected && m.config.Name == cfg.Name && telling(m.config) == telling(cfg) {
			return m.config.Interface, nil
		}
	}
	return link.InterfaceFor(telling(cfg))
}

// telling returns the address whose subnet is that of the LAN.
func telling(c vrrp.Config) netip.Prefix {
	for _, p := range c.Addresses {
		if p.Addr().Is4() || !p.Addr().IsLinkLocalUnicast() {
			return p
		}
	}
	return c.Addresses[0]
}

func isIPv6(c vrrp.Config) bool { return c.Addresses[0].Addr().Is6() }

// sameRouter returns the member that c is a new configuration of, or nil.
func sameRouter(members []*member, c vrrp.Config) *member {
	for _, m := range members {
		if m.config.Name == c.Name && m.config.VRID == c.VRID && m.config.Interface == c.Interface &&
			m.config.Version == c.Version && isIPv6(m.config) == isIPv6(c) && m.config.Unicast == c.Unicast &&
			m.config.VirtualMAC == c.VirtualMAC &&
			// In unicast it is the file that says what this node's address is.
			(!c.Unicast || m.config.Source == c.Source) {
			return m
		}
	}
	return nil
}

// newMember opens what a new router needs before it runs. The interface need
// not exist yet: the router has a fault until it does. Run by start, the member
// owns all of it.
func (a *Appliance) newMember(c vrrp.Config, detected bool) (*member, error) {
	addresses, err := a.newAddresses(c)
	if err != nil {
		return nil, err
	}
	m := &member{config: c, detected: detected, addresses: addresses, undo: a.record.Path(), moved: make(chan struct{}, 1),
		vips: new(atomic.Pointer[[]netip.Addr]), own: new(atomic.Pointer[[]netip.Addr])}
	m.setVIPs(c)
	log := a.log
	m.lingering = &lingering{parts: a, member: m, log: log.With().Str("vrrp", c.Name).Logger()}
	m.passing = &passing{parts: a, member: m, log: m.lingering.log}
	m.traffic = &traffic{parts: a, vips: func() []netip.Addr { return *m.vips.Load() }, lingering: m.lingering, log: log}
	told := &chronicle{history: a.history, subject: "vrrp " + c.Name}
	hooks := vrrp.Hooks{
		Traffic: m.traffic,
		Tell:    told.tell,
		Groups:  a.groups,
		Missing: unanswering,
		Peer:    routerLink{a.peers, m},
		Changed: a.peers.poke,
	}
	watched := &guarded{Addresses: addresses, guard: a.guard, name: c.Name, describe: m.holding}
	held := &shared{Addresses: severing{watched, everyone{a.listeners, a.l4}, m.lingering, log}, iface: place(c), claims: a.claims}
	own := &owned{Addresses: held, own: m.ownVIPs, missing: addresses.Missing}
	m.router = vrrp.NewRouter(c, a.opener(m), &carried{Addresses: own, path: a.kernel, member: m}, hooks, log)
	return m, nil
}

// newAddresses returns the addresses of a router.
func (a *Appliance) newAddresses(c vrrp.Config) (*link.Addresses, error) {
	if c.VirtualMAC {
		return link.NewVirtualAddresses(c.Interface, vrrp.Lease, c.VRID, isIPv6(c), a.record)
	}
	return link.NewAddresses(c.Interface, vrrp.Lease)
}

// virtualMAC returns the hardware address of a router, nil for that of its
// interface.
func virtualMAC(c vrrp.Config) net.HardwareAddr {
	if !c.VirtualMAC {
		return nil
	}
	return link.VirtualMAC(c.VRID, isIPv6(c))
}

// place returns what claims call the interface that c's addresses are on: the one
// of the configuration, or one that c has to itself.
func place(c vrrp.Config) string {
	if mac := virtualMAC(c); mac != nil {
		return c.Interface + " " + mac.String()
	}
	return c.Interface
}

// opener returns how m's router listens for adverts. Their source is this node's
// own address: the one used so far while the interface has it, else the one by
// which the other nodes know this node, else one in the subnet of the first
// virtual address. In unicast it is the one by which the other nodes know it.
func (a *Appliance) opener(m *member) vrrp.Open {
	iface, options := m.config.Interface, link.AdvertOptions{Unicast: m.config.Unicast, MAC: virtualMAC(m.config)}
	options.Source.Virtual = a.isVirtual
	if m.config.Unicast {
		options.Source.Only = m.config.Source
	}
	return func() (vrrp.Transport, netip.Addr, error) {
		options.Source.Near = (*m.vips.Load())[0]
		options.Source.Prefer = []netip.Addr{m.router.Status().Source, a.current.Load().node.Address}
		adverts, err := link.OpenAdverts(iface, options)
		if err != nil {
			return nil, netip.Addr{}, err
		}
		return adverts, adverts.Source(), nil
	}
}

// isVirtual says whether address is one that a router of this node may hold, and
// is not its own.
func (a *Appliance) isVirtual(address netip.Addr) bool {
	for _, m := range a.current.Load().routers {
		if slices.Contains(m.ownVIPs(), address) {
			return false
		}
		if slices.Contains(*m.vips.Load(), address) || slices.Contains(vipsOf(m.config.Addresses), address) {
			return true
		}
	}
	return false
}

func (m *member) setVIPs(c vrrp.Config) {
	vips := vipsOf(c.Addresses)
	m.vips.Store(&vips)
	own := m.ownVIPs()
	for _, a := range c.Own {
		if !slices.Contains(own, a) {
			own = append(slices.Clip(own), a)
		}
	}
	m.own.Store(&own)
}

// ownVIPs returns the virtual addresses that are this node's own. One that was
// is never forgotten: a reload that makes it none must not take it off.
func (m *member) ownVIPs() []netip.Addr {
	if own := m.own.Load(); own != nil {
		return *own
	}
	return nil
}

// meanwhile returns the routers that run while those that are retired resign:
// the new ones are not among them yet.
func (c *routerChange) meanwhile() []*member {
	running := slices.DeleteFunc(slices.Clone(c.next), func(m *member) bool { return slices.Contains(c.started, m) })
	return append(running, c.retired...)
}

// retire lets the routers resign that go. It comes before commit, for new ones
// may be their successors.
// They leave their groups first, whose other members stay.
func (c *routerChange) retire(a *Appliance) {
	a.groups.Leave(routersOf(c.retired)...)
	stopRouters(c.retired)
	for _, m := range c.retired {
		m.lingering.finish(errors.New("the virtual router is no longer in the file"))
	}
}

// commit starts the new routers and puts the new configuration of the others in
// force.
func (c *routerChange) commit(a *Appliance) {
	a.groups.Join(routersOf(c.started)...)
	for _, m := range c.next {
		if slices.Contains(c.started, m) {
			a.startRouter(m)
			continue
		}
		before := *m.vips.Load()
		m.setVIPs(m.config)
		m.router.Reconfigure(m.config)
		if !slices.Equal(before, *m.vips.Load()) {
			select {
			case m.moved <- struct{}{}:
			default:
			}
		}
	}
}

func routersOf(members []*member) []*vrrp.Router {
	routers := make([]*vrrp.Router, len(members))
	for i, m := range members {
		routers[i] = m.router
	}
	return routers
}

// discard closes what was opened for new routers.
func (c *routerChange) discard() {
	for _, m := range c.started {
		m.addresses.Close()
	}
}

// startRouter runs m until stopRouters.
func (a *Appliance) startRouter(m *member) {
	virtual := slices.DeleteFunc(slices.Clone(m.config.Addresses), func(p netip.Prefix) bool { return slices.Contains(m.config.Own, p.Addr()) })
	if swept, err := a.claims.sweep(place(m.config), virtual, m.addresses.Sweep); err != nil {
		a.log.Error().Err(err).Str("vrrp", m.config.Name).Msg("addresses that a crash left could not be removed")
	} else if len(swept) > 0 {
		a.log.Warn().Str("vrrp", m.config.Name).Stringers("addresses", stringers(swept)).Msg("removed addresses that were there before the election")
	}
	ctx, stop := context.WithCancel(context.Background())
	m.stop, m.done = stop, make(chan struct{})
	go a.runRouter(ctx, m)
}

func (a *Appliance) runRouter(ctx context.Context, m *member) {
	defer close(m.done)
	defer m.addresses.Close()
	watching, stop := context.WithCancel(context.Background())
	var watcher sync.WaitGroup
	watcher.Go(func() { a.watchClaims(watching, m) })
	if err := m.router.Run(ctx); err != nil {
		a.log.Error().Err(err).Str("vrrp", m.config.Name).Msg("the virtual router ended with an error")
	}
	stop()
	watcher.Wait()
	m.passing.stop()
}

// stopRouters lets routers resign, all at the same time, and waits for them.
func stopRouters(members []*member) {
	var all sync.WaitGroup
	for _, m := range members {
		all.Go(func() {
			m.stop()
			<-m.done
		})
	}
	all.Wait()
}

func stringers(prefixes []netip.Prefix) []fmt.Stringer {
	s := make([]fmt.Stringer, len(prefixes))
	for i, p := range prefixes {
		s[i] = p
	}
	return s
}
