package appliance

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"appliance/internal/config"
	"appliance/internal/link"
	"appliance/vrrp"
)

// member is one virtual router that this node runs, with what it runs on.
type member struct {
	config    vrrp.Config
	router    *vrrp.Router
	addresses *link.Addresses
	// vips are the addresses in force, which a reload may change.
	vips *atomic.Pointer[[]netip.Addr]
	stop context.CancelFunc
	done chan struct{} // closed when the router has ended; nil before start
}

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
		resolved, err := resolve(cfg.Config, c.next)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("vrrp %s: %w", cfg.Name, err), c.discard())
		}
		if m := sameRouter(old, resolved); m != nil {
			kept[m] = true
			c.next = append(c.next, m.with(resolved))
			continue
		}
		m, err := a.newMember(resolved)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("vrrp %s: %w", cfg.Name, err), c.discard())
		}
		c.started = append(c.started, m)
		c.next = append(c.next, m)
	}
	for _, m := range old {
		if !kept[m] {
			c.retired = append(c.retired, m)
		}
	}
	return c, nil
}

// resolve fills in what only the running system knows, and refuses what clashes
// with those before it.
func resolve(c vrrp.Config, before []*member) (vrrp.Config, error) {
	var err error
	if c.Interface == "" {
		if c.Interface, err = link.InterfaceFor(c.Addresses[0]); err != nil {
			return c, err
		}
	}
	for _, m := range before {
		if m.config.Interface == c.Interface && m.config.VRID == c.VRID {
			return c, fmt.Errorf("virtual_router_id %d is already that of vrrp %s on interface %s", c.VRID, m.config.Name, c.Interface)
		}
	}
	c.Source, err = link.SourceAddress(c.Interface)
	return c, err
}

// sameRouter returns the member that c is a new configuration of, or nil.
func sameRouter(members []*member, c vrrp.Config) *member {
	for _, m := range members {
		if m.config.Name == c.Name && m.config.VRID == c.VRID && m.config.Interface == c.Interface &&
			m.config.Source == c.Source && m.config.Version == c.Version {
			return m
		}
	}
	return nil
}

// with returns m with another configuration, which commit puts in force.
func (m *member) with(c vrrp.Config) *member {
	next := *m
	next.config = c
	return &next
}

// newMember opens what a new router needs. Run by start, it owns all of it.
func (a *Appliance) newMember(c vrrp.Config) (*member, error) {
	transport, err := link.ListenAdverts(c.Interface, c.Source)
	if err != nil {
		return nil, err
	}
	addresses, err := link.NewAddresses(c.Interface, vrrp.Lease)
	if err != nil {
		return nil, errors.Join(err, transport.Close())
	}
	m := &member{config: c, addresses: addresses, vips: new(atomic.Pointer[[]netip.Addr])}
	m.setVIPs(c)
	log := a.log
	hooks := vrrp.Hooks{Traffic: &traffic{parts: a, vips: func() []netip.Addr { return *m.vips.Load() }, log: log}}
	m.router = vrrp.NewRouter(c, transport, severing{addresses, a.listeners.Cut, log}, hooks, log)
	return m, nil
}

func (m *member) setVIPs(c vrrp.Config) {
	vips := vipsOf(c.Addresses)
	m.vips.Store(&vips)
}

// commit makes the change: routers that are gone resign before new ones start,
// for the new ones may be their successors.
func (c *routerChange) commit(a *Appliance) {
	stopRouters(c.retired)
	isNew := make(map[*member]bool, len(c.started))
	for _, m := range c.started {
		isNew[m] = true
		a.startRouter(m)
	}
	for _, m := range c.next {
		if !isNew[m] {
			m.setVIPs(m.config)
			m.router.Reconfigure(m.config)
		}
	}
}

// discard closes what was opened for new routers.
func (c *routerChange) discard() error {
	var errs []error
	for _, m := range c.started {
		// A router closes its transport at the end of Run, and only there.
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		errs = append(errs, m.router.Run(ended))
		m.addresses.Close()
	}
	return errors.Join(errs...)
}

// startRouter runs m until stopRouters.
func (a *Appliance) startRouter(m *member) {
	if swept, err := m.addresses.Sweep(m.config.Addresses); err != nil {
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
	if err := m.router.Run(ctx); err != nil {
		a.log.Error().Err(err).Str("vrrp", m.config.Name).Msg("the virtual router ended with an error")
	}
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
