package l7

import (
	"bufio"
	"crypto/tls"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A server that closes a kept connection instead of answering gets the request
// again on a new one, if that may be repeated.
func TestKeptConnectionThatBreaks(t *testing.T) {
	server := func(t *testing.T) string {
		return raw(t, func(c *net.TCPConn, r *bufio.Reader) {
			readHead(r)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			readHead(r) // the second request, which gets no answer
		})
	}
	for _, tc := range []struct {
		method, body string
		status       int
	}{{"GET", "", 200}, {"HEAD", "", 200}, {"POST", "", 502}, {"POST", "x", 502}, {"GET", "x", 502}} {
		protocols(t, server, func(t *testing.T, r *rig, c *http.Client) {
			body(t, get(t, c, "https://a/"))
			req, _ := http.NewRequest(tc.method, "https://a/", strings.NewReader(tc.body))
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body(t, resp)
			if resp.StatusCode != tc.status {
				t.Errorf("%s with body %q: %s, want %d", tc.method, tc.body, resp.Status, tc.status)
			}
		})
	}
}

// A server that has seen a request and died of it leaves no other one to get
// it too, unless it may be repeated.
func TestServerThatDiesWithAKeptConnection(t *testing.T) {
	for _, tc := range []struct {
		request  string
		status   int
		connects int64 // in vain
	}{
		{"GET / HTTP/1.1\r\nHost: a\r\n", 200, 1},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nIdempotency-Key: 1\r\n", 502, 0},
	} {
		r := newRig(t)
		l, err := net.Listen("tcp", "127.0.7.44:0") // where nobody else gets the port when it is closed
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			in := bufio.NewReader(c)
			readHead(in)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			readHead(in)
			l.Close()
			c.Close()
		}()
		r.pool("p", l.Addr().String(), named(t, "other"))
		addr := r.addr()
		r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p"})
		ask := func(request string) (int, string) {
			resp := say(t, addr, request+"Connection: close\r\n\r\n")
			return resp.StatusCode, body(t, resp)
		}
		const get = "GET / HTTP/1.1\r\nHost: a\r\n"
		for _, want := range []string{"ok", "other"} { // they take turns
			if _, got := ask(get); got != want {
				t.Fatalf("%q, want %q", got, want)
			}
		}
		if status, got := ask(tc.request); status != tc.status {
			t.Errorf("%q: %d %q, want %d", tc.request, status, got, tc.status)
		}
		<-ended
		if s := r.pools["p"].Servers()[0].Stats(); s.ConnectErrors != tc.connects {
			t.Errorf("%q: %d connect errors", tc.request, s.ConnectErrors)
		}
	}
}

// A body that came with its head is sent once, whatever becomes of kept connections
// before: what a server gets twice it takes for the next request.
func TestBodyAfterStaleConnections(t *testing.T) {
	const old = 3
	var wait sync.WaitGroup
	wait.Add(old)
	leave := make(chan struct{})
	got := make(chan string, 1)
	server := raw(t, func(c *net.TCPConn, r *bufio.Reader) {
		head := readHead(r)
		if !strings.HasPrefix(head, "POST") {
			wait.Done()
			wait.Wait()
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			<-leave
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		c.CloseWrite()
		b, _ := io.ReadAll(r)
		got <- string(b)
	})
	r, addr := simple(t, server)
	var asked sync.WaitGroup
	for range old {
		asked.Go(func() { body(t, say(t, addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")) })
	}
	asked.Wait()
	up := slices.Collect(maps.Keys(r.engine.ups))[0]
	r.until("the kept connections", func() bool {
		up.mu.Lock()
		defer up.mu.Unlock()
		return len(up.idle) == 1 && len(slices.Collect(maps.Values(up.idle))[0].conns) == old
	})
	close(leave)
	up.mu.Lock()
	for c := range up.open {
		r.until("their end", func() bool { return c.fresh() == errStale })
	}
	up.mu.Unlock()
	if resp := say(t, addr, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"); resp.StatusCode != 200 {
		t.Errorf("%s", resp.Status)
	}
	if b := <-got; b != "hello" {
		t.Errorf("the server got %q", b)
	}
}

// Requests that are sent together get all their answers, also when a read ends
// exactly where one of them does.
func TestRequestsThatFillABuffer(t *testing.T) {
	const size, n = 64, 2*workSize/64 + 10
	request := "GET / HTTP/1.1\r\nHost: a\r\nX: "
	request += strings.Repeat("x", size-len(request)-4) + "\r\n\r\n"
	for _, secured := range []bool{false, true} {
		c := keptClient(t, secured)
		r := bufio.NewReader(c)
		ask := func(n int) {
			t.Helper()
			if _, err := io.WriteString(c, strings.Repeat(request, n)); err != nil {
				t.Fatal(err)
			}
			for i := range n {
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatalf("TLS %t: answer %d of %d: %v", secured, i, n, err)
				}
				body(t, resp)
			}
		}
		ask(1)
		ask(n)
		ask(1)
	}
}

// A client that closes its side together with its request gets its answer, and the
// connection ends soon, not when it has been idle for long.
func TestClientThatClosesWithItsRequest(t *testing.T) {
	for _, secured := range []bool{false, true} {
		c := keptClient(t, secured)
		tcp, _ := c.(*net.TCPConn)
		if secured {
			tcp = c.(*tls.Conn).NetConn().(*net.TCPConn)
		}
		r := bufio.NewReader(c)
		ask := func() {
			t.Helper()
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		answer := func() {
			t.Helper()
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			body(t, resp)
		}
		ask()
		answer()
		raw, _ := tcp.SyscallConn()
		if err := raw.Control(func(fd uintptr) { // so that both are one segment
			if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, 1); err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
		ask()
		if err := tcp.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		answer()
		if _, err := r.ReadByte(); err == nil || isTimeout(err) {
			t.Errorf("TLS %t: the connection is still open: %v", secured, err)
		}
	}
}

// keptClient returns a client's connection to a service that answers each request
// itself. Whoever reads from it has patience.
func keptClient(t *testing.T, secured bool) net.Conn {
	t.Helper()
	r := newRig(t)
	addr := r.addr()
	cfg := Config{Name: "web", Listen: []netip.AddrPort{addr}, Routes: []Route{{Respond: &Respond{Status: 200, Body: "ok"}}}}
	if secured {
		cfg.TLS = &TLS{Certificates: []Certificate{makeCert(t, "a")}}
	}
	r.apply(cfg)
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if secured {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	return c
}
