package l7

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/listen"
	"appliance/internal/pool"
)

// service is one [[l7]] service. It stays the same over reloads; what they
// change is its state.
type service struct {
	name     string
	tls      *tls.Config // what begins a handshake; its state's goes on
	tickets  tickets
	pipeline pipeline
	conns    connCounts
	state    atomic.Pointer[state]
}

// state is what one configuration makes of a service; it is never changed. A
// request keeps to the state it began with.
type state struct {
	cfg       Config
	routes    *table
	certs     *certificates // nil: plain HTTP
	clients   *clientCerts  // nil: clients are not asked for certificates
	tls       *tls.Config   // nil: plain HTTP
	upstreams map[upstreamSettings]*upstream
	pools     map[*pool.Pool]*upstream // that it forwards to
	access    *accessLog               // nil: requests are not logged
	identity  identity
	proxies   networks // who has to send a PROXY header
}

func newService(name string, log zerolog.Logger) *service {
	s := &service{name: name}
	s.pipeline.log = log.With().Str("service", name).Logger()
	s.tls = &tls.Config{GetConfigForClient: s.handshake}
	return s
}

// build makes the state for cfg, without putting it in force. It keeps the
// upstreams, with their connections, whose settings are the same. transports are
// those of the pools.
func (s *service) build(cfg Config, pools map[string]*pool.Pool, transports map[*pool.Pool]*transport) (*state, error) {
	st := &state{cfg: cfg, identity: newIdentity(cfg)}
	if cfg.AcceptProxy != nil {
		st.proxies = newNetworks(cfg.AcceptProxy.From)
	}
	var err error
	if st.routes, err = newTable(cfg, pools); err != nil {
		return nil, fmt.Errorf("service %s: %w", s.name, err)
	}
	if old := s.state.Load(); old != nil {
		st.routes.inherit(old.routes)
	}
	if cfg.TLS != nil {
		if st.certs, err = loadCertificates(*cfg.TLS, time.Now(), s.pipeline.log); err != nil {
			return nil, fmt.Errorf("service %s: %w", s.name, err)
		}
		if st.clients, err = loadClientCerts(*cfg.TLS); err != nil {
			return nil, fmt.Errorf("service %s: tls.%w", s.name, err)
		}
		st.tls = st.tlsConfig()
	}
	st.upstreams, st.pools = make(map[upstreamSettings]*upstream), make(map[*pool.Pool]*upstream)
	st.routes.connect(func(p *pool.Pool) *upstream {
		t := transports[p]
		if t == nil {
			t = plainTransport
		}
		st.pools[p] = s.upstreamFor(st, t)
		return st.pools[p]
	})
	return st, nil
}

// upstreamFor returns the upstream for a transport, that of the state before if its
// settings are the same.
func (s *service) upstreamFor(st *state, t *transport) *upstream {
	set := upstreamSettings{transport: t.mark, connect: st.cfg.Timeouts.EffectiveConnect(), response: st.cfg.Timeouts.EffectiveResponse()}
	u := st.upstreams[set]
	if old := s.state.Load(); u == nil && old != nil {
		u = old.upstreams[set]
	}
	if u == nil {
		u = newUpstream(set, t)
	}
	st.upstreams[set] = u
	return u
}

// retireUpstreams ends those that the state after, nil if there is none, does not
// use any more.
func (st *state) retireUpstreams(after *state) {
	for set, u := range st.upstreams {
		if after == nil || after.upstreams[set] != u {
			u.retire()
		}
	}
}

func (st *state) doorSettings() doorSettings {
	clients := ""
	if st.clients != nil {
		clients = st.clients.mark
	}
	return doorSettings{
		tls:       st.certs != nil,
		clients:   clients,
		maxHeader: st.cfg.EffectiveMaxHeaderSize(),
		header:    st.cfg.Timeouts.EffectiveHeader(),
		idle:      st.cfg.Timeouts.EffectiveIdle(),
		http2:     st.cfg.HTTP2.EffectiveEnabled(st.certs != nil),
		limits: http2Limits{
			streams:  st.cfg.HTTP2.EffectiveMaxStreams(),
			window:   st.cfg.HTTP2.EffectiveWindow(),
			nuisance: st.cfg.HTTP2.EffectiveMaxNuisance(),
		},
	}
}

func (st *state) listensOn(addr netip.AddrPort) bool {
	return slices.Contains(st.cfg.Listen, addr)
}

var _ listen.ClientsFirst = (*entrance)(nil)

// entrance is a service at one of its listening addresses.
type entrance struct {
	engine  *Engine
	service *service
	listen  netip.AddrPort
}

// ClientsFirst reports that clients speak first: by HTTP, TLS and the PROXY protocol
// all do.
func (en *entrance) ClientsFirst() bool { return true }

// ServeConn serves one connection, which it owns, and returns when that is
// closed and all its requests have ended, or it is parked.
func (en *entrance) ServeConn(tcp *listen.Conn) {
	d := en.engine.admit(en, tcp)
	if d == nil {
		tcp.Close()
		return
	}
	client, counted, ok := d.letIn(tcp)
	if ok && d.serve(tcp, client, counted) {
		return
	}
	d.over(client, counted)
}
