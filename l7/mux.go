package l7

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/net/http2"

	"appliance/internal/pool"
)

// unprocessedTries bounds how often a request is sent again that no server has
// looked at. The last time it is the first one on a connection: on others a
// server that takes few requests on each may refuse it again and again.
const unprocessedTries = 3

// errUnprocessed says that the server has not looked at a request (RFC 9113,
// section 8.7).
var errUnprocessed = errors.New("the server takes no more requests on the connection")

// errSilent says that a server has not answered a PING. It is the end of the
// connection, as lost as one that was closed.
var errSilent = fmt.Errorf("the server is silent: it did not answer a PING: %w", io.ErrUnexpectedEOF)

// resetError says that the server has reset a stream. The connection is as good as
// lost for the exchange.
type resetError struct{ code http2.ErrCode }

func (e *resetError) Error() string {
	if e.code == http2.ErrCodeHTTP11Required {
		return "the server wants HTTP/1.1 for this request; set http = \"1.1\" in its pool"
	}
	return "the server has reset the request: " + e.code.String()
}

func (e *resetError) Unwrap() error { return io.ErrUnexpectedEOF }

// malformedError says that an answer is none.
type malformedError struct{ reason string }

func (e *malformedError) Error() string { return "the answer is malformed: " + e.reason }

// muxes are the connections to one server by HTTP/2, and who makes another one.
type muxes struct {
	conns   []*muxConn
	dialing *muxDial // nil: nobody
}

// muxDial is an attempt to connect that others wait for.
type muxDial struct {
	done chan struct{}
	err  error // once done is closed
}

// roundTripMux is roundTrip by HTTP/2.
func (u *upstream) roundTripMux(ctx context.Context, server *pool.Server, ex *exchange, interim func(ex *exchange, status int, head fields)) (answer, error) {
	ex.out.wire = u.requestBlock(ex.out.wire[:0], ex)
	connect := u.connectBlock(ex)
	maybeSent, unprocessed := false, 0
	ex.out.upload.reset()
	for {
		st := newMuxStream(ex, server)
		st.connect = connect
		began := time.Now()
		kept, err := u.openStream(ctx, st, unprocessed == unprocessedTries)
		ex.now = time.Now()
		if !kept {
			ex.trail.connect = ex.now.Sub(began)
		}
		if err != nil {
			return nil, &connectError{err: err, maybeSent: maybeSent}
		}
		if !ex.hold.take(st) {
			st.close()
			return nil, errAborted
		}
		err = st.ask(interim)
		if err == nil {
			return st, nil
		}
		switch {
		case errors.Is(err, errUnprocessed) && !ex.over() && ex.resendable():
			ex.hold.take(nil)
			st.end()
			if unprocessed++; unprocessed > unprocessedTries {
				return nil, &connectError{err: err, maybeSent: maybeSent}
			}
		case kept && !maybeSent && st.silent() && isLost(err) && repeatable(ex) && !ex.over():
			maybeSent = true
			st.close()
		default:
			st.close()
			return nil, err
		}
		ex.trail.retries++
	}
}

// resendable reports whether what was sent of a request can be sent again. If it
// has a body that is on its way, that waits for it from now on.
func (ex *exchange) resendable() bool {
	return ex.body == nil || ex.whole != nil || !ex.out.upload.started() || ex.out.upload.claim()
}

// openStream sends the head of a request, and its body if that is there and small
// enough, on a connection that has room for it or else a new one; always on a new
// one, as its first stream, if that is wanted. kept says that it was no new one.
func (u *upstream) openStream(ctx context.Context, st *muxStream, first bool) (kept bool, err error) {
	to := u.destination(st.server)
	for kept = true; ; {
		u.mu.Lock()
		set := u.muxes[to]
		if set == nil {
			set = &muxes{}
			u.muxes[to] = set
		}
		for _, c := range set.conns {
			if !first && c.open(st) {
				u.mu.Unlock()
				st.conn.flush()
				return kept, nil
			}
		}
		if d := set.dialing; d != nil {
			u.mu.Unlock()
			if err := st.waitFor(ctx, d); err != nil {
				return false, err
			}
			continue
		}
		if len(set.conns) >= maxIdlePerServer {
			u.mu.Unlock()
			return false, fmt.Errorf("there are %d connections to it already, and none has room for another request", maxIdlePerServer)
		}
		d := &muxDial{done: make(chan struct{})}
		set.dialing = d
		u.mu.Unlock()

		c, err := u.dialMux(ctx, st.server, to)
		kept = false
		u.mu.Lock()
		set.dialing = nil
		if err == nil {
			if c.alive() { // or it has been forgotten already
				set.conns = append(set.conns, c)
			}
			// Whoever has made it has room on it, before those that wait.
			open := c.open(st)
			if u.retired {
				c.retire()
			}
			if open {
				close(d.done)
				u.mu.Unlock()
				c.flush()
				return false, nil
			}
			err = errors.New("the server lets no request in on a new connection")
		}
		d.err = err
		close(d.done)
		if len(set.conns) == 0 {
			delete(u.muxes, to)
		}
		u.mu.Unlock()
		return false, err
	}
}

// waitFor waits for a connection that another exchange makes, and looks after the
// client meanwhile.
func (st *muxStream) waitFor(ctx context.Context, d *muxDial) error {
	look := time.NewTicker(firstLook)
	defer look.Stop()
	for {
		select {
		case <-d.done:
			return d.err
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
			if ex := st.ex; ex.client != nil && ex.client.gone() {
				ex.interrupt()
			}
			if st.ex.over() {
				return errAborted
			}
		}
	}
}

// dialMux opens a connection to a server for HTTP/2 and waits until that has shown
// that it speaks it.
func (u *upstream) dialMux(ctx context.Context, server *pool.Server, to destination) (*muxConn, error) {
	until := time.Now().Add(u.settings.connect)
	tcp, t, _, err := u.connect(ctx, server, to)
	if err != nil {
		return nil, err
	}
	c := newMuxConn(u, to, tcp, t)
	stop := context.AfterFunc(ctx, func() { tcp.Close() })
	defer stop()
	if err := c.greet(until); err != nil {
		tcp.Close()
		return nil, err
	}
	u.tasks.Go(c.read)
	c.startWatch()
	return c, nil
}

// forget takes a connection from those that are used.
func (u *upstream) forget(c *muxConn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if set := u.muxes[c.to]; set != nil {
		set.conns = slices.DeleteFunc(set.conns, func(other *muxConn) bool { return other == c })
		if len(set.conns) == 0 && set.dialing == nil {
			delete(u.muxes, c.to)
		}
	}
}

// requestBlock appends the head of the request that the server gets to b, as a
// block of fields (RFC 9113, section 8.3.1).
func (u *upstream) requestBlock(b []byte, ex *exchange) []byte {
	b = u.appendPseudo(b, ex, ex.method)
	for i := range ex.out.request {
		f := &ex.out.request[i]
		switch kindOf(f.Name) {
		case kindConnection, kindUpgrade, kindHop:
			// RFC 9113, section 8.2.2; who wants to change the protocol goes on without.
		default:
			b = appendHeaderField(b, f.Name, f.Value)
		}
	}
	return b
}

// appendPseudo appends the pseudo-header fields of a request.
func (u *upstream) appendPseudo(b []byte, ex *exchange, method string) []byte {
	scheme := "http"
	if u.transport.tls != nil {
		scheme = "https"
	}
	host := ex.out.host
	if host == "" {
		host = ex.server.Endpoint().Host()
	}
	b = appendTableSize(b)
	b = appendHeaderField(b, ":method", method)
	b = appendHeaderField(b, ":scheme", scheme)
	b = appendHeaderField(b, ":authority", host)
	return appendHeaderField(b, ":path", ex.out.target)
}
