package pool

import (
	"sync/atomic"
	"time"

	"appliance/internal/endpoint"
)

// Server is one member of a pool. It lives as long as a pool or a connection
// refers to it: a server that a reload removes still counts the connections it
// carries. All methods may be called from any goroutine.
type Server struct {
	pool      *Pool
	label     string
	labelHash uint64
	address   endpoint.Endpoint
	text      string // address, for those who need it as a string

	// state is replaced as a whole, under the pool's lock.
	state atomic.Pointer[state]

	current       atomic.Int64
	total         atomic.Int64
	bytesToServer atomic.Int64
	bytesToClient atomic.Int64
	connectErrors atomic.Int64
	failures      atomic.Int64 // in a row
	connectTime   atomic.Int64 // nanoseconds, of the latest connect
	connectError  atomic.Pointer[Failure]
	errors        errorCounts
	arrivals      Meter
}

// state is what decides whether, and how often, a server is picked.
type state struct {
	weight     int
	backup     bool
	health     Health
	admin      Admin
	adminSince time.Time
	ejection   Ejection
	removed    bool // the configuration has it no more

	maxConnections int // 0: any number
	sendProxy      string
	host           string
	serverName     string
	slowStart      time.Duration
	rampFrom       time.Time // when the server became usable again
}

// ramp returns the share of its weight that a server gets at now: from a tenth
// on, evenly growing.
func (s *state) ramp(now time.Time) float64 {
	if s.slowStart <= 0 {
		return 1
	}
	return min(1, max(0.1, now.Sub(s.rampFrom).Seconds()/s.slowStart.Seconds()))
}

// usable reports whether a server in this state may be picked.
func (s *state) usable() bool { return s.fit() && !s.ejection.out }

// fit reports whether a server in this state is up and wanted, ejected or not.
func (s *state) fit() bool { return s.health.State == Up && s.admin == Ready }

// Label returns the name by which people know the server, unique in its pool.
func (s *Server) Label() string { return s.label }

// ID tells a server of a pool from the others, and from one of its name that was at
// another address.
type ID struct {
	Label   string
	Address endpoint.Endpoint
}

// ID returns the server's.
func (s *Server) ID() ID { return ID{s.label, s.address} }

// Address returns the text of Endpoint.
func (s *Server) Address() string { return s.text }

// Endpoint returns where to connect to.
func (s *Server) Endpoint() endpoint.Endpoint { return s.address }

// Host returns the name by which the server's host is known, or else its IP
// address; empty for a server on a unix socket.
func (s *Server) Host() string { return s.state.Load().host }

// hostOf returns what Host returns for a server of the configuration.
func hostOf(cfg ServerConfig, address endpoint.Endpoint) string {
	if cfg.Host != "" || address.Path() != "" {
		return cfg.Host
	}
	return address.IP().Addr().WithZone("").String()
}

// ServerName returns the name of its own that the server is to be asked for by TLS;
// empty if it has none.
func (s *Server) ServerName() string { return s.state.Load().serverName }

// Keeps reports whether what the server carries may stay: it is neither down nor
// in maintenance, and the configuration still has it. Connections may stay in any
// case; it is for those to ask who can move what they carry.
func (s *Server) Keeps() bool {
	st := s.state.Load()
	return st.health.State != Down && st.admin != Maint && !st.removed
}

// Usable reports whether the server may be picked now, but for its bound of
// connections.
func (s *Server) Usable() bool { return s.state.Load().usable() }

// Share returns the part of its weight that the server gets at now, above 0 and at
// most 1: less for a while after it has become usable again.
func (s *Server) Share(now time.Time) float64 { return s.state.Load().ramp(now) }

// Current returns the number of connections picked and not yet done.
func (s *Server) Current() int64 { return s.current.Load() }

// Done takes back what Pick counted. Whoever picked the server calls it exactly
// once, when the connection has ended or could not be made.
func (s *Server) Done() {
	s.current.Add(-1)
	s.pool.serveQueue()
}

// SendProxy returns the version of the PROXY header that the server is to be
// sent, "v1" or "v2"; empty for none.
func (s *Server) SendProxy() string { return s.state.Load().sendProxy }

// Connected counts how long it took to connect to the server.
func (s *Server) Connected(took time.Duration) { s.connectTime.Store(int64(took)) }

// AddBytes counts payload carried to the server and from it to the client.
func (s *Server) AddBytes(toServer, toClient int64) {
	if toServer != 0 {
		s.bytesToServer.Add(toServer)
	}
	if toClient != 0 {
		s.bytesToClient.Add(toClient)
	}
}

// Failure is a connection that a server did not accept.
type Failure struct {
	Reason string
	At     time.Time
}

// ConnectFailed counts a connection that the server did not accept, and why, which
// is a failure. Done is due all the same.
func (s *Server) ConnectFailed(err error) {
	now := time.Now()
	s.connectErrors.Add(1)
	s.connectError.Store(&Failure{err.Error(), now})
	s.errors.connect(err)
	s.failed(now)
}

// Broke counts a connection that the server broke off, which says nothing against
// it by itself: there are protocols that end so.
func (s *Server) Broke() { s.errors.broken.Add(1) }

// count counts a connection that was picked.
func (s *Server) count(now time.Time) {
	s.total.Add(1)
	s.arrivals.Add(now)
}

// ServerStats describes a server at one moment.
type ServerStats struct {
	Label      string
	Address    string
	Weight     int // 1 to 256
	Backup     bool
	Health     Health
	Admin      Admin
	AdminSince time.Time
	// Ejection is the latest one; zero when there was none.
	Ejection Ejection
	// Usable says that the server is up and ready, and not ejected; a backup
	// that is usable may still have to wait for the others to fail.
	Usable bool
	// Current is the number of connections now, Total of all ever picked,
	// including those counted by ConnectErrors.
	Current       int64
	Total         int64
	ConnectErrors int64
	// Rate is how many were picked in the last second.
	Rate int64
	// Errors are what went wrong; those of connects add up to ConnectErrors.
	Errors Errors
	// ConnectError is the latest of those; zero if there was none.
	ConnectError Failure
	// BytesToServer and BytesToClient are payload, without headers of TCP.
	BytesToServer int64
	BytesToClient int64
	// ConnectTime is how long the latest connect took that succeeded; 0 if none
	// did. Engines that do not report it leave it 0.
	ConnectTime time.Duration
	// MaxConnections is the bound of Current; 0 for none.
	MaxConnections int
}

// Stats returns the server's description. The counters are read one after the
// other while connections go on, so they need not add up to the last digit.
func (s *Server) Stats() ServerStats {
	st := s.state.Load()
	var failure Failure
	if f := s.connectError.Load(); f != nil {
		failure = *f
	}
	return ServerStats{
		ConnectError:  failure,
		Label:         s.label,
		Address:       s.Address(),
		Weight:        st.weight,
		Backup:        st.backup,
		Health:        st.health,
		Admin:         st.admin,
		AdminSince:    st.adminSince,
		Ejection:      st.ejection,
		Usable:        st.fit() && !st.ejection.Out(time.Now()),
		Current:       s.current.Load(),
		Total:         s.total.Load(),
		ConnectErrors: s.connectErrors.Load(),
		Rate:          s.arrivals.Rate(time.Now()),
		Errors:        s.errors.load(),
		BytesToServer: s.bytesToServer.Load(),
		BytesToClient: s.bytesToClient.Load(),

		ConnectTime:    time.Duration(s.connectTime.Load()),
		MaxConnections: st.maxConnections,
	}
}
