package appliance

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/control"
	"appliance/internal/events"
	"appliance/internal/guard"
	"appliance/internal/link"
	"appliance/internal/peer"
	"appliance/vrrp"
)

const (
	// lingerPace is how often a node looks whether connections linger on it still.
	lingerPace = 50 * time.Millisecond
	// askTime is how long the other node gets to prepare, and to take note of an
	// end. A busy one takes a while to load programs for all routers of a group, and
	// no client waits meanwhile.
	askTime = 3 * time.Second
	// linkGrace is for how long a link may be down that is only set up anew, or lost
	// because one of the two nodes is busy.
	linkGrace = 2 * time.Second
	// lingerIdle is for how long kept connections of HTTP may be idle before they
	// are closed: one that is in use gets an answer before that which says so, and
	// no request meets the end of its connection.
	lingerIdle = 5 * time.Second
)

// Why a stay ends that ends without harm.
var (
	errBack = errors.New("the addresses are back on this node")
	errKept = errors.New("the addresses have not gone")
	errNone = errors.New("no connection is left")
)

// lingering lets the connections to a router's addresses go on, on this node,
// after the addresses have gone to another one in peace: that one passes their
// packets on to this one (see passing), where the addresses are parked.
//
// A stay is prepared while the addresses are here, begins when they go, and ends
// when no connection is left, its time is up, the other node is gone, or the
// addresses are back. The first three reset what is left.
//
// Its methods are safe for concurrent use.
type lingering struct {
	parts  *Appliance
	member *member
	log    zerolog.Logger

	mu   sync.Mutex
	stay *stay // nil: nothing lingers, and nothing is prepared
	// latest is the one that runs, or did: it may be on its way to its end.
	latest *stay
}

// stay is one time in which connections linger.
type stay struct {
	id        string
	heir      string // the node that has the addresses
	addresses []netip.Addr
	until     time.Time
	parked    *link.Parked // of the goroutine of run, once that runs
	// stranded are the services whose flows the kernel path of the heir does not go on
	// with; they stay here, too.
	stranded []string

	ctx    context.Context
	end    context.CancelCauseFunc
	leaves sync.Once
	left   chan struct{} // closed when the addresses have left
	over   chan struct{} // closed when all is undone
	count  atomic.Int64  // of the connections
}

// passCall asks a node to pass on what comes for connections that linger on the
// caller.
type passCall struct {
	// ID is another one for each stay.
	ID        string   `json:"id"`
	VRRP      string   `json:"vrrp"`
	Addresses []string `json:"addresses"`
	// MAC is the caller's hardware address on the LAN.
	MAC string `json:"mac"`
	// Milliseconds is how long the stay lasts at most.
	Milliseconds int64 `json:"milliseconds"`
}

// passReply says that what a passCall asks for is done.
type passReply struct {
	// MAC is the hardware address of the other node on the LAN.
	MAC string `json:"mac"`
	// Kernel are the addresses at which its kernel path takes connections, and has
	// those of the caller's.
	Kernel []netip.AddrPort `json:"kernel,omitempty"`
}

// passedCall ends a passing.
type passedCall struct {
	ID string `json:"id"`
	// Back: the addresses are at the caller. Clients learn that in their own time, so
	// the passing goes on for a moment.
	Back bool `json:"back,omitempty"`
}

// prepare makes ready for a stay until a time, with heir as the node that is about
// to have the addresses. After an error there is none.
func (l *lingering) prepare(ctx context.Context, heir string, vips []netip.Addr, until time.Time) error {
	l.finish(errKept)
	s := &stay{id: rand.Text(), heir: heir, addresses: steerable(vips), until: until, left: make(chan struct{}), over: make(chan struct{})}
	if len(s.addresses) == 0 {
		return errors.New("link-local addresses alone have no connections that could go on")
	}
	iface := l.member.config.Interface
	_, mac, err := link.Ethernet(iface)
	if err != nil {
		return err
	}
	if s.parked, err = link.NewParked(iface, vrrp.Lease, l.parts.record); err != nil {
		return err
	}
	l.tellGuard(s.addresses)
	if _, err = s.parked.Park(s.addresses); err == nil {
		call := passCall{ID: s.id, VRRP: l.member.config.Name, Addresses: texts(s.addresses), MAC: mac.String(), Milliseconds: time.Until(until).Milliseconds()}
		asking, cancel := context.WithTimeout(ctx, askTime)
		var reply passReply
		err = l.parts.peers.call(asking, heir, verbPass, call, &reply)
		cancel()
		if err == nil { // their lease may have ended meanwhile
			_, err = s.parked.Park(s.addresses)
		}
		if err == nil {
			l.passBack(heir, call, reply.MAC)
			s.stranded = l.parts.kernel.stranded(s.addresses, reply.Kernel)
		}
	}
	if err != nil {
		l.unpark(s)
		l.tellHeir(s, false) // its yes may have come too late
		return err
	}
	s.count.Store(int64(l.underWay(s)))
	s.ctx, s.end = context.WithCancelCause(context.Background())
	l.mu.Lock()
	l.stay, l.latest = s, s
	l.mu.Unlock()
	go l.run(s)
	return nil
}

// passBack has this node pass on to heir what comes here and belongs to connections
// there. For a moment after the switch, what a neighbour or a switch has learnt last
// may have been said here. A node that cannot do so goes without.
func (l *lingering) passBack(heir string, c passCall, mac string) {
	c.MAC = mac
	if _, err := l.member.passing.begin(heir, false, c); err != nil {
		l.log.Warn().Err(err).Msg("packets that come here for connections of the other node cannot be passed on; some may be reset by the switch")
	}
}

// steerable returns those of addresses that connections can be passed on by.
func steerable(addresses []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(addresses), netip.Addr.IsLinkLocalUnicast)
}

// current returns the stay that is prepared or has begun, nil if there is none.
func (l *lingering) current() *stay {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stay
}

// begins says whether connections to addresses, which are about to leave this
// node, are to go on.
func (l *lingering) begins(addresses []netip.Prefix) bool {
	s := l.current()
	if s == nil || s.begun() {
		return false
	}
	for _, a := range s.addresses {
		if !slices.Contains(vipsOf(addresses), a) {
			return false
		}
	}
	return true
}

// begin says that the addresses have left, and returns whether connections to them
// go on.
func (l *lingering) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stay == nil {
		return false
	}
	l.stay.leaves.Do(func() {
		l.member.passing.gone()
		close(l.stay.left)
	})
	return true
}

// connections returns how many there were when it was looked last.
func (l *lingering) connections() int {
	if s := l.current(); s != nil {
		return int(s.count.Load())
	}
	return 0
}

func (s *stay) begun() bool {
	select {
	case <-s.left:
		return true
	default:
		return false
	}
}

// back says that the addresses are on this node again.
func (l *lingering) back() {
	if s := l.current(); s != nil && s.begun() {
		l.finish(errBack)
	}
}

// keep ends a stay that was prepared if the addresses have not left.
func (l *lingering) keep() {
	if s := l.current(); s != nil && !s.begun() {
		l.finish(errKept)
	}
}

// finish ends the stay, if there is one, and returns when all is undone.
func (l *lingering) finish(why error) {
	l.mu.Lock()
	s := l.latest
	l.mu.Unlock()
	if s != nil {
		s.end(why)
		<-s.over
	}
}

// wait returns when no connection lingers any more, or ctx ends.
func (l *lingering) wait(ctx context.Context) {
	if s := l.current(); s != nil && s.begun() {
		select {
		case <-s.over:
		case <-ctx.Done():
		}
	}
}

// run is the life of a stay.
func (l *lingering) run(s *stay) {
	defer close(s.over)
	why := l.watch(s)
	l.mu.Lock()
	l.stay = nil // from here on it does not begin
	l.mu.Unlock()
	begun := s.begun()
	if begun {
		l.parts.l7.Quiesce(s.addresses, false)
	}
	// Without a beginning this node has the addresses, whatever the reason.
	cut, back := 0, errors.Is(why, errBack) || !begun
	if back {
		l.unpark(s)
	} else {
		cut = l.cut(s)
	}
	l.member.passing.end(passedCall{ID: s.id})
	l.tellHeir(s, back)
	if begun {
		l.tell(fmt.Sprintf("connections no longer go on on this node: %s; %d were reset", why, cut), "reset", strconv.Itoa(cut))
	}
}

// tellHeir tells the other node that nothing of s lingers here. If it cannot be
// told, it finds out by the link or by the clock.
func (l *lingering) tellHeir(s *stay, back bool) {
	l.parts.peers.asides.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), askTime)
		defer cancel()
		_ = l.parts.peers.call(ctx, s.heir, verbPassed, passedCall{ID: s.id, Back: back}, nil)
	})
}

// watch returns why s ends.
func (l *lingering) watch(s *stay) error {
	ticker := time.NewTicker(lingerPace)
	defer ticker.Stop()
	var calm lull
	renewed, up := time.Now(), time.Now()
	left := s.left
	var quiet time.Time // when idle connections are closed; zero before and after
	for {
		select {
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		case <-left:
			left = nil
			calm.since = time.Now()
			l.parts.l7.Dismiss(s.addresses)
			quiet = time.Now().Add(min(lingerIdle, time.Until(s.until)/2))
			l.tell(fmt.Sprintf("connections go on on this node until they end, for %s at most; %s passes their packets on",
				brief(time.Until(s.until)), s.heir), "node", s.heir)
		case now := <-ticker.C:
			if now.Sub(renewed) >= vrrp.RenewInterval {
				renewed = now
				switch added, err := s.parked.Park(s.addresses); {
				case err != nil:
					return err
				case added:
					return errors.New("this process was held up for longer than addresses are leased")
				}
			}
			if left != nil {
				continue
			}
			if !quiet.IsZero() && now.After(quiet) {
				quiet = time.Time{}
				l.parts.l7.Quiesce(s.addresses, true)
			}
			n := l.underWay(s)
			s.count.Store(int64(n))
			if state, _ := l.parts.peers.linkTo(s.heir); state == peer.Up {
				up = now
			}
			switch {
			case calm.lasts(now, n) >= holdLinger:
				return errNone
			case !now.Before(s.until):
				return errors.New("the time to drain is over")
			case now.Sub(up) >= linkGrace:
				return fmt.Errorf("the peer link to %s is gone", s.heir)
			}
		}
	}
}

// underWay returns how many connections s is for.
func (l *lingering) underWay(s *stay) int {
	return l.parts.connections(s.addresses) + l.parts.kernel.flowsOf(s.stranded)
}

// brief shortens a duration for people.
func brief(d time.Duration) time.Duration {
	if d < 10*time.Second {
		return max(0, d.Round(100*time.Millisecond))
	}
	return d.Round(time.Second)
}

// connections returns how many connections this node has by addresses: of the
// whole machine, if the kernel tells.
func (a *Appliance) connections(addresses []netip.Addr) int {
	n, err := link.Connections(addresses)
	if err != nil {
		return a.l4.Active(addresses) + a.l7.Active(addresses)
	}
	return n
}

// cut resets what lingers still, and undoes what s has changed.
func (l *lingering) cut(s *stay) int {
	a := everyone{l.parts.listeners, l.parts.l4}
	release, err := a.Hold(s.addresses)
	if err != nil {
		l.log.Warn().Err(err).Msg("new connections could not be held off while addresses go; some may be left without an end")
	}
	n := a.Cut(s.addresses)
	l.unpark(s)
	n += a.Cut(s.addresses)
	if len(s.stranded) > 0 {
		n += l.parts.kernel.cut(func(f control.Session) bool { return slices.Contains(s.stranded, f.Service) })
	}
	if err := release(); err != nil {
		l.log.Error().Err(err).Msg("listeners stay silent; restart the appliance")
	}
	return n
}

// unpark takes the addresses off this node.
func (l *lingering) unpark(s *stay) {
	if err := s.parked.Close(); err != nil {
		l.log.Error().Err(err).Msg("addresses that have moved could not be taken off this node")
	}
	l.tellGuard(nil)
}

// tellGuard tells the guard which addresses are parked.
func (l *lingering) tellGuard(addresses []netip.Addr) {
	h := guard.Holding{Interface: l.member.config.Interface, Undo: l.parts.record.Path()}
	for _, a := range addresses {
		h.Addresses = append(h.Addresses, netip.PrefixFrom(a, a.BitLen()))
	}
	l.parts.guard.Hold(l.member.config.Name+", parked", h)
}

// describe describes the connections that linger here, nil if none does.
func (l *lingering) describe() *control.Lingering {
	s := l.current()
	if s == nil || !s.begun() {
		return nil
	}
	return &control.Lingering{Node: s.heir, Connections: int(s.count.Load()), SecondsLeft: secondsTo(s.until)}
}

// secondsTo returns how long it is to a time, 0 if that is over.
func secondsTo(t time.Time) float64 { return max(0, time.Until(t).Seconds()) }

// tell notes what becomes of the connections.
func (l *lingering) tell(text string, details ...string) {
	l.log.Info().Msg(text)
	l.parts.history.Add(events.Lingering, "vrrp "+l.member.config.Name, text, details...)
}
