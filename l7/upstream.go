package l7

import (
	"context"
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
	connect  time.Duration // to connect to one server
	response time.Duration // for the head of an answer and each further part, and for the server to take more of a request
}

// upstream carries exchanges to servers by HTTP/1.1 and keeps the connections
// for others. After retire none is kept any longer than its exchange.
//
// The goroutine of the exchange does all of it. A body that has not come yet
// takes a second one (upload), which has ended when the answer is closed.
type upstream struct {
	settings upstreamSettings
	pipes    pipes

	mu      sync.Mutex
	idle    map[endpoint.Endpoint][]*serverConn // by server; the last one was used last
	sweep   *time.Timer                         // runs while something is idle
	retired bool
}

func newUpstream(set upstreamSettings) *upstream {
	return &upstream{settings: set, idle: make(map[endpoint.Endpoint][]*serverConn)}
}

// retire closes the idle connections, and those in use once they become idle.
func (u *upstream) retire() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.retired = true
	for _, conns := range u.idle {
		for _, c := range conns {
			c.tcp.Close()
		}
	}
	clear(u.idle)
	u.pipes.close()
	if u.sweep != nil {
		u.sweep.Stop()
	}
}

// take returns the connection to the server that was used last, nil if none is
// idle.
func (u *upstream) take(server endpoint.Endpoint) *serverConn {
	u.mu.Lock()
	defer u.mu.Unlock()
	conns := u.idle[server]
	if len(conns) == 0 {
		return nil
	}
	c := conns[len(conns)-1]
	conns[len(conns)-1] = nil
	u.idle[server] = conns[:len(conns)-1]
	return c
}

// keep makes a connection idle, or closes it if there are enough.
func (u *upstream) keep(c *serverConn, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	conns := u.idle[c.server]
	if u.retired || len(conns) >= maxIdlePerServer {
		c.tcp.Close()
		return
	}
	c.since = now
	u.idle[c.server] = append(conns, c)
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
	for server, conns := range u.idle {
		old := 0
		for old < len(conns) && now.Sub(conns[old].since) >= keepIdle {
			conns[old].tcp.Close()
			old++
		}
		if conns = slices.Delete(conns, 0, old); len(conns) == 0 {
			delete(u.idle, server)
			continue
		}
		u.idle[server] = conns
		if wait := keepIdle - now.Sub(conns[0].since); next == 0 || wait < next {
			next = wait
		}
	}
	u.sweep = nil
	if next > 0 {
		u.sweep = time.AfterFunc(next, u.expire)
	}
}

// dial opens a connection to a server.
func (u *upstream) dial(ctx context.Context, server *pool.Server) (*serverConn, error) {
	d := net.Dialer{Timeout: u.settings.connect}
	began := time.Now()
	nc, err := d.DialContext(ctx, server.Endpoint().Network(), server.Endpoint().Dial())
	if err != nil {
		return nil, err
	}
	server.Connected(time.Since(began))
	return newServerConn(u, server.Endpoint(), nc.(streamConn))
}

// roundTrip sends ex, with the fields that the pipeline has made of it, to the
// server and returns the head of the answer, which the caller closes. interim is
// called for interim answers before. The error is a *connectError, is a timeout
// as net.Error has it, or anything else.
func (u *upstream) roundTrip(ctx context.Context, server *pool.Server, ex *exchange, interim func(ex *exchange, status int, head fields)) (*answer, error) {
	ex.out.wire = requestHead(ex.out.wire[:0], ex)
	broken := false
	for {
		var c *serverConn
		if !broken {
			c = u.take(server.Endpoint())
		}
		kept := c != nil
		if !kept {
			var err error
			if c, err = u.dial(ctx, server); err != nil {
				return nil, &connectError{err: err, maybeSent: broken}
			}
			ex.now = time.Now()
		}
		if !ex.hold.take(c) {
			c.tcp.Close()
			return nil, errAborted
		}
		a, err := c.ask(ex, kept, interim)
		if err == nil {
			return a, nil
		}
		ex.hold.take(nil)
		c.tcp.Close()
		switch {
		case err == errStale: // the server has seen nothing of the request
		case kept && c.silent() && repeatable(ex) && !isTimeout(err) && !ex.over():
			broken = true
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
