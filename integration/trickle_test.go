package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

const trickleConfig = `
[[l7]]
name   = "web"
listen = ["127.0.0.1:80"]
http2  = { enabled = true }
pool   = "one"
[[l7.route]]
paths = ["/two"]
pool  = "two"

[pool.one]
servers = ["127.0.0.1:8000"]

[pool.two]
servers = ["127.0.0.1:8000"]
http    = "2"
`

// trickled are exchanges in which a byte comes each second. Who does that in the
// body of a request is not served for ever; conversations and answers that do so are.
var trickled = []struct {
	name, path, kind string
	http2            bool
	get              bool // the answer trickles
	upgrade          bool
	slow             bool
}{
	{name: "chunks", path: "/wait", slow: true},
	{name: "a stream of HTTP/2", path: "/wait", http2: true, slow: true},
	{name: "a stream to a server of HTTP/2", path: "/two/wait", http2: true, slow: true},
	{name: "what calls itself gRPC", path: "/wait", kind: "application/grpc", http2: true, slow: true},
	{name: "gRPC", path: "/two/wait", kind: "application/grpc", http2: true},
	{name: "chunks both ways", path: "/talk"},
	{name: "streams both ways", path: "/two/talk", http2: true},
	{name: "server-sent events", path: "/events", get: true},
	{name: "server-sent events by HTTP/2", path: "/two/events", get: true, http2: true},
	{name: "WebSocket", path: "/socket", get: true, upgrade: true},
}

// trickleTime is longer than a body may trickle.
const (
	trickleTime  = trickleBytes * time.Second
	trickleBytes = 36
)

func TestBodiesThatTrickle(t *testing.T) {
	t.Parallel()
	a := newAlone(t)
	l, err := a.Listen(netip.MustParseAddrPort("127.0.0.1:8000"))
	if err != nil {
		t.Fatal(err)
	}
	both := new(http.Protocols)
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	s := &http.Server{Protocols: both, Handler: http.HandlerFunc(trickleServer)}
	var serving sync.WaitGroup
	serving.Go(func() { s.Serve(l) })
	t.Cleanup(func() {
		s.Close()
		serving.Wait()
	})
	a.start(trickleConfig)
	var all sync.WaitGroup
	for _, tc := range trickled {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*trickleTime)
			defer cancel()
			p := new(http.Protocols)
			p.SetHTTP1(!tc.http2)
			p.SetUnencryptedHTTP2(tc.http2)
			tr := &http.Transport{DialContext: a.DialContext, Protocols: p}
			defer tr.CloseIdleConnections()
			method, body := http.MethodPost, io.Reader(&trickle{ctx, trickleBytes})
			if tc.get {
				method, body = http.MethodGet, nil
			}
			req, err := http.NewRequestWithContext(ctx, method, "http://127.0.0.1"+tc.path, body)
			if err != nil {
				t.Error(err)
				return
			}
			if tc.kind != "" {
				req.Header.Set("Content-Type", tc.kind)
			}
			if tc.upgrade {
				req.Header.Set("Connection", "Upgrade")
				req.Header.Set("Upgrade", "websocket")
			}
			began := time.Now()
			status, got := 0, ""
			resp, err := tr.RoundTrip(req)
			if err == nil {
				status = resp.StatusCode
				if tunnel, ok := resp.Body.(io.Writer); ok && tc.upgrade {
					all.Go(func() { io.Copy(tunnel, &trickle{ctx, trickleBytes}) })
				}
				var b []byte
				b, err = io.ReadAll(resp.Body)
				resp.Body.Close()
				got = string(b)
			}
			took := time.Since(began).Round(time.Second)
			t.Logf("%s: %d after %v, %d bytes, %v", tc.name, status, took, len(got), err)
			switch {
			case tc.kind != "" && tc.slow:
				if status != http.StatusOK || resp.Header.Get("Grpc-Message") != "408 Request Timeout" {
					t.Errorf("%s: %d %v, %v", tc.name, status, err, resp)
				}
			case tc.slow:
				if status != http.StatusRequestTimeout || took >= trickleTime {
					t.Errorf("%s: %d %q after %v, %v", tc.name, status, got, took, err)
				}
			case err != nil || !strings.HasSuffix(got, "whole"):
				t.Errorf("%s: %d %q after %v, %v", tc.name, status, got, took, err)
			}
		})
	}
	all.Wait()
}

// trickle is a body of some bytes, one a second.
type trickle struct {
	ctx  context.Context
	left int
}

func (b *trickle) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	select {
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	case <-time.After(time.Second):
	}
	b.left--
	p[0] = 'x'
	return 1, nil
}

// trickleServer answers with "whole" at the end, when all has come.
func trickleServer(w http.ResponseWriter, r *http.Request) {
	c := http.NewResponseController(w)
	switch r.URL.Path[strings.LastIndexByte(r.URL.Path, '/'):] {
	case "/wait":
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			io.WriteString(w, "whole")
		}
	case "/talk":
		if err := c.EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
			panic(http.ErrAbortHandler)
		}
		var err error
		for b := make([]byte, 10); err == nil; {
			c.Flush()
			var n int
			n, err = r.Body.Read(b)
			w.Write(b[:n])
		}
		if err != io.EOF {
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, "whole")
	case "/events":
		w.Header().Set("Content-Type", "text/event-stream")
		io.Copy(flusher{w, c}, &trickle{r.Context(), trickleBytes})
		io.WriteString(w, "whole")
	case "/socket":
		conn, in, err := c.Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		if _, err := io.CopyN(conn, in, trickleBytes); err == nil {
			io.WriteString(conn, "whole")
		}
	}
}

// flusher sends at once what is written.
type flusher struct {
	io.Writer
	c *http.ResponseController
}

func (f flusher) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	return n, errors.Join(err, f.c.Flush())
}
