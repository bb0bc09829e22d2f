package l7

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"slices"
	"sync"
	"time"

	"appliance/internal/endpoint"
	"appliance/internal/pool"
	"appliance/l7/http1"
)

const (
	// maxIdlePerServer bounds the kept connections to one server.
	maxIdlePerServer = 1024
	// keepIdle is how long a connection is kept without use. A server that
	// closes earlier is noticed; the fewer such moments, the better.
	keepIdle = 30 * time.Second
	// waitForContinue bounds the wait for a server's 100 before the body is
	// sent all the same (RFC 9110, section 10.1.1).
	waitForContinue = time.Second
	// maxAnswerHead bounds the head of an answer, in bytes.
	maxAnswerHead = 1 << 20
	// maxInterim bounds the interim answers to one request.
	maxInterim = 64
)

// upstreamSettings are what an upstream is made from; comparable.
type upstreamSettings struct {
	transport string        // the mark of its transport
	connect   time.Duration // to connect to one server
	response  time.Duration // for the head of an answer and each further part, and for the server to take more of a request
}

// upstream carries exchanges to servers by one transport and keeps the
// connections for others. After retire none is kept any longer than its exchange.
//
// By HTTP/1.1 the goroutine of the exchange does all of it. A body that has not
// come yet takes a second one (upload), which has ended when the answer is closed.
type upstream struct {
	settings  upstreamSettings
	transport *transport
	pipes     pipes
	tasks     sync.WaitGroup // of connections by HTTP/2

	mu      sync.Mutex
	idle    map[destination]*idleConns
	quick   map[*pool.Server]*idleConns // the same, found without a look at the endpoint's texts
	open    map[*serverConn]struct{}    // all that there are
	muxes   map[destination]*muxes      // by HTTP/2
	configs map[destination]*tls.Config // each with the sessions of its own
	sweep   *time.Timer                 // runs while something is idle
	retired bool
}

// destination is what connections are kept for. Servers with the same one, of several
// pools perhaps, share them.
type destination struct {
	at   endpoint.Endpoint
	name string // asked for by TLS: who answers depends on it; empty without TLS
}

// destination returns the one of a server, which a reload may change.
func (u *upstream) destination(server *pool.Server) destination {
	to := destination{at: server.Endpoint()}
	if u.transport.tls != nil {
		to.name = cmp.Or(server.ServerName(), u.transport.name, server.Host())
	}
	return to
}

// idleConns are the kept connections to one destination; the last one was used last.
type idleConns struct {
	to    destination
	conns []*serverConn
}

func newUpstream(set upstreamSettings, t *transport) *upstream {
	return &upstream{
		settings: set, transport: t, idle: make(map[destination]*idleConns), quick: make(map[*pool.Server]*idleConns), open: make(map[*serverConn]struct{}),
		configs: make(map[destination]*tls.Config), muxes: make(map[destination]*muxes),
	}
}

// retire closes the idle connections, and those in use once they become idle.
func (u *upstream) retire() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.retired = true
	for _, at := range u.idle {
		for _, c := range at.conns {
			u.closeConn(c)
		}
	}
	clear(u.idle)
	clear(u.quick)
	for _, set := range u.muxes {
		for _, c := range set.conns {
			c.retire()
		}
	}
	u.pipes.close()
	if u.sweep != nil {
		u.sweep.Stop()
	}
}

// unused reports whether the upstream is retired and has no connections any more.
func (u *upstream) unused() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.retired && len(u.open) == 0 && len(u.muxes) == 0
}

// reset breaks off all that is under way with a server that has failed its check.
func (u *upstream) reset(server *pool.Server) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for c := range u.open {
		if c.of == server {
			c.tcp.Close() // whoever uses it does the rest; if nobody does, it is found closed
		}
	}
	for to, set := range u.muxes {
		if to.at != server.Endpoint() {
			continue
		}
		for _, c := range set.conns {
			c.reset(server)
		}
	}
}

// closeConn closes a connection that nobody uses. The caller holds the lock.
func (u *upstream) closeConn(c *serverConn) {
	delete(u.open, c)
	c.tcp.Close()
}

// take returns the connection to the server that was used last, nil if none is
// idle.
func (u *upstream) take(server *pool.Server) *serverConn {
	u.mu.Lock()
	defer u.mu.Unlock()
	at := u.kept(server)
	if at == nil || len(at.conns) == 0 {
		return nil
	}
	last := len(at.conns) - 1
	c := at.conns[last]
	at.conns[last] = nil
	at.conns = at.conns[:last]
	c.of = server
	return c
}

// kept returns the connections to a server that are kept, nil if none has been since
// they expired. The caller holds the lock.
func (u *upstream) kept(server *pool.Server) *idleConns {
	to := u.destination(server)
	if at := u.quick[server]; at != nil && at.to.name == to.name {
		return at
	}
	at := u.idle[to]
	if at != nil {
		u.quick[server] = at
	}
	return at
}

// keep makes a connection idle, or closes it if there are enough.
func (u *upstream) keep(c *serverConn, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	at := u.kept(c.of)
	if at == nil || at.to.name != c.to.name {
		at = u.idle[c.to] // a reload has changed the server's
	}
	if u.retired || at != nil && len(at.conns) >= maxIdlePerServer {
		u.closeConn(c)
		return
	}
	if at == nil {
		at = &idleConns{to: c.to}
		u.idle[c.to] = at
	}
	c.since = now
	at.conns = append(at.conns, c)
	if u.sweep == nil {
		u.sweep = time.AfterFunc(keepIdle, u.expire)
	}
}

// expire closes the connections that have been idle for too long.
func (u *upstream) expire() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.retired {
		return
	}
	now, next := time.Now(), time.Duration(0)
	clear(u.quick) // of servers that are no more
	for to, at := range u.idle {
		conns, old := at.conns, 0
		for old < len(conns) && now.Sub(conns[old].since) >= keepIdle {
			u.closeConn(conns[old])
			old++
		}
		if conns = slices.Delete(conns, 0, old); len(conns) == 0 {
			delete(u.idle, to)
			continue
		}
		at.conns = conns
		if wait := keepIdle - now.Sub(conns[0].since); next == 0 || wait < next {
			next = wait
		}
	}
	u.sweep = nil
	if next > 0 {
		u.sweep = time.AfterFunc(next, u.expire)
	}
}

// connect opens a connection to a server, encrypted if there is to be TLS. to is its
// destination.
func (u *upstream) connect(ctx context.Context, server *pool.Server, to destination) (streamConn, *tls.Conn, *closeWatch, error) {
	began := time.Now()
	d := net.Dialer{Timeout: u.settings.connect}
	nc, err := d.DialContext(ctx, to.at.Network(), to.at.Dial())
	if err != nil {
		return nil, nil, nil, err
	}
	tcp := nc.(streamConn)
	if u.transport.tls == nil {
		server.Connected(time.Since(began))
		return tcp, nil, nil, nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		tcp.Close()
		return nil, nil, nil, err
	}
	watch := &closeWatch{streamConn: tcp, raw: raw}
	t, err := u.handshake(ctx, to, watch, began.Add(u.settings.connect))
	if err != nil {
		tcp.Close()
		return nil, nil, nil, err
	}
	server.Connected(time.Since(began))
	return tcp, t, watch, nil
}

// dial opens a connection to a server for HTTP/1.1.
func (u *upstream) dial(ctx context.Context, server *pool.Server) (*serverConn, error) {
	to := u.destination(server)
	tcp, t, watch, err := u.connect(ctx, server, to)
	if err != nil {
		return nil, err
	}
	c, err := newServerConn(u, server, to, tcp)
	if err != nil {
		return nil, err
	}
	if t != nil {
		c.rw, c.tls, c.watch = t, t, watch
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.open[c] = struct{}{}
	return c, nil
}

// roundTrip sends ex, with the fields that the pipeline has made of it, to the
// server and returns the head of the answer, which the caller closes. interim is
// called for interim answers before. The error is a *connectError, is a timeout
// as net.Error has it, or anything else.
func (u *upstream) roundTrip(ctx context.Context, server *pool.Server, ex *exchange, interim func(ex *exchange, status int, head fields)) (answer, error) {
	if u.transport.http2 {
		return u.roundTripMux(ctx, server, ex, interim)
	}
	ex.out.wire = append(requestHead(ex.out.wire[:0], ex), ex.whole...)
	broken := false
	for {
		var c *serverConn
		if !broken {
			c = u.take(server)
		}
		kept := c != nil
		if !kept {
			began := time.Now()
			var err error
			c, err = u.dial(ctx, server)
			ex.now = time.Now()
			ex.trail.connect = ex.now.Sub(began)
			if err != nil {
				return nil, &connectError{err: err, maybeSent: broken}
			}
		}
		if !ex.hold.take(c) {
			c.close()
			return nil, errAborted
		}
		a, err := c.ask(ex, kept, interim)
		if err == nil {
			return a, nil
		}
		ex.hold.take(nil)
		c.close()
		switch {
		case err == errStale: // the server has seen nothing of the request
		case kept && c.silent() && repeatable(ex) && !isTimeout(err) && !ex.over():
			broken = true
			ex.trail.retries++
		case !kept && c.silent() && refusesUs(err) && (ex.body == nil || ex.whole != nil):
			return nil, &connectError{err: inTLSWords(err), maybeSent: broken}
		default:
			return nil, err
		}
		c.drop()
		ex.now = time.Now()
	}
}

// requestHead appends the head of the request that the server gets to b.
func requestHead(b []byte, ex *exchange) []byte {
	b = http1.AppendRequestLine(b, ex.method, ex.out.target)
	host := ex.out.host
	if host == "" {
		host = ex.server.Endpoint().Host()
	}
	b = http1.AppendField(b, "Host", host)
	b = http1.AppendFields(b, ex.out.request)
	if ex.length < 0 {
		b = http1.AppendField(b, "Transfer-Encoding", "chunked")
	}
	return append(b, "\r\n"...)
}
