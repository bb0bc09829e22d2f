package l7

import (
	"io"
	"net/http"
	"net/netip"
	"testing"

	"golang.org/x/net/http2"
)

// held returns how much waits here of the answers of servers by HTTP/2, and whether
// these may send no more of any.
func (r *rig) held() (total int64, streams int, all bool) {
	r.engine.mu.Lock()
	defer r.engine.mu.Unlock()
	all = true
	for u := range r.engine.ups {
		u.mu.Lock()
		for _, set := range u.muxes {
			for _, c := range set.conns {
				c.mu.Lock()
				for _, st := range c.streams {
					streams++
					total += int64(st.have()) + int64(st.part)
					all = all && st.taken == muxLeast+st.widened
				}
				c.mu.Unlock()
			}
		}
		u.mu.Unlock()
	}
	return total, streams, all
}

// A client that asks for much on many streams and reads nothing has no more waiting
// here than its connection may; when it reads on, it gets all.
func TestHTTP2ClientThatReadsNothing(t *testing.T) {
	const streams, size = 100, 400 << 10
	server := http2Web(t, nil, nil, nil, func(w http.ResponseWriter, r *http.Request) { io.CopyN(w, zeros{}, size) })
	r, addr := over(t, byHTTP2, server)
	yes := true
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", HTTP2: HTTP2Config{Enabled: &yes}})
	p := http2Dial(t, addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	for i := range uint32(streams) {
		p.ask(2*i+1, true, "GET", "/")
	}
	r.until("the server may send no more", func() bool { _, n, all := r.held(); return n == streams && all })
	if total, _, _ := r.held(); total > streams*muxLeast+answerRoomMost || total < streams*muxLeast {
		t.Errorf("%d KiB wait here", total>>10)
	}
	// Another connection has room of its own.
	other := http2Dial(t, addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	other.ask(1, true, "GET", "/")
	r.until("another one is held up, too", func() bool { _, n, all := r.held(); return n == streams+1 && all })
	if total, _, _ := r.held(); total < streams*muxLeast+answerRoomMost+muxWindow-32<<10 {
		t.Errorf("%d KiB wait here with those of another client", total>>10)
	}
	other.conn.Close()

	_ = p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: size})
	_ = p.WriteWindowUpdate(0, streams*size)
	p.until("all answers", func() bool {
		n := 0
		for _, a := range p.answers {
			if a.ended {
				n++
			}
		}
		return n == streams
	})
	for id, a := range p.answers {
		if id != 0 && len(a.body) != size {
			t.Errorf("stream %d: %d bytes", id, len(a.body))
		}
	}
	r.until("all is given back", func() bool {
		_, n, _ := r.held()
		list := r.http2Conns()
		return n == 0 && len(list) == 1 && list[0].room.left.Load() == answerRoomMost
	})
}

// What is short leaves the window as it is, though more may follow, such as the trailers
// of gRPC: there is nothing to be told to the server.
func TestShortAnswersByHTTP2(t *testing.T) {
	more := make(chan struct{})
	server := http2Web(t, nil, nil, nil, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello")
		w.(http.Flusher).Flush()
		<-more
		io.CopyN(w, zeros{}, 1<<20)
	})
	r, addr := over(t, byHTTP2, server)
	resp := get(t, client(t, addr, protocolHTTP1), "http://a/")
	widened := func() (n int64) {
		for u := range r.engine.ups {
			u.mu.Lock()
			defer u.mu.Unlock()
			for _, set := range u.muxes {
				for _, c := range set.conns {
					c.mu.Lock()
					defer c.mu.Unlock()
					for _, st := range c.streams {
						n += st.widened
					}
				}
			}
		}
		return n
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if n := widened(); n != 0 {
		t.Errorf("for 5 bytes the window was made wider by %d", n)
	}
	close(more)
	if n, err := io.CopyN(io.Discard, resp.Body, 512<<10); err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if n, err := io.Copy(io.Discard, resp.Body); n != 512<<10 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}
