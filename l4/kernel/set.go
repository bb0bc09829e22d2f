package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
)

// Set makes these the services. Services of the same name go on, with their
// flows and counters, and so do the servers of the same address within them. Flows
// of services and servers that are gone go on until they end. A mistake in
// services is an error that changes nothing; one of the kernel may leave a part
// done, and Set may be called again.
func (p *Path) Set(services []Service) error {
	services = slices.Clone(services)
	if err := validate(services); err != nil {
		return fmt.Errorf("kernel path: %w", err)
	}
	if err := p.setLocked(services); err != nil {
		return fmt.Errorf("kernel path: %w", err)
	}
	p.attaching.Lock()
	defer p.attaching.Unlock()
	p.served = true
	p.takeOver()
	return nil
}

func (p *Path) setLocked(services []Service) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.set(services)
}

// validate says what is wrong with services.
func validate(services []Service) error {
	names := make(map[string]bool)
	listen := make(map[programKey]string)
	servers := 0
	if len(services) >= maxServices {
		return fmt.Errorf("%d services; at most %d are possible", len(services), maxServices-1)
	}
	for _, s := range services {
		wrong := func(format string, args ...any) error {
			return fmt.Errorf("service %s: %w", s.Name, fmt.Errorf(format, args...))
		}
		if s.Name == "" || names[s.Name] {
			return wrong("its name is empty or that of another one")
		}
		names[s.Name] = true
		if s.Protocol != TCP && s.Protocol != UDP {
			return wrong("protocol %d is neither TCP nor UDP", s.Protocol)
		}
		if s.Mode > Direct {
			return wrong("unknown mode %d", s.Mode)
		}
		if s.Responses < 0 || s.Timeouts.Idle < 0 || s.Timeouts.HalfClose < 0 {
			return wrong("a negative number of responses or timeout")
		}
		if len(s.Listen) == 0 {
			return wrong("it has no address")
		}
		is6 := s.Listen[0].Addr().Unmap().Is6()
		for _, a := range s.Listen {
			if !a.IsValid() || a.Addr().IsUnspecified() || a.Addr().IsMulticast() || a.Port() == 0 || a.Addr().Zone() != "" {
				return wrong("%s is no address that packets can have; one of the node or of [[vrrp]] is needed, with a port", a)
			}
			if a.Addr().Unmap().Is6() != is6 {
				return wrong("its addresses are of both families; make a service of each")
			}
			k := listenKey(s.Protocol, a)
			if other, ok := listen[k]; ok {
				return wrong("%s is an address of service %s, too", a, other)
			}
			listen[k] = s.Name
		}
		addrs := make(map[netip.AddrPort]bool)
		for _, srv := range s.Servers {
			a := srv.Addr
			switch {
			case !a.IsValid() || a.Addr().IsUnspecified() || a.Addr().IsMulticast() || a.Port() == 0 || a.Addr().Zone() != "":
				return wrong("server %s: no address that packets can go to", a)
			case a.Addr().Unmap().Is6() != is6:
				return wrong("server %s: it is of another family than %s", a, s.Listen[0])
			case addrs[a]:
				return wrong("server %s: it is there twice", a)
			case srv.Weight < 0 || srv.Weight > MaxWeight:
				return wrong("server %s: its weight must be 1 to %d", a, MaxWeight)
			case srv.State > Down:
				return wrong("server %s: unknown state %d", a, srv.State)
			}
			if s.Mode == Direct {
				for _, l := range s.Listen {
					if l.Port() != a.Port() {
						return wrong("server %s: with direct return it must have the port of the service, %d", a, l.Port())
					}
				}
			}
			addrs[a] = true
			servers++
		}
	}
	if len(listen) > maxListen {
		return fmt.Errorf("%d addresses of services; at most %d are possible", len(listen), maxListen)
	}
	if servers >= maxServers {
		return fmt.Errorf("%d servers; at most %d are possible", servers, maxServers-1)
	}
	return nil
}

// set does what Set promises. The caller holds the lock.
func (p *Path) set(configs []Service) error {
	r := p.registry
	services, err := p.setServices(configs)
	if err == nil {
		r.services = services
		err = errors.Join(p.setListen(), p.setBackends())
	}
	// What goes gets no new flows; the sweep takes its numbers when the last one
	// ends. After an error, too: what comes may need them.
	names, wanted := make(map[string]*service), make(map[*service]bool)
	for _, cfg := range configs {
		names[cfg.Name] = r.names[cfg.Name]
		wanted[r.names[cfg.Name]] = true
	}
	for _, s := range r.byID {
		if wanted[s] {
			continue
		}
		s.Service.Servers = nil
		if e := p.setServers(s); e != nil {
			err = errors.Join(err, fmt.Errorf("service %s: %w", s.Name, e))
		}
	}
	if err == nil {
		r.names = names
	}
	return err
}

// setServices has the program know services and their servers, but for their
// addresses.
func (p *Path) setServices(configs []Service) (services []*service, err error) {
	r := p.registry
	for _, cfg := range configs {
		s := r.names[cfg.Name]
		if s == nil || s.Protocol != cfg.Protocol {
			// Its flows' timeouts are those of its protocol.
			id := free(r.byID, maxServices)
			if id == 0 {
				return nil, fmt.Errorf("service %s: too many services that are gone still have connections", cfg.Name)
			}
			if err := p.clearService(id); err != nil {
				return nil, err
			}
			s = &service{id: id, servers: make(map[netip.AddrPort]*server)}
			r.byID[id], r.names[cfg.Name] = s, s
		}
		s.Service = cfg
		if err := p.setServers(s); err != nil {
			return nil, fmt.Errorf("service %s: %w", cfg.Name, err)
		}
		services = append(services, s)
	}
	return services, nil
}

// setServers has the program know the servers of s and how to choose one.
func (p *Path) setServers(s *service) error {
	for _, srv := range s.servers {
		srv.listed = false
	}
	backups := true
	for _, cfg := range s.Servers {
		if cfg.State == Ready && !cfg.Backup {
			backups = false
		}
	}
	var candidates []candidate
	for _, cfg := range s.Servers {
		srv, err := p.server(s, cfg.Addr)
		if err != nil {
			return err
		}
		srv.listed = true
		value := p.serverValue(srv)
		value.State = uint8(cfg.State)
		if cfg.State == Down && s.ResetOnDown {
			value.Reset = 1
		}
		if err := p.putServer(srv, value); err != nil {
			return err
		}
		if cfg.State == Ready && (!cfg.Backup || backups) {
			candidates = append(candidates, candidate{addr: cfg.Addr, weight: max(cfg.Weight, 1), id: srv.id})
		}
	}
	for _, srv := range s.servers {
		if srv.listed {
			continue
		}
		value := srv.value
		value.State, value.Reset = uint8(Drain), 0
		if err := p.putServer(srv, value); err != nil {
			return err
		}
	}
	return p.setTable(s, candidates)
}

// server returns the server of s at addr; it may be new.
func (p *Path) server(s *service, addr netip.AddrPort) (*server, error) {
	if srv := s.servers[addr]; srv != nil {
		srv.used = true
		return srv, nil
	}
	id := free(p.registry.servers, maxServers)
	if id == 0 {
		return nil, fmt.Errorf("server %s: too many servers that are gone still have connections", addr)
	}
	if err := p.clearServer(id); err != nil {
		return nil, fmt.Errorf("server %s: %w", addr, err)
	}
	srv := &server{id: id, addr: addr, service: s, used: true}
	value := p.serverValue(srv)
	value.State = uint8(Drain)
	if err := p.putServer(srv, value); err != nil {
		return nil, err
	}
	p.registry.servers[id] = srv
	p.addrs[id].Store(&srv.addr)
	s.servers[addr] = srv
	return srv, nil
}

// serverValue returns what the program is to know of a server but its state.
func (p *Path) serverValue(srv *server) programServer {
	v := programServer{Addr: words(srv.addr.Addr()), Port: port(srv.addr.Port())}
	if p.o.Route != nil {
		// Behind the loopback interface, the first one, is only this node itself.
		if i := p.o.Route(srv.addr.Addr()); i > 1 {
			v.Ifindex = uint32(i)
		}
	}
	return v
}

// putServer has the program know v of srv, if it does not yet.
func (p *Path) putServer(srv *server, v programServer) error {
	if srv.value == v {
		return nil
	}
	if err := p.objects.Servers.Put(srv.id, &v); err != nil {
		return fmt.Errorf("server %s: %w", srv.addr, err)
	}
	srv.value = v
	return nil
}

// setTable gives s a table of these servers. The program sees the old one or the
// new one, nothing between.
func (p *Path) setTable(s *service, candidates []candidate) error {
	slices.SortFunc(candidates, func(a, b candidate) int { return a.addr.Compare(b.addr) })
	if slices.Equal(candidates, s.table) {
		return nil
	}
	if len(candidates) == 0 {
		if err := p.objects.Tables.Delete(s.id); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("table: %w", err)
		}
		s.table = nil
		return nil
	}
	table, err := ebpf.NewMap(p.table)
	if err != nil {
		return fmt.Errorf("table: %w", err)
	}
	defer table.Close() // the kernel keeps it
	keys := make([]uint32, tableSize)
	for i := range keys {
		keys[i] = uint32(i)
	}
	if _, err := table.BatchUpdate(keys, maglev(candidates), nil); err != nil {
		return fmt.Errorf("table: %w", err)
	}
	if err := p.objects.Tables.Put(s.id, uint32(table.FD())); err != nil {
		return fmt.Errorf("table: %w", err)
	}
	s.table = candidates
	return nil
}

// setListen has the program know the addresses of all services, and no others.
func (p *Path) setListen() error {
	r := p.registry
	listen := make(map[programKey]*service)
	addresses := make(map[[4]uint32]bool)
	for _, s := range r.services {
		for _, a := range s.Listen {
			k := listenKey(s.Protocol, a)
			v := programService{
				Id: s.id, Ifindex: uint32(max(s.Interface, 0)),
				Responses: uint16(min(s.Responses, 1<<16-1)), Mode: uint8(s.Mode),
			}
			if s.ByClient {
				v.ByClient = 1
			}
			if err := p.objects.Services.Put(&k, &v); err != nil {
				return fmt.Errorf("service %s: %w", s.Name, err)
			}
			w := words(a.Addr())
			if err := p.objects.Addresses.Put(&w, uint32(1)); err != nil {
				return fmt.Errorf("service %s: %w", s.Name, err)
			}
			listen[k] = s
			addresses[w] = true
		}
	}
	for k := range r.listen {
		if listen[k] != nil {
			continue
		}
		if err := p.objects.Services.Delete(&k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		if w := k.Daddr; !addresses[w] {
			if err := p.objects.Addresses.Delete(&w); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return err
			}
		}
	}
	r.listen = listen
	return nil
}

// setBackends has the program know the servers of all services by their addresses.
func (p *Path) setBackends() error {
	wanted := make(map[programKey]bool)
	for _, s := range p.registry.services {
		for _, srv := range s.Servers {
			wanted[programKey{Saddr: words(srv.Addr.Addr()), Sport: port(srv.Addr.Port()), Proto: uint8(s.Protocol)}] = true
		}
	}
	for k := range p.backends { // first, for there may be no room for both
		if wanted[k] {
			continue
		}
		if err := p.objects.Backends.Delete(&k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		delete(p.backends, k)
	}
	for k := range wanted {
		if p.backends[k] {
			continue
		}
		if err := p.objects.Backends.Put(&k, uint32(1)); err != nil {
			return fmt.Errorf("server %s: %w", addrPort(k.Saddr, k.Sport), err)
		}
		p.backends[k] = true
	}
	return nil
}
