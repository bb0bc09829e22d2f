package appliance

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/config"
	"appliance/internal/fdstore"
	"appliance/internal/ingress"
	"appliance/internal/link"
	"appliance/l4"
	"appliance/l4/kernel"
)

// lookAgain is how often the kernel path is compared with what it should be, for
// what nobody tells: routes, interfaces, servers that get more of their share.
const lookAgain = time.Second

// portRange are the ports that stand for clients whose own port is taken; each
// node has a part of its own.
var portRange = [2]uint16{20000, 59999}

// packets is the kernel path: *kernel.Path, or what tests put in its place.
type packets interface {
	Set([]kernel.Service) error
	Attach([]kernel.Interface) error
	Detached() bool
	Stats() (kernel.Stats, error)
	Flows(func(kernel.Flow) bool) error
	OnChanges(func([]kernel.Change))
	Install([]kernel.Flow) (refused int)
	Remove(ended []kernel.Flow, here func(vip netip.Addr) bool)
	Cut(func(kernel.Flow) bool) (int, error)
	AddressCame()
	TakeStrays()
	LeaveStrays()
	Remains() ([]*os.File, []ingress.Filter, error)
	Way() ingress.Way
	Legacy() (map[string]*os.File, error)
	Inherited() int
	Close() error
}

var _ packets = (*kernel.Path)(nil)

// kernelPath keeps the program in the kernel up to date: the services that it
// carries, what becomes of their servers, the interfaces that it looks at. A
// service that it cannot carry, for whatever reason, is the proxy's, which
// listens on the same addresses at all times.
//
// The program is attached on every node, active or not. On one that is not it
// has nothing to do, for nothing comes there; but what was sent before a hand-over
// and is late is carried still, and flows of the other node go on with their
// next packet. Frames to a virtual MAC address are looked at while this node is
// active alone: a switch that floods them shows them to all nodes.
type kernelPath struct {
	log     zerolog.Logger
	current func() *setup
	flows   *flowLink
	// keep has what remains of the path outlive this process until its addresses are
	// gone, and owns the files; filters are removed then. Nothing gives up what it had
	// before.
	keep func(files []*os.File, filters []ingress.Filter)
	// store keeps what the next process needs, and legacy is what an earlier one has left
	// there, until the first commit. Run sets them; without it nothing is kept.
	store     *fdstore.Store
	legacy    map[string]*os.File
	inherited int // flows of an earlier process, told in the log
	poked     chan struct{}
	servers   atomic.Pointer[map[pairing]bool] // of the services in force
	holders   atomic.Pointer[[]*member]        // those of active
	// published is placed, for those who do not wait for mu.
	published atomic.Pointer[map[string]placement]

	looking sync.Mutex // held by look, for as long as that takes

	// mu guards what follows. Nobody holds it while path does what may take long: a
	// router waits for it that becomes active.
	mu sync.Mutex
	// path is nil while the program is not loaded, and trouble says why, once that
	// has been tried.
	path       packets
	trouble    error
	planned    []kernel.Service     // that the file wants carried
	services   []kernel.Service     // those of them that are
	interfaces []kernel.Interface   // that are looked at, or
	again      bool                 // not all of which could be, or Attach was not called yet
	unkept     bool                 // store does not know what is attached by now
	refused    error                // why services or interfaces are not in force as a whole
	placed     map[string]placement // by the services that ask for the kernel
	active     map[*member]bool     // that hold addresses now
	totals     map[string]int64     // of flows, by service, when they were counted last
	rates      map[string]int64     // how many more they had become in lookAgain
}

// placement says where a service runs.
type placement struct {
	kernel bool
	reason string // why not; empty if kernel
	wanted bool   // that it is not: the file asks for what the kernel path cannot do
}

func newKernelPath(log zerolog.Logger, current func() *setup, flows *flowLink, keep func([]*os.File, []ingress.Filter)) *kernelPath {
	k := &kernelPath{
		log: log, current: current, flows: flows, keep: keep, store: &fdstore.Store{}, poked: make(chan struct{}, 1),
		again: true, active: make(map[*member]bool), placed: make(map[string]placement),
	}
	k.servers.Store(&map[pairing]bool{})
	k.holders.Store(new([]*member))
	return k
}

// wantsKernel reports whether a service is to be carried by the kernel path as far
// as its file goes.
func wantsKernel(node *config.Node, c l4.Config) bool {
	return c.EffectiveMode() != l4.ModeProxy && len(node.OnProxy[c.Name]) == 0
}

// commit puts the present setup in force. The program is loaded when a service
// wants it for the first time, and stays until the process ends.
func (k *kernelPath) commit() {
	s := k.current()
	k.mu.Lock()
	wanted := slices.ContainsFunc(s.node.L4, func(c l4.Config) bool { return wantsKernel(s.node, c) })
	if wanted && k.path == nil {
		k.open(s)
	}
	if k.path == nil && k.legacy != nil { // nobody goes on with it
		k.leave(nil)
	}
	for _, f := range k.legacy {
		f.Close()
	}
	k.legacy = nil
	k.mu.Unlock()
	k.look()
}

// leave has the store keep these files for the next process, and nothing else.
func (k *kernelPath) leave(files map[string]*os.File) {
	if err := k.store.Keep(files); err != nil {
		k.log.Warn().Err(err).Msg("the service manager does not keep the flows of the kernel path: after a restart, connections depend on what their servers and clients say")
	}
}

// open loads the program. The caller holds the lock.
func (k *kernelPath) open(s *setup) {
	path, err := kernel.Open(kernel.Options{Flows: s.node.Kernel.Flows, Ports: ports(s), Route: link.RouteTo, Here: k.holds, Way: wayOf(s.node), Legacy: k.legacy})
	if err != nil {
		if k.trouble == nil || k.trouble.Error() != err.Error() {
			k.log.Warn().Err(err).Msg("services of the kernel path run on the proxy")
		}
		k.trouble = err
		return
	}
	k.path, k.trouble = path, nil
	k.flows.carry(path)
	k.log.Info().Str("attach", string(path.Way())).Msg("the kernel path is loaded")
}

// wayOf returns how programs are to be attached on a node; empty for whatever its kernel
// can.
func wayOf(node *config.Node) ingress.Way {
	switch node.Kernel.Attach {
	case config.AttachTCX:
		return ingress.TCX
	case config.AttachClsact:
		return ingress.Clsact
	}
	return ""
}

// ports returns this node's part of portRange.
func ports(s *setup) [2]uint16 {
	names := s.file.NodeNames()
	size := (portRange[1] - portRange[0] + 1) / uint16(max(1, len(names)))
	first := portRange[0] + uint16(max(0, slices.Index(names, s.node.Name)))*size
	return [2]uint16{first, first + size - 1}
}

// poke says that a server, an interface or a router may have changed. It never
// blocks.
func (k *kernelPath) poke() {
	select {
	case k.poked <- struct{}{}:
	default:
	}
}

// run looks after the path until ctx ends.
func (k *kernelPath) run(ctx context.Context) {
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.poked:
		case <-again.C:
			k.count()
		}
		k.look()
	}
}

// count counts how many flows the services have had, for their rates.
func (k *kernelPath) count() {
	k.mu.Lock()
	path := k.path
	k.mu.Unlock()
	if path == nil {
		return
	}
	stats, err := path.Stats()
	if err != nil {
		return // status tells
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	totals, rates := make(map[string]int64), make(map[string]int64)
	for _, s := range stats.Services {
		totals[s.Name] = s.Total
		if was, ok := k.totals[s.Name]; ok {
			rates[s.Name] = s.Total - was
		}
	}
	k.totals, k.rates = totals, rates
}

// loaded reports whether the program is in the kernel.
func (k *kernelPath) loaded() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.path != nil
}

// close unloads the program.
func (k *kernelPath) close() error {
	k.looking.Lock()
	defer k.looking.Unlock()
	k.mu.Lock()
	path := k.path
	k.path = nil
	k.mu.Unlock()
	if path == nil {
		return nil
	}
	k.flows.close(path)
	k.keep(nil, nil)
	return path.Close()
}

// look compares what is in force with what should be, and changes what differs.
func (k *kernelPath) look() {
	k.looking.Lock()
	defer k.looking.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.current()
	if s.node == nil {
		return
	}
	services, placed := planServices(s, time.Now())
	if k.path == nil {
		for name, p := range placed {
			if p.kernel && k.trouble != nil {
				placed[name] = placement{reason: k.trouble.Error()}
			}
		}
		k.place(placed)
		return
	}
	k.planned = services
	needed, unattached, err := k.attach(s)
	// Without one of its interfaces the program would carry a half of the connections
	// of a service. It knows that one whose interface is not there: nothing comes by
	// it, and its flows are told by the other node.
	// The first time none is another answer than nil: what an earlier process has left
	// ends with Set.
	services = slices.DeleteFunc(append([]kernel.Service{}, services...), func(c kernel.Service) bool {
		why := unattached.of(needed[c.Name])
		if why != nil {
			placed[c.Name] = placement{reason: why.Error()}
		} else if missing := needed[c.Name].missing; missing != nil {
			placed[c.Name] = placement{reason: missing.Error()}
			err = errors.Join(err, missing)
		}
		return why != nil
	})
	if !reflect.DeepEqual(services, k.services) {
		path := k.path
		k.mu.Unlock()
		setErr := path.Set(services)
		k.mu.Lock()
		if setErr != nil {
			err = errors.Join(err, setErr)
			for name, p := range placed {
				if p.kernel {
					placed[name] = placement{reason: setErr.Error()}
				}
			}
		} else {
			k.services = services
			all := pairings(services)
			k.servers.Store(&all)
		}
	}
	if k.unkept && k.services != nil { // before, what is left belongs to the process before
		k.unkept = false
		k.bequeath()
	}
	if n := k.path.Inherited(); n != k.inherited {
		k.inherited = n
		k.log.Info().Int("flows", n).Msg("goes on with the flows of the process before")
	}
	if err != nil && (k.refused == nil || k.refused.Error() != err.Error()) {
		k.log.Warn().Err(err).Msg("the kernel path is not as it should be; trying again every second")
	}
	k.refused = err
	k.place(placed)
}

// place takes note where services run, and tells what is new. The caller holds the
// lock.
func (k *kernelPath) place(placed map[string]placement) {
	for _, name := range slices.Sorted(maps.Keys(placed)) {
		p := placed[name]
		if was, known := k.placed[name]; known && was == p {
			continue
		}
		switch {
		case p.kernel:
			k.log.Info().Str("service", name).Msg("carried by the kernel path")
		case p.wanted:
			k.log.Info().Str("service", name).Str("reason", p.reason).Msg("carried by the proxy, as the file wants it")
		default:
			k.log.Warn().Str("service", name).Str("reason", p.reason).Msg("carried by the proxy, not by the kernel path")
		}
	}
	k.placed = placed
	k.published.Store(&placed)
}

// unattached says by interface why it is not looked at.
type unattached map[int]error

// of returns why one of the interfaces of a service is not looked at, or nil.
func (u unattached) of(n needs) error {
	for _, i := range n.interfaces {
		if u[i] != nil {
			return u[i]
		}
	}
	return nil
}

// attach has the program look at the interfaces that the planned services need, and
// returns which these are, and which of them it does not look at. The error is all
// that is amiss. The caller holds the lock.
func (k *kernelPath) attach(s *setup) (needed map[string]needs, not unattached, err error) {
	interfaces, needed := planInterfaces(s, k.planned, k.active)
	if detached := k.path.Detached(); !detached && !k.again && reflect.DeepEqual(interfaces, k.interfaces) {
		return needed, nil, nil
	}
	err = k.path.Attach(interfaces)
	if some, ok := errors.AsType[kernel.AttachError](err); ok {
		not = unattached(some)
	}
	remains, filters, keepErr := k.path.Remains()
	k.keep(remains, filters)
	k.unkept = true
	err = errors.Join(err, keepErr)
	k.again = err != nil
	k.interfaces = slices.DeleteFunc(interfaces, func(i kernel.Interface) bool { return not[i.Index] != nil })
	return needed, not, err
}

// bequeath leaves the path as it is now with the service manager, if there is one, for
// the next process. The caller holds the lock.
func (k *kernelPath) bequeath() {
	if !k.store.Available() {
		return
	}
	files, err := k.path.Legacy()
	if err != nil {
		k.log.Warn().Err(err).Msg("what the next process would need of the kernel path cannot be had")
	}
	k.leave(files)
	for _, f := range files {
		f.Close()
	}
}
