package l4

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"appliance/internal/pool"
)

// unixBackend is backend on a socket in the file system; it returns the address
// as the file spells it.
func unixBackend(t *testing.T, serve func(c *net.UnixConn)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	serveAll(t, l, serve)
	return "unix:" + path
}

// serveOn makes one service, "web" on entrance, which forwards to a pool.
func (h *house) serveOn(t Timeouts, cfg pool.Config) *pool.Pool {
	h.t.Helper()
	cfg.Name = "web"
	p := pool.New(cfg)
	h.load([]Config{{Name: "web", Listen: []netip.AddrPort{entrance}, Timeouts: t}}, p)
	return p
}

func TestUnixSocketServer(t *testing.T) {
	h := newHouse(t)
	p := h.serveOn(Timeouts{}, pool.Config{Servers: []pool.ServerConfig{{Address: unixBackend(t, func(c *net.UnixConn) {
		data, err := io.ReadAll(c) // until the client's end
		if err != nil {
			t.Errorf("server read: %v", err)
		}
		_, _ = c.Write(data)
	})}}})
	for _, size := range []int{0, 5, 10 << 20} {
		c := h.dial(entrance)
		sent := noise(size)
		if _, err := c.Write(sent); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("got %d bytes back, %v, want the %d that were sent", len(got), err, len(sent))
		}
		if got := h.end(); got != "both sides closed" {
			t.Errorf("the connection ended with %q", got)
		}
	}
	if st := p.Servers()[0].Stats(); st.Total != 3 || st.BytesToServer != 5+10<<20 || st.ConnectErrors != 0 {
		t.Errorf("counted %+v", st)
	}
}

func TestUnixSocketServerSpeaksFirst(t *testing.T) {
	h := newHouse(t)
	h.serveOn(Timeouts{}, pool.Config{SendProxy: "v1", Servers: []pool.ServerConfig{{Address: unixBackend(t, func(c *net.UnixConn) {
		b := make([]byte, 128)
		n, _ := c.Read(b)
		_, _ = c.Write(append([]byte("220 "), b[:n]...))
	})}}})
	c := h.dial(entrance)
	expect(t, c, "220 PROXY TCP4 127.0.0.1 127.0.0.21 ")
	c.Close()
	h.end()
}

// A socket that is not there, and one that nobody listens on, are passed over.
func TestUnixSocketThatIsNotThere(t *testing.T) {
	stale := filepath.Join(t.TempDir(), "stale.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	h := newHouse(t)
	p := h.serveOn(Timeouts{}, pool.Config{Balance: pool.First, Servers: []pool.ServerConfig{
		{Address: "unix:" + filepath.Join(t.TempDir(), "none.sock")},
		{Address: "unix:" + stale},
		{Address: backend(t, greet("hello")).String()},
	}})
	c := h.dial(entrance)
	expect(t, c, "hello")
	for i, s := range p.Servers() {
		if n, want := s.Stats().ConnectErrors, int64(1-i/2); n != want {
			t.Errorf("%s: %d connect errors, want %d", s.Address(), n, want)
		}
	}
}

// A server that does not accept has a queue that ends: then the next server gets
// the connection, and nobody waits.
func TestUnixSocketWhoseQueueIsFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "full.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	first, err := net.Dial("unix", path) // fills it
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	h := newHouse(t)
	p := h.serveOn(Timeouts{}, pool.Config{Balance: pool.First, Servers: []pool.ServerConfig{
		{Address: "unix:" + path}, {Address: backend(t, greet("hello")).String()},
	}})
	expect(t, h.dial(entrance), "hello")
	if st := p.Servers()[0].Stats(); st.ConnectErrors != 1 {
		t.Errorf("%d connect errors, want 1", st.ConnectErrors)
	}
}

// An idle timeout is judged by the client's connection alone.
func TestIdleTimeoutWithUnixSocket(t *testing.T) {
	h := newHouse(t)
	h.serveOn(Timeouts{Idle: 50 * time.Millisecond}, pool.Config{Servers: []pool.ServerConfig{{Address: unixBackend(t, func(c *net.UnixConn) {
		_, _ = io.Copy(io.Discard, c)
	})}}})
	h.dial(entrance)
	if got := h.end(); got != errIdle.Error() {
		t.Errorf("the connection ended with %q", got)
	}
}

// What a server says before it hangs up reaches the client, and its hanging up
// ends the connection.
func TestUnixSocketServerThatHangsUp(t *testing.T) {
	h := newHouse(t)
	h.serveOn(Timeouts{}, pool.Config{Servers: []pool.ServerConfig{{Address: unixBackend(t, func(c *net.UnixConn) {
		_, _ = c.Read(make([]byte, 1)) // leaves the rest, which makes its close a reset
		_, _ = io.WriteString(c, "bye")
	})}}})
	c := h.dial(entrance)
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	expect(t, c, "bye")
	if got := h.end(); got == "both sides closed" {
		t.Errorf("the connection ended with %q, but the server had not read all", got)
	}
}
