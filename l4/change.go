package l4

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"appliance/internal/listen"
	"appliance/internal/pool"
)

// Change is a configuration that is ready to become effective. Whoever staged it
// calls Commit or Discard.
type Change struct {
	engine *Engine
	doors  []*door
	pools  map[string]*pool.Pool
	opened map[netip.AddrPort]*udpPort // bound, but nothing is taken from them yet
}

// Stage prepares the services of cfgs, which Validate has found no fault with.
// A service that the engine knows by name keeps its counters. pools holds the
// pool of every service under its PoolName. Errors name the service. Stage,
// Commit and Shutdown are called one after the other.
func (e *Engine) Stage(cfgs []Config, pools map[string]*pool.Pool) (_ *Change, err error) {
	if err := e.start(); err != nil {
		return nil, err
	}
	known := make(map[string]*service)
	for _, d := range *e.doors.Load() {
		known[d.service.name] = d.service
	}
	c := &Change{engine: e, pools: pools, opened: make(map[netip.AddrPort]*udpPort)}
	defer func() {
		if err != nil {
			c.Discard()
		}
	}()
	names := make(map[string]bool)
	type socket struct {
		addr netip.AddrPort
		udp  bool
	}
	owner := make(map[socket]string)
	for _, cfg := range cfgs {
		if names[cfg.Name] {
			return nil, fmt.Errorf("service %s: the name is used twice", cfg.Name)
		}
		names[cfg.Name] = true
		t, err := newTable(cfg, pools)
		if err != nil {
			return nil, err
		}
		for _, addr := range cfg.Listen {
			at := socket{addr, cfg.UDP()}
			if other, ok := owner[at]; ok {
				return nil, fmt.Errorf("service %s: %s belongs to service %s already", cfg.Name, addr, other)
			}
			owner[at] = cfg.Name
			if !cfg.UDP() || e.port(addr) != nil {
				continue
			}
			if c.opened[addr], err = openUDP(addr, e.nextLoop()); err != nil {
				delete(c.opened, addr)
				return nil, fmt.Errorf("service %s: %w", cfg.Name, err)
			}
		}
		s := known[cfg.Name]
		if s == nil {
			s = &service{name: cfg.Name}
		}
		c.doors = append(c.doors, newDoor(e, s, cfg, t))
	}
	return c, nil
}

// newTable returns the table of a service.
func newTable(cfg Config, pools map[string]*pool.Pool) (*table, error) {
	t := &table{exact: make(map[string]*pool.Pool), wildcard: make(map[string]*pool.Pool), all: cfg.PoolNames()}
	for _, name := range t.all {
		if pools[name] == nil {
			return nil, fmt.Errorf("service %s: there is no pool %q", cfg.Name, name)
		}
	}
	t.fallback = pools[cfg.PoolName()] // nil without a name
	for _, r := range cfg.Routes {
		for _, name := range r.SNI {
			name = strings.ToLower(name)
			if rest, ok := strings.CutPrefix(name, "*"); ok {
				t.wildcard[rest] = pools[r.Pool]
			} else {
				t.exact[name] = pools[r.Pool]
			}
		}
	}
	return t, nil
}

// Handlers returns what serves each address, for listen.Set.Stage. A handler
// works from the moment connections are given to it, committed or not.
func (c *Change) Handlers() map[netip.AddrPort]listen.Handler {
	handlers := make(map[netip.AddrPort]listen.Handler)
	for _, d := range c.doors {
		if d.udp {
			continue // has sockets of its own
		}
		for _, addr := range d.listen {
			handlers[addr] = d
		}
	}
	return handlers
}

// Commit makes the services those that Stats describes. Connections that a
// removed service carries go on, and Active counts them.
func (c *Change) Commit() {
	for _, p := range c.pools {
		p.OnDown("l4", c.engine.serverDown)
	}
	c.engine.doors.Store(&c.doors)
	c.commitPorts()
}

// commitPorts makes the doors take the datagrams.
func (c *Change) commitPorts() {
	ports := make(map[netip.AddrPort]*udpPort)
	for _, d := range c.doors {
		if !d.udp {
			continue
		}
		for _, addr := range d.listen {
			p := c.opened[addr]
			if p == nil {
				p = c.engine.port(addr)
			}
			p.door.Store(d)
			ports[addr] = p
		}
	}
	for _, p := range c.opened {
		p.open()
	}
	c.opened = nil
	for addr, p := range c.engine.swapPorts(ports) {
		if ports[addr] != p {
			p.close()
		}
	}
}

// Discard closes what Stage opened. After Commit it does nothing.
func (c *Change) Discard() {
	for _, p := range c.opened {
		unix.Close(p.side.fd)
	}
	c.opened = nil
}

// port returns the open port at addr; nil if there is none.
func (e *Engine) port(addr netip.AddrPort) *udpPort {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ports[addr]
}
