package l7

import (
	"bytes"
	"context"
	"crypto/tls"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// httpServer is an http.Server for HTTP/2 that gets its connections one by one.
type httpServer struct {
	server *http.Server
	feed   *feed
	ended  chan struct{}
}

// newHTTPServer starts a server for door d; retire ends it. With keep false it
// keeps no connection for a second request.
func newHTTPServer(d *door, set doorSettings, keep bool) *httpServer {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	s := &httpServer{
		feed:  newFeed(net.TCPAddrFromAddrPort(d.local)),
		ended: make(chan struct{}),
		server: &http.Server{
			Handler:                      d,
			ReadHeaderTimeout:            set.header,
			IdleTimeout:                  set.idle,
			MaxHeaderBytes:               int(set.maxHeader),
			Protocols:                    protocols,
			DisableGeneralOptionsHandler: true, // "OPTIONS *" is a server's to answer
			BaseContext:                  func(net.Listener) context.Context { return d.ctx },
			ConnContext:                  withConn,
			ConnState:                    connState,
			ErrorLog:                     newErrorLog(d.service.pipeline.log),
		},
	}
	s.server.SetKeepAlivesEnabled(keep)
	go s.run()
	return s
}

func (s *httpServer) run() {
	defer close(s.ended)
	_ = s.server.Serve(s.feed) // ends with the feed, that is its error
}

// retire takes no more connections and lets those that there are go: idle ones
// are closed, the others when their answers are out. It does not wait for them,
// but to say goodbye to a client that takes nothing may last some seconds.
func (s *httpServer) retire() {
	s.feed.Close()
	<-s.ended
	s.server.SetKeepAlivesEnabled(false)
	// Shutdown sends GOAWAY to all clients. To wait, with a context that has
	// ended, is not part of it.
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.server.Shutdown(ended)
}

// feed is the listener of an httpServer.
type feed struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newFeed(addr net.Addr) *feed {
	return &feed{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// push hands c to the server; false if the feed is closed.
func (f *feed) push(c net.Conn) bool {
	select {
	case f.conns <- c:
		return true
	case <-f.closed:
		return false
	}
}

func (f *feed) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

func (f *feed) Close() error {
	f.once.Do(func() { close(f.closed) })
	return nil
}

func (f *feed) Addr() net.Addr { return f.addr }

// connOf returns our connection below what an http.Server has accepted.
func connOf(nc net.Conn) *conn {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	return nc.(*conn)
}

// connState is told by net/http what becomes of a connection.
func connState(nc net.Conn, state http.ConnState) {
	switch c := connOf(nc); state {
	case http.StateIdle:
		c.settle()
	case http.StateClosed:
		c.settle()
		c.leave()
	case http.StateHijacked:
		c.hijacked.Store(true)
		c.leave() // the request that took it is still a user
	}
}

// connKey is the key of the *conn in a request's context.
type connKey struct{}

func withConn(ctx context.Context, nc net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, connOf(nc))
}

// newErrorLog returns a logger for net/http's remarks about its clients.
func newErrorLog(l zerolog.Logger) *log.Logger {
	return log.New(errorLog{
		rare:   l,
		common: l.Sample(&zerolog.BurstSampler{Burst: 10, Period: time.Second}),
	}, "", 0)
}

type errorLog struct{ rare, common zerolog.Logger }

func (l errorLog) Write(p []byte) (int, error) {
	text := string(bytes.TrimSpace(p))
	if bytes.HasPrefix(p, []byte("http: panic")) || bytes.HasPrefix(p, []byte("http2: panic")) {
		l.rare.Error().Msg(text) // an error of ours, with its stack
	} else {
		l.common.Debug().Msg(text)
	}
	return len(p), nil
}
