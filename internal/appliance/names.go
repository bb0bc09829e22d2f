package appliance

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"appliance/internal/config"
	"appliance/internal/endpoint"
	"appliance/internal/events"
	"appliance/internal/pool"
	"appliance/internal/resolve"
)

// lookUpFor bounds the wait for the first look-up of the names that a start or a
// reload brings. Who is slower than that is down at first.
const lookUpFor = time.Second

// hostNames returns the names of hosts by which the setup has servers.
func (s *setup) hostNames() []string {
	if s.node == nil {
		return nil
	}
	names := make(map[string]bool)
	for _, p := range s.node.Pools {
		for _, server := range p.Servers {
			if e, err := endpoint.Parse(server.Address); err == nil && e.Name() != "" {
				names[e.Name()] = true
			}
		}
	}
	return slices.Collect(maps.Keys(names))
}

// lookUp returns what is known of the names that next has, after it has waited
// for those which old has not, but not for long.
func (a *Appliance) lookUp(ctx context.Context, old, next *setup) map[string]resolve.Answer {
	names := next.hostNames()
	if len(names) == 0 {
		return nil
	}
	a.names.Set(slices.Concat(old.hostNames(), names))
	ctx, cancel := context.WithTimeout(ctx, lookUpFor)
	defer cancel()
	waitFor(ctx, holdPace, func() bool {
		known := a.names.Known()
		return !slices.ContainsFunc(names, func(name string) bool { _, ok := known[name]; return !ok })
	})
	known, hosts := a.names.Known(), make(map[string]resolve.Answer, len(names))
	for _, name := range names {
		answer, ok := known[name]
		if !ok {
			answer.Reason = name + " has not been looked up yet"
		}
		hosts[name] = answer
	}
	return hosts
}

// located returns pools with the addresses of hosts instead of their names. A
// server whose host has none is down.
func located(pools map[string]config.Pool, hosts map[string]resolve.Answer) map[string]config.Pool {
	if len(hosts) == 0 {
		return pools
	}
	pools = maps.Clone(pools)
	for name, p := range pools {
		p.Servers = slices.Clone(p.Servers)
		for i := range p.Servers {
			p.Servers[i] = locatedServer(p.Servers[i], hosts)
		}
		pools[name] = p
	}
	return pools
}

func locatedServer(s pool.ServerConfig, hosts map[string]resolve.Answer) pool.ServerConfig {
	e, err := endpoint.Parse(s.Address)
	if err != nil || e.Name() == "" {
		return s
	}
	s.Name = s.Label() // does not change with the address
	s.Host = strings.TrimSuffix(e.Name(), ".")
	if host := hosts[e.Name()]; host.Address.IsValid() {
		s.Address = e.At(host.Address).String()
	} else {
		s.Down = host.Reason
	}
	return s
}

// relocateAgain is the time between two attempts to follow a host.
const relocateAgain = 5 * time.Second

// relocate puts the configuration in force anew if the address of a host has
// changed, which it tells if that is news. Where something keeps it from that, such as a file that cannot be read just
// now, it returns what tells when to try again.
func (a *Appliance) relocate(ctx context.Context, news bool) (again <-chan time.Time) {
	current := a.current.Load()
	known, moved := a.names.Known(), false
	for name, was := range current.hosts {
		is, ok := known[name]
		if !ok || is == was {
			continue
		}
		moved = true
		if !news {
			continue
		}
		text := "host " + name + " is at " + is.Address.String() + " now"
		if !is.Address.IsValid() {
			text = "host " + name + " has no address: " + is.Reason
		}
		a.log.Info().Msg(text)
		if !is.Address.IsValid() && !was.Address.IsValid() {
			continue // for another reason
		}
		a.history.Add(events.Host, nodeSubject(current.node), text, "host", name)
	}
	if !moved {
		return nil
	}
	if err := a.apply(ctx, current.file, current.node); err != nil && ctx.Err() == nil {
		a.log.Error().Err(err).Msg("servers stay at the addresses that they had")
		return time.After(relocateAgain)
	}
	return nil
}
