package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/netip"
	"sync/atomic"
	"time"

	"appliance/internal/listen"
)

// doorSettings are what a door's servers are made from; comparable.
type doorSettings struct {
	tls       bool
	clients   string // by whom certificates of clients are signed, and which are not good
	maxHeader int64
	header    time.Duration
	idle      time.Duration
	http2     bool // is spoken
	limits    http2Limits
}

// door takes the connections of one service at one local address.
type door struct {
	engine  *Engine
	service *service
	place   *place
	server  atomic.Pointer[server]
}

// newDoor opens a door; with keep false no connection is kept for a second
// request. retire ends it.
func newDoor(e *Engine, s *service, at *place, keep bool) *door {
	d := &door{engine: e, service: s, place: at}
	d.renew(keep)
	return d
}

// renew replaces the server, so that the service's settings are in force. Those
// who are connected to the old one are let go in a friendly way.
func (d *door) renew(keep bool) {
	if old := d.server.Swap(newServer(d, d.service.state.Load().doorSettings(), keep)); old != nil {
		old.retire()
	}
}

// setKeep says whether connections are kept for a second request. If not, idle
// ones are closed now and the others when their answers are out.
func (d *door) setKeep(keep bool) {
	if !keep {
		d.renew(false) // only the end of a server makes all its clients leave
		return
	}
	d.server.Load().keep.Store(true)
	d.server.Load().leaving.Store(false)
}

// retire ends the door: no connection gets in, and those inside leave when they
// become idle.
func (d *door) retire() { d.server.Load().retire() }

// secure reports whether the door's connections begin with TLS.
func (d *door) secure() bool { return d.service.state.Load().certs != nil }

// serve serves the connection of a client, which is counted for it or not, and returns
// when that is closed and all its requests have ended, or it is parked. The stacks of
// idle connections begin with its frame and those below: they are to be small, so that
// the collector can shrink them.
func (d *door) serve(tcp *listen.Conn, client netip.Addr, counted bool) (parked bool) {
	who := newPeer(client)
	who.counted = counted
	if d.secure() {
		c := d.encrypted(tcp, who)
		return c != nil && d.run(c)
	}
	h1 := newHTTP1Conn(d.server.Load(), tcp, nil, who)
	if d.run(h1) {
		return true
	}
	if h1.preface != nil {
		d.run(newHTTP2Conn(h1.server, tcp, nil, h1.peer, h1.preface))
	}
	return false
}

// encrypted does the TLS handshake and returns what the connection is then, which
// counts already; nil if the handshake has failed.
func (d *door) encrypted(tcp *listen.Conn, who *peer) runningConn {
	raw, _ := tcp.SyscallConn() // fails only without a connection
	c := &conn{Conn: tcp, raw: raw, stall: stallOf(d.service.state.Load().cfg.Timeouts.EffectiveIdle()), began: time.Now()}
	d.place.add(c)
	defer d.place.remove(c)
	t := tls.Server(c, d.service.tls)
	judge := d.service.state.Load().clients
	err := d.handshake(t, c)
	who.session = newSession(t.ConnectionState())
	if judge == d.service.state.Load().clients {
		who.session.judge.Store(judge)
	}
	if err != nil {
		d.service.failedHandshake(who, c.began, err)
		d.service.pipeline.log.Debug().Str("client", who.text).Err(err).Msg("TLS handshake failed")
		c.Close()
		return nil
	}
	var next runningConn
	if who.session.protocol == protocolHTTP2 {
		next = newHTTP2Conn(d.server.Load(), tcp, t, who, nil)
	} else {
		next = newHTTP1Conn(d.server.Load(), tcp, t, who)
	}
	d.place.add(next) // before c goes: one of them counts
	return next
}

// runningConn is a connection to a client that speaks one version of HTTP.
type runningConn interface {
	clientConn
	// run serves the connection and closes it, unless it is to be served by
	// another version. If it has been parked the goroutine that goes on with it does
	// so, and what else is due at its end.
	run() (parked bool)
}

func (d *door) run(c runningConn) (parked bool) {
	d.place.add(c)
	if c.run() {
		return true
	}
	d.place.remove(c)
	return false
}

// over is the end of a connection that letIn has counted.
func (d *door) over(client netip.Addr, counted bool) {
	d.service.conns.leave(client, counted)
	d.engine.conns.Done()
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
