package l7

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Each part of an answer reaches the client before the server has the next.
func TestAnswersStream(t *testing.T) {
	next := make(chan struct{})
	server := func(t *testing.T) string {
		return web(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			if r.URL.Path == "/sized" {
				w.Header().Set("Content-Length", "24")
			}
			w.(http.Flusher).Flush()
			for i := range 3 {
				if i > 0 || r.URL.Path != "/sized" {
					<-next
				}
				fmt.Fprintf(w, "data: %d\n", i)
				w.(http.Flusher).Flush()
			}
		})
	}
	protocols(t, server, func(t *testing.T, r *rig, c *http.Client) {
		for _, path := range []string{"/", "/sized"} {
			resp := get(t, c, "https://blog.example.com"+path)
			lines := bufio.NewReader(resp.Body)
			for i := range 3 {
				if i > 0 || path != "/sized" {
					next <- struct{}{}
				}
				line, err := lines.ReadString('\n')
				if err != nil || line != fmt.Sprintf("data: %d\n", i) {
					t.Fatalf("%s: %q, %v", path, line, err)
				}
			}
			resp.Body.Close()
		}
	})
}

// Both directions run at the same time, the request's first.
func TestRequestsStream(t *testing.T) {
	server := func(t *testing.T) string {
		return web(t, func(w http.ResponseWriter, r *http.Request) {
			if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
				t.Error(err)
			}
			w.(http.Flusher).Flush()
			lines := bufio.NewReader(r.Body)
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					return
				}
				io.WriteString(w, "echo "+line)
				w.(http.Flusher).Flush()
			}
		})
	}
	protocols(t, server, func(t *testing.T, r *rig, c *http.Client) {
		up, feed := io.Pipe()
		req, _ := http.NewRequest("POST", "https://blog.example.com/", up)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(resp.Body)
		for i := range 3 {
			fmt.Fprintf(feed, "%d\n", i)
			if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("echo %d\n", i) {
				t.Fatalf("%q, %v", line, err)
			}
		}
		feed.Close()
		if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
			t.Errorf("at the end: %q, %v", rest, err)
		}
	})
}

func TestLargeBodiesPass(t *testing.T) {
	const size = 20 << 20
	server := func(t *testing.T) string {
		return web(t, func(w http.ResponseWriter, r *http.Request) {
			n, err := io.Copy(io.Discard, r.Body)
			if n != size || err != nil {
				t.Errorf("the server got %d bytes, %v", n, err)
			}
			io.CopyN(w, zeros{}, size)
		})
	}
	protocols(t, server, func(t *testing.T, r *rig, c *http.Client) {
		resp, err := c.Post("https://blog.example.com/", "x/y", io.LimitReader(zeros{}, size))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
			t.Errorf("the client got %d bytes, %v", n, err)
		}
		r.until("accounting", func() bool { s := r.stats("web"); return s.BytesIn == size && s.BytesOut == size })
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// An answer that breaks off is never turned into one that ends.
func TestBrokenAnswers(t *testing.T) {
	answers := map[string]string{
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"sized":   "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
		"reset":   "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
	}
	for name, answer := range answers {
		began := make(chan struct{}) // the client has the beginning
		server := func(t *testing.T) string {
			return raw(t, func(c *net.TCPConn, r *bufio.Reader) {
				readHead(r)
				io.WriteString(c, answer)
				<-began
				if name == "reset" {
					c.SetLinger(0)
				}
			})
		}
		breaksOff := func(t *testing.T, resp *http.Response) error {
			defer resp.Body.Close()
			if _, err := io.ReadFull(resp.Body, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			began <- struct{}{}
			rest, err := io.ReadAll(resp.Body)
			if err == nil {
				t.Errorf("after %q the answer looks whole", rest)
			}
			return err
		}
		t.Run(name, func(t *testing.T) {
			protocols(t, server, func(t *testing.T, r *rig, c *http.Client) {
				breaksOff(t, get(t, c, "https://blog.example.com/"))
			})
		})
		t.Run(name+" to HTTP/1.0", func(t *testing.T) {
			_, addr := simple(t, server(t))
			c, r := dial(t, addr, nil)
			io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
			err := breaksOff(t, answerTo(t, r, "GET"))
			if name != "sized" && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the connection ended with %v", err)
			}
		})
	}
}

// What ends with the connection ends so for the client as well, in good order.
func TestAnswerUntilClose(t *testing.T) {
	server := func(t *testing.T) string {
		return raw(t, func(c *net.TCPConn, r *bufio.Reader) {
			readHead(r)
			io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\nhello")
		})
	}
	protocols(t, server, func(t *testing.T, r *rig, c *http.Client) {
		if got := body(t, get(t, c, "https://blog.example.com/")); got != "hello" {
			t.Errorf("%q", got)
		}
	})
}

func TestClientThatLeavesEndsTheRequest(t *testing.T) {
	came, gone := make(chan struct{}), make(chan struct{})
	server := func(t *testing.T) string {
		return web(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/begun" {
				w.(http.Flusher).Flush()
			}
			came <- struct{}{}
			<-r.Context().Done()
			gone <- struct{}{}
		})
	}
	protocols(t, server, func(t *testing.T, r *rig, c *http.Client) {
		for _, path := range []string{"/", "/begun"} {
			ctx, cancel := context.WithCancel(t.Context())
			req, _ := http.NewRequestWithContext(ctx, "GET", "https://blog.example.com"+path, nil)
			go func() {
				<-came
				if n, m := r.engine.Active(nil), r.pools["p"].Servers()[0].Current(); n != 1 || m != 1 {
					t.Errorf("%d requests active, %d at the server", n, m)
				}
				cancel()
			}()
			if resp, err := c.Do(req); err == nil {
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			<-gone
			r.until("the end of the request", func() bool { return r.stats("web").Current == 0 && r.engine.Active(nil) == 0 })
		}
	})
}

// A client that closes its sending side is taken for gone; what it must not get
// is an answer that nobody gave.
func TestHalfClosedClientGetsNoInventedAnswer(t *testing.T) {
	release := make(chan struct{})
	_, addr := simple(t, web(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer close(release)
	c, r := dial(t, addr, nil)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	c.(*net.TCPConn).CloseWrite()
	if b, _ := io.ReadAll(r); len(b) > 0 {
		t.Errorf("got %q", b)
	}
}

// An early answer reaches the client; what is left of the body is not taken for
// a request.
func TestEarlyAnswer(t *testing.T) {
	for _, framing := range []string{"Content-Length: 100", "Transfer-Encoding: chunked"} {
		r, addr := simple(t, raw(t, func(c *net.TCPConn, r *bufio.Reader) {
			readHead(r)
			io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
		}))
		c, in := dial(t, addr, nil)
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\n"+framing+"\r\n\r\n")
		resp := answerTo(t, in, "POST")
		if got := body(t, resp); resp.StatusCode != 413 || got != "big" || !resp.Close {
			t.Errorf("%s: %s %q, close %v", framing, resp.Status, got, resp.Close)
		}
		io.WriteString(c, "x\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
		c.(*net.TCPConn).CloseWrite()
		if rest, _ := io.ReadAll(in); len(rest) > 0 {
			t.Errorf("%s: a second answer: %q", framing, rest)
		}
		if n := r.stats("web").Requests; n != 1 {
			t.Errorf("%s: %d requests", framing, n)
		}
	}
}

// A request body that is malformed, breaks off or stalls is answered so, and
// the connection is not used again.
func TestBadRequestBodies(t *testing.T) {
	r := newRig(t)
	r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Timeouts: Timeouts{Idle: 100e6}})
	const chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	for _, tc := range []struct {
		name, text string
		closeWrite bool
		status     int
	}{
		{"no chunk", chunked + "zz\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", false, 400},
		{"half a chunk", chunked + "5\r\nhel", true, 0}, // the client is gone: no answer
		{"stalled chunk", chunked + "5\r\nhel", false, 408},
		{"stalled body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel", false, 408},
	} {
		c, in := dial(t, addr, nil)
		io.WriteString(c, tc.text)
		if tc.closeWrite {
			c.(*net.TCPConn).CloseWrite()
		}
		if tc.status != 0 {
			resp := answerTo(t, in, "POST")
			if resp.StatusCode != tc.status || !resp.Close {
				t.Errorf("%s: %s, close %v; want %d", tc.name, resp.Status, resp.Close, tc.status)
			}
			body(t, resp)
		}
		if rest, _ := io.ReadAll(in); len(rest) > 0 {
			t.Errorf("%s: then %q", tc.name, rest)
		}
	}
	if n := r.stats("web").Requests; n != 4 {
		t.Errorf("%d requests, want 4", n)
	}
}

func TestKeptConnectionsToServers(t *testing.T) {
	conns := make(map[string]bool)
	_, addr := simple(t, web(t, func(w http.ResponseWriter, r *http.Request) {
		conns[r.RemoteAddr] = true // requests come one after the other
		io.Copy(w, r.Body)
	}))
	c := client(t, addr, protocolHTTP1)
	for range 5 {
		resp, err := c.Post("http://a/", "x/y", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		body(t, resp)
	}
	if len(conns) != 1 {
		t.Errorf("%d connections for 5 requests", len(conns))
	}
}

// A body that trickles is given up, though it never pauses for long; one in chunks
// is not if it is half of a conversation.
func TestBodyThatTrickles(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, _ := dial(t, l.Addr().(*net.TCPAddr).AddrPort(), nil)
	tcp, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	client := adopt(tcp.(*net.TCPConn))
	defer client.Close()
	conn := newHTTP1Conn(&server{set: doorSettings{idle: patience}}, client, nil, newPeer(netip.Addr{}))
	conn.begin()
	for _, tc := range []struct {
		length, got int64
		took        time.Duration
		talks       bool
		slow        bool
	}{
		{10000, 1, time.Minute, false, true},
		{10000, 1, time.Minute, true, true},
		{10000, 1, time.Second, false, false},
		{100000, 50000, time.Minute, false, false},
		{-1, 1, time.Minute, false, true},
		{-1, 1, time.Second, false, false},
		{-1, 50000, time.Minute, false, false},
		{-1, 1, time.Hour, true, false},
	} {
		b := &http1Body{conn: conn}
		b.begin(tc.length, false)
		b.left -= max(0, min(b.left, tc.got))
		b.got, b.began = tc.got, time.Now().Add(-tc.took)
		conn.work.ex.talks.Store(tc.talks)
		io.WriteString(c, "1\r\nx\r\n")
		n, err := b.Read(make([]byte, 6))
		if be := (*bodyError)(nil); tc.slow != (errors.As(err, &be) && isTimeout(be)) || !tc.slow && (n == 0 || err != nil) {
			t.Errorf("%+v: %d bytes, %v", tc, n, err)
		}
		if tc.slow {
			io.ReadFull(client, make([]byte, 6))
		}
	}
}
