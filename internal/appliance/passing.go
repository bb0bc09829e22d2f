package appliance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/config"
	"appliance/internal/control"
	"appliance/internal/ingress"
	"appliance/internal/link"
	"appliance/internal/peer"
	"appliance/internal/steer"
)

// passBack is for how long packets are passed on to a node that has the addresses
// again: until it has announced them for the second time, which is after a second,
// for the sake of those who missed the first.
const passBack = 2 * time.Second

// passing passes on to another node what comes to a router's addresses and belongs
// to connections that linger there. It begins before the addresses come here, and
// ends when the other node says so, its time is up, or that node is gone: then the
// kernel answers with a reset, and no client waits in vain.
//
// Its methods are safe for concurrent use.
type passing struct {
	parts  *Appliance
	member *member
	log    zerolog.Logger

	mu  sync.Mutex
	now *passage // nil: nothing is passed on
	// running is now, for those who do not wait for mu.
	running atomic.Pointer[passage]
}

// errNext is why a passage ends that another one follows.
var errNext = errors.New("the next one begins")

// tryPassing says at the start what would keep this node from passing packets on, not
// only in the middle of a planned switch.
func (a *Appliance) tryPassing(node *config.Node) {
	if node.Peer == nil {
		return
	}
	if err := steer.Supported(); err != nil {
		a.log.Warn().Err(err).Msg("in a planned switch to this node connections cannot go on on the other one: they get time to end")
	}
}

// passage is one time of passing on.
type passage struct {
	id      string
	node    string // to whom
	until   atomic.Pointer[time.Time]
	program *steer.Program
	comes   bool // the addresses come here from node
	end     context.CancelCauseFunc
	over    chan struct{} // closed when the program is gone
}

// begin passes packets on to node from now on, from which the addresses are to come
// here, or to which they go; it returns this node's hardware address.
func (p *passing) begin(node string, comes bool, c passCall) (passReply, error) {
	mac, err := net.ParseMAC(c.MAC)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
		return passReply{}, fmt.Errorf("%q is no hardware address of a station", c.MAC)
	}
	most := time.Duration(c.Milliseconds) * time.Millisecond
	if most <= 0 || most > maxDrain {
		return passReply{}, fmt.Errorf("%s is no time to drain", most)
	}
	options := steer.Options{Peer: mac}
	for _, a := range steerable(*p.member.vips.Load()) {
		if slices.Contains(c.Addresses, a.String()) {
			options.Addresses = append(options.Addresses, a)
		}
	}
	if len(options.Addresses) == 0 {
		return passReply{}, errors.New("this node has none of the addresses")
	}
	// Those of its group go with them, and whoever is on this LAN may have this node
	// as the way to them.
	for _, m := range p.parts.mates(p.member) {
		options.Addresses = append(options.Addresses, steerable(*m.vips.Load())...)
	}
	if options.Interface, options.Own, err = link.Ethernet(p.member.config.Interface); err != nil {
		return passReply{}, err
	}
	if options.At = virtualMAC(p.member.config); options.At == nil {
		options.At = options.Own
	}
	options.Way = wayOf(p.parts.current.Load().node)

	p.mu.Lock()
	defer p.mu.Unlock()
	// The one before goes once there is the next: in between nothing gets lost.
	program, err := steer.Attach(options)
	if err != nil {
		return passReply{}, err
	}
	p.finish(errNext)
	p.tellGuard(program)
	ctx, end := context.WithCancelCause(context.Background())
	p.now = &passage{id: c.ID, node: node, program: program, comes: comes, end: end, over: make(chan struct{})}
	p.running.Store(p.now)
	p.now.within(most)
	go p.run(ctx, p.now)
	return passReply{MAC: options.Own.String(), Kernel: p.parts.kernel.withoutSockets()}, nil
}

// tellGuard has the guard know what the program leaves if this process dies. The one
// before is gone.
func (p *passing) tellGuard(program *steer.Program) {
	var filters []ingress.Filter
	if program != nil {
		if f, ok := program.Filter(); ok {
			filters = append(filters, f)
		}
	}
	p.parts.guard.Filters(p.member.config.Name+", passing on", filters)
}

// finish ends the passing, if there is one, and returns when it is over. The
// caller holds mu.
func (p *passing) finish(why error) {
	if p.now != nil {
		p.now.end(why)
		<-p.now.over
		p.now = nil
	}
}

// end ends the passage that a call is about; an older one has ended already.
func (p *passing) end(c passedCall) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.now == nil || p.now.id != c.ID:
	case c.Back:
		p.now.within(passBack)
	default:
		p.finish(errors.New("no connection lingers there any more"))
	}
}

// forget ends the passing on of what comes to addresses of another router of the
// group.
func (p *passing) forget(addresses []netip.Addr) {
	if now := p.running.Load(); now != nil {
		_ = now.program.Forget(addresses) // if it cannot, it is closed
	}
}

// gone says that the addresses have gone from here, and requests for connections that
// come still are the other node's.
func (p *passing) gone() {
	if now := p.running.Load(); now != nil && !now.comes {
		if err := now.program.Gone(); err != nil {
			p.log.Warn().Err(err).Msg("new clients that are late to learn where the addresses are may be served by this node still")
		}
	}
}

// peaceful says whether another node, which lives, is giving the addresses to this
// one, and gets what is not known here.
func (p *passing) peaceful() bool {
	now := p.running.Load()
	return now != nil && now.comes
}

// mates returns the other routers of m's group.
func (a *Appliance) mates(m *member) []*member {
	return slices.DeleteFunc(slices.Clone(a.current.Load().routers), func(x *member) bool {
		return m.config.Group == "" || x.config.Group != m.config.Group || x.config.Name == m.config.Name
	})
}

// within has a passage end after d.
func (p *passage) within(d time.Duration) {
	until := time.Now().Add(d)
	p.until.Store(&until)
}

// stop ends the passing with the router.
func (p *passing) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finish(errors.New("this router stops"))
}

// current returns what is passed on to whom, nil if nothing is.
func (p *passing) current() *passage {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now != nil {
		select {
		case <-p.now.over:
			p.now = nil
		default:
		}
	}
	return p.now
}

// describe describes the connections whose packets are passed on, nil if none are.
func (p *passing) describe() *control.Lingering {
	now := p.current()
	if now == nil {
		return nil
	}
	d := &control.Lingering{Node: now.node, SecondsLeft: secondsTo(*now.until.Load())}
	for _, s := range p.parts.peers.statuses() {
		if r := counterpart(p.member, s.Report.Routers); s.Node == now.node && r != nil {
			d.Connections = r.Lingering
		}
	}
	return d
}

// run is the life of a passage.
func (p *passing) run(ctx context.Context, now *passage) {
	defer close(now.over)
	why := p.watch(ctx, now)
	p.running.CompareAndSwap(now, nil)
	if !errors.Is(why, errNext) {
		for _, m := range p.parts.mates(p.member) {
			m.passing.forget(steerable(*p.member.vips.Load()))
		}
		if now.comes {
			p.parts.kernel.alone(p.member)
		}
	}
	packets := now.program.Handed()
	if err := now.program.Close(); err != nil {
		p.log.Error().Err(err).Msg("packets may be passed on that should not be; restart the appliance")
	}
	p.log.Info().Str("peer", now.node).Uint64("packets", packets).AnErr("why", why).Msg("no longer passing packets on")
}

// watch returns why a passage ends.
func (p *passing) watch(ctx context.Context, now *passage) error {
	ticker := time.NewTicker(lingerPace)
	defer ticker.Stop()
	up := time.Now()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case at := <-ticker.C:
			state, reason := p.parts.peers.linkTo(now.node)
			if state == peer.Up {
				up = at
			}
			switch {
			case state == peer.Died, state == peer.Goodbye, at.Sub(up) >= linkGrace:
				return fmt.Errorf("the peer link: %s: %s", state, reason)
			case at.Sub(*now.until.Load()) >= askTime: // a moment after the other node's clock
				return errors.New("its time is up")
			}
		}
	}
}

// linkTo returns how the link to a node stands.
func (l *peerLink) linkTo(node string) (peer.State, string) {
	for _, s := range l.statuses() {
		if s.Node == node {
			return s.State, s.Reason
		}
	}
	return peer.Connecting, "there is no such node"
}
