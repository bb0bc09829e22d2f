package l4

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/listen"
	"appliance/internal/pool"
)

// maxTries is how many servers a connection is offered to.
const maxTries = 3

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
	engine  *Engine
	service *service
	listen  []netip.AddrPort
	pool    *pool.Pool
	dialer  net.Dialer
	relay   relayTimeouts

	log zerolog.Logger
	// What goes wrong for one connection goes wrong for thousands: of each kind
	// of failure a few are warnings, the others go to the debug log.
	failures, refusals *limiter
}

var _ listen.Handler = (*door)(nil)

func newDoor(e *Engine, s *service, cfg Config, p *pool.Pool) *door {
	return &door{
		engine:  e,
		service: s,
		listen:  cfg.Listen,
		pool:    p,
		// Keep-alive is on by default, as it is on accepted connections.
		dialer: net.Dialer{Timeout: cfg.Timeouts.EffectiveConnect()},
		relay: relayTimeouts{
			idle:      cfg.Timeouts.EffectiveIdle(),
			halfClose: cfg.Timeouts.EffectiveHalfClose(),
		},
		log:      e.log.With().Str("service", s.name).Logger(),
		failures: newLimiter(warnEvery),
		refusals: newLimiter(warnEvery),
	}
}

// ServeConn forwards one connection and returns when it has ended. A client for
// which there is no server is reset.
func (d *door) ServeConn(client *net.TCPConn) {
	d.service.total.Add(1)
	local := client.LocalAddr().(*net.TCPAddr).AddrPort().Addr()
	if !d.engine.enter(local) {
		d.refuse(client, errors.New("the engine is shutting down"))
		return
	}
	defer d.engine.leave(local)
	d.service.current.Add(1)
	defer d.service.current.Add(-1)

	// The server may be the one who speaks first, and a client whose bytes were
	// taken could not be offered to another server: nothing is read before a
	// server has accepted.
	target, server, err := d.connect(d.engine.cut)
	if err != nil {
		d.refuse(client, err)
		return
	}
	defer target.Done()

	began := time.Now()
	r := relay{client: client, server: server, timeouts: d.relay, buffers: d.engine.buffers, count: func(toServer, toClient int64) {
		target.AddBytes(toServer, toClient)
		d.service.addBytes(toServer, toClient)
	}}
	err = r.run(d.engine.cut)
	d.log.Debug().
		Stringer("client", client.RemoteAddr()).
		Str("server", target.Label()).
		Dur("lasted", time.Since(began)).
		Int64("to_server", r.toServer.moved).
		Int64("to_client", r.toClient.moved).
		Str("end", describe(err)).
		Msg("connection ended")
}

// connect returns a server and a connection to it. Servers to which there is no
// connection are passed over; those whose fault it is are told. On success, the
// server's Done is due.
func (d *door) connect(ctx context.Context) (*pool.Server, *net.TCPConn, error) {
	var tried [maxTries]*pool.Server
	var failure error
	for n := range maxTries {
		target, err := d.pool.Pick(tried[:n]...)
		if err != nil {
			if failure == nil {
				failure = fmt.Errorf("pool %s: %w", d.pool.Name(), err)
			}
			break
		}
		// Not DialTCP: even with no local address it binds the socket, so that
		// all connections to all servers share one range of local ports.
		server, err := d.dialer.DialContext(ctx, "tcp", target.Address())
		if err == nil {
			return target, server.(*net.TCPConn), nil
		}
		target.Done()
		failure = fmt.Errorf("server %s: %w", target.Label(), err)
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		if exhausted(err) {
			// Another server may do: ports are used up for one at a time.
			d.limited(d.failures).Err(failure).Msg("this machine lacks what a connection takes")
		} else {
			target.ConnectFailed()
			d.limited(d.failures).Err(failure).Msg("server does not accept connections")
		}
		tried[n] = target
	}
	return nil, nil, failure
}

// exhausted reports whether err says that this machine, not the server, lacks
// something: descriptors, memory, or local ports.
func exhausted(err error) bool {
	errno, _ := errors.AsType[syscall.Errno](err)
	switch errno {
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.EADDRNOTAVAIL, syscall.EADDRINUSE, syscall.EAGAIN:
		return true
	}
	return false
}

// refuse resets a client that cannot be served.
func (d *door) refuse(client *net.TCPConn, why error) {
	d.service.refused.Add(1)
	d.limited(d.refusals).Stringer("client", client.RemoteAddr()).Err(why).Msg("connection refused")
	reset(client)
}

// limited begins a warning or, if l does not let one pass now, a debug line.
func (d *door) limited(l *limiter) *zerolog.Event {
	ok, suppressed := l.allow(time.Now())
	if !ok {
		return d.log.Debug()
	}
	return d.log.Warn().Int64("suppressed", suppressed)
}

func (s *service) addBytes(toServer, toClient int64) {
	if toServer != 0 {
		s.bytesToServer.Add(toServer)
	}
	if toClient != 0 {
		s.bytesToClient.Add(toClient)
	}
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

// describe returns the reason for which a connection ended, in words.
func describe(err error) string {
	if err == nil {
		return "both sides closed"
	}
	return err.Error()
}
