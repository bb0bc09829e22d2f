package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// doorSettings are what a door's servers are made from; comparable.
type doorSettings struct {
	tls       bool
	maxHeader int64
	header    time.Duration
	idle      time.Duration
}

// door takes the connections of one service at one local address. For each
// protocol it has one server, which is replaced, not changed: those who are
// connected to the old one are let go in a friendly way.
type door struct {
	service *service
	local   netip.AddrPort
	place   *place
	ctx     context.Context // ends when all connections are to be cut
	tasks   *sync.WaitGroup // of the engine
	http1   atomic.Pointer[http1Server]
	http2   atomic.Pointer[httpServer]
}

// newDoor opens a door; with keep false no connection is kept for a second
// request. retire ends it.
func newDoor(ctx context.Context, tasks *sync.WaitGroup, s *service, local netip.AddrPort, at *place, keep bool) *door {
	d := &door{service: s, local: local, place: at, ctx: ctx, tasks: tasks}
	d.renew(keep)
	return d
}

// renew replaces both servers, so that the service's settings are in force.
func (d *door) renew(keep bool) {
	set := d.service.state.Load().doorSettings()
	if old := d.http1.Swap(newHTTP1Server(d, set, keep)); old != nil {
		old.retire()
	}
	if old := d.http2.Swap(newHTTPServer(d, set, keep)); old != nil {
		d.tasks.Go(old.retire)
	}
}

// setKeep says whether connections are kept for a second request. If not, idle
// ones are closed now and the others when their answers are out.
func (d *door) setKeep(keep bool) {
	if !keep {
		d.renew(false) // only the end of a server makes all its clients leave
		return
	}
	d.http1.Load().keep.Store(true)
	d.http2.Load().server.SetKeepAlivesEnabled(true)
}

// retire ends the door: no connection gets in, and those inside leave when they
// become idle.
func (d *door) retire() {
	d.http1.Load().retire()
	d.tasks.Go(d.http2.Load().retire)
}

// secure reports whether the door's connections begin with TLS.
func (d *door) secure() bool { return d.service.state.Load().certs != nil }

// serve serves a connection that begins with TLS and closes it; c tells when it
// is over.
func (d *door) serve(c *conn) {
	t := tls.Server(c, d.service.tls)
	if err := d.handshake(t, c); err != nil {
		d.service.pipeline.log.Debug().Stringer("client", c.peer).Err(err).Msg("TLS handshake failed")
		c.Close()
		c.leave()
		return
	}
	if t.ConnectionState().NegotiatedProtocol == protocolHTTP2 {
		c.http2 = true
		d.hand(c, t)
		return
	}
	c.grownUp() // now it counts as the server counts it
	d.http1.Load().serve(c.TCPConn, t, newPeer(c.peer))
	c.leave()
}

// handshake does the TLS handshake within the time for a request's head.
func (d *door) handshake(t *tls.Conn, c *conn) error {
	if err := c.SetReadDeadline(time.Now().Add(d.service.state.Load().cfg.Timeouts.EffectiveHeader())); err != nil {
		return err
	}
	err := t.HandshakeContext(context.Background()) // a cut closes the connection below
	var re tls.RecordHeaderError
	if errors.As(err, &re) && re.Conn != nil && startsLikeHTTP(re.RecordHeader) {
		// Whoever made this mistake deserves to be told.
		_, _ = io.WriteString(re.Conn, "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"+
			"Connection: close\r\n\r\n400 Bad Request\nThis is an HTTPS port, and an HTTP request came in.\n")
	}
	return err
}

// startsLikeHTTP reports whether the first bytes of a connection are those of
// an HTTP/1 request rather than of a TLS record, whose second byte is 3.
func startsLikeHTTP(first [5]byte) bool {
	for _, c := range first[:3] {
		if c < 'A' || c > 'Z' {
			return false
		}
	}
	return true
}

// hand gives a connection to the server for HTTP/2; c is what is below nc.
func (d *door) hand(c *conn, nc net.Conn) {
	for {
		s := d.http2.Load()
		if s.feed.push(nc) {
			return
		}
		if d.http2.Load() == s { // not replaced: the door is closed
			nc.Close()
			c.leave()
			return
		}
	}
}
