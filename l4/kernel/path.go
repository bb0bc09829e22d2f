package kernel

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"appliance/internal/ingress"
)

// Options are what a Path is opened with.
type Options struct {
	// Flows is how many flows fit, at most MaxFlows; default 262,144. A flow takes
	// about 420 bytes of the kernel's memory while it is there.
	Flows int
	// HalfOpen is how many flows may be in their handshake at a time; default a
	// quarter of Flows. Beyond it, new connections go to the proxy.
	HalfOpen int
	// Ports are the first and the last port that stand for clients whose own port
	// is taken; default 32768 to 60999. The nodes of a pair need disjoint ranges.
	Ports [2]uint16
	// Route returns the index of the interface by which an address is reached, or
	// 0. It is asked for each server, at Set and every few seconds. It is what
	// packets are sent by where the kernel does not forward (ip_forward, or
	// forwarding of the interface, is 0); nil if it does.
	Route func(netip.Addr) int
	// Here reports whether an address of a service is this node's now. It is asked by
	// each look at all flows; nil means that all are.
	Here func(netip.Addr) bool
	// Way is how the program is attached; default ingress.Best.
	Way ingress.Way
	// Legacy is what Path.Legacy returned to an earlier process, whatever became of
	// that. The first Set takes over the flows of its services, the first Attach the
	// attachments that are wanted still; the others end. The files are the caller's, who may close
	// them after Open.
	Legacy map[string]*os.File
}

// MaxFlows bounds Options.Flows.
const MaxFlows = 1 << 22

// Path is a loaded program with its services and flows. Its methods may be called
// from any goroutine. Close ends it.
type Path struct {
	o       Options
	objects programObjects
	table   *ebpf.MapSpec // of a service's servers
	cpus    int           // as many values a per-CPU map has
	way     ingress.Way
	// addrs are the servers' addresses by their numbers, for those who read
	// flows without a lock.
	addrs [maxServers]atomic.Pointer[netip.AddrPort]

	// attaching guards what follows. It is not mu, which Set may hold for long: a
	// router waits for Attach that is about to become active.
	attaching sync.Mutex
	hooks     map[int]*ingress.Hook // by interface
	macs      map[programMac]struct{}
	attached  bool    // Attach was called
	served    bool    // Set has succeeded
	estate    *estate // of an earlier process, until both; its maps are read with mu, too

	// setting guards what follows, and is not mu for the same reason.
	setting  sync.Mutex
	settings programSettings

	// mu guards what follows.
	mu        sync.Mutex
	registry  *registry
	backends  map[programKey]bool // that the program knows
	census    census
	inherited int // flows, from an earlier process

	reports    *reports
	complaints *complaints
	stop       chan struct{} // closed by Close
	done       sync.WaitGroup
}

// Interface is one that packets of services, or answers of their servers, come
// in by.
type Interface struct {
	// Index is the interface's. With a virtual MAC it is that of the interface
	// below the macvlan, where frames are seen first.
	Index int
	// VirtualMACs are the MAC addresses for which frames are taken besides the
	// interface's own: those of the virtual routers that are active here.
	VirtualMACs []net.HardwareAddr
}

// ErrUnsupported is what the errors of Open are when this machine cannot run the
// program at all: the kernel is too old, eBPF is switched off, or the process
// lacks the capability.
var ErrUnsupported = errors.New("the kernel path is not available")

// Open loads the program, for the network namespace of the calling thread. Its
// error says in words what this machine lacks.
func Open(o Options) (*Path, error) {
	if o.Flows == 0 {
		o.Flows = 1 << 18
	}
	if o.Flows < 1 || o.Flows > MaxFlows {
		return nil, fmt.Errorf("kernel path: %d flows; possible are 1 to %d", o.Flows, MaxFlows)
	}
	if o.HalfOpen == 0 {
		o.HalfOpen = max(o.Flows/4, 1)
	}
	if o.Ports == [2]uint16{} {
		o.Ports = [2]uint16{32768, 60999}
	}
	if o.Ports[0] == 0 || o.Ports[1] < o.Ports[0] {
		return nil, fmt.Errorf("kernel path: ports %d to %d; the first must be at least 1, the last not less", o.Ports[0], o.Ports[1])
	}
	p := &Path{
		o:        o,
		registry: newRegistry(),
		backends: make(map[programKey]bool),
		hooks:    make(map[int]*ingress.Hook),
		macs:     make(map[programMac]struct{}),
		estate:   newEstate(o.Legacy),
		stop:     make(chan struct{}),
		settings: programSettings{
			MaxHalfOpen: uint32(o.HalfOpen),
			Tended:      tick(),
			FirstPort:   o.Ports[0],
			Ports:       o.Ports[1] - o.Ports[0] + 1,
		},
	}
	if err := p.load(); err != nil {
		p.estate.close()
		return nil, err
	}
	if err := p.start(); err != nil {
		p.estate.close()
		p.objects.Close()
		return nil, err
	}
	return p, nil
}

// start starts the goroutines, which Close waits for.
func (p *Path) start() error {
	var err error
	if p.reports, err = newReports(p); err != nil {
		return err
	}
	if p.complaints, err = newComplaints(p.objects.Troubles, p.stop); err != nil {
		p.reports.close()
		return err
	}
	p.done.Go(p.reports.run)
	p.done.Go(p.complaints.run)
	p.done.Go(p.sweep)
	return nil
}

// load loads the program with its maps.
func (p *Path) load() error {
	var err error
	if p.cpus, err = ebpf.PossibleCPU(); err != nil {
		return fmt.Errorf("kernel path: %w", err)
	}
	spec, err := loadProgram()
	if err != nil {
		return fmt.Errorf("kernel path: %w", err)
	}
	spec.Maps["flows"].MaxEntries = uint32(2 * p.o.Flows)
	p.table = spec.Maps["tables"].InnerMap.Copy()
	if err := spec.LoadAndAssign(&p.objects, nil); err != nil {
		return explain(err)
	}
	if err := p.chooseWay(); err != nil {
		p.objects.Close()
		return err
	}
	if err := p.objects.Configuration.Put(uint32(0), &p.settings); err != nil {
		p.objects.Close()
		return fmt.Errorf("kernel path: %w", err)
	}
	return nil
}

// chooseWay chooses how the program is attached.
func (p *Path) chooseWay() error {
	best, err := ingress.Best(p.objects.Appliance)
	if err != nil {
		return explain(err)
	}
	if p.way = p.o.Way; p.way == "" {
		p.way = best
	}
	if p.way == ingress.TCX && best != ingress.TCX {
		return fmt.Errorf("%w: kernel %s cannot attach programs by tcx, Linux 6.6 or later can", ErrUnsupported, release())
	}
	return nil
}

// Way returns how the program is attached.
func (p *Path) Way() ingress.Way { return p.way }

// setSettings has the program know what change makes of the settings. Writing some bytes
// over others of an array does not fail.
func (p *Path) setSettings(change func(*programSettings)) {
	p.setting.Lock()
	defer p.setting.Unlock()
	change(&p.settings)
	_ = p.objects.Configuration.Put(uint32(0), &p.settings)
}

// explain says in words why this machine does not run the program.
func explain(err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: the process may not load eBPF programs: it lacks CAP_BPF, CAP_PERFMON or CAP_NET_ADMIN, or the system is locked down", ErrUnsupported)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: the kernel is built without eBPF, or a filter on system calls (seccomp) forbids it", ErrUnsupported)
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%w: kernel %s is too old, Linux 5.12 or later is needed", ErrUnsupported, release())
	case errors.As(err, &verifier) && strings.Contains(firstOf(verifier.Log), "!root"):
		return fmt.Errorf("%w: the process may not load such eBPF programs: it lacks CAP_PERFMON", ErrUnsupported)
	case errors.As(err, &verifier):
		return fmt.Errorf("%w: kernel %s refuses the program: %s", ErrUnsupported, release(), firstOf(verifier.Log))
	}
	return fmt.Errorf("%w: loading the eBPF program: %w", ErrUnsupported, err)
}

// firstOf returns the last line of a log of the verifier that says something.
func firstOf(log []string) string {
	for i := len(log) - 1; i >= 0; i-- {
		if line := strings.TrimSpace(log[i]); line != "" && !strings.HasPrefix(line, "processed ") {
			return line
		}
	}
	return "no reason given"
}

// release returns the version of the running kernel.
func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Supported returns the way in which the program would be attached, if Open can succeed
// with that, or else its error. It attaches nothing.
func Supported(way ingress.Way) (ingress.Way, error) {
	p, err := Open(Options{Flows: 1, Way: way})
	if err != nil {
		return "", err
	}
	return p.Way(), p.Close()
}

// AttachError says, by the indexes of interfaces, why their packets are not looked
// at, or not all of them.
type AttachError map[int]error

// Error joins all of them.
func (e AttachError) Error() string {
	var words []string
	for _, index := range slices.Sorted(maps.Keys(e)) {
		words = append(words, e[index].Error())
	}
	return strings.Join(words, "; ")
}

// note adds err to what is said of an interface.
func (e AttachError) note(index int, err error) { e[index] = errors.Join(e[index], err) }

// Attach has packets of these interfaces looked at, and those of no others: call
// it again with all of them whenever one comes, goes, or changes its MACs. What
// cannot be attached is named in the error, an AttachError; the others are
// attached. Programs that others attach afterwards to the same place see only what
// is left to the stack.
func (p *Path) Attach(interfaces []Interface) error {
	p.attaching.Lock()
	defer p.attaching.Unlock()
	problems := make(AttachError)
	wanted := make(map[int]bool)
	macs := make(map[programMac]struct{})
	for _, i := range interfaces {
		wanted[i.Index] = true
		for _, m := range i.VirtualMACs {
			if len(m) == 6 {
				macs[programMac{Addr: [6]uint8(m), Ifindex: uint32(i.Index)}] = struct{}{}
			}
		}
		if p.hooks[i.Index] != nil {
			continue
		}
		if h := p.estate.takeHook(i.Index, p.way); h != nil {
			p.hooks[i.Index] = h
			continue
		}
		h, err := p.attach(i.Index)
		if err != nil {
			problems.note(i.Index, err)
			continue
		}
		p.hooks[i.Index] = h
	}
	p.estate.closeHooks()
	p.attached = true
	p.takeOver()
	for index, h := range p.hooks {
		if wanted[index] {
			continue
		}
		if err := h.Close(); err != nil {
			problems.note(index, fmt.Errorf("kernel path: detach: %w", err))
		}
		delete(p.hooks, index)
	}
	for m := range p.macs {
		if _, ok := macs[m]; !ok {
			if err := p.objects.Macs.Delete(&m); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				problems.note(int(m.Ifindex), fmt.Errorf("kernel path: virtual MAC: %w", err))
			}
		}
	}
	for m := range macs {
		if _, ok := p.macs[m]; !ok {
			if err := p.objects.Macs.Put(&m, uint32(1)); err != nil {
				problems.note(int(m.Ifindex), fmt.Errorf("kernel path: virtual MAC: %w", err))
			}
		}
	}
	p.macs = macs
	if len(problems) > 0 {
		return problems
	}
	return nil
}

// Detached returns whether an attachment has gone since the last Attach, as it does
// with its interface; there may be another one by now that has its index. The next
// Attach makes it anew.
func (p *Path) Detached() bool {
	p.attaching.Lock()
	defer p.attaching.Unlock()
	before := len(p.hooks)
	for index, h := range p.hooks {
		if h.Gone() {
			h.Close()
			delete(p.hooks, index)
		}
	}
	return len(p.hooks) < before
}

// attach attaches the program to an interface, before what is there.
func (p *Path) attach(index int) (*ingress.Hook, error) {
	i, err := net.InterfaceByIndex(index)
	if err != nil {
		return nil, fmt.Errorf("kernel path: interface %d: %w", index, err)
	}
	if len(i.HardwareAddr) != 6 {
		return nil, fmt.Errorf("kernel path: interface %s carries no Ethernet frames", i.Name)
	}
	h, err := ingress.Attach(p.way, index, ingress.KernelPath, p.objects.Appliance)
	if err != nil {
		return nil, fmt.Errorf("kernel path: interface %s: %w", i.Name, err)
	}
	return h, nil
}

// Close detaches the program and forgets all flows. The kernel does the same
// when the process dies, however it does; filters that do nothing then are left.
func (p *Path) Close() error {
	close(p.stop)
	p.reports.close()
	p.complaints.close()
	p.done.Wait()
	p.attaching.Lock()
	defer p.attaching.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	var problems []error
	for _, h := range p.hooks {
		problems = append(problems, h.Close())
	}
	clear(p.hooks)
	p.estate.close()
	problems = append(problems, p.objects.Close())
	return errors.Join(problems...)
}
