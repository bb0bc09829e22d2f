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
	ctx     context.Context // ends when all connections are to be cut
	tasks   *sync.WaitGroup // of the engine
	http1   atomic.Pointer[httpServer]
	http2   atomic.Pointer[httpServer]
}

// newDoor opens a door; with keep false no connection is kept for a second
// request. retire ends it.
func newDoor(ctx context.Context, tasks *sync.WaitGroup, s *service, local netip.AddrPort, keep bool) *door {
	d := &door{service: s, local: local, ctx: ctx, tasks: tasks}
	d.renew(keep)
	return d
}

// renew replaces both servers, so that the service's settings are in force.
func (d *door) renew(keep bool) {
	set := d.service.state.Load().doorSettings()
	for _, slot := range d.slots() {
		if old := slot.Swap(newHTTPServer(d, set, keep, slot == &d.http2)); old != nil {
			d.tasks.Go(old.retire)
		}
	}
}

// setKeep says whether connections are kept for a second request. If not, idle
// ones are closed now and the others when their answers are out.
func (d *door) setKeep(keep bool) {
	if !keep {
		d.renew(false) // only the end of a server makes all its clients leave
		return
	}
	for _, slot := range d.slots() {
		slot.Load().server.SetKeepAlivesEnabled(true)
	}
}

// retire ends the door: no connection gets in, and those inside leave when they
// become idle.
func (d *door) retire() {
	for _, slot := range d.slots() {
		d.tasks.Go(slot.Load().retire)
	}
}

func (d *door) slots() [2]*atomic.Pointer[httpServer] {
	return [2]*atomic.Pointer[httpServer]{&d.http1, &d.http2}
}

// serve takes the connection in and returns; c tells when it is over.
func (d *door) serve(c *conn) {
	if d.service.state.Load().certs == nil {
		d.hand(&d.http1, c, c)
		return
	}
	t := tls.Server(c, d.service.tls)
	if err := d.handshake(t); err != nil {
		d.service.pipeline.log.Debug().Stringer("client", c.peer).Err(err).Msg("TLS handshake failed")
		c.Close()
		c.leave()
		return
	}
	if t.ConnectionState().NegotiatedProtocol == protocolHTTP2 {
		c.http2 = true
		d.hand(&d.http2, c, t)
		return
	}
	d.hand(&d.http1, c, t)
}

// handshake does the TLS handshake within the time for a request's head.
func (d *door) handshake(t *tls.Conn) error {
	ctx, cancel := context.WithTimeout(d.ctx, d.service.state.Load().cfg.Timeouts.EffectiveHeader())
	defer cancel()
	err := t.HandshakeContext(ctx)
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

// hand gives a connection to the server that slot holds; c is what is below nc.
func (d *door) hand(slot *atomic.Pointer[httpServer], c *conn, nc net.Conn) {
	for {
		s := slot.Load()
		if s.feed.push(nc) {
			return
		}
		if slot.Load() == s { // not replaced: the door is closed
			nc.Close()
			c.leave()
			return
		}
	}
}
