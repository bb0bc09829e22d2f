package l7

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A client that takes less than a piece in its time is ended, however the answer goes
// to it, and one that takes more, but little of what is written at once, is not.
func TestSlowReaders(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	dir := t.TempDir()
	file, err := os.Create(filepath.Join(dir, "large"))
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	file.Close()
	server := web(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/sized" {
			w.Header().Set("Content-Length", fmt.Sprint(size))
		}
		for n := 0; n < size; n += 32 << 10 {
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				return
			}
		}
	})
	for _, tc := range []struct {
		name   string
		least  int // that is read at a time, 20 times a second
		stalls bool
	}{
		{"slow", 512, true},
		{"steady", 8 << 10, false},
	} {
		r := newRig(t)
		r.pool("p", server)
		plain, secure := r.addr(), r.addr()
		for _, l := range r.listeners {
			// The kernel says that there is room when a third of this is free.
			raw, err := l.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			_ = raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, 64<<10) })
			if err != nil {
				t.Fatal(err)
			}
		}
		routes := []Route{{Paths: []string{"/large"}, Files: &Files{Root: dir}}}
		r.apply(Config{Name: "plain", Listen: []netip.AddrPort{plain}, Pool: "p", Timeouts: Timeouts{Idle: time.Second}, Routes: routes},
			Config{Name: "secure", Listen: []netip.AddrPort{secure}, Pool: "p", Timeouts: Timeouts{Idle: time.Second}, Routes: routes,
				TLS: &TLS{Certificates: []Certificate{makeCert(t, "a.example")}}})
		stop := make(chan struct{})
		var clients sync.WaitGroup
		read := func(what string, from io.ReadCloser) {
			clients.Go(func() {
				defer from.Close()
				for b := make([]byte, tc.least); ; {
					if _, err := io.ReadFull(from, b); err != nil {
						if !tc.stalls {
							t.Errorf("%s, %s: %v", tc.name, what, err)
						}
						return
					}
					select {
					case <-stop:
						return
					case <-time.After(50 * time.Millisecond):
					}
				}
			})
		}
		for _, path := range []string{"/chunked", "/sized", "/large"} {
			for _, config := range []*tls.Config{nil, {InsecureSkipVerify: true, NextProtos: []string{protocolHTTP1}}} {
				addr := plain
				if config != nil {
					addr = secure
				}
				tcp, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
				if err != nil {
					t.Fatal(err)
				}
				if err := tcp.SetReadBuffer(64 << 10); err != nil {
					t.Fatal(err)
				}
				c := net.Conn(tcp)
				if config != nil {
					c = tls.Client(tcp, config)
				}
				if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: a.example\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				read(fmt.Sprint(path, config != nil), c)
			}
			read(path+", HTTP/2", get(t, client(t, secure, protocolHTTP2), "https://a.example"+path).Body)
		}
		stalled := func() int64 {
			return r.stats("plain").Troubles["client_stalled"] + r.stats("secure").Troubles["client_stalled"]
		}
		if tc.stalls {
			r.until("all are ended", func() bool { return stalled() == 9 })
		} else {
			time.Sleep(3 * time.Second)
		}
		close(stop)
		clients.Wait()
		if n := stalled(); !tc.stalls && n > 0 {
			t.Errorf("%s: %d are ended", tc.name, n)
		}
	}
}

// By TLS a client has one time for all records of a piece.
func TestPieceByTLS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	other, _ := dial(t, l.Addr().(*net.TCPAddr).AddrPort(), nil)
	tcp, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	client := adopt(tcp.(*net.TCPConn))
	defer client.Close()
	go io.Copy(io.Discard, other)
	raw, err := client.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	c := &conn{Conn: client, raw: raw, stall: time.Minute}
	write := func() {
		t.Helper()
		if _, err := c.Write([]byte("record")); err != nil {
			t.Error(err)
		}
	}
	now := time.Now()
	if err := c.begin(now.Add(-50 * time.Second)); err != nil {
		t.Fatal(err)
	}
	until := c.armed.Load()
	write()
	if c.armed.Load() != until {
		t.Error("a record has a time of its own")
	}
	if err := c.begin(now); err != nil || c.armed.Load() < now.Add(time.Minute).UnixNano() {
		t.Error("a piece does not have all of its time", err)
	}
	// What TLS says by itself is not lost because the latest piece was long ago.
	if err := c.begin(now.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	c.armed.Store(now.Add(-time.Hour).UnixNano())
	write()
}
