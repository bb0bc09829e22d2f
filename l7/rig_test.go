package l7

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"appliance/internal/listen"
	"appliance/internal/pool"
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

func TestMain(m *testing.M) {
	code := m.Run()
	if left := leftGoroutines(); code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "goroutines left behind:\n%s\n", left)
		code = 1
	}
	os.Exit(code)
}

// leftGoroutines returns the stacks of what runs still after the last test.
func leftGoroutines() string {
	var left []string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		buf := make([]byte, 4<<20)
		left = nil
		for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if !strings.Contains(g, "TestMain") && (strings.Contains(g, "appliance/l7.") || strings.Contains(g, "net/http.")) {
				left = append(left, g)
			}
		}
		if len(left) == 0 {
			return ""
		}
	}
	return strings.Join(left, "\n\n")
}

// rig is an engine with listeners on loopback.
type rig struct {
	t      *testing.T
	engine *Engine
	pools  map[string]*pool.Pool
	wires  map[string]Transport
	log    *logBuffer
	accept sync.WaitGroup
	secret []byte // of session tickets

	mu        sync.Mutex
	listeners map[netip.AddrPort]*net.TCPListener
	handlers  map[netip.AddrPort]listen.Handler
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{
		t:         t,
		log:       &logBuffer{},
		pools:     make(map[string]*pool.Pool),
		listeners: make(map[netip.AddrPort]*net.TCPListener),
		handlers:  make(map[netip.AddrPort]listen.Handler),
	}
	r.engine = New(zerolog.New(r.log))
	t.Cleanup(func() {
		for _, l := range r.listeners {
			l.Close()
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = r.engine.Shutdown(ctx) // cuts what a test has left open
		r.accept.Wait()
		if n := r.engine.Active(nil); n != 0 && !r.eventually(func() bool { return r.engine.Active(nil) == 0 }) {
			t.Errorf("%d requests under way after Shutdown", n)
		}
		for name, p := range r.pools {
			for _, s := range p.Servers() {
				if n := s.Current(); n != 0 {
					t.Errorf("pool %s: server %s: %d connections after Shutdown", name, s.Label(), n)
				}
			}
		}
		if text := r.log.String(); strings.Contains(text, "panic") {
			t.Errorf("a panic was logged: %s", text)
		}
		if t.Failed() {
			t.Log(r.log.String())
		}
	})
	return r
}

// addr opens a listener, on which nothing is accepted before apply.
func (r *rig) addr() netip.AddrPort { return r.addrOn("127.0.0.1:0") }

func (r *rig) addrOn(on string) netip.AddrPort {
	r.t.Helper()
	l, err := net.Listen("tcp", on)
	if err != nil {
		r.t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	r.listeners[addr] = l.(*net.TCPListener)
	return addr
}

// pool makes a pool of servers.
func (r *rig) pool(name string, servers ...string) {
	cfg := pool.Config{Name: name}
	for _, s := range servers {
		cfg.Servers = append(cfg.Servers, pool.ServerConfig{Address: s})
	}
	r.pools[name] = pool.New(cfg)
}

// apply stages and commits a configuration.
func (r *rig) apply(cfgs ...Config) {
	r.t.Helper()
	c, err := r.engine.Stage(cfgs, r.pools, r.wires)
	if err != nil {
		r.t.Fatal(err)
	}
	c.Tickets(r.secret)
	c.Commit()
	r.mu.Lock()
	defer r.mu.Unlock()
	for addr, h := range c.Handlers() {
		_, running := r.handlers[addr]
		r.handlers[addr] = h
		if !running {
			r.accept.Add(1)
			go r.run(addr, r.listeners[addr])
		}
	}
}

func (r *rig) run(addr netip.AddrPort, l *net.TCPListener) {
	defer r.accept.Done()
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return
		}
		r.mu.Lock()
		h := r.handlers[addr]
		r.mu.Unlock()
		r.accept.Add(1)
		go func() {
			defer r.accept.Done()
			h.ServeConn(adopt(c))
		}()
	}
}

func (r *rig) eventually(cond func() bool) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if cond() {
			return true
		}
	}
	return false
}

// until waits for cond.
func (r *rig) until(what string, cond func() bool) {
	r.t.Helper()
	if !r.eventually(cond) {
		r.t.Fatalf("never happened: %s", what)
	}
}

func (r *rig) stats(name string) ServiceStats {
	r.t.Helper()
	for _, s := range r.engine.Stats() {
		if s.Name == name {
			return s
		}
	}
	r.t.Fatalf("no service %s", name)
	panic("unreachable")
}

// simple makes a plain service "web" in front of one server.
func simple(t *testing.T, server string) (*rig, netip.AddrPort) {
	t.Helper()
	r := newRig(t)
	r.pool("p", server)
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p"})
	return r, addr
}

// secure makes a service "web" with TLS in front of one server.
func secure(t *testing.T, server string) (*rig, netip.AddrPort) {
	t.Helper()
	r := newRig(t)
	r.pool("p", server)
	addr := r.addr()
	cert := makeCert(t, "blog.example.com")
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", TLS: &TLS{Certificates: []Certificate{cert}}})
	return r, addr
}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// adopt makes of c what a listener gives to its handler.
func adopt(c *net.TCPConn) *listen.Conn {
	defer c.Close()
	raw, err := c.SyscallConn()
	fd := -1
	if err == nil {
		ctl := raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
		err = errors.Join(err, ctl)
	}
	if err != nil {
		panic(err)
	}
	return listen.NewConn(fd, c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort())
}
