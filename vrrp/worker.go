package vrrp

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// work does what touches the addresses, one after the other, until jobs is
// closed. It is apart from the election because netlink waits for whoever
// holds the kernel's lock, and an advert must not.
func work(jobs <-chan func()) {
	for job := range jobs {
		job()
	}
}

// acquire is an Acquire or Renew on the worker.
func (r *Router) acquire(addresses []netip.Prefix, term uint64) {
	begun := time.Now()
	added, err := r.addresses.Acquire(addresses)
	if err != nil {
		r.counters.addressErrors.Add(1)
		r.post(AcquireFailed{Term: term, Reason: err.Error()})
		return
	}
	r.post(Acquired{Term: term, At: begun, Added: added})
}

// release is a Release on the worker. An address that cannot be removed goes
// with the end of its lease.
func (r *Router) release(addresses []netip.Prefix) {
	if err := r.addresses.Release(addresses); err != nil {
		r.counters.addressErrors.Add(1)
		r.log.Error().Err(err).Msg("cannot release the addresses; they go when their lease ends")
	}
}

// announce is an Announce on the worker.
func (r *Router) announce(a Announce) {
	err := r.addresses.Announce(a.Addresses)
	r.post(Announced{Term: a.Term, Err: err})
	if err != nil {
		r.counters.addressErrors.Add(1)
		r.log.Error().Err(err).Msg("cannot announce the addresses")
	}
}

// drains runs the Traffic hook: one Hold and Resume after the other. All but
// what begin starts belongs to the goroutine of the election.
type drains struct {
	running sync.WaitGroup
	resume  context.CancelFunc // ends the drain that was begun last
	last    chan struct{}      // closed when that one is over
}

// begin starts a drain. Without traffic there is nothing to wait for.
func (d *drains) begin(a Drain, traffic Traffic, post func(any)) {
	if traffic == nil {
		traffic = noTraffic{}
	}
	ctx, resume := context.WithCancel(context.Background())
	before, over := d.last, make(chan struct{})
	d.resume, d.last = resume, over
	d.running.Go(func() {
		defer close(over)
		if before != nil {
			<-before
		}
		hold(ctx, a, traffic, post)
	})
}

// wait returns when no hook is running.
func (d *drains) wait() { d.running.Wait() }

// hold is one drain: ctx ends with its Resume.
func hold(ctx context.Context, a Drain, traffic Traffic, post func(any)) {
	bounded, cancel := context.WithDeadline(ctx, a.Deadline)
	defer cancel()
	traffic.Hold(bounded, a)
	if bounded.Err() == nil {
		post(Drained{ID: a.ID})
	}
	<-ctx.Done()
	traffic.Resume()
}

// noTraffic stands in for a hook that is not there.
type noTraffic struct{}

func (noTraffic) Hold(context.Context, Drain) {}
func (noTraffic) Resume()                     {}

// look is a Look, beside the election.
func (r *Router) look(a Look) {
	r.asides.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), LookPatience)
		defer cancel()
		var missing []netip.Addr
		if r.hooks.Missing != nil {
			missing = r.hooks.Missing(ctx, a.Hosts)
		}
		r.post(Looked{ID: a.ID, Missing: missing})
	})
}
