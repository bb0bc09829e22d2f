package appliance

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/rs/zerolog"

	"appliance/health"
	"appliance/internal/config"
	"appliance/internal/pool"
	"appliance/vrrp"
)

// judged is what the wire moves: the part of a router that health and faults
// concern.
type judged interface {
	SetDemotion(source string, n int, reason string)
	SetFault(source, reason string)
}

// wire carries what the engines know of themselves to the elections: servers
// found dead, listeners that cannot accept, links without carrier. It is the
// only place that knows both health and VRRP.
//
// One goroutine, run, owns its state. Everything that changes is either told to
// it (links, listeners, a new plan) or read when somebody pokes it (checks,
// pools), and each time all conditions are worked out anew and compared with
// those in force; so nothing depends on the order or the number of notices.
type wire struct {
	log zerolog.Logger
	// results returns what the checks have found out so far.
	results func() map[health.Target]health.Result
	poked   chan struct{}
	notice  chan any // *plan, linkNotice or listenerNotice
	done    chan struct{}
	known   atomic.Pointer[knowledge]
	// evaluated is called whenever all has been worked out anew; it must not block.
	evaluated func()
}

// plan is what a configuration wires together.
type plan struct {
	routers  []wiredRouter
	services map[string][]*pool.Pool     // by service name
	judges   map[health.Target][]subject // who wants a check's verdict
}

// subject is what a check judges: a server of a pool. A check
// may look elsewhere than there.
type subject struct {
	pool   *pool.Pool
	server pool.ID
}

// names reports whether the plan depends on an interface.
func (p *plan) names(iface string) bool {
	for _, r := range p.routers {
		if r.iface == iface || slices.ContainsFunc(r.track, func(t config.Track) bool { return t.Interface == iface }) {
			return true
		}
	}
	return false
}

type wiredRouter struct {
	judged    judged
	iface     string
	addresses []netip.Addr
	track     []config.Track
}

type linkNotice struct {
	iface string
	down  string // why it cannot be used; empty when it can
}

type listenerNotice struct {
	at  socket
	err error
}

// socket is where a service listens.
type socket struct {
	address netip.AddrPort
	udp     bool // else TCP
}

// String returns the address, and the protocol where it is not TCP.
func (s socket) String() string {
	if s.udp {
		return s.address.String() + "/udp"
	}
	return s.address.String()
}

// knowledge is what status shows of the wire. It is never changed once
// published.
type knowledge struct {
	ready     bool
	listeners map[socket]error
}

// condition is a demotion (amount above 0) or a fault in force on one router.
type condition struct {
	amount int
	reason string
}

func newWire(log zerolog.Logger, results func() map[health.Target]health.Result) *wire {
	w := &wire{
		log:       log,
		results:   results,
		poked:     make(chan struct{}, 1),
		notice:    make(chan any),
		evaluated: func() {},
		done:      make(chan struct{}),
	}
	w.known.Store(&knowledge{})
	return w
}

// poke says that a check or an administrator changed what a server is. It never
// blocks.
func (w *wire) poke() {
	select {
	case w.poked <- struct{}{}:
	default:
	}
}

func poolHealth(r health.Result) pool.Health {
	h := pool.Health{Reason: r.Reason, Since: r.Since}
	switch r.State {
	case health.Up:
		h.State = pool.Up
	case health.Down:
		h.State = pool.Down
	}
	return h
}

// link says whether an interface can be used; down is empty when it can.
func (w *wire) link(iface, down string) { w.tell(linkNotice{iface, down}) }

// tcp says whether connections can be accepted on an address, udp whether
// datagrams can be taken.
func (w *wire) tcp(a netip.AddrPort, err error) { w.tell(listenerNotice{socket{address: a}, err}) }
func (w *wire) udp(a netip.AddrPort, err error) { w.tell(listenerNotice{socket{a, true}, err}) }

// rewire puts a plan in force.
func (w *wire) rewire(p *plan) { w.tell(p) }

func (w *wire) tell(n any) {
	select {
	case w.notice <- n:
	case <-w.done:
	}
}

// run owns the wire until ctx ends.
func (w *wire) run(ctx context.Context) {
	defer close(w.done)
	s := wireState{
		wire:      w,
		plan:      &plan{},
		links:     make(map[string]string),
		listeners: make(map[socket]error),
		inForce:   make(map[judged]*standing),
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.poked:
		case n := <-w.notice:
			s.take(n)
		}
		s.evaluate()
	}
}

// wireState is what run owns.
type wireState struct {
	*wire
	plan      *plan
	links     map[string]string
	listeners map[socket]error
	planned   bool // there has been a plan
	ready     bool
	inForce   map[judged]*standing
}

// standing is what one router has been told.
type standing struct {
	conditions map[string]condition // by source
	started    bool                 // the startup fault is gone
}

func (s *wireState) take(n any) {
	switch n := n.(type) {
	case *plan:
		s.plan, s.planned = n, true
		kept := make(map[judged]*standing, len(n.routers))
		for _, r := range n.routers {
			if kept[r.judged] = s.inForce[r.judged]; kept[r.judged] == nil {
				kept[r.judged] = new(standing)
			}
		}
		s.inForce = kept
		// What is no longer watched must not be remembered as it was.
		maps.DeleteFunc(s.links, func(iface string, _ string) bool { return !n.names(iface) })
	case linkNotice:
		s.links[n.iface] = n.down
	case listenerNotice:
		if n.err == nil {
			delete(s.listeners, n.at)
		} else {
			s.listeners[n.at] = n.err
		}
	}
}

// evaluate works out the conditions of every router and applies what changed.
func (s *wireState) evaluate() {
	s.judge()
	waiting := s.unjudged()
	if !s.ready && waiting == "" && s.planned {
		s.ready = true
		s.log.Info().Msg("ready: listeners are bound and the first round of checks is done")
	}
	for _, r := range s.plan.routers {
		told := s.inForce[r.judged]
		want := s.conditions(r)
		apply(r.judged, told.conditions, want)
		told.conditions = want
		// Last, so that a router never starts without its demotions and faults.
		if !told.started {
			told.started = s.start(r, waiting)
		}
	}
	s.known.Store(&knowledge{ready: s.ready, listeners: maps.Clone(s.listeners)})
	s.evaluated()
}

// start takes the startup fault of a router away, or says in it what is still
// waited for. Once ready, the appliance does not wait again for servers that a
// reload brings.
func (s *wireState) start(r wiredRouter, waiting string) bool {
	if _, known := s.links[r.iface]; !known {
		waiting = "the first look at interface " + r.iface
	} else if s.ready {
		r.judged.SetFault(vrrp.StartupFault, "")
		return true
	}
	r.judged.SetFault(vrrp.StartupFault, "waiting for "+waiting)
	return false
}

// judge passes the checks' verdicts to the pools that asked for them.
func (s *wireState) judge() {
	results := s.results()
	verdicts := make(map[*pool.Pool]map[pool.ID]pool.Health)
	for target, subjects := range s.plan.judges {
		r, ok := results[target]
		if !ok || r.State == health.Unknown {
			continue
		}
		for _, on := range subjects {
			of := verdicts[on.pool]
			if of == nil {
				of = make(map[pool.ID]pool.Health)
				verdicts[on.pool] = of
			}
			of[on.server] = poolHealth(r)
		}
	}
	for p, of := range verdicts {
		p.Judge(of)
	}
}

// apply tells r what is to change so that its conditions become want. What is
// new comes first: where one cause takes the place of another, the router must
// not be free of both for a moment.
func apply(r judged, have, want map[string]condition) {
	for source, c := range want {
		if had, ok := have[source]; ok && had == c {
			continue
		}
		if c.demotes() {
			r.SetDemotion(source, c.amount, c.reason)
		} else {
			r.SetFault(source, c.reason)
		}
	}
	for source, c := range have {
		if now, ok := want[source]; ok && now.demotes() == c.demotes() {
			continue
		}
		if c.demotes() {
			r.SetDemotion(source, 0, "")
		} else {
			r.SetFault(source, "")
		}
	}
}

func (c condition) demotes() bool { return c.amount > 0 }

// unjudged names the servers and hosts whose check has not been tried yet; empty when all
// have. One try is enough: what it finds may be that this node cannot tell.
func (s *wireState) unjudged() string {
	results := s.results()
	var names []string
	for target, subjects := range s.plan.judges {
		if !results[target].Checked.IsZero() {
			continue
		}
		if len(subjects) == 0 {
			names = append(names, target.String())
		}
		for _, on := range subjects {
			names = append(names, on.pool.Name()+"/"+on.server.Label)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	if more := len(names) - 3; more > 0 {
		names = append(names[:3], fmt.Sprintf("%d more", more))
	}
	return "the first check of " + strings.Join(names, ", ")
}

// conditions returns the demotions and faults that a router should have, by
// source.
func (s *wireState) conditions(r wiredRouter) map[string]condition {
	want, results := make(map[string]condition), s.results()
	if down := s.links[r.iface]; down != "" {
		want["interface "+r.iface] = condition{reason: down}
	}
	for at, err := range s.listeners {
		if vip := at.address.Addr(); vip.IsUnspecified() || slices.Contains(r.addresses, vip) {
			want["listener "+at.String()] = condition{reason: err.Error()}
		}
	}
	for _, t := range r.track {
		switch {
		case t.Service != "":
			if reason := s.unserved(t.Service); reason != "" {
				want["service "+t.Service] = condition{t.Weight, reason}
			}
		case t.Reach.IsValid():
			if result := results[reached(t)]; result.State == health.Down {
				want[vrrp.ReachSource+t.Reach.String()] = condition{t.Weight, result.Reason}
			}
		case t.Interface != r.iface: // its own is a fault already, and no less
			if down := s.links[t.Interface]; down != "" {
				want["interface "+t.Interface] = condition{t.Weight, down}
			}
		}
	}
	return want
}

// unserved says why a service has no usable server; empty when it has one.
func (s *wireState) unserved(service string) string {
	var names []string
	for _, p := range s.plan.services[service] {
		if p.Usable() > 0 {
			return ""
		}
		names = append(names, p.Name())
	}
	return fmt.Sprintf("no usable server in pool %s", strings.Join(names, ", "))
}
