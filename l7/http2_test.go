package l7

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A request needs a body to have one: without, it may be repeated and is sent
// as it came.
func TestHTTP2RequestWithoutBody(t *testing.T) {
	heads := make(chan string, 1)
	_, addr := secure(t, raw(t, func(c *net.TCPConn, r *bufio.Reader) {
		heads <- readHead(r)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}))
	resp, err := client(t, addr, protocolHTTP2).Post("https://a/", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	body(t, resp)
	if head := strings.ToLower(<-heads); !strings.Contains(head, "\r\ncontent-length: 0\r\n") || strings.Contains(head, "transfer-encoding") {
		t.Errorf("the server got %q", head)
	}
}

// A client that opens no window for the answer is cut off; streams and the
// connection end.
func TestHTTP2ClientWithoutWindow(t *testing.T) {
	for name, size := range map[string]int64{"short": 5, "sized": 1 << 20, "until the end": -1 << 20} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) {
				if size > 0 {
					w.Header().Set("Content-Length", fmt.Sprint(size))
				}
				io.CopyN(w, zeros{}, max(size, -size))
			}))
			addr := r.addr()
			r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", TLS: &TLS{Certificates: []Certificate{makeCert(t, "a")}},
				Timeouts: Timeouts{Idle: 100 * time.Millisecond}})
			c, in := http2Frames(t, addr, []byte{0, settingInitialWindow, 0, 0, 0, 0})
			for i := range uint32(10) {
				write(t, c, ask(2*i+1, ":authority", "a", ":path", "/"))
			}
			if _, err := io.Copy(io.Discard, in); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the connection is still open")
			}
			r.until("the end", func() bool { return r.stats("web").Current == 0 && r.engine.Active(nil) == 0 })
		})
	}
}

// A server may take longer between two parts of its answer than a client to
// take one.
func TestHTTP2AnswerWithPauses(t *testing.T) {
	const idle = 50 * time.Millisecond
	r := newRig(t)
	r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) {
		for i := range 3 {
			time.Sleep(4 * idle)
			fmt.Fprintln(w, i)
			w.(http.Flusher).Flush()
		}
		time.Sleep(4 * idle)
	}))
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", TLS: &TLS{Certificates: []Certificate{makeCert(t, "a")}},
		Timeouts: Timeouts{Idle: idle}})
	if got := body(t, get(t, client(t, addr, protocolHTTP2), "https://a/")); got != "0\n1\n2\n" {
		t.Errorf("%q", got)
	}
}

// A head that is larger than allowed never gets through.
func TestHTTP2MegaHeader(t *testing.T) {
	r := newRig(t)
	r.pool("p", named(t, "ok"))
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", MaxHeaderSize: 8 << 10,
		TLS: &TLS{Certificates: []Certificate{makeCert(t, "a")}}})
	head := func(size int) []string {
		out := []string{":authority", "a", ":path", "/"}
		for range size >> 10 {
			out = append(out, "x", strings.Repeat("~", 1000))
		}
		return out
	}

	c, in := http2Frames(t, addr, nil)
	write(t, c, ask(1, head(4<<10)...))
	if status, _ := answerFrames(t, in); status != "200" {
		t.Errorf("4 KiB: %s", status)
	}
	write(t, c, ask(3, head(12<<10)...))
	if status, _ := answerFrames(t, in); status != "431" {
		t.Errorf("12 KiB: %s", status)
	}
	// Much more is not worth reading: the connection ends.
	f := frame{kind: frameHeaders, stream: 5}
	for part := range slices.Chunk(headBlock(head(1<<20)...), 16<<10) {
		f.payload = part
		if _, err := c.Write(f.bytes()); err != nil {
			break
		}
		f.kind = frameContinuation
	}
	if _, err := io.Copy(io.Discard, in); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("1 MiB: the connection is still open")
	}
	if n := r.stats("web").Requests; n != 1 {
		t.Errorf("%d requests came through", n)
	}
}

// Clients that send many requests and reset the connection leave nothing that
// counts.
func TestHTTP2ClientsThatAbort(t *testing.T) {
	r, addr := secure(t, web(t, func(w http.ResponseWriter, r *http.Request) {}))
	all := preface(nil)
	for i := range uint32(50) {
		all = append(all, ask(2*i+1, ":authority", "a", ":path", "/")...)
	}
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for range 5 {
				c, err := tls.Dial("tcp", addr.String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocolHTTP2}})
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = c.Write(all)
				_ = c.NetConn().(*net.TCPConn).SetLinger(0)
				c.NetConn().Close()
			}
		})
	}
	clients.Wait()
	r.until("the end of all requests", func() bool { return r.stats("web").Current == 0 && r.engine.Active(nil) == 0 })
}

// A head outlives the buffer that it was read into, which others get.
func TestHTTP2HeadsOutliveTheirBuffers(t *testing.T) {
	_, addr := secure(t, web(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Path", r.URL.Path)
		io.WriteString(w, r.URL.Path)
	}))
	c := client(t, addr, protocolHTTP2)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			path := "/" + strings.Repeat(string(rune('a'+i)), 1+i)
			for range 50 {
				resp, err := c.Get("https://a" + path)
				if err != nil {
					t.Error(err)
					return
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if string(b) != path || resp.Header.Get("X-Path") != path || err != nil {
					t.Errorf("%s: %q %v, %v", path, b, resp.Header, err)
					return
				}
			}
		})
	}
	wg.Wait()
}
