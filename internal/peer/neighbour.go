package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

// The times of dialing.
const (
	handshakeTime = 2 * time.Second        // for everything up to the greetings
	dialPauseMin  = 20 * time.Millisecond  // between attempts, more or less; it doubles
	dialPauseMax  = 500 * time.Millisecond // up to here
	urgentPause   = 2 * time.Millisecond   // between attempts that are to find out why a link broke
)

// neighbour is another node, and the link to it. One goroutine, run, owns it;
// only what is atomic or a channel is for others.
type neighbour struct {
	mesh    *Mesh
	name    string
	address netip.AddrPort

	proposals  chan proposal
	dialed     chan dialed
	reports    chan reported
	ended      chan end
	done       chan struct{} // closed when run takes nothing more
	handshakes chan struct{} // slots for connections that have not greeted yet
	session    atomic.Pointer[session]
	status     atomic.Pointer[Status]

	// Below: the property of run.
	sessions int // that have not ended yet
	dialing  bool
	redial   *time.Timer
	pause    time.Duration // after the next attempt that fails
	// broken is set while a link has ended and why is not known yet; verdict ends
	// that. With expected the other end has said that it will be back: that it
	// listens nowhere for a moment is no death.
	broken   bool
	expected bool
	why      error
	verdict  *time.Timer
}

// proposal is a connection of the other node that has greeted. The answer is why
// it is refused, or empty.
type proposal struct {
	session *session
	answer  chan<- string
}

// dialed is what became of an attempt to dial.
type dialed struct {
	session *session
	err     error
}

// reported is a report with the session it came by; heard is closed when it has
// been passed on.
type reported struct {
	session *session
	report  Report
	heard   chan<- struct{}
}

func newNeighbour(m *Mesh, name string, address netip.AddrPort) *neighbour {
	n := &neighbour{
		mesh: m, name: name, address: address,
		proposals:  make(chan proposal),
		dialed:     make(chan dialed),
		reports:    make(chan reported),
		ended:      make(chan end),
		done:       make(chan struct{}),
		handshakes: make(chan struct{}, maxHandshakes),
		redial:     time.NewTimer(0),
		verdict:    time.NewTimer(0),
		pause:      dialPauseMin,
	}
	n.verdict.Stop()
	n.status.Store(&Status{Node: name, Address: address.String(), State: Connecting, Since: time.Now(), Reason: "starting"})
	return n
}

// run owns the link until ctx ends. Then it says goodbye, and waits for all that
// it started.
func (n *neighbour) run(ctx context.Context) {
	defer n.redial.Stop()
	defer n.verdict.Stop()
	for {
		select {
		case p := <-n.proposals:
			p.answer <- n.consider(p.session)
		case d := <-n.dialed:
			n.dialing = false
			n.onDialed(d)
		case r := <-n.reports:
			n.onReport(r)
		case e := <-n.ended:
			n.sessions--
			n.onEnd(e)
		case <-n.redial.C:
			n.dial(ctx)
		case <-n.verdict.C:
			n.broken = false
			n.become(Lost, fmt.Sprintf("the link broke (%v) and does not come back", n.why))
		case <-ctx.Done():
			n.leave(ctx)
			return
		}
	}
}

// leave ends the link.
func (n *neighbour) leave(ctx context.Context) {
	close(n.done)
	last := bye{Final: errors.Is(context.Cause(ctx), ErrGoodbye), Reason: context.Cause(ctx).Error()}
	if s := n.session.Swap(nil); s != nil {
		s.leave(last)
	}
	for n.sessions > 0 || n.dialing {
		select {
		case <-n.ended:
			n.sessions--
		case d := <-n.dialed:
			n.dialing = false
			if d.session != nil {
				// The other end may have made it the link already.
				n.dismiss(d.session, last)
			}
		}
	}
}

// consider makes a session the link, or says why it does not.
func (n *neighbour) consider(s *session) (refused string) {
	old := n.session.Load()
	if old != nil && old.instance == s.instance && !n.prefers(s, old) {
		return "there is a link already"
	}
	if old != nil {
		old.leave(bye{Reason: "another connection has taken its place"})
	}
	n.broken = false
	n.verdict.Stop()
	n.redial.Stop()
	if was := n.status.Load(); was.State == Up && was.instance != s.instance {
		n.become(Died, "its process has given way to a new one")
	}
	n.session.Store(s)
	n.sessions++
	go func() { n.ended <- s.run() }()
	if n.status.Load().State != Up {
		n.become(Up, "connected")
	}
	n.remember(func(st *Status) { st.instance = s.instance })
	return ""
}

// prefers reports whether a session takes the place of an older one with the
// same process: both ends choose the connection that the node with the smaller
// name dialed, and of two of the same direction the newer, for the one who dialed
// it has given up the other.
func (n *neighbour) prefers(s, old *session) bool {
	return s.dialed == old.dialed || s.dialed == (n.mesh.cfg.Node < n.name)
}

// onReport passes on what the node says of itself.
func (n *neighbour) onReport(r reported) {
	defer close(r.heard)
	if r.session != n.session.Load() {
		return
	}
	n.remember(func(s *Status) { s.Report, s.Reported = r.report, time.Now() })
	n.mesh.handler.Reported(n.name, r.report)
}

// onEnd finds out what the end of the link means.
func (n *neighbour) onEnd(e end) {
	if e.session != n.session.Load() {
		return // another one had taken its place
	}
	n.session.Store(nil)
	n.pause = dialPauseMin
	switch {
	case e.bye != nil && e.bye.Final:
		n.become(Goodbye, "it has stopped: "+e.bye.Reason)
		n.redial.Reset(dialPauseMax)
	case e.silent:
		n.expected, n.why = false, errors.New("silence")
		n.become(Lost, fmt.Sprintf("silent for %s", time.Duration(e.session.wire.patience.Load())))
		n.redial.Reset(0)
	default:
		n.broken, n.expected, n.why = true, e.bye != nil, e.err
		if e.bye != nil {
			n.why = errors.New(e.bye.Reason)
		}
		n.verdict.Reset(lostMin)
		n.redial.Reset(0)
	}
}

// onDialed takes a new connection, or learns from why there is none.
func (n *neighbour) onDialed(d dialed) {
	if d.err == nil {
		if refused := n.consider(d.session); refused != "" {
			n.dismiss(d.session, bye{Reason: refused})
		}
		return
	}
	if n.session.Load() != nil {
		return
	}
	state := n.status.Load().State
	refused := errors.Is(d.err, syscall.ECONNREFUSED)
	if refused && !n.expected && (n.broken || state == Lost) {
		n.broken = false
		n.verdict.Stop()
		n.become(Died, fmt.Sprintf("the link broke (%v), and its host refuses connections: no process listens there any more", n.why))
	}
	switch {
	case n.broken:
		n.redial.Reset(urgentPause)
		return
	case state == Connecting:
		n.remember(func(s *Status) { s.Reason = d.err.Error() })
	}
	// Who cannot be reached is seen by the state.
	if op, ok := errors.AsType[*net.OpError](d.err); (!ok || op.Op != "dial") && !isTimeout(d.err) {
		n.mesh.complain("dial", n.name, "no peer link", d.err)
	}
	n.redial.Reset(n.pause/2 + rand.N(n.pause))
	n.pause = min(2*n.pause, dialPauseMax)
}

// dismiss ends a connection that does not become the link: what is not closed with
// a word looks like a death.
func (n *neighbour) dismiss(s *session, b bye) {
	s.leave(b)
	n.sessions++
	go func() { n.ended <- s.run() }()
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// become enters a state and tells.
func (n *neighbour) become(s State, reason string) {
	n.remember(func(st *Status) { st.State, st.Since, st.Reason = s, time.Now(), reason })
	n.mesh.log.Info().Str("peer", n.name).Stringer("state", s).Str("reason", reason).Msg("peer link")
	n.mesh.handler.LinkChanged(n.name, s, reason)
}

func (n *neighbour) remember(change func(*Status)) {
	s := *n.status.Load()
	change(&s)
	n.status.Store(&s)
}

// dial begins an attempt to connect, unless there is a link or one is under way.
func (n *neighbour) dial(ctx context.Context) {
	if n.dialing || n.session.Load() != nil {
		return
	}
	n.dialing = true
	limit := handshakeTime
	if n.broken {
		limit = lostMin
	}
	go func() {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		s, err := n.connect(ctx)
		n.dialed <- dialed{s, err}
	}()
}

// connect dials the node and greets it.
func (n *neighbour) connect(ctx context.Context) (*session, error) {
	// From the node's own address, by which the other one knows it: never from a
	// virtual one, which may go.
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(n.mesh.cfg.Address.Addr(), 0))}
	c, err := d.DialContext(ctx, "tcp", n.address.String())
	if err != nil {
		return nil, n.mesh.elsewhere(err)
	}
	w := &wire{Conn: c}
	conn := tls.Client(w, n.mesh.tls)
	// The other end may have made the connection the link before this end knows:
	// a greeting that has begun gets a moment to end, and a goodbye then.
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Now().Add(farewellTime)) })
	defer stop()
	h, err := n.greet(w, conn)
	if err != nil {
		c.Close()
		return nil, explain(err)
	}
	return newSession(n, w, conn, h, true), nil
}

// greet is the dialing end's greeting.
func (n *neighbour) greet(w *wire, conn *tls.Conn) (hello, error) {
	n.mesh.tune(w.Conn)
	if err := conn.Handshake(); err != nil {
		return hello{}, err
	}
	if err := send(conn, kindHello, n.mesh.hello(n.name)); err != nil {
		return hello{}, err
	}
	h, err := receiveHello(conn)
	if err != nil {
		return hello{}, err
	}
	if why := h.judge(n.mesh.cfg.Node, func(name string) bool { return name == n.name }); why != "" {
		return hello{}, errors.New(why)
	}
	return h, nil
}

// closeAfter closes c when ctx ends before the returned function is called.
func closeAfter(ctx context.Context, c net.Conn) (keep func() bool) {
	return context.AfterFunc(ctx, func() { c.Close() })
}
