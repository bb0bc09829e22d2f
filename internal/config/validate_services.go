package config

import (
	"slices"

	"net/netip"

	"appliance/health"
	"appliance/internal/endpoint"
	"appliance/internal/pool"
	"appliance/l7"
)

// service is what l4 and l7 services have in common.
type service struct {
	path     string // its table's, such as "l4[0]"
	name     string
	listen   []netip.AddrPort
	servers  []pool.ServerConfig // its own
	check    *health.Config      // of its own servers
	pools    []string            // all it forwards to, its own under its name
	udp      bool
	passes   bool     // it passes on what clients send
	untold   []string // pools whose servers it sends no PROXY header to
	validate func(problem func(key, message string))
}

// services returns all services in the order in which they are judged.
func (f *File) services() []service {
	var all []service
	for i, s := range f.L4 {
		var untold []string
		if s.UDP() {
			untold = s.PoolNames()
		}
		all = append(all, service{
			path: index("l4", i), name: s.Name, listen: s.Listen, servers: s.Servers, check: s.Check,
			pools: s.PoolNames(), udp: s.UDP(), passes: true, untold: untold, validate: s.Validate,
		})
	}
	for i, s := range f.L7 {
		untold := s.PoolNames()
		s.EachRules(func(_ string, rules *l7.Rules) {
			if rules.ForwardAuth != nil {
				untold = append(untold, rules.ForwardAuth.Pool)
			}
		})
		all = append(all, service{
			path: index("l7", i), name: s.Name, listen: s.Listen, servers: s.Servers, check: s.Check,
			pools: s.PoolNames(), untold: untold, validate: s.Validate,
		})
	}
	return all
}

// ownPool returns the pool made of the service's own servers.
func (s service) ownPool() Pool {
	return Pool{Config: pool.Config{Name: s.name, Servers: s.servers}, Check: s.check}
}

// validateServices reports mistakes in the services.
func (f *File) validateServices(r *report) {
	paths := make(map[string]string)
	for _, s := range f.services() {
		s.validate(r.under(s.path))
		if first, ok := paths[s.name]; ok && s.name != "" {
			r.invalid(s.path+".name", "%q is the name of %s already; no two services share one, l4 or l7", s.name, first)
		} else {
			paths[s.name] = s.path
		}
		f.validateOwnServers(r, s)
	}
	for i, s := range f.L4 {
		f.validateReference(r, index("l4", i)+".pool", s.Pool)
		for j, route := range s.Routes {
			f.validateReference(r, index(index("l4", i)+".route", j)+".pool", route.Pool)
		}
	}
	for i, s := range f.L7 {
		f.validateReference(r, index("l7", i)+".pool", s.Pool)
		for j, route := range s.Routes {
			f.validateReference(r, index(index("l7", i)+".route", j)+".pool", route.Pool)
		}
	}
	for i := range f.L7 {
		f.L7[i].EachRules(func(at string, rules *l7.Rules) {
			if rules.ForwardAuth != nil {
				f.validateReference(r, index("l7", i)+"."+at+"forward_auth.pool", rules.ForwardAuth.Pool)
			}
		})
		f.validateHash(r, index("l7", i)+".hash_by", l7.Route{Pool: f.L7[i].Pool, Rules: f.L7[i].Rules})
		for j, route := range f.L7[i].Routes {
			f.validateHash(r, index(index("l7", i)+".route", j)+".hash_by", route)
		}
	}
	f.validateListeners(r)
	f.validateSendProxy(r)
	f.validateDatagramServers(r)
	f.validateKernel(r)
	f.validatePlainServers(r)
}

// validateSendProxy reports servers that are to be sent a PROXY header by a
// service that sends none.
func (f *File) validateSendProxy(r *report) {
	said := make(map[string]bool) // keys, as several such services may use a pool
	for _, s := range f.services() {
		judge := func(at, version string) {
			if version != "" && version != "none" && !said[at] {
				said[at] = true
				r.invalid(at, "service %s uses this pool, and only TCP services of [[l4]] send a PROXY header; give it a pool without send_proxy", s.name)
			}
		}
		for _, name := range s.untold {
			p, path := f.poolOf(s, name)
			judge(path+".send_proxy", p.SendProxy)
			for i, server := range p.Servers {
				judge(index(path+".servers", i)+".send_proxy", server.SendProxy)
			}
		}
	}
}

// validateDatagramServers reports servers that a UDP service cannot send to.
func (f *File) validateDatagramServers(r *report) {
	for _, s := range f.services() {
		if !s.udp {
			continue
		}
		for _, name := range s.pools {
			p, path := f.poolOf(s, name)
			for i, server := range p.Servers {
				if e, err := endpoint.Parse(server.Address); err == nil && e.Path() != "" {
					r.invalid(index(path+".servers", i)+".address", "service %s is a UDP service; servers on unix sockets take no datagrams", s.name)
				}
			}
		}
	}
}

// poolOf returns the pool of that name which a service uses, its own or one of
// the file's, and the path of the table that holds its keys.
func (f *File) poolOf(s service, name string) (p Pool, path string) {
	if name == s.name && len(s.servers) > 0 {
		return s.ownPool(), s.path
	}
	return f.Pools[name], join("pool", name)
}

// validateHash reports a route that chooses by a hash where its pool does not.
func (f *File) validateHash(r *report, at string, route l7.Route) {
	if p, ok := f.Pools[route.Pool]; ok && route.HashBy != nil && p.Balance != pool.SourceHash {
		r.invalid(at, "pool %s chooses no server by a hash; give it balance = %q", route.Pool, pool.SourceHash)
	}
}

// validateOwnServers reports mistakes in what a service has instead of a pool.
func (f *File) validateOwnServers(r *report, s service) {
	if len(s.servers) == 0 {
		if s.check != nil {
			r.invalid(s.path+".check", "a check goes with servers of the service's own; the check of a pool stands in the pool's table")
		}
		return
	}
	f.validatePool(r, s.path, s.ownPool())
	if _, ok := f.Pools[s.name]; ok {
		r.invalid(s.path+".servers", "the service's own servers make a pool of its name, but there is a [%s] too", join("pool", s.name))
	}
}

// validateReference reports the name of a pool that does not exist.
func (f *File) validateReference(r *report, at, name string) {
	if _, ok := f.Pools[name]; !ok && name != "" {
		r.dangling(at, "there is no pool %s%s", name, hint(name, f.Pools, "the file has no pools"))
	}
}

// validatePools reports mistakes in the tables [pool.NAME].
func (f *File) validatePools(r *report) {
	for name, p := range f.Pools {
		f.validatePool(r, join("pool", name), p)
	}
}

// validatePool reports mistakes in a pool whose keys are in the table at path.
func (f *File) validatePool(r *report, path string, p Pool) {
	p.Config.Validate(r.under(path))
	if p.Check != nil {
		check := *p.Check
		check.TLS = check.TLS || p.grpcByTLS() // so its keys may say something else
		check.Validate(r.under(path + ".check"))
	}
	f.validateServerAddresses(r, path, p)
	f.validateTransport(r, path, p)
	validatePathChecks(r, path, p)
}

// validatePathChecks reports a check that cannot be made of a server on a unix
// socket.
func validatePathChecks(r *report, path string, p Pool) {
	c := p.Check
	onPath := func(s pool.ServerConfig) bool {
		e, err := endpoint.Parse(s.Address)
		return err == nil && e.Path() != ""
	}
	if c == nil || !slices.ContainsFunc(p.Servers, onPath) {
		return
	}
	datagrams := c.Type == health.UDP || c.Type == health.DNS
	switch at := path + ".check"; {
	case c.Type == health.ICMP && !c.Address.IsValid():
		r.invalid(at+".type", "a server on a unix socket answers no echo; choose another type, or say with address which machine is meant")
	case datagrams && !(c.Address.IsValid() && c.Port != 0):
		r.invalid(at+".type", "a server on a unix socket takes no datagrams; choose another type, or say with address and port where it does")
	case c.Type != health.ICMP && c.Address.IsValid() != (c.Port != 0):
		r.invalid(at, "a server on a unix socket has neither address nor port; the check needs both of them or none")
	}
}
