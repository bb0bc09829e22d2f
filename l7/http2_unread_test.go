package l7

import (
	"net"
	"strings"
	"testing"
	"time"
)

// http2Conns returns the connections of clients by HTTP/2.
func (r *rig) http2Conns() (list []*http2Conn) {
	r.engine.mu.Lock()
	defer r.engine.mu.Unlock()
	for _, at := range r.engine.places {
		at.mu.Lock()
		for conn := range at.all {
			if c, ok := conn.(*http2Conn); ok {
				list = append(list, c)
			}
		}
		at.mu.Unlock()
	}
	return list
}

// queued returns the most that waits to be sent to one of them.
func (r *rig) queued() (most int) {
	for _, c := range r.http2Conns() {
		c.mu.Lock()
		if c.out != nil {
			most = max(most, len(c.out.b))
		}
		c.mu.Unlock()
	}
	return most
}

// What is for a client that asks and asks but takes nothing does not pile up here:
// answers, with or without a body, and those to its PINGs.
func TestHTTP2ClientThatTakesNothing(t *testing.T) {
	r, addr := clear2(t, closed(t), func(c *Config) {
		c.Pool = ""
		c.Routes = []Route{{Respond: &Respond{Body: "hello"}}}
		c.ResponseHeaders = &HeaderRules{Set: map[string]string{"X-Long": strings.Repeat("~", 32<<10)}}
	})
	for _, tc := range []struct {
		name string
		most int // that may wait
		ask  func(p *http2Peer, i int)
	}{
		{"heads", 2 * queuedMost, func(p *http2Peer, i int) {
			p.ask(uint32(2*i+1), true, "HEAD", "/")
			if i%50 < 49 {
				return
			}
			// No more at a time than it may.
			for end := time.Now().Add(20 * time.Millisecond); r.stats("web").Current > 0 && time.Now().Before(end); {
			}
		}},
		{"PING", overfullMost + 1<<10, func(p *http2Peer, i int) {
			for range 200 {
				_ = p.WritePing(false, [8]byte{})
			}
		}},
	} {
		p := http2Dial(t, addr)
		_ = p.conn.(*net.TCPConn).SetReadBuffer(4 << 10)
		_ = p.conn.SetWriteDeadline(time.Now().Add(time.Second)) // it may well be that nobody reads any more
		p.ask(1_000_001, true, "GET", "/")
		p.answer(1_000_001)
		for _, c := range r.http2Conns() {
			c.mu.Lock()
			c.lastID, c.credit = 0, creditMost // as if it had taken much before
			c.mu.Unlock()
		}
		most := 0
		for i := range 5000 {
			if tc.ask(p, i); i%10 == 9 {
				most = max(most, r.queued())
			}
		}
		if most > tc.most {
			t.Errorf("%s: %d bytes wait to be sent", tc.name, most)
		}
		p.conn.Close()
		r.until("the end of all", func() bool { return len(r.http2Conns()) == 0 })
	}
}
