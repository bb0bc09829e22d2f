package l7

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

const upgradeHead = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"

// echo answers an upgrade and then sends back what comes, until the end.
func echo(t *testing.T) string {
	return raw(t, func(c *net.TCPConn, r *bufio.Reader) {
		head := readHead(r)
		for _, want := range []string{"\r\nConnection: Upgrade\r\n", "\r\nUpgrade: websocket\r\n", "\r\nSec-WebSocket-Key: k\r\n", "\r\nX-Forwarded-For: 127.0.0.1\r\n"} {
			if !strings.Contains(head, want) {
				t.Errorf("no %q in %q", want, head)
			}
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nwelcome")
		io.Copy(c, r)
		io.WriteString(c, "bye")
	})
}

// upgrade opens an upgraded connection and reads the welcome; what is early is
// sent along with the head.
func upgrade(t *testing.T, addr netip.AddrPort, config *tls.Config, early string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, r := dial(t, addr, config)
	io.WriteString(c, upgradeHead+early)
	resp := answerTo(t, r, "GET")
	if resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "websocket" || resp.Header.Get("Sec-Websocket-Accept") != "x" {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	expect(t, r, "welcome"+early)
	return c, r
}

func expect(t *testing.T, r io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(r, b); err != nil || string(b) != want {
		t.Fatalf("%q, %v; want %q", b[:n], err, want)
	}
}

func TestWebSocket(t *testing.T) {
	for name, config := range map[string]*tls.Config{"plain": nil, "TLS": {InsecureSkipVerify: true}} {
		t.Run(name, func(t *testing.T) {
			start := simple
			if config != nil {
				start = secure
			}
			r, addr := start(t, echo(t))
			c, in := upgrade(t, addr, config, "early")
			for i := range 3 {
				text := fmt.Sprint("message ", i)
				io.WriteString(c, text)
				expect(t, in, text)
			}
			if n, s := r.engine.Active(nil), r.stats("web"); n != 1 || s.Current != 1 || s.Responses != [5]int64{0: 1} {
				t.Errorf("%d active, %+v", n, s)
			}
			// The end of one direction passes, the other one goes on.
			if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			expect(t, in, "bye")
			if b, err := io.ReadAll(in); err != nil || len(b) > 0 {
				t.Errorf("at the end %q, %v", b, err)
			}
			r.until("the end", func() bool { return r.engine.Active(nil) == 0 && r.stats("web").Current == 0 })
			if s := r.stats("web"); s.BytesIn != 32 || s.BytesOut != 42 {
				t.Errorf("%d bytes in, %d out", s.BytesIn, s.BytesOut)
			}
			if st := r.pools["p"].Servers()[0].Stats(); st.BytesToServer != 32 || st.BytesToClient != 42 || st.Current != 0 {
				t.Errorf("server: %+v", st)
			}
		})
	}
}

func TestWebSocketEndsWithEitherSide(t *testing.T) {
	r, addr := simple(t, raw(t, func(c *net.TCPConn, rd *bufio.Reader) {
		readHead(rd)
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nwelcome")
		if b, _ := rd.ReadByte(); b == 'q' {
			return
		}
		io.Copy(io.Discard, rd) // ends when the client's end gets here
	}))
	t.Run("server", func(t *testing.T) {
		c, in := upgrade(t, addr, nil, "")
		io.WriteString(c, "q")
		if b, _ := io.ReadAll(in); len(b) > 0 {
			t.Errorf("%q", b)
		}
		c.Close()
		r.until("the end", func() bool { return r.engine.Active(nil) == 0 })
	})
	t.Run("client", func(t *testing.T) {
		c, _ := upgrade(t, addr, nil, "")
		c.Close()
		r.until("the end", func() bool { return r.engine.Active(nil) == 0 })
	})
	t.Run("client, by a reset", func(t *testing.T) {
		c, _ := upgrade(t, addr, nil, "")
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
		r.until("the end", func() bool { return r.engine.Active(nil) == 0 })
	})
}

// A direction that has ended does not leave the other one open for ever.
func TestHalfOpenWebSocket(t *testing.T) {
	r := newRig(t)
	r.pool("p", raw(t, func(c *net.TCPConn, rd *bufio.Reader) {
		readHead(rd)
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nwelcome")
		c.CloseWrite()
		io.Copy(io.Discard, rd)
	}))
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Timeouts: Timeouts{Idle: 50 * time.Millisecond}})
	_, in := upgrade(t, addr, nil, "")
	if b, err := io.ReadAll(in); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	r.until("the end", func() bool { return r.engine.Active(nil) == 0 })
}

func TestRefusedUpgrade(t *testing.T) {
	_, addr := simple(t, web(t, func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusForbidden) }))
	c, in := dial(t, addr, nil)
	for range 2 { // the connection stays good
		io.WriteString(c, upgradeHead)
		if resp := answerTo(t, in, "GET"); resp.StatusCode != 403 || body(t, resp) != "no\n" {
			t.Errorf("%s", resp.Status)
		}
	}
}

// A request with a body, and one of HTTP/1.0, is an ordinary one.
func TestRequestsThatCannotUpgrade(t *testing.T) {
	_, addr := simple(t, web(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		fmt.Fprint(w, len(b), err, r.Header["Upgrade"], r.Header["Connection"])
	}))
	const fields = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
	for request, want := range map[string]string{
		"POST /chat HTTP/1.1\r\n" + fields + "Content-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000): "100000 <nil> [] []",
		"POST /chat HTTP/1.1\r\n" + fields + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n":        "1 <nil> [] []",
		"GET /chat HTTP/1.0\r\n" + fields + "\r\n":                                                          "0 <nil> [] []",
	} {
		resp := say(t, addr, request)
		if got := body(t, resp); resp.StatusCode != 200 || got != want {
			t.Errorf("%.20q: %s %q, want %q", request, resp.Status, got, want)
		}
	}
}

// What an idle connection holds is small.
func TestTunnelBuffers(t *testing.T) {
	const runs = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		carry(io.Discard, strings.NewReader(""), func(int) {})
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / runs; n > 8<<10 {
		t.Errorf("%d bytes for one direction", n)
	}
}

func TestServerThatUpgradesToSomethingElse(t *testing.T) {
	_, addr := simple(t, raw(t, func(c *net.TCPConn, r *bufio.Reader) {
		readHead(r)
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n")
	}))
	if resp := say(t, addr, upgradeHead); resp.StatusCode != 502 {
		t.Errorf("%s", resp.Status)
	}
}

func TestShutdownCutsWebSockets(t *testing.T) {
	r, addr := simple(t, echo(t))
	_, in := upgrade(t, addr, nil, "")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.engine.Shutdown(ctx); err != context.DeadlineExceeded {
		t.Errorf("Shutdown: %v", err)
	}
	if n := r.engine.Active(nil); n != 0 {
		t.Errorf("%d active after Shutdown", n)
	}
	if _, err := io.ReadAll(in); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("%v", err)
	}
}

// A server that takes nothing of what is sent to it does not hold its clients for
// ever.
func TestUpgradedServerThatTakesNothing(t *testing.T) {
	over := make(chan struct{})
	r := newRig(t)
	r.pool("p", raw(t, func(c *net.TCPConn, r *bufio.Reader) {
		readHead(r)
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nwelcome")
		<-over
	}))
	defer close(over)
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Timeouts: Timeouts{Response: 300 * time.Millisecond}})
	c, _ := upgrade(t, addr, nil, "")
	for err := error(nil); err == nil; {
		_ = c.SetWriteDeadline(time.Now().Add(patience))
		if _, err = c.Write(make([]byte, 64<<10)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the tunnel stands still")
		}
	}
	r.until("the end", func() bool { return r.engine.Active(nil) == 0 })
}
