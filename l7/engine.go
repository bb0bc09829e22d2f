package l7

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/listen"
	"appliance/internal/pool"
	"appliance/l7/accesslog"
)

// Engine runs all l7 services of a process. All methods may be called from any
// goroutine; whoever made it calls Shutdown.
type Engine struct {
	log     zerolog.Logger
	ctx     context.Context // ends when Shutdown cuts the connections
	cut     context.CancelFunc
	conns   sync.WaitGroup // one for each connection
	workers workers        // of the streams of HTTP/2
	clock   accesslog.Clock
	awake   time.Duration // for which an idle connection keeps its goroutine, or up to twice that

	// mu guards what is below: the things that a configuration or a new
	// connection changes. Requests do without it.
	mu       sync.Mutex
	services map[string]*service
	order    []*service // in the order of the file
	doors    map[doorKey]*door
	places   map[netip.Addr]*place
	ups      map[*upstream]struct{}    // those in force, and retired ones that are in use
	logs     map[string]*accesslog.Log // by path
	leaving  []*accesslog.Log          // that are held by exchanges still, perhaps
	quiet    map[netip.Addr]bool
	allQuiet bool
	closed   bool
}

// doorKey tells doors apart: a service that listens on a wildcard address has
// one for each local address that clients connect to.
type doorKey struct {
	service *service
	listen  netip.AddrPort
	local   netip.AddrPort
}

// New returns an engine without services.
func New(log zerolog.Logger) *Engine {
	ctx, cut := context.WithCancel(context.Background())
	return &Engine{
		log:      log,
		ctx:      ctx,
		cut:      cut,
		awake:    stayAwake,
		services: make(map[string]*service),
		doors:    make(map[doorKey]*door),
		places:   make(map[netip.Addr]*place),
		ups:      make(map[*upstream]struct{}),
		quiet:    make(map[netip.Addr]bool),
	}
}

// Change is a staged configuration. Commit it or Discard it; if another one has
// been committed since it was staged, it must be discarded.
type Change struct {
	engine   *Engine
	services []*service // in the order of the file
	states   []*state   // of each service
	handlers map[netip.AddrPort]listen.Handler
	logs     map[string]*accesslog.Log // by path
	opened   []*accesslog.Log          // those of them that are new
	tickets  []byte                    // see Tickets
}

// Stage builds everything that cfgs need: it reads certificates and looks up
// pools, where a service with servers of its own has a pool of its name.
// transports say how the servers of a pool are spoken to; those that are not there
// are plain. An error names the service or pool and, if one is at fault, the file.
// Nothing changes before Commit, but that files of access logs are made.
func (e *Engine) Stage(cfgs []Config, pools map[string]*pool.Pool, transports map[string]Transport) (_ *Change, err error) {
	c := &Change{engine: e, handlers: make(map[netip.AddrPort]listen.Handler), logs: make(map[string]*accesslog.Log)}
	defer func() {
		if err != nil {
			c.Discard()
		}
	}()
	wires := make(map[*pool.Pool]*transport, len(transports))
	for name, t := range transports {
		if pools[name] == nil {
			continue
		}
		if wires[pools[name]], err = newTransport(t); err != nil {
			return nil, fmt.Errorf("pool %s: %w", name, err)
		}
	}
	for _, cfg := range cfgs {
		s := e.service(cfg.Name)
		if s == nil {
			s = newService(cfg.Name, e.log)
		}
		st, err := s.build(cfg, pools, wires)
		if err != nil {
			return nil, err
		}
		if st.access, err = c.openLog(cfg); err != nil {
			return nil, err
		}
		c.services, c.states = append(c.services, s), append(c.states, st)
		for _, addr := range cfg.Listen {
			if other, ok := c.handlers[addr].(*entrance); ok {
				return nil, fmt.Errorf("service %s: service %s listens on %s already", s.name, other.service.name, addr)
			}
			c.handlers[addr] = &entrance{engine: e, service: s, listen: addr}
		}
	}
	return c, nil
}

func (e *Engine) service(name string) *service {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.services[name]
}

// Handlers returns what the listeners are to call, by listening address.
func (c *Change) Handlers() map[netip.AddrPort]listen.Handler { return maps.Clone(c.handlers) }

// Commit puts the change in force. Connections stay; their next requests follow
// the new routes. Those of removed services and addresses, and of services
// whose MaxHeaderSize, Header or Idle timeout has changed or which have turned
// TLS on or off, are let go: closed when idle. Exchanges under way end as they began.
func (c *Change) Commit() {
	e := c.engine
	for _, st := range c.states {
		for p := range st.pools {
			p.OnDown("l7", e.serverDown) // without the lock, which serverDown takes
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, st := range c.states {
		for _, u := range st.upstreams {
			e.ups[u] = struct{}{}
		}
	}
	e.changeLogs(c.logs)
	before := e.services
	e.services, e.order = make(map[string]*service, len(c.services)), c.services
	for i, s := range c.services {
		s.tickets.setSecret(c.tickets)
		old := s.state.Swap(c.states[i])
		e.services[s.name] = s
		delete(before, s.name)
		if old == nil {
			continue
		}
		old.retireUpstreams(c.states[i])
		if old.doorSettings() != c.states[i].doorSettings() {
			e.renewDoors(s)
		}
	}
	for _, s := range before {
		s.state.Load().retireUpstreams(nil)
	}
	maps.DeleteFunc(e.ups, func(u *upstream, _ struct{}) bool { return u.unused() })
	for key, d := range e.doors {
		if e.services[key.service.name] != key.service || !key.service.state.Load().listensOn(key.listen) {
			d.retire()
			delete(e.doors, key)
		}
	}
}

// serverDown breaks off what is under way with a server that has failed its check.
func (e *Engine) serverDown(server *pool.Server) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for u := range e.ups {
		u.reset(server)
	}
}

// Discard gives the change up.
func (c *Change) Discard() {
	for _, l := range c.opened {
		l.Release()
		_ = l.Wait(context.Background()) // nothing was added
	}
}

func (e *Engine) renewDoors(s *service) {
	for key, d := range e.doors {
		if key.service == s {
			d.renew(e.keeps(key))
		}
	}
}

// keeps reports whether the connections of a door are kept for a next request.
func (e *Engine) keeps(key doorKey) bool {
	// A service that is gone may get a connection until its listener is closed.
	return !e.allQuiet && !e.quiet[key.local.Addr()] && e.services[key.service.name] == key.service
}

// admit lets a new connection in and returns the door to take it to; nil if the
// engine has been shut down or the service was never committed. The caller calls
// e.conns.Done when it is over.
func (e *Engine) admit(en *entrance, tcp *listen.Conn) *door {
	key := doorKey{en.service, en.listen, plainAddrPort(tcp.Local())}
	e.mu.Lock()
	defer e.mu.Unlock()
	st := en.service.state.Load()
	if e.closed || st == nil {
		return nil
	}
	at := e.places[key.local.Addr()]
	if at == nil {
		at = &place{}
		e.places[key.local.Addr()] = at
	}
	d := e.doors[key]
	if d == nil {
		d = newDoor(e, en.service, at, e.keeps(key))
		e.doors[key] = d
	}
	e.conns.Add(1)
	return d
}

// Active returns the number of requests and upgraded connections under way on
// connections whose local address is one of vips; nil: on all. A request counts
// until the kernel has the whole answer. Idle connections do not count; new ones
// do, until they have brought a request or a second has passed.
func (e *Engine) Active(vips []netip.Addr) int { return e.count(vips, time.Time{}) }

func (e *Engine) count(vips []netip.Addr, since time.Time) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	now, n := time.Now(), 0
	for addr, at := range e.places {
		if vips == nil || contains(vips, addr) {
			n += at.underWay(now, since)
		}
	}
	return n
}

// ActiveSince is Active without the requests and upgraded connections that began
// before since.
func (e *Engine) ActiveSince(vips []netip.Addr, since time.Time) int {
	return e.count(vips, since)
}

// Quiesce makes the clients connected to vips (nil: to any address) leave: idle
// connections are closed, the others when their answers are out, which say so
// by Connection: close or GOAWAY. That holds for new connections too, until it
// is called again with on false. It does not wait.
func (e *Engine) Quiesce(vips []netip.Addr, on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if vips == nil {
		e.allQuiet = on
		clear(e.quiet)
	}
	for _, vip := range vips {
		if on {
			e.quiet[plainAddr(vip)] = true
		} else {
			delete(e.quiet, plainAddr(vip))
		}
	}
	for key, d := range e.doors {
		if vips == nil || contains(vips, key.local.Addr()) {
			d.setKeep(e.keeps(key))
		}
	}
}

// Dismiss asks the clients connected to vips to leave with their next answers,
// which say Connection: close. Idle connections are left alone: a request may be on
// its way. HTTP/2 has no such way and waits for Quiesce, which also takes this back.
func (e *Engine) Dismiss(vips []netip.Addr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for key, d := range e.doors {
		if contains(vips, key.local.Addr()) {
			d.server.Load().leaving.Store(true)
		}
	}
}

// Shutdown lets all clients go, as Quiesce does, refuses new connections and
// waits until none is left. When ctx ends first it cuts the rest, if any, and returns
// the context's error. When it returns all goroutines of the engine have ended.
func (e *Engine) Shutdown(ctx context.Context) error {
	e.close()
	left := make(chan struct{})
	go func() {
		e.conns.Wait()
		close(left)
	}()
	var err error
	select {
	case <-left:
	case <-ctx.Done():
		if e.open() > 0 { // else the last one was just faster
			err = ctx.Err()
		}
	}
	e.cutAll()
	<-left
	e.workers.close()
	e.closeLogs()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.order {
		s.state.Load().retireUpstreams(nil)
	}
	for u := range e.ups {
		u.tasks.Wait()
	}
	return err
}

// open returns how many connections of clients there are.
func (e *Engine) open() (n int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.order {
		n += s.conns.all.Load()
	}
	return n
}

// cutAll breaks off all connections.
func (e *Engine) cutAll() {
	e.cut()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, at := range e.places {
		at.cutAll()
	}
}

// close closes all doors for good.
func (e *Engine) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for key, d := range e.doors {
		d.retire()
		delete(e.doors, key)
	}
}

// contains reports whether addr is among vips.
func contains(vips []netip.Addr, addr netip.Addr) bool {
	return slices.ContainsFunc(vips, func(v netip.Addr) bool { return plainAddr(v) == addr })
}

// plainAddr returns a in the one form in which the engine compares addresses.
func plainAddr(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

func plainAddrPort(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(plainAddr(a.Addr()), a.Port())
}

// Stats returns the services' numbers, in the order of the file.
func (e *Engine) Stats() []ServiceStats {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]ServiceStats, 0, len(e.order))
	for _, s := range e.order {
		out = append(out, s.stats())
	}
	return out
}
