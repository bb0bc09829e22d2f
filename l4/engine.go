package l4

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/listen"
)

// errCut is the end of a connection that outlived its engine.
var errCut = errors.New("cut by shutdown")

// errCommand is the end of one that an administrator cut.
var errCommand = errors.New("cut by command")

// Engine forwards the connections of all l4 services. All methods may be called
// from any goroutine; whoever made the Engine calls Shutdown.
type Engine struct {
	log   zerolog.Logger
	fault func(netip.AddrPort, error) // of the sockets for datagrams
	doors atomic.Pointer[[]*door]     // the committed ones, in the order of the file

	began time.Time
	loops []*loop       // made by the first Stage
	ids   atomic.Uint64 // of sessions
	turn  atomic.Uint32 // whose turn it is to take a connection
	over  atomic.Bool   // no connection is to go on; set before the last cut

	mu      sync.Mutex                  // guards what follows
	carried map[netip.Addr]int          // how many connections are under way at each local address that has any
	closing bool                        // no more connections
	ports   map[netip.AddrPort]*udpPort // of the committed services
	empty   chan struct{}               // closed once closing and nothing is carried
}

// New returns an engine without services. Nothing runs before the first Stage.
// fault is told when clients of a UDP address can no longer be served, and with a
// nil error when they can again or the address is given up; it is called from the
// engine's goroutines and must not wait for the Engine. A nil fault is allowed.
// Of TCP, internal/listen tells.
func New(log zerolog.Logger, fault func(addr netip.AddrPort, err error)) *Engine {
	if fault == nil {
		fault = func(netip.AddrPort, error) {}
	}
	e := &Engine{
		log:     log,
		fault:   fault,
		began:   time.Now(),
		carried: make(map[netip.Addr]int),
		empty:   make(chan struct{}),
	}
	e.doors.Store(&[]*door{})
	return e
}

// start starts the loops, as many as Go may use processors, if they do not run
// yet.
func (e *Engine) start() error {
	for len(e.loops) < runtime.GOMAXPROCS(0) {
		l, err := newLoop()
		if err != nil {
			return err
		}
		e.loops = append(e.loops, l)
	}
	return nil
}

// nextLoop returns the loop that is to have the next connection.
func (e *Engine) nextLoop() *loop { return e.loops[e.turn.Add(1)%uint32(len(e.loops))] }

func (e *Engine) stopLoops() {
	for _, l := range e.loops {
		l.stop()
	}
}

// enter counts a connection to local. It is false if the engine is shutting
// down.
func (e *Engine) enter(local netip.Addr) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return false
	}
	e.carried[local]++
	return true
}

// leave is the last thing done for a connection to local that entered.
func (e *Engine) leave(local netip.Addr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.carried[local]--
	if e.carried[local] == 0 {
		delete(e.carried, local)
	}
	if e.closing && len(e.carried) == 0 {
		close(e.empty)
	}
}

// Active returns the number of connections being carried now whose local
// address is one of vips; with nil, all. A connection counts from before the
// connect to its server until its client has all that was sent to it, see
// Timeouts.HalfClose.
func (e *Engine) Active(vips []netip.Addr) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	sum := 0
	for local, n := range e.carried {
		if listen.Matches(vips, local) {
			sum += n
		}
	}
	return sum
}

// ActiveSince is Active for the connections alone that began at since or after.
func (e *Engine) ActiveSince(vips []netip.Addr, since time.Time) int {
	if e.Active(vips) == 0 {
		return 0
	}
	n := 0
	for _, l := range e.loops {
		l.call(func() {
			from := since.Sub(l.epoch)
			for s := l.first; s != nil; s = s.next {
				if s.began >= from && listen.Matches(vips, s.local.Addr()) {
					n++
				}
			}
		})
	}
	return n
}

// swapPorts makes ports the open ones, and returns those that were.
func (e *Engine) swapPorts(ports map[netip.AddrPort]*udpPort) map[netip.AddrPort]*udpPort {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.ports
	e.ports = ports
	return before
}

// Cut resets the connections under way whose local address is one of vips, and
// returns how many those are.
func (e *Engine) Cut(vips []netip.Addr) int {
	e.cutDatagrams(func(s *udpSession) bool { return listen.Matches(vips, s.key.local) })
	return e.cut(errors.New("its address goes"), func(s *session) bool { return listen.Matches(vips, s.local.Addr()) })
}

// cut aborts the sessions that are meant and returns how many there were.
func (e *Engine) cut(why error, meant func(*session) bool) int {
	n := 0
	for _, l := range e.loops {
		l.call(func() { n += l.cut(why, meant) })
	}
	return n
}

// cut does the same for a loop, on its goroutine.
func (l *loop) cut(why error, meant func(*session) bool) (n int) {
	l.each(func(s *session) {
		if meant(s) {
			n++
			s.abort(why)
		}
	})
	return n
}

// each calls f for each session, which it may end.
func (l *loop) each(f func(*session)) {
	var next *session
	for s := l.first; s != nil; s = next {
		next = s.next
		f(s)
	}
}

// Shutdown waits until all connections have ended; those that have not when ctx
// ends are reset, and the error says how many. When it returns, the engine's
// goroutines have ended. Connections that arrive from now on are reset: close
// the listeners first.
func (e *Engine) Shutdown(ctx context.Context) error {
	e.close()
	defer e.stopLoops()
	for _, p := range e.swapPorts(nil) {
		p.close()
	}
	select {
	case <-e.empty:
		return nil
	case <-ctx.Done():
	}
	// One that has entered and is on its way to its loop finds out by itself.
	e.over.Store(true)
	n := e.cut(errCut, func(*session) bool { return true })
	<-e.empty
	if n == 0 {
		return nil // the last one was just faster
	}
	return fmt.Errorf("l4: %d connections cut: %w", n, context.Cause(ctx))
}

func (e *Engine) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return
	}
	e.closing = true
	if len(e.carried) == 0 {
		close(e.empty)
	}
}

// ServiceStats describes a service at one moment.
type ServiceStats struct {
	Name   string
	Listen []netip.AddrPort
	UDP    bool // it carries datagrams; else TCP
	Pools  []string
	// Current is the number of connections now, Total of all ever accepted,
	// including Refused: those that no server has had.
	Current int64
	Total   int64
	Refused int64
	// Of those refused, Limited were more than a limit of the service allows,
	// and Malformed began with no valid PROXY header though one was due.
	Limited   int64
	Malformed int64
	// Rate is how many were accepted in the last second.
	Rate int64
	// Broken is how many ended in a reset, by one of their sides or by command or
	// because their server is down or their address goes; TimedOut how many
	// because nothing moved any more.
	Broken   int64
	TimedOut int64
	// Lost counts datagrams that were taken and could not be sent on: longer than
	// the way to the other side allows, or faster than it takes them.
	Lost int64
	// BytesToServer and BytesToClient are payload, without headers of TCP.
	BytesToServer int64
	BytesToClient int64
}

// Stats describes all committed services, in the order of the file.
func (e *Engine) Stats() []ServiceStats {
	doors := *e.doors.Load()
	stats := make([]ServiceStats, 0, len(doors))
	for _, d := range doors {
		stats = append(stats, d.stats())
	}
	return stats
}
