package l7

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"appliance/internal/pool"
	"appliance/l7/http1"
)

// FuzzServerByHTTP2 has a server say anything behind its preface, then nothing more:
// whatever it is, the exchange ends, and an answer that passes for whole is one that can be
// passed on.
func FuzzServerByHTTP2(f *testing.F) {
	head := func(id uint32, end bool, block ...byte) []byte { return appendHead(nil, id, block, end) }
	ok := []byte{0x88} // :status 200
	f.Add(head(1, true, ok...))
	f.Add(append(head(1, false, ok...), appendData(nil, 1, []byte("hello"), true)...))
	f.Add(append(head(1, false, 0x88, 0x5c, 0x01, '5'), appendData(nil, 1, []byte("hello"), true)...)) // content-length: 5
	f.Add(append(head(1, false, ok...), head(1, true, 0x40, 0x01, 'a', 0x01, 'b')...))
	f.Add(appendReset(nil, 1, http2.ErrCodeRefusedStream))
	f.Add(appendGoAway(nil, 0, http2.ErrCodeNo))
	f.Add(appendWindowUpdate(appendPing(appendSettings(nil, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}), false, [8]byte{}), 0, 7))

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	var mu sync.Mutex
	var says []byte
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			b := append(appendSettings(nil), says...)
			mu.Unlock()
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				// The whole request is there before the answer to it.
				if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface)+1)); err != nil {
					return
				}
				_, _ = c.Write(b)
				_ = c.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, c)
			}()
		}
	}()
	f.Cleanup(func() {
		l.Close()
		<-ended
	})
	p := pool.New(pool.Config{Name: "p", Servers: []pool.ServerConfig{{Address: l.Addr().String()}}})
	f.Fuzz(func(t *testing.T, b []byte) {
		mu.Lock()
		says = b
		mu.Unlock()
		u := newUpstream(upstreamSettings{connect: patience, response: patience}, &transport{http2: true})
		server := p.Servers()[0]
		ex := &exchange{method: "GET", target: "/", host: "a", peer: newPeer(netip.MustParseAddr("192.0.2.1")), server: server, count: &counters{}}
		ex.out.target, ex.out.host, ex.now = "/", "a", time.Now()
		a, err := u.roundTrip(context.Background(), server, ex, func(_ *exchange, status int, _ fields) {
			if status < 100 || status > 199 || status == 101 {
				t.Errorf("interim status %d", status)
			}
		})
		if err == nil {
			sound(t, a)
			a.close()
		} else if errors.Is(err, errTimeout) {
			t.Error(err)
		}
		u.retire()
		u.tasks.Wait()
		if !u.unused() {
			t.Error("a connection is left")
		}
	})
}

// sound checks an answer that may be passed on.
func sound(t *testing.T, a answer) {
	t.Helper()
	h := a.head()
	if h.status < 200 || h.status > 999 {
		t.Errorf("status %d", h.status)
	}
	length := int64(-1)
	lines := func(fs fields) {
		for _, f := range fs {
			if !http1.IsToken(f.Name) || !http1.ValidValue(f.Value) || kindOf(f.Name) == kindConnection {
				t.Errorf("field %q: %q", f.Name, f.Value)
			}
		}
	}
	lines(h.fields)
	if v := h.fields.get("Content-Length"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			t.Error(err)
		}
		length = n
	}
	got := int64(0)
	for {
		part, err := a.next()
		got += int64(len(part))
		if err == io.EOF {
			break
		}
		if err != nil {
			return
		}
	}
	lines(h.trailers)
	if length >= 0 && got != length && h.status != 204 && h.status != 304 {
		t.Errorf("%d bytes of %d", got, length)
	}
}
