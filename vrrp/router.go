package vrrp

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// mailboxSize is how many adverts and requests wait for a router that is busy;
// whoever posts one more waits.
const mailboxSize = 128

// ErrStopped is returned by commands to a router that has ended.
var ErrStopped = errors.New("the virtual router has stopped")

// Outcome is what became of a Failover or Failback.
type Outcome struct {
	// Active is the address of the router that is active now.
	Active netip.Addr
}

// Router takes part in the election of one virtual router and holds its
// addresses while it is active. Create it with NewRouter and call Run once;
// all other methods are safe for concurrent use, and those that post a change
// wait for Run to take it once 128 of them wait.
type Router struct {
	log       zerolog.Logger
	open      Open
	addresses Addresses
	hooks     Hooks
	groups    *Groups

	wake chan struct{} // has one when outbox has something, for the mates' sake
	mail chan any      // Event, opened, received or command
	done chan struct{} // closed when the mailbox is read no more

	status   atomic.Pointer[Status]
	inForce  atomic.Pointer[Config] // the machine's; never written to
	counters counters
	lateness lateness
	refused  atomic.Pointer[RefusedAdvert] // the latest; nil: none

	// The machine and outbox, which is what is to be done for it, are changed
	// while groups is locked: others of a group may do it. What the machine is
	// configured with is changed by the goroutine in elect alone.
	machine *Machine
	outbox  []Action

	// Below: the property of the goroutine in elect.
	port    port
	stopped bool
	lastID  uint64
	replies map[uint64]chan<- Reply
	jobs    []func() // for the worker, in order
	logged  limiter
	raised  map[string]bool // the faults that were told to Hooks.Tell
	// restored bounds what is told of restorations, and untold is how many were
	// not told since the last one.
	restored budget
	untold   int
	message  []byte
	drains   drains

	asides sync.WaitGroup // what waits for the other node, or for hosts
}

// received is an accepted advert on its way to the machine.
type received struct {
	source netip.Addr
	advert Advert
}

// command is a question with the place for its answer, which has room for one.
type command struct {
	event func(id uint64) Event
	reply chan<- Reply
}

// NewRouter returns a router for cfg, which must be valid. It starts with the
// fault StartupFault raised: until SetFault clears that, it takes no part. It
// takes none either, and has the fault AdvertsFault, while open fails or the
// Transport cannot send. Nothing is opened before Run; addresses stay the
// caller's, to be closed after Run.
func NewRouter(cfg Config, open Open, addresses Addresses, hooks Hooks, log zerolog.Logger) *Router {
	r := &Router{
		log:       log.With().Str("vrrp", cfg.Name).Logger(),
		open:      open,
		addresses: addresses,
		hooks:     hooks,
		groups:    hooks.Groups,
		wake:      make(chan struct{}, 1),
		mail:      make(chan any, mailboxSize),
		done:      make(chan struct{}),
		machine:   NewMachine(cfg, time.Now()),
		replies:   make(map[uint64]chan<- Reply),
		raised:    make(map[string]bool),
	}
	if r.groups == nil {
		r.groups = NewGroups()
	}
	r.machine.Step(time.Now(), SetFault{Source: AdvertsFault, Reason: "not listening yet"})
	r.adopt()
	r.publish()
	return r
}

// Run takes part in the election until ctx ends. Then it drains for at most
// Config.Drain if it is active, sends priority 0, releases the addresses,
// closes the transport and returns what that returned, with everything it
// started ended.
func (r *Router) Run(ctx context.Context) (err error) {
	jobs := make(chan func())
	listening, stopListening := context.WithCancel(context.WithoutCancel(ctx))
	defer stopListening()
	var tasks sync.WaitGroup
	tasks.Go(func() { err = r.listen(listening) })
	tasks.Go(func() { work(jobs) })

	r.elect(ctx, jobs)
	r.groups.Leave(r)

	// From here on nobody reads the mailbox: those who post must know before
	// the worker is waited for, because it posts as well.
	close(r.done)
	for _, job := range r.jobs {
		jobs <- job
	}
	close(jobs)
	stopListening()
	tasks.Wait()
	r.drains.wait()
	r.asides.Wait()
	return err
}

// SetDemotion makes source lower the priority by n for a reason in words; n
// below 1 takes that back. Repeating a call changes nothing.
func (r *Router) SetDemotion(source string, n int, reason string) {
	r.post(Demote{Source: source, N: n, Reason: reason})
}

// SetFault raises the fault of source for a reason in words: the router
// resigns and takes no part while any fault is raised. An empty reason clears
// the fault.
func (r *Router) SetFault(source, reason string) {
	r.post(SetFault{Source: source, Reason: reason})
}

// Reconfigure replaces the configuration without leaving the state. Name, VRID,
// Interface, Source, Version, the family of the addresses, Unicast and VirtualMAC
// are not changed by it: they need a new Router.
// While active, addresses that are new are acquired and announced, and those
// dropped are released.
func (r *Router) Reconfigure(cfg Config) {
	r.post(Reconfigure{Config: cfg})
}

// Failover gives the addresses away: connections get Config.Drain to end, then
// another node takes over. It returns when one has, or with the reason for
// which none did. ErrRefused is in the error if this router is not active.
// When ctx ends first, the failover goes on without a listener. by is who wants
// it, for the reason of the transition; it may be empty.
func (r *Router) Failover(ctx context.Context, move Move) (Outcome, error) {
	return r.command(ctx, func(id uint64) Event { return Failover{ID: id, Move: move} })
}

// Failback takes the addresses back after a Failover of this router, at once,
// and returns when it holds them. ErrRefused is in the error if this router did
// not yield or could not win. by is as in Failover.
func (r *Router) Failback(ctx context.Context, by string) (Outcome, error) {
	return r.command(ctx, func(id uint64) Event { return Failback{ID: id, By: by} })
}

// Recheck makes an active router look at once whether its addresses are still
// on the interface. It is for whoever sees one go, and may be called too often.
func (r *Router) Recheck() { r.post(Recheck{}) }

// Claimed tells the router that count frames were heard in which another station
// claims address. Call it for stations that are not this node; what is no
// concern of the router is ignored.
func (r *Router) Claimed(address netip.Addr, mac string, count int) {
	r.post(Claimed{Address: address, MAC: mac, Count: count})
}

func (r *Router) command(ctx context.Context, event func(id uint64) Event) (Outcome, error) {
	reply := make(chan Reply, 1)
	select {
	case r.mail <- command{event: event, reply: reply}:
	case <-ctx.Done():
		return Outcome{}, ctx.Err()
	case <-r.done:
		return Outcome{}, ErrStopped
	}
	select {
	case a := <-reply:
		return Outcome{Active: a.Active}, a.Err
	case <-ctx.Done():
		return Outcome{}, ctx.Err()
	case <-r.done:
	}
	// The last step may have answered just before the end.
	select {
	case a := <-reply:
		return Outcome{Active: a.Active}, a.Err
	default:
		return Outcome{}, ErrStopped
	}
}

// post puts mail into the mailbox, and drops it when the router has ended.
func (r *Router) post(mail any) {
	select {
	case r.mail <- mail:
	case <-r.done:
	}
}

// elect owns the machine until that has stopped.
func (r *Router) elect(ctx context.Context, jobs chan<- func()) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	end := ctx.Done()
	for !r.stopped {
		if d := r.deadline(); d.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(d))
		}
		// A nil channel is never ready: without a job none is handed over.
		var handOut chan<- func()
		var job func()
		if len(r.jobs) > 0 {
			handOut, job = jobs, r.jobs[0]
		}
		select {
		case mail := <-r.mail:
			r.take(mail)
		case handOut <- job:
			r.jobs = r.jobs[1:]
		case <-r.wake:
			r.follow()
		case <-timer.C:
		case <-end:
			end = nil
			r.step(Shutdown{})
		}
		// What has arrived is heard before a silence is judged.
		for range len(r.mail) {
			r.take(<-r.mail)
		}
		r.checkPort()
		if d := r.deadline(); !d.IsZero() && !time.Now().Before(d) {
			r.step(Tick{Unread: r.state() == Backup && r.port.unread()})
		}
		r.publish()
	}
}

// take opens one piece of mail.
func (r *Router) take(mail any) {
	switch mail := mail.(type) {
	case Event:
		r.step(mail)
		if _, ok := mail.(Reconfigure); ok {
			r.adopt()
		}
	case opened:
		r.port = port{transport: mail.transport, giveUp: mail.giveUp}
		r.step(Opened{Source: mail.source})
		r.adopt()
	case received:
		r.compareAddresses(mail)
		r.step(Heard{Source: mail.source, Priority: mail.advert.Priority, Interval: mail.advert.Interval})
	case command:
		r.lastID++
		r.replies[r.lastID] = mail.reply
		r.step(mail.event(r.lastID))
	}
}

// step feeds the machine and carries out what it wants.
func (r *Router) step(ev Event) {
	before, now, actions := r.groups.step(r, ev)
	// The cause is told before what it leads to.
	r.tellStanding(ev, before, now)
	r.carryOutAll(actions)
}

// carryOutAll does what actions say, in their order.
func (r *Router) carryOutAll(actions []Action) {
	// Whoever hears of a new state by an advert must not see an older Status.
	if slices.ContainsFunc(actions, func(a Action) bool { _, ok := a.(Transition); return ok }) {
		r.publish()
	}
	for _, a := range actions {
		r.carryOut(a)
	}
}

// carryOut does what one action says.
func (r *Router) carryOut(a Action) {
	switch a := a.(type) {
	case Send:
		r.send(a)
	case Acquire:
		r.jobs = append(r.jobs, func() { r.acquire(a.Addresses, a.Term) })
	case Renew:
		// While older work waits, the kernel is slow: more would only queue up.
		if len(r.jobs) == 0 {
			r.jobs = append(r.jobs, func() { r.acquire(a.Addresses, a.Term) })
		}
	case Release:
		r.jobs = append(r.jobs, func() { r.release(a.Addresses) })
	case Announce:
		r.jobs = append(r.jobs, func() { r.announce(a) })
	case Drain:
		r.drains.begin(a, r.hooks.Traffic, r.post)
	case Resume:
		// In line behind the release: no connection is let in on an address
		// that is about to go.
		r.jobs = append(r.jobs, r.drains.resume)
	case Transition:
		r.report(a)
	case Offer:
		r.offer(a)
	case Ask:
		if r.hooks.Peer != nil {
			r.hooks.Peer.Ask(a.Node)
		}
	case AskYield:
		if r.hooks.Peer != nil {
			r.hooks.Peer.AskYield(a.Node)
		}
	case Alarm:
		r.reportAlarm(a)
	case Restored:
		r.reportRestored(a)
	case Foreign:
		r.reportForeign(a)
	case Held:
		r.reportHeld(a)
	case Look:
		r.look(a)
	case Late:
		r.counters.late.Add(1)
		if r.state() == Active {
			// The advert that was due does not leave: it counts, or the
			// longest delays would be the ones that nobody sees.
			r.lateness.add(max(0, a.By-r.machine.cfg.AdvertInterval))
		}
		r.tell(a)
		if n, ok := r.logged.allow(time.Now(), "late"); ok {
			r.log.Warn().Dur("late", a.By).Int("not_logged", n).Msg("held up; listening once more before acting on a silence")
		}
	case Reply:
		// Whoever gets the answer must not see an older Status.
		r.publish()
		r.replies[a.ID] <- Reply{ID: a.ID, Active: a.Active, Err: a.Err}
		delete(r.replies, a.ID)
	case Stopped:
		r.stopped = true
	}
}

// send sends an advert. An advert that cannot be sent
// is counted and logged, and the election goes on: the others judge by what
// they hear. When that lasts, checkPort ends it.
func (r *Router) send(a Send) {
	var failed error
	sent := false
	for to := range r.machine.cfg.destinations() {
		r.message = r.machine.cfg.appendAdvert(r.message[:0], a.Priority, to)
		if err := r.port.send(r.message, to); err != nil {
			failed = err
			r.counters.sendErrors.Add(1)
			if n, ok := r.logged.allow(time.Now(), "send"); ok {
				r.log.Warn().Err(err).Stringer("to", to).Int("not_logged", n).Msg("cannot send an advert")
			}
			continue
		}
		sent = true
		r.counters.sent.Add(1)
	}
	if sent {
		failed = nil
		if !a.Due.IsZero() {
			r.lateness.add(time.Since(a.Due))
		}
	}
	r.port.note(failed, time.Now())
}

// report tells of a transition.
func (r *Router) report(t Transition) {
	r.counters.transitions.Add(1)
	r.tell(t)
	r.log.Info().Stringer("from", t.From).Stringer("to", t.To).Str("reason", t.Reason).Msg("transition")
}

// compareAddresses counts an advert that lists other addresses than this
// router. It never changes the election: adding an address to one node after
// the other must not make two active routers.
func (r *Router) compareAddresses(m received) {
	if sameAddresses(m.advert.Addresses, r.machine.cfg.Addresses) {
		return
	}
	r.counters.addressMismatches.Add(1)
	if n, ok := r.logged.allow(time.Now(), "addresses"); ok {
		r.log.Warn().Stringer("source", m.source).Interface("theirs", m.advert.Addresses).
			Interface("ours", r.machine.cfg.Addresses).Int("not_logged", n).
			Msg("an advert lists other addresses than this node has configured")
	}
}

// sameAddresses compares two lists without regard to their order.
func sameAddresses(theirs []netip.Addr, ours []netip.Prefix) bool {
	set := make(map[netip.Addr]bool, len(ours))
	for _, a := range ours {
		set[a.Addr()] = true
	}
	for _, a := range theirs {
		if !set[a] {
			return false
		}
	}
	return len(theirs) == len(ours)
}
