package l4

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"appliance/internal/listen"
	"appliance/internal/pool"
)

// atOnce bounds what is expected to happen at once.
const atOnce = 20 * time.Second

// house is an engine behind real listeners.
type house struct {
	t      testing.TB
	engine *Engine
	set    *listen.Set
	ends   chan string // the reasons in the log for which connections ended
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{t: t, set: listen.NewSet(zerolog.Nop(), nil), ends: make(chan string, 200000)}
	h.engine = New(zerolog.New(h), nil)
	t.Cleanup(func() {
		if err := h.set.Close(); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = h.engine.Shutdown(ctx) // cuts what a failed test may have left
		h.set.Wait()
	})
	return h
}

// Write is the sink of the log.
func (h *house) Write(line []byte) (int, error) {
	var event struct{ Message, End string }
	if err := json.Unmarshal(line, &event); err != nil {
		return 0, err
	}
	if event.Message == "connection ended" {
		h.ends <- event.End
	}
	return len(line), nil
}

// end returns why the next connection ended.
func (h *house) end() string {
	h.t.Helper()
	select {
	case reason := <-h.ends:
		return reason
	case <-time.After(atOnce):
		h.t.Fatal("no connection ended")
		return ""
	}
}

// load makes services and pools effective.
func (h *house) load(cfgs []Config, pools ...*pool.Pool) {
	h.t.Helper()
	byName := make(map[string]*pool.Pool)
	for _, p := range pools {
		byName[p.Name()] = p
	}
	change, err := h.engine.Stage(cfgs, byName)
	if err != nil {
		h.t.Fatal(err)
	}
	listeners, err := h.set.Stage(change.Handlers())
	if err != nil {
		h.t.Fatal(err)
	}
	change.Commit()
	listeners.Commit()
}

// serve makes one service, "web" on door, which forwards to servers.
func (h *house) serve(t Timeouts, servers ...netip.AddrPort) *pool.Pool {
	h.t.Helper()
	p := newPool("web", servers...)
	h.load([]Config{{Name: "web", Listen: []netip.AddrPort{entrance}, Timeouts: t}}, p)
	return p
}

// entrance is where the service of serve listens, on a port of its own.
var entrance = netip.MustParseAddrPort("127.0.0.21:0")

func newPool(name string, servers ...netip.AddrPort) *pool.Pool {
	cfg := pool.Config{Name: name}
	for _, s := range servers {
		cfg.Servers = append(cfg.Servers, pool.ServerConfig{Address: s.String()})
	}
	return pool.New(cfg)
}

// dial connects to the listener wanted as addr.
func (h *house) dial(addr netip.AddrPort) *net.TCPConn {
	h.t.Helper()
	c, err := net.DialTimeout("tcp", h.set.Addr(addr).String(), atOnce)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(atOnce)); err != nil {
		h.t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// backend is a server that runs serve for each connection, and closes it then.
func backend(t testing.TB, serve func(c *net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 31)})
	if err != nil {
		t.Fatal(err)
	}
	serveAll(t, l, serve)
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// serveAll runs serve for each connection of l until the test ends, and closes it
// then.
func serveAll[C net.Conn](t testing.TB, l net.Listener, serve func(C)) {
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(atOnce))
				serve(c.(C))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
}

// greet returns a server that says word and waits for the client's end.
func greet(word string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		if _, err := io.WriteString(c, word); err == nil {
			_, _ = io.Copy(io.Discard, c)
		}
	}
}

// echo is a server that sends back what it gets. It does not splice, so that
// all pipes there are belong to the engine.
func echo(c *net.TCPConn) {
	_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
}

// closedPort returns an address that refuses connections: a socket has it that does
// not listen, so that nobody else gets the port.
func closedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 32}}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.32"), uint16(name.(*unix.SockaddrInet4).Port))
}

// silentPort returns an address that answers no connection request.
func silentPort(t *testing.T) netip.AddrPort {
	t.Helper()
	s := listen.NewSet(zerolog.Nop(), nil)
	addr := netip.MustParseAddrPort("127.0.0.33:0")
	if _, err := s.Hold([]netip.Addr{addr.Addr()}); err != nil {
		t.Fatal(err)
	}
	change, err := s.Stage(map[netip.AddrPort]listen.Handler{addr: nil})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(change.Discard)
	return s.Addr(addr)
}

func expect(t testing.TB, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

func say(t testing.TB, c net.Conn, what string) {
	t.Helper()
	if _, err := io.WriteString(c, what); err != nil {
		t.Fatal(err)
	}
}

// expectEnd checks that nothing but the end of the stream is left to read.
func expectEnd(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := io.Copy(io.Discard, c); n != 0 || err != nil {
		t.Fatalf("read %d bytes and %v, want a clean end", n, err)
	}
}

// expectReset checks that c ends in a reset, whatever comes before.
func expectReset(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the connection ended with %v, want a reset", err)
	}
}

// expectRefusal connects to the listener wanted as addr and checks for a reset,
// which may come as early as in connect.
func (h *house) expectRefusal(addr netip.AddrPort) {
	h.t.Helper()
	c, err := net.DialTimeout("tcp", h.set.Addr(addr).String(), atOnce)
	if err == nil {
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(atOnce)); err != nil {
			h.t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, c)
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		h.t.Fatalf("the connection ended with %v, want a reset", err)
	}
}

// resetConn closes c so that its peer sees a reset, not an end.
func resetConn(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// eventually waits until ok; counters lag behind the bytes that they count.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(atOnce); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("still not so: %s", what)
		}
	}
}
