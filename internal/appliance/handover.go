package appliance

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/control"
	"appliance/internal/listen"
	"appliance/l4"
	"appliance/vrrp"
)

// The pace at which Hold looks whether connections have ended, and for how long
// there must have been none: a handshake under way is none yet, and needs the
// client's round trip to become one, and an answer that was written may not have
// left the host yet when the request that it is for has ended.
const (
	holdPace   = 5 * time.Millisecond
	holdLinger = 200 * time.Millisecond
	// holdMost is for how long new connections are held off at most. A drain that
	// is longer lets them in until then.
	holdMost = time.Second
)

// traffic lets the connections to a router's addresses end before the
// addresses go, so that a planned hand-over breaks none that is short. New
// clients are left unanswered meanwhile: they repeat their SYN after a second
// and reach the new node, instead of being refused by one or reset by the
// other.
type traffic struct {
	parts     *Appliance
	vips      func() []netip.Addr
	lingering *lingering
	log       zerolog.Logger
	held      []netip.Addr

	release func() error // ends the hold of the listeners; nil without one

	// drained is what became of the connections of the latest Hold.
	drained atomic.Pointer[drained]
}

// drained is what became of connections before the addresses moved.
type drained struct {
	moved []control.MovedService // those that were waited for
	// lingering are those that go on. Where that is nil, alone says why none do.
	lingering *control.Lingering
	alone     string
}

// Hold prepares that connections go on on this node after the addresses have
// moved, and returns at once. Where that cannot be, it lets them end.
func (t *traffic) Hold(ctx context.Context, d vrrp.Drain) {
	t.held, t.release = t.vips(), nil
	t.drained.Store(nil)
	alone := d.Alone
	if d.Heir != "" {
		err := t.lingering.prepare(ctx, d.Heir, t.held, d.Deadline)
		if err == nil {
			t.drained.Store(&drained{lingering: &control.Lingering{
				Node: t.parts.current.Load().node.Name, Connections: t.lingering.connections(), SecondsLeft: secondsTo(d.Deadline),
			}})
			return
		}
		alone = err.Error()
	}
	t.log.Info().Str("why", alone).Msg("connections cannot go on on this node after the addresses have moved: they get time to end")
	moved := t.drain(ctx, d.All)
	t.drained.Store(&drained{moved: moved, alone: alone})
}

// drain returns when the connections have ended that are under way, or ctx does,
// and what became of them. Unless all are meant, it does not wait for those that have been under way for
// longer than ctx has left: see vrrp.Drain. For the last part of the time, and for
// holdMost at most, it holds new ones off, until none has been under way for
// holdLinger.
func (t *traffic) drain(ctx context.Context, all bool) (moved []control.MovedService) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.parts.patience, cancel)()
	begun := time.Now()
	var since time.Time // of the connections that are waited for; zero means all
	deadline, bounded := ctx.Deadline()
	if bounded && !all {
		since = begun.Add(-time.Until(deadline))
	}
	before := t.parts.count(t.held)
	if bounded && time.Until(deadline) > holdMost {
		t.outlast(ctx, since, begun, deadline.Add(-holdMost))
		since = begun
	}
	var err error
	if t.release, err = t.parts.listeners.Hold(t.held); err != nil {
		t.log.Warn().Err(err).Msg("new connections could not be held off; some may be reset by the hand-over")
	}
	t.parts.l7.Quiesce(t.held, true)
	calm := lull{since: time.Now()}
	waitFor(ctx, holdPace, func() bool { return calm.lasts(time.Now(), t.underWay(since)) >= holdLinger })
	if n := t.underWay(time.Time{}); n > 0 {
		t.log.Warn().Int("connections", n).Msg("the drain is over before the connections are")
	}
	return t.parts.count(t.held).since(before)
}

// outlast returns when the connections are over that began between since and
// begun, or at the time until. New ones come in meanwhile.
func (t *traffic) outlast(ctx context.Context, since, begun, until time.Time) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	// The two counts are not of the same moment: one glance is not enough, however
	// long ago the one before it was.
	glances := 0
	waitFor(ctx, holdPace, func() bool {
		later := t.underWay(begun)
		if glances++; t.underWay(since) > later {
			glances = 0
		}
		return glances > 4
	})
}

// Resume lets new connections in again.
func (t *traffic) Resume() {
	t.lingering.keep()
	if t.release == nil {
		return
	}
	if err := t.release(); err != nil {
		t.log.Error().Err(err).Msg("listeners stay silent; restart the appliance")
	}
	t.parts.l7.Quiesce(t.held, false)
}

// underWay returns how many connections and requests are under way that began at
// since or after; with a zero since, all.
func (t *traffic) underWay(since time.Time) int {
	if since.IsZero() {
		return t.parts.l4.Active(t.held) + t.parts.l7.Active(t.held)
	}
	return t.parts.l4.ActiveSince(t.held, since) + t.parts.l7.ActiveSince(t.held, since)
}

// lull is the time during which nothing was under way.
type lull struct{ since time.Time }

// lasts returns for how long it has lasted at now; it begins anew if something
// is under way.
func (l *lull) lasts(now time.Time, underWay int) time.Duration {
	if underWay > 0 {
		l.since = now
	}
	return now.Sub(l.since)
}

// clients are the connections to addresses of this node.
type clients interface {
	Hold(vips []netip.Addr) (release func() error, err error)
	Cut(vips []netip.Addr) int
}

// everyone are the clients of all engines: l4 keeps its connections itself.
type everyone struct {
	*listen.Set
	l4 *l4.Engine
}

func (e everyone) Cut(vips []netip.Addr) int { return e.Set.Cut(vips) + e.l4.Cut(vips) }

// severing is a router's addresses together with the connections made to them,
// which end before the address goes: afterwards no packet could tell a client,
// and one that only waits for an answer would wait for hours.
type severing struct {
	vrrp.Addresses
	clients clients
	stays   stays
	log     zerolog.Logger
}

// stays are the connections that may go on without their addresses.
type stays interface {
	begins(addresses []netip.Prefix) bool
	begin() bool
	back()
}

// Acquire acquires addresses. Connections that have lingered are as all others
// then.
func (s severing) Acquire(addresses []netip.Prefix) ([]netip.Prefix, error) {
	added, err := s.Addresses.Acquire(addresses)
	if err == nil && len(addresses) > 0 {
		s.stays.back()
	}
	return added, err
}

// Release takes addresses off, and resets the connections to them unless they are
// to go on. Nobody can connect meanwhile; a connection that was just being accepted is reset after,
// so that at least this side of it ends.
func (s severing) Release(addresses []netip.Prefix) error {
	if len(addresses) == 0 {
		return s.Addresses.Release(addresses)
	}
	if s.stays.begins(addresses) {
		err := s.Addresses.Release(addresses)
		if !s.stays.begin() {
			s.clients.Cut(vipsOf(addresses)) // it is over already; this side of them ends at least
		}
		return err
	}
	vips := vipsOf(addresses)
	release, err := s.clients.Hold(vips)
	if err != nil {
		s.log.Warn().Err(err).Msg("new connections could not be held off while addresses go; some may be left without an end")
	}
	n := s.clients.Cut(vips)
	releaseErr := s.Addresses.Release(addresses)
	if n += s.clients.Cut(vips); n > 0 {
		s.log.Warn().Int("connections", n).Stringers("addresses", stringers(addresses)).
			Msg("cut the connections to addresses that go from this node")
	}
	if err := release(); err != nil {
		s.log.Error().Err(err).Msg("listeners stay silent; restart the appliance")
	}
	return releaseErr
}

// waitFor waits for pace and asks, until the answer is yes or ctx ends.
func waitFor(ctx context.Context, pace time.Duration, done func() bool) bool {
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return done()
		case <-ticker.C:
			if done() {
				return true
			}
		}
	}
}
