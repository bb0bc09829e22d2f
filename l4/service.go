package l4

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/listen"
	"appliance/internal/pool"
)

// service is what lives on over reloads under one name: the counters.
type service struct {
	name          string
	current       atomic.Int64
	total         atomic.Int64
	refused       atomic.Int64
	bytesToServer atomic.Int64
	bytesToClient atomic.Int64
}

// door is a service as one configuration has it. It is never changed: a reload
// puts new doors in front of the services.
type door struct {
	engine   *Engine
	service  *service
	listen   []netip.AddrPort
	pool     *pool.Pool
	timeouts timeouts
	connect  func(netip.AddrPort) (fd int, err error)

	log zerolog.Logger
	// What goes wrong for one connection goes wrong for thousands: of each kind
	// of failure a few are warnings, the others go to the debug log.
	failures, refusals *limiter
}

// timeouts are those of Timeouts with their defaults applied.
type timeouts struct{ connect, idle, halfClose time.Duration }

var (
	_ listen.Handler = (*door)(nil)
	_ listen.Taker   = (*door)(nil)
)

func newDoor(e *Engine, s *service, cfg Config, p *pool.Pool) *door {
	return &door{
		engine:  e,
		service: s,
		listen:  cfg.Listen,
		pool:    p,
		timeouts: timeouts{
			connect:   cfg.Timeouts.EffectiveConnect(),
			idle:      cfg.Timeouts.EffectiveIdle(),
			halfClose: cfg.Timeouts.EffectiveHalfClose(),
		},
		connect:  connect,
		log:      e.log.With().Str("service", s.name).Logger(),
		failures: newLimiter(warnEvery),
		refusals: newLimiter(warnEvery),
	}
}

// Take forwards the connection of the descriptor fd, which it owns from now on.
// A client for which there is no server is reset.
func (d *door) Take(fd int, local, peer netip.AddrPort) {
	d.service.total.Add(1)
	if !d.engine.enter(local.Addr()) {
		d.refused(peer, errors.New("the engine is shutting down"))
		reset(fd)
		return
	}
	d.service.current.Add(1)
	l := d.engine.nextLoop()
	s := newSession(l, d, fd, local, peer)
	l.post(s.start)
}

// ServeConn does what Take does with a connection that was accepted for another
// handler.
func (d *door) ServeConn(c *net.TCPConn) { listen.Give(c, d) }

// refused counts a client that cannot be served.
func (d *door) refused(peer netip.AddrPort, why error) {
	d.service.refused.Add(1)
	d.limited(d.refusals).Stringer("client", peer).Err(why).Msg("connection refused")
}

// limited begins a warning or, if l does not let one pass now, a debug line.
func (d *door) limited(l *limiter) *zerolog.Event {
	ok, suppressed := l.allow(time.Now())
	if !ok {
		return d.log.Debug()
	}
	return d.log.Warn().Int64("suppressed", suppressed)
}

func (d *door) stats() ServiceStats {
	s := d.service
	return ServiceStats{
		Name:          s.name,
		Listen:        d.listen,
		Pool:          d.pool.Name(),
		Current:       s.current.Load(),
		Total:         s.total.Load(),
		Refused:       s.refused.Load(),
		BytesToServer: s.bytesToServer.Load(),
		BytesToClient: s.bytesToClient.Load(),
	}
}
