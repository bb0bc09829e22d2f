package lab

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
)

// serverHeader is the field of an answer that names the server.
const serverHeader = "X-Lab-Server"

// The ports of a Server.
const (
	HTTPPort = 80   // HTTP; the answer's body is the server's name and a newline
	EchoPort = 3306 // TCP; a greeting line with the server's name, then an echo
)

// Server is a small server on a host of its own: HTTP at HTTPPort and a
// greeting echo at EchoPort. It runs in this process, with the host's sockets.
type Server struct {
	// Host is the machine it runs on, with the server's name.
	Host *Host
	// Address is where it listens.
	Address netip.Addr

	handler atomic.Pointer[http.Handler]

	mu      sync.Mutex
	running *serving // nil while it is dead
}

// serving is one life of a server.
type serving struct {
	web   http.Server
	echo  net.Listener
	tasks sync.WaitGroup // what accepts, and a count for each connection

	mu       sync.Mutex
	conns    map[*net.TCPConn]struct{}
	finished bool
}

func newServer(h *Host, address netip.Addr) *Server {
	s := &Server{Host: h, Address: address}
	s.SetHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, h.Name)
	}))
	return s
}

// Name returns the server's name, which is its host's.
func (s *Server) Name() string { return s.Host.Name }

// SetHandler sets what answers HTTP requests from now on; it must end when the
// request's context does. The field X-Lab-Server is added to all answers.
func (s *Server) SetHandler(h http.Handler) { s.handler.Store(&h) }

// Start brings the server to life.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		return fmt.Errorf("server %s is running already", s.Name())
	}
	web, err := s.Host.Listen(netip.AddrPortFrom(s.Address, HTTPPort))
	if err != nil {
		return fmt.Errorf("server %s: %w", s.Name(), err)
	}
	echo, err := s.Host.Listen(netip.AddrPortFrom(s.Address, EchoPort))
	if err != nil {
		web.Close()
		return fmt.Errorf("server %s: %w", s.Name(), err)
	}
	r := &serving{echo: echo, conns: make(map[*net.TCPConn]struct{})}
	r.web.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set(serverHeader, s.Name())
		(*s.handler.Load()).ServeHTTP(w, q)
	})
	r.web.ConnState = func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			r.add(c.(*net.TCPConn))
		case http.StateClosed, http.StateHijacked:
			r.remove(c.(*net.TCPConn))
		}
	}
	r.tasks.Go(func() { r.web.Serve(web) }) // it ends when kill closes it
	r.tasks.Go(func() { r.serveEcho(s.Name()) })
	s.running = r
	return nil
}

// serveEcho accepts connections until the listener is closed.
func (r *serving) serveEcho(name string) {
	for {
		c, err := r.echo.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // one connection that was gone before it was accepted
		}
		conn := c.(*net.TCPConn)
		r.add(conn)
		go r.echoTo(conn, name)
	}
}

func (r *serving) echoTo(c *net.TCPConn, name string) {
	defer r.remove(c)
	defer c.Close()
	if _, err := io.WriteString(c, name+"\n"); err != nil {
		return
	}
	io.Copy(c, c) // until either side ends it
}

// add counts a connection; only those that accept call it, before they end.
func (r *serving) add(c *net.TCPConn) {
	r.tasks.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.finished {
		reset(c)
		return
	}
	r.conns[c] = struct{}{}
}

// remove is the last thing that the goroutine of a connection does.
func (r *serving) remove(c *net.TCPConn) {
	r.mu.Lock()
	delete(r.conns, c)
	r.mu.Unlock()
	r.tasks.Done()
}

// reset closes a connection with a reset instead of an end.
func reset(c *net.TCPConn) {
	c.SetLinger(0) // it fails on a closed connection only
	c.Close()
}

// Kill ends the server as a crash does: its ports refuse connections, and those
// it has are reset. On a dead server it does nothing.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		return
	}
	s.running.kill()
	s.running = nil
}

func (r *serving) kill() {
	r.echo.Close()
	r.mu.Lock()
	r.finished = true
	for c := range r.conns {
		reset(c)
	}
	r.mu.Unlock()
	r.web.Close()
	r.tasks.Wait()
}
