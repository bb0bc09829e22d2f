package l4

import (
	"fmt"
	"net/netip"

	"appliance/internal/listen"
	"appliance/internal/pool"
)

// Change is a configuration that is ready to become effective. There is nothing
// to discard: a Change that is not committed has changed nothing.
type Change struct {
	engine *Engine
	doors  []*door
}

// Stage prepares the services of cfgs, which Validate has found no fault with.
// A service that the engine knows by name keeps its counters. pools holds the
// pool of every service under its PoolName. Errors name the service. Stage,
// Commit and Shutdown are called one after the other.
func (e *Engine) Stage(cfgs []Config, pools map[string]*pool.Pool) (*Change, error) {
	if err := e.start(); err != nil {
		return nil, err
	}
	known := make(map[string]*service)
	for _, d := range *e.doors.Load() {
		known[d.service.name] = d.service
	}
	c := &Change{engine: e}
	names := make(map[string]bool)
	owner := make(map[netip.AddrPort]string)
	for _, cfg := range cfgs {
		if names[cfg.Name] {
			return nil, fmt.Errorf("service %s: the name is used twice", cfg.Name)
		}
		names[cfg.Name] = true
		p, ok := pools[cfg.PoolName()]
		if !ok {
			return nil, fmt.Errorf("service %s: there is no pool %q", cfg.Name, cfg.PoolName())
		}
		for _, addr := range cfg.Listen {
			if other, ok := owner[addr]; ok {
				return nil, fmt.Errorf("service %s: %s belongs to service %s already", cfg.Name, addr, other)
			}
			owner[addr] = cfg.Name
		}
		s := known[cfg.Name]
		if s == nil {
			s = &service{name: cfg.Name}
		}
		c.doors = append(c.doors, newDoor(e, s, cfg, p))
	}
	return c, nil
}

// Handlers returns what serves each address, for listen.Set.Stage. A handler
// works from the moment connections are given to it, committed or not.
func (c *Change) Handlers() map[netip.AddrPort]listen.Handler {
	handlers := make(map[netip.AddrPort]listen.Handler)
	for _, d := range c.doors {
		for _, addr := range d.listen {
			handlers[addr] = d
		}
	}
	return handlers
}

// Commit makes the services those that Stats describes. Connections that a
// removed service carries go on, and Active counts them.
func (c *Change) Commit() { c.engine.doors.Store(&c.doors) }
