package l7

import (
	"io"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// Floods of what does no work end the connection; a little of it does not.
func TestHTTP2Floods(t *testing.T) {
	const calm = "goaway ENHANCE_YOUR_CALM"
	release := make(chan struct{})
	defer close(release)
	r, addr := clear2(t, web(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		for range 500 {
			if r.URL.Path != "/stream" {
				break
			}
			io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			time.Sleep(time.Millisecond) // so that pieces are pieces
		}
		io.WriteString(w, "hello")
	}), func(c *Config) {
		c.HTTP2.MaxNuisance = 300
		c.Routes = []Route{{Paths: []string{"/fixed"}, Respond: &Respond{Body: "x"}}}
	})
	for _, tc := range []struct {
		name string
		do   func(p *http2Peer, i int)
	}{
		{"PING", func(p *http2Peer, i int) { _ = p.WritePing(false, [8]byte{}) }},
		{"PING acknowledged", func(p *http2Peer, i int) { _ = p.WritePing(true, [8]byte{}) }},
		{"SETTINGS", func(p *http2Peer, i int) { _ = p.WriteSettings() }},
		{"SETTINGS of many", func(p *http2Peer, i int) {
			_ = p.WriteSettings(make([]http2.Setting, 1000)...)
		}},
		{"SETTINGS acknowledged", func(p *http2Peer, i int) { _ = p.WriteSettingsAck() }},
		{"PRIORITY", func(p *http2Peer, i int) { _ = p.WritePriority(7, http2.PriorityParam{StreamDep: 5}) }},
		{"unknown", func(p *http2Peer, i int) { _ = p.WriteRawFrame(0xbe, 0, 0, nil) }},
		{"WINDOW_UPDATE", func(p *http2Peer, i int) { _ = p.WriteWindowUpdate(0, 1) }},
		{"GOAWAY", func(p *http2Peer, i int) { _ = p.WriteGoAway(0, http2.ErrCodeNo, nil) }},
		{"empty DATA", func(p *http2Peer, i int) {
			if i == 0 {
				p.ask(1, false, "POST", "/")
			}
			_ = p.WriteData(1, false, nil)
		}},
		{"empty padded DATA", func(p *http2Peer, i int) {
			if i == 0 {
				p.ask(1, false, "POST", "/")
			}
			_ = p.WriteDataPadded(1, false, nil, make([]byte, 10))
		}},
		{"DATA of a stream that has ended", func(p *http2Peer, i int) {
			if i == 0 {
				p.ask(1, true, "GET", "/")
			}
			_ = p.WriteData(1, false, nil)
		}},
		{"requests that are given up", func(p *http2Peer, i int) {
			p.ask(uint32(2*i+1), false, "POST", "/")
			_ = p.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel)
		}},
		{"requests that we give up", func(p *http2Peer, i int) {
			p.ask(uint32(2*i+1), false, "POST", "/")
			_ = p.WriteWindowUpdate(uint32(2*i+1), 0)
		}},
		{"malformed requests", func(p *http2Peer, i int) { p.ask(uint32(2*i+1), true, "GET", "") }},
		{"too large requests", func(p *http2Peer, i int) {
			big := make([]string, 0, 600)
			for range 300 {
				big = append(big, "x", "")
			}
			p.ask(uint32(2*i+1), true, "GET", "/", big...)
		}},
		{"requests beyond max_streams", func(p *http2Peer, i int) { p.ask(uint32(2*i+1), false, "POST", "/") }},
		{"empty CONTINUATION", func(p *http2Peer, i int) {
			if i == 0 {
				_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.fields(":method", "GET")})
			}
			_ = p.WriteContinuation(1, false, nil)
		}},
		{"CONTINUATION", func(p *http2Peer, i int) {
			if i == 0 {
				_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.fields(":method", "GET")})
			}
			_ = p.WriteContinuation(1, false, make([]byte, 16<<10))
		}},
	} {
		p := http2Dial(t, addr)
		sent := make(chan struct{})
		go func() { // most of it goes nowhere
			defer close(sent)
			for i := range 3000 {
				tc.do(p, i)
			}
		}()
		// What is said last may be lost when so much is under way.
		if got := p.ends(); got != calm && got != "closed" && !(tc.name == "CONTINUATION" && got == "goaway COMPRESSION_ERROR") {
			t.Errorf("%s: %s", tc.name, got)
		}
		p.conn.Close()
		<-sent
	}
	r.until("the end of all", func() bool { return r.engine.Active(nil) == 0 && r.stats("web").Current == 0 })

	// So much is allowed.
	for _, tc := range []struct {
		name string
		do   func(p *http2Peer, i int)
	}{
		{"PING", func(p *http2Peer, i int) { _ = p.WritePing(false, [8]byte{}) }},
		{"a request given up now and then", func(p *http2Peer, i int) {
			p.ask(uint32(2*i+1), i%10 != 0, map[bool]string{true: "POST", false: "GET"}[i%10 == 0], "/")
			if i%10 == 0 {
				_ = p.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel)
				return
			}
			if got := p.outcome(uint32(2*i + 1)); got != "200" {
				t.Errorf("request %d: %s", i, got)
			}
		}},
		{"bodies that are not wanted", func(p *http2Peer, i int) {
			id := uint32(2*i + 1)
			p.ask(id, false, "POST", "/fixed")
			p.until("the end of the answer", func() bool { a := p.answers[id]; return a != nil && a.ended && a.reset != "" })
			for range 5 {
				_ = p.WriteData(id, false, []byte("under way"))
			}
			_ = p.WriteRSTStream(id, http2.ErrCodeCancel)
		}},
		{"a PING for each piece of an answer", func(p *http2Peer, i int) {
			if i == 0 {
				p.ask(1, true, "GET", "/stream")
			}
			p.until("a piece", func() bool { return p.answers[1] != nil && len(p.answers[1].body) > 2*i+1 })
			for range 3 {
				_ = p.WritePing(false, [8]byte{})
			}
		}},
	} {
		p := http2Dial(t, addr)
		for i := range 250 {
			tc.do(p, i)
		}
		p.ask(10001, true, "GET", "/")
		if got := p.outcome(10001); got != "200" {
			t.Errorf("%s: in the end %s", tc.name, got)
		}
		p.conn.Close()
	}
}

func TestNuisance(t *testing.T) {
	now := time.Unix(0, 0)
	n := nuisance{left: 10, most: 10, at: now}
	for i := range 10 {
		if !n.spend(1, now) {
			t.Fatalf("nothing left after %d", i)
		}
	}
	if n.spend(1, now) {
		t.Error("more than there was")
	}
	n.refund(2)
	if !n.spend(1, now) || n.spend(1, now) {
		t.Errorf("after a refund: %+v", n)
	}
	now = now.Add(time.Second) // brings more than fits
	for i := range 10 {
		if !n.spend(1, now) {
			t.Fatalf("nothing left after %d, a second later", i)
		}
	}
	if n.spend(1, now) {
		t.Error("it holds more than most")
	}
}
