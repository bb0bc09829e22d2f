package appliance

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"appliance/health"
	"appliance/internal/config"
	"appliance/internal/control"
	"appliance/internal/events"
	"appliance/internal/fdstore"
	"appliance/internal/guard"
	"appliance/internal/ingress"
	"appliance/internal/link"
	"appliance/internal/listen"
	"appliance/internal/peer"
	"appliance/internal/resolve"
	"appliance/l4"
	"appliance/l7"
	"appliance/vrrp"
)

// Options say what to run.
type Options struct {
	// ConfigPath is the configuration file, read at the start and at reloads.
	ConfigPath string
	// Node is the node of the file to be; empty means the host's name.
	Node string
	// Socket is the control socket; empty means the file's.
	Socket string
	// Events is the file of the event history; empty means the file's.
	Events string
	// Version is what status calls the software.
	Version string
	// Log takes everything that the appliance has to say.
	Log zerolog.Logger
	// Guard returns the command whose process becomes the guard: it must call the
	// function Guard with its standard input.
	Guard func() *exec.Cmd
}

// Appliance is one running node.
type Appliance struct {
	options   Options
	log       zerolog.Logger
	started   time.Time
	wire      *wire
	checker   *health.Checker
	names     *resolve.Resolver // of the hosts of servers
	listeners *listen.Set
	claims    *claims // of virtual addresses, by the routers
	groups    *vrrp.Groups
	guard     *guard.Guard
	record    *link.Record // of what virtual MAC addresses change
	history   *events.Log
	wishes    *wishes // of administrators, about servers
	l4        *l4.Engine
	l7        *l7.Engine
	kernel    *kernelPath
	flows     *flowLink // of the kernel path
	links     links     // of the goroutine of Run
	peers     *peerLink
	web       *control.Web // nil: not configured; of the goroutine of Run
	reloads   chan reloadRequest
	stopping  chan struct{} // closed when no more reloads are taken

	// patience ends, by hurry, when a stop is to wait for nothing any more.
	patience context.Context
	hurry    context.CancelFunc

	// current is what runs now; the goroutine of Run replaces it.
	current atomic.Pointer[setup]
	urgency urgency // of the goroutine of Run
	// refused is why the latest reload changed nothing; empty if it did.
	refused atomic.Pointer[string]
}

// reloadRequest asks the goroutine of Run to read the file again.
type reloadRequest struct {
	by   string // who wants it, for the end of a sentence
	done chan<- error
}

// Run is the appliance: it starts everything that the file describes and runs
// it until ctx ends; then it gives the virtual addresses away, lets connections
// end for the file's drain time in all, and stops. SIGHUP reloads, SIGUSR1
// opens the access logs anew; a SIGTERM or SIGINT during the stop ends the drain. The error says what kept it from
// starting, or what broke.
func Run(ctx context.Context, o Options) (err error) {
	store, legacy := fdstore.Open() // first: it takes descriptors that are there already
	// From the first moment to the last: without a handler it would kill.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	reopen := make(chan os.Signal, 1)
	signal.Notify(reopen, syscall.SIGUSR1)
	defer signal.Stop(reopen)
	file, node, err := load(o)
	if err != nil {
		return err
	}
	if err := checkRights(node); err != nil {
		return err
	}
	a := newAppliance(o, node)
	a.kernel.store, a.kernel.legacy = store, legacy
	defer a.history.Close()
	a.hasten(node)
	socket, err := control.Listen(a.socketPath(node), a.backend(), a.log)
	if err != nil {
		return err
	}
	if a.guard, err = guard.Start(o.Guard, o.Log); err != nil {
		return errors.Join(err, socket.Close())
	}
	defer func() { err = errors.Join(err, a.guard.Close()) }()
	// The services outlive ctx: they are needed until the addresses are gone.
	services, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer a.hurry()
	filters := a.undo()
	a.began(file, node)
	for _, note := range machineNotes(node) {
		a.log.Warn().Msg(note)
	}
	tasks := newTasks()
	tasks.start("wire", func() error { a.wire.run(services); return nil })
	tasks.start("removals", func() error { a.watchRemovals(services); return nil })
	tasks.start("names", func() error { a.names.Run(services); return nil })
	tasks.start("kernel path", func() error { a.kernel.run(services); return nil })
	tasks.start("health checks", func() error { return a.checker.Run(services) })
	if err := a.apply(ctx, file, node); err != nil {
		stop()
		a.history.Add(events.Stop, nodeSubject(node), "could not start: "+err.Error())
		return errors.Join(err, socket.Close(), tasks.wait())
	}
	// What was left until now did no harm, and the kernel path may have gone on from it.
	if err := link.RemoveFilters(filters); err != nil {
		a.log.Error().Err(err).Msg("filters that a crash left could not be removed; they do nothing")
	}
	tasks.start("hand-over", func() error { a.tryPassing(node); return nil })
	tasks.start("control", func() error { return socket.Run(services) })
	a.log.Info().Str("node", node.Name).Str("version", o.Version).Str("config", o.ConfigPath).Msg("started")

	err = a.loop(ctx, hangup, reopen, tasks)
	why := "stopping"
	if err != nil {
		why += ": " + err.Error()
	}
	a.history.Add(events.Stop, nodeSubject(node), why)
	err = errors.Join(err, a.shutdown())
	a.history.Add(events.Stop, nodeSubject(node), "stopped")
	stop()
	return errors.Join(err, tasks.wait())
}

func newAppliance(o Options, node *config.Node) *Appliance {
	a := &Appliance{
		options:  o,
		log:      o.Log,
		started:  time.Now(),
		claims:   newClaims(),
		groups:   vrrp.NewGroups(),
		l7:       l7.New(o.Log),
		reloads:  make(chan reloadRequest),
		stopping: make(chan struct{}),
	}
	a.patience, a.hurry = context.WithCancel(context.Background())
	a.record = link.NewRecord(a.socketPath(node) + ".undo")
	a.history = events.Open(a.eventsPath(node.Admin.Events), o.Log)
	a.wishes = newWishes(a.history.Path())
	fallen := deaths{history: a.history, told: make(map[health.Target]death)}
	a.checker = health.NewChecker(o.Log, func(t health.Target, r health.Result) {
		fallen.take(t, r)
		a.wire.poke()
	})
	a.names = resolve.New(resolve.Default.Lookup)
	a.peers = newPeerLink(a)
	a.flows = newFlowLink(o.Log, a.history, flowSurroundings{
		send: a.peers.send, links: a.peers.statuses, ours: a.ours, theirs: a.theirs, known: a.known,
	})
	a.kernel = newKernelPath(o.Log, a.current.Load, a.flows, func(files []*os.File, filters []ingress.Filter) {
		a.guard.Keep(files)
		a.guard.Filters("kernel path", filters)
	})
	a.wire = newWire(o.Log, a.checker.Results)
	a.wire.evaluated = a.kernel.poke
	a.l4 = l4.New(o.Log, a.wire.udp)
	a.listeners = listen.NewSet(o.Log, a.wire.tcp)
	a.current.Store(&setup{})
	a.refused.Store(new(string))
	return a
}

// load reads the file as the node that o names.
func load(o Options) (*config.File, *config.Node, error) {
	file, err := config.Load(o.ConfigPath)
	if err != nil {
		return nil, nil, err
	}
	node, err := file.ForNode(o.Node)
	return file, node, err
}

func (a *Appliance) socketPath(node *config.Node) string {
	if a.options.Socket != "" {
		return a.options.Socket
	}
	return node.Admin.Socket
}

// undo removes what an earlier process has left on the interfaces that was killed
// together with its guard, but for filters, which it returns.
func (a *Appliance) undo() []link.Filter {
	removed, err := link.Undo(a.record.Path())
	if err != nil {
		a.log.Error().Err(err).Msg("what a crash left on the interfaces could not be undone")
	}
	if len(removed) > 0 {
		a.log.Warn().Strs("interfaces", removed).Msg("removed interfaces that a crash left")
	}
	filters, err := link.LeftFilters()
	if err != nil {
		a.log.Error().Err(err).Msg("filters that a crash left may be there; they do nothing")
	}
	return filters
}

// loop carries out what signals and commands ask for, and follows hosts that move, until
// ctx ends or a task fails.
func (a *Appliance) loop(ctx context.Context, hangup, reopen <-chan os.Signal, tasks *tasks) error {
	defer close(a.stopping)
	var again <-chan time.Time // to follow hosts
	for {
		select {
		case <-ctx.Done():
			a.log.Info().Msg("stopping")
			return nil
		case err := <-tasks.failed:
			return err
		case <-hangup:
			a.reload(ctx, " by SIGHUP")
		case <-reopen:
			a.reopenLogs(ctx)
		case r := <-a.reloads:
			r.done <- a.reload(ctx, r.by)
		case <-a.names.Changed():
			again = a.relocate(ctx, true)
		case <-again:
			again = a.relocate(ctx, false)
		}
	}
}

// reload reads the file again and puts it in force, or changes nothing and says
// why.
func (a *Appliance) reload(ctx context.Context, by string) error {
	file, node, err := load(a.options)
	if err == nil {
		err = a.unchangeable(node)
	}
	if err == nil {
		err = a.apply(ctx, file, node)
	}
	why := ""
	if err != nil {
		why = err.Error()
		a.log.Error().Err(err).Msg("reload refused; the old configuration stays in force")
		a.history.Add(events.ReloadRefused, nodeSubject(a.current.Load().node), fmt.Sprintf("reload%s refused, the old configuration stays in force: %s", by, why))
	} else {
		a.hasten(node)
		a.log.Info().Str("sha256", file.Hash).Msg("reloaded")
		a.history.Add(events.Reload, nodeSubject(node), "reloaded"+by, "sha256", file.Hash)
	}
	a.refused.Store(&why)
	a.reopenLogs(ctx) // also after a mistake in the file: whoever rotates them waits for it
	return err
}

// reopenPatience is how long a reload waits for a disk that does not take the
// access log.
const reopenPatience = 2 * time.Second

// reopenLogs opens the access logs anew.
func (a *Appliance) reopenLogs(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, reopenPatience)
	defer cancel()
	if err := a.l7.ReopenLogs(ctx); err != nil {
		a.log.Error().Err(err).Msg("the access logs could not be opened anew")
	}
}

// hasten has the process come before others, or not, as the node's adverts need it.
func (a *Appliance) hasten(node *config.Node) {
	if err := a.urgency.set(urgent(node)); err != nil {
		a.log.Warn().Err(err).Msg("on a busy machine adverts wait for the CPU like all else; CAP_SYS_NICE, or LimitNICE=-10 in the unit, prevents that")
	}
}

// unchangeable refuses what only a restart can change.
func (a *Appliance) unchangeable(node *config.Node) error {
	old := a.current.Load().node
	if node.Name != old.Name {
		return fmt.Errorf("this node would become %s instead of %s; restart to do that", node.Name, old.Name)
	}
	if a.options.Socket == "" && node.Admin.Socket != old.Admin.Socket {
		return fmt.Errorf("admin.socket would become %s instead of %s; restart to do that", node.Admin.Socket, old.Admin.Socket)
	}
	if a.options.Events == "" && node.Admin.Events != old.Admin.Events {
		return fmt.Errorf("admin.events would become %q instead of %q; restart to do that", node.Admin.Events, old.Admin.Events)
	}
	if a.kernel.loaded() && node.Kernel.Flows != old.Kernel.Flows {
		return fmt.Errorf("kernel.flows would become %d instead of %d; restart to do that", node.Kernel.Flows, old.Kernel.Flows)
	}
	if a.kernel.loaded() && node.Kernel.Attach != old.Kernel.Attach {
		return fmt.Errorf("kernel.attach would become %q instead of %q; restart to do that", node.Kernel.Attach, old.Kernel.Attach)
	}
	return nil
}

// shutdown gives the virtual addresses away, each after its drain, then lets
// the connections that are left end in what remains of the drain time, and cuts
// the rest. Another signal ends the drain at once.
func (a *Appliance) shutdown() error {
	urgent, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(urgent, a.hurry)()
	current := a.current.Load()
	ctx, cancel := context.WithTimeout(urgent, current.node.Handover.Drain)
	defer cancel()
	stopRouters(current.routers)
	a.settleFlows()
	for _, m := range current.routers {
		m.lingering.wait(ctx)
		m.lingering.finish(errors.New("this node stops"))
	}
	a.peers.end(peer.ErrGoodbye)
	a.commitWeb(nil, config.Admin{})
	a.watch(nil)
	err := a.listeners.Close()
	ended := make(chan error, 2)
	go func() { ended <- a.l4.Shutdown(ctx) }()
	go func() { ended <- a.l7.Shutdown(ctx) }()
	cut := errors.Join(<-ended, <-ended)
	a.listeners.Wait()
	err = errors.Join(err, a.kernel.close())
	if cut != nil {
		a.log.Warn().Err(cut).Msg("connections did not end in the drain time and were cut")
	}
	a.log.Info().Msg("stopped")
	return err
}

// vipsOf returns the addresses of prefixes.
func vipsOf(prefixes []netip.Prefix) []netip.Addr {
	vips := make([]netip.Addr, len(prefixes))
	for i, p := range prefixes {
		vips[i] = p.Addr()
	}
	return vips
}
