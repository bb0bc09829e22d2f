package l4

import (
	"cmp"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/endpoint"
	"appliance/internal/listen"
	"appliance/internal/pool"
)

// service is what lives on over reloads under one name: the counters.
type service struct {
	name          string
	current       atomic.Int64
	total         atomic.Int64
	refused       atomic.Int64
	limited       atomic.Int64
	malformed     atomic.Int64
	broken        atomic.Int64
	timedOut      atomic.Int64
	lost          atomic.Int64
	bytesToServer atomic.Int64
	bytesToClient atomic.Int64

	arrivals pool.Meter
	clients  clients
}

// door is a service as one configuration has it. It is never changed: a reload
// puts new doors in front of the services.
type door struct {
	engine    *Engine
	service   *service
	listen    []netip.AddrPort
	udp       bool
	responses int // of datagrams: how many end a session; 0 for any number
	table     *table
	trusted   []netip.Prefix // whose PROXY headers are believed
	limits    limits
	timeouts  timeouts
	connect   func(endpoint.Endpoint, []listen.Option) (fd int, err error)
	alive     listen.KeepAlive
	options   []listen.Option // of connections to servers

	log zerolog.Logger
	// What goes wrong for one connection goes wrong for thousands: of each kind
	// of failure a few are warnings, the others go to the debug log.
	failures, refusals *limiter
}

// timeouts are those of Timeouts with their defaults applied.
type timeouts struct{ connect, header, idle, halfClose time.Duration }

// limits bound the connections of a service; 0 is no bound.
type limits struct{ all, perClient, rate int }

var (
	_ listen.Handler    = (*door)(nil)
	_ listen.Taker      = (*door)(nil)
	_ listen.KeepAliver = (*door)(nil)
)

func newDoor(e *Engine, s *service, cfg Config, t *table) *door {
	d := &door{
		engine:  e,
		service: s,
		listen:  cfg.Listen,
		table:   t,
		limits:  limits{cfg.MaxConnections, cfg.PerClient.MaxConnections, cfg.PerClient.Rate},
		timeouts: timeouts{
			header:    cfg.Timeouts.EffectiveHeader(),
			connect:   cfg.Timeouts.EffectiveConnect(),
			idle:      cfg.Timeouts.EffectiveIdle(),
			halfClose: cfg.Timeouts.EffectiveHalfClose(),
		},
		connect:  connect,
		alive:    cfg.KeepAlive.options(),
		log:      e.log.With().Str("service", s.name).Logger(),
		failures: newLimiter(warnEvery),
		refusals: newLimiter(warnEvery),
	}
	d.options = serverOptions(d.alive)
	if d.udp = cfg.UDP(); d.udp {
		d.responses = cfg.Responses
		d.timeouts.idle = cmp.Or(cfg.Timeouts.Idle, udpIdle)
		d.limits.all = cmp.Or(cfg.MaxConnections, udpSessions)
	}
	if cfg.AcceptProxy != nil {
		d.trusted = cfg.AcceptProxy.From
	}
	return d
}

// Take forwards the connection of the descriptor fd, which it owns from now on.
// A client for which there is no server is reset.
func (d *door) Take(fd int, local, peer netip.AddrPort) {
	d.service.total.Add(1)
	d.service.arrivals.Add(time.Now())
	if !d.engine.enter(local.Addr()) {
		d.refused(peer, errors.New("the engine is shutting down"))
		reset(fd)
		return
	}
	if n := d.service.current.Add(1); d.limits.all > 0 && n > int64(d.limits.all) {
		d.service.current.Add(-1)
		d.engine.leave(local.Addr())
		d.service.limited.Add(1)
		d.refused(peer, errors.New("the service has as many connections as it may"))
		reset(fd)
		return
	}
	l := d.engine.nextLoop()
	s := newSession(l, d, fd, local, peer)
	l.post(s.start)
}

// KeepAlive returns how the clients' connections are kept alive.
func (d *door) KeepAlive() listen.KeepAlive { return d.alive }

// ServeConn is not called, see listen.Taker.
func (d *door) ServeConn(c *listen.Conn) { c.Close() }

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
		UDP:           d.udp,
		Pools:         d.table.all,
		Current:       s.current.Load(),
		Total:         s.total.Load(),
		Refused:       s.refused.Load(),
		Rate:          s.arrivals.Rate(time.Now()),
		Limited:       s.limited.Load(),
		Malformed:     s.malformed.Load(),
		Broken:        s.broken.Load(),
		TimedOut:      s.timedOut.Load(),
		Lost:          s.lost.Load(),
		BytesToServer: s.bytesToServer.Load(),
		BytesToClient: s.bytesToClient.Load(),
	}
}
