package l7

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// A server on a unix socket is asked like any other: connections are kept, bodies
// of any size pass both ways, and upgrades do.
func TestUnixSocketServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var connections atomic.Int64
	server := &httptest.Server{Listener: l, Config: &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "" {
				c, _, _ := w.(http.Hijacker).Hijack()
				defer c.Close()
				fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
				_, _ = io.Copy(c, c)
				return
			}
			w.Header().Set("X-Host", r.Host)
			_, _ = io.Copy(w, r.Body)
		}),
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				connections.Add(1)
			}
		},
	}}
	server.Start()
	defer server.Close()
	_, addr := simple(t, "unix:"+path)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for _, size := range []int{0, 1, len(sent)} {
		resp, err := http.Post("http://"+addr.String()+"/", "text/plain", bytes.NewReader(sent[:size]))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || !bytes.Equal(got, sent[:size]) || resp.Header.Get("X-Host") != addr.String() {
			t.Fatalf("%d bytes: %s, %d bytes back, %v, host %q", size, resp.Status, len(got), err, resp.Header.Get("X-Host"))
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections to the server, want one that is kept", n)
	}

	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
	var head []byte
	for b := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, b...) {
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatalf("after %q: %v", head, err)
		}
	}
	fmt.Fprint(c, "hello")
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Errorf("the upgraded connection said %q, %v", got, err)
	}
}

func TestUnixSocketThatIsNotThere(t *testing.T) {
	_, addr := simple(t, "unix:"+filepath.Join(t.TempDir(), "none.sock"))
	resp, err := http.Get("http://" + addr.String())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 502 {
		t.Errorf("%s, want 502", resp.Status)
	}
}
