package appliance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"appliance/health"
	"appliance/internal/config"
	"appliance/internal/endpoint"
	"appliance/internal/listen"
	"appliance/internal/peer"
	"appliance/internal/pool"
	"appliance/internal/resolve"
	"appliance/l7"
)

// setup is what one configuration made. It is never changed once it is
// current.
type setup struct {
	file    *config.File
	node    *config.Node
	loaded  time.Time
	pools   map[string]*pool.Pool
	judges  map[health.Target][]subject // who wants a check's verdict
	hosts   map[string]resolve.Answer   // of the names of servers, as they were used
	routers []*member
}

// targets returns the checks that the setup needs.
func (s *setup) targets() []health.Target { return slices.Collect(maps.Keys(s.judges)) }

// apply puts a configuration in force, the first one or the next. Everything
// that can fail comes before commit, and an error changes nothing.
func (a *Appliance) apply(ctx context.Context, file *config.File, node *config.Node) (err error) {
	old := a.current.Load()
	next := &setup{file: file, node: node, loaded: time.Now()}
	if file == old.file {
		next.loaded = old.loaded // only an address has changed
	}
	defer func() { a.names.Set(a.current.Load().hostNames()) }()
	next.hosts = a.lookUp(ctx, old, next)
	pools := located(node.Pools, next.hosts)
	if next.pools, next.judges, err = a.buildPools(old.pools, pools); err != nil {
		return err
	}
	next.addReached()
	l4Change, err := a.l4.Stage(node.L4, next.pools)
	if err != nil {
		return err
	}
	var discard []func()
	defer func() {
		if err != nil {
			for _, f := range slices.Backward(discard) {
				f()
			}
		}
	}()
	discard = append(discard, l4Change.Discard)
	transports := make(map[string]l7.Transport, len(node.Pools))
	for name, p := range node.Pools {
		transports[name] = p.Transport
	}
	l7Change, err := a.l7.Stage(node.L7, next.pools, transports)
	if err != nil {
		return err
	}
	discard = append(discard, l7Change.Discard)
	handlers := make(map[netip.AddrPort]listen.Handler)
	maps.Copy(handlers, l4Change.Handlers())
	maps.Copy(handlers, l7Change.Handlers())
	listeners, err := a.listeners.Stage(handlers)
	if err != nil {
		return err
	}
	discard = append(discard, listeners.Discard)
	routers, err := a.stageRouters(old.routers, node.VRRP)
	if err != nil {
		return err
	}
	discard = append(discard, routers.discard)
	next.routers = routers.next
	web, err := a.stageWeb(node.Admin)
	if err != nil {
		return err
	}
	discard = append(discard, func() { a.discardWeb(web) })
	mesh, link, err := a.peers.stage(node.Peer)
	if err != nil {
		return err
	}
	if link.Secret != nil {
		l7Change.Tickets(peer.Derive(link.Secret, "TLS session tickets"))
	}
	if old.node != nil {
		a.learn(ctx, old, next)
	}
	if ctx.Err() != nil {
		return errors.New("the appliance is stopping")
	}

	// From here on nothing fails.
	// Until the routers that go have resigned, they are the ones to be seen.
	meanwhile := *next
	meanwhile.routers = routers.meanwhile()
	a.current.Store(&meanwhile)
	results := a.checker.Results()
	for name, p := range next.pools {
		p.Update(pools[name].Config, knownHealth(results, pools[name]))
	}
	if old.node == nil {
		if err := a.wishes.restore(next.pools); err != nil {
			a.log.Error().Err(err).Msg("what was set of servers before the start is forgotten: all are ready")
		}
	}
	_ = a.keepWishes(next.pools)
	a.checker.Set(next.targets())
	l4Change.Commit()
	l7Change.Commit()
	listeners.Commit()
	a.commitWeb(web, node.Admin)
	routers.retire(a)
	a.current.Store(next)
	a.kernel.commit()
	routers.commit(a)
	a.peers.commit(mesh, link)
	a.peers.brief()
	a.wire.rewire(next.plan())
	a.watch(next.interfaces())
	return nil
}

// addReached adds the checks of the hosts that routers track; they judge no
// server.
func (s *setup) addReached() {
	for _, v := range s.node.VRRP {
		for _, t := range v.Track {
			if target := reached(t); t.Reach.IsValid() && s.judges[target] == nil {
				s.judges[target] = []subject{}
			}
		}
	}
}

// buildPools returns the pools of a configuration, those with the name of an
// old one being that one, and who wants the verdict of which check.
func (a *Appliance) buildPools(old map[string]*pool.Pool, cfgs map[string]config.Pool) (map[string]*pool.Pool, map[health.Target][]subject, error) {
	pools := make(map[string]*pool.Pool, len(cfgs))
	judges := make(map[health.Target][]subject)
	for name, cfg := range cfgs {
		p := old[name]
		if p == nil {
			p = pool.New(pool.Config{Name: name}) // apply fills it
			p.OnEject(a.ejected(name))
		}
		pools[name] = p
		if cfg.Check == nil {
			continue
		}
		for _, s := range cfg.Servers {
			address, err := endpoint.Parse(s.Address)
			if err != nil {
				return nil, nil, fmt.Errorf("pool %s: server %s: %w", name, s.Label(), err)
			}
			if s.Down != "" {
				continue // there is nothing to be checked
			}
			target, on := *cfg.CheckFor(address, s.Host, s.ServerName, cfg.SendProxyTo(s)), subject{p, pool.ID{Label: s.Label(), Address: address}}
			if !slices.Contains(judges[target], on) {
				judges[target] = append(judges[target], on)
			}
		}
	}
	return pools, judges, nil
}

// ejected returns what logs that a server of a pool has been ejected.
func (a *Appliance) ejected(name string) func(*pool.Server, pool.Ejection) {
	return func(s *pool.Server, e pool.Ejection) {
		a.options.Log.Warn().Str("pool", name).Str("server", s.Label()).Int("times", e.Times).
			Dur("for", e.Until.Sub(e.Since)).Msg("server is ejected: its connections failed")
	}
}

// learn has the servers that next brings checked for the first time while the
// old configuration still serves, so that none is unknown when it is needed.
func (a *Appliance) learn(ctx context.Context, old, next *setup) {
	all := maps.Clone(old.judges)
	maps.Copy(all, next.judges)
	both := slices.Collect(maps.Keys(all))
	var longest time.Duration
	for _, t := range both {
		longest = max(longest, t.Check.EffectiveTimeout())
	}
	a.checker.Set(both)
	ctx, cancel := context.WithTimeout(ctx, longest+time.Second)
	defer cancel()
	waitFor(ctx, holdPace, func() bool {
		results := a.checker.Results()
		return !slices.ContainsFunc(both, func(t health.Target) bool { return results[t].State == health.Unknown })
	})
}

// knownHealth returns what results say of the servers that check judges.
func knownHealth(results map[health.Target]health.Result, cfg config.Pool) func(pool.ID) (pool.Health, bool) {
	servers := make(map[string]pool.ServerConfig, len(cfg.Servers))
	for _, s := range cfg.Servers {
		servers[s.Label()] = s
	}
	return func(id pool.ID) (pool.Health, bool) {
		server := servers[id.Label]
		target := cfg.CheckFor(id.Address, server.Host, server.ServerName, cfg.SendProxyTo(server))
		if target == nil {
			return pool.Health{}, false
		}
		r, ok := results[*target]
		return poolHealth(r), ok && r.State != health.Unknown
	}
}

// plan returns what the wire needs to know of the setup.
func (s *setup) plan() *plan {
	p := &plan{services: make(map[string][]*pool.Pool), judges: s.judges}
	for _, c := range s.node.L4 {
		for _, name := range c.PoolNames() {
			p.services[c.Name] = append(p.services[c.Name], s.pools[name])
		}
	}
	for _, c := range s.node.L7 {
		for _, name := range c.PoolNames() {
			p.services[c.Name] = append(p.services[c.Name], s.pools[name])
		}
	}
	for i, m := range s.routers {
		p.routers = append(p.routers, wiredRouter{
			judged:    m.router,
			iface:     m.config.Interface,
			addresses: vipsOf(m.config.Addresses),
			track:     s.node.VRRP[i].Track,
		})
	}
	return p
}
