package vrrp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// openPause is the time between attempts to open a Transport.
	openPause = 100 * time.Millisecond
	// steadyAfter is how long a Transport must have lasted for its end to be an
	// event of its own. One that ends earlier is followed by a pause that
	// doubles up to brokenPauseMax each time: in between the router may become
	// active, and must not do that over and over.
	steadyAfter    = 10 * time.Second
	brokenPauseMin = openPause
	brokenPauseMax = 16 * time.Second
	// muteAfter and muteIntervals bound how long an active router that can send
	// nothing keeps its addresses: the longer of the two times.
	muteAfter     = time.Second
	muteIntervals = 3
)

// opened is a Transport on its way to the goroutine of the election.
type opened struct {
	transport Transport
	source    netip.Addr
	giveUp    context.CancelFunc // closes the transport, without waiting for that
}

// port is what the election sends by.
type port struct {
	transport Transport // nil until one is open, and after it was given up
	giveUp    context.CancelFunc
	// failing is since when nothing could be sent, and why; zero and nil when
	// the last advert could be.
	failing time.Time
	err     error
}

func (p *port) send(msg []byte, to netip.Addr) error {
	if p.transport == nil {
		return net.ErrClosed
	}
	return p.transport.Send(msg, to)
}

// note takes the outcome of an advert: nil if it could be sent to anybody.
func (p *port) note(err error, now time.Time) {
	switch {
	case err == nil:
		p.failing = time.Time{}
	case p.failing.IsZero():
		p.failing = now
	}
	p.err = err
}

// unread says whether packets are known to wait for the reader, which may be
// held up while the election is not.
func (p *port) unread() bool {
	b, ok := p.transport.(Backlog)
	return ok && b.Unread()
}

// checkPort gives up on a Transport by which nothing could be sent for long. Its
// end makes listen open another one, which clears the fault.
func (r *Router) checkPort() {
	p := &r.port
	if p.transport == nil || p.failing.IsZero() {
		return
	}
	long := max(muteAfter, muteIntervals*r.machine.cfg.AdvertInterval)
	if time.Since(p.failing) < long {
		return
	}
	reason := fmt.Sprintf("no advert could be sent for %s: %s", round(time.Since(p.failing)), p.err)
	p.giveUp()
	r.step(SetFault{Source: AdvertsFault, Reason: reason})
	p.transport = nil
}

// listen keeps a Transport open and receives by it until ctx ends, and returns
// what closing the last one returned.
func (r *Router) listen(ctx context.Context) error {
	var logged limiter
	pause := brokenPauseMin
	for {
		t, source, err := r.open()
		if err != nil {
			r.post(SetFault{Source: AdvertsFault, Reason: err.Error()})
			if skipped, ok := logged.allow(time.Now(), "open"); ok {
				r.log.Error().Err(err).Int("not_logged", skipped).Msg("cannot listen for adverts")
			}
			if !sleep(ctx, openPause) {
				return nil
			}
			continue
		}
		since := time.Now()
		err, closed := r.use(ctx, t, source, &logged)
		if ctx.Err() != nil {
			return closed
		}
		if skipped, ok := logged.allow(time.Now(), "end"); ok {
			r.log.Warn().Err(err).Int("not_logged", skipped).Msg("listening for adverts anew")
		}
		steady := time.Since(since) >= steadyAfter
		if steady {
			pause = brokenPauseMin
		}
		// One that checkPort closed has left its fault already.
		if !errors.Is(err, net.ErrClosed) {
			if steady {
				continue
			}
			r.post(SetFault{Source: AdvertsFault, Reason: err.Error()})
		}
		if !sleep(ctx, pause) {
			return nil
		}
		pause = min(2*pause, brokenPauseMax)
	}
}

// use receives by t until that comes to its end or ctx does, and closes t. It
// returns why t ended, and what closing it returned.
func (r *Router) use(ctx context.Context, t Transport, source netip.Addr, logged *limiter) (end, closed error) {
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	shut := sync.OnceValue(t.Close)
	stop := context.AfterFunc(ctx, func() { shut() })
	defer stop()
	r.post(opened{t, source, giveUp})
	end = r.receive(t, source, logged)
	return end, shut()
}

// sleep waits for d, and says whether ctx goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
