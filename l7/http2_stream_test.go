package l7

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// Cookies that come in pieces get to the server in one (RFC 9113, section 8.2.3),
// and the fields in their order.
func TestHTTP2FieldsReachTheServer(t *testing.T) {
	heads := make(chan string, 1)
	_, addr := clear2(t, raw(t, func(c *net.TCPConn, r *bufio.Reader) {
		heads <- readHead(r)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: x\r\nX-Kept: Y\r\n\r\n")
	}), nil)
	p := http2Dial(t, addr)
	p.ask(1, true, "GET", "/x?y", "b", "1", "cookie", "a=1", "a", "2", "cookie", "b=2", "te", "trailers", "cookie", "c=3")
	a := p.answer(1)
	head := <-heads
	want := "GET /x?y HTTP/1.1\r\nHost: a\r\nb: 1\r\na: 2\r\ncookie: a=1; b=2; c=3\r\nTE: trailers\r\nConnection: TE\r\n"
	if !strings.HasPrefix(head, want) {
		t.Errorf("the server got\n%q, want\n%q", head, want)
	}
	if a.get("x-kept") != "Y" || a.get("x-hop") != "" || a.get("connection") != "" || a.get("keep-alive") != "" || a.get("date") == "" {
		t.Errorf("%+v", a)
	}
}

// Trailers pass in both directions, and so do interim answers.
func TestHTTP2TrailersAndInterimAnswers(t *testing.T) {
	_, addr := clear2(t, raw(t, func(c *net.TCPConn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
		b, _ := io.ReadAll(req.Body)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status\r\n\r\n%x\r\n%s\r\n0\r\ngrpc-status: %s\r\nContent-Length: 7\r\n\r\n",
			len(b), b, req.Trailer.Get("grpc-status"))
	}), nil)
	p := http2Dial(t, addr)
	p.ask(1, false, "POST", "/", "trailer", "grpc-status")
	p.until("the early hints", func() bool { return p.answers[1] != nil && len(p.answers[1].interim) == 1 })
	_ = p.WriteData(1, false, []byte("hello"))
	p.head(1, true, "grpc-status", "17")
	a := p.answer(1)
	if a.get(":status") != "200" || a.body != "hello" || len(a.trailers) != 1 || a.trailers[0].Name != "grpc-status" || a.trailers[0].Value != "17" {
		t.Errorf("%+v", a)
	}
}

// Who expects to be asked for the body is asked when the server does.
func TestHTTP2Expect(t *testing.T) {
	_, addr := clear2(t, web(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		io.Copy(w, r.Body)
	}), nil)
	p := http2Dial(t, addr)
	p.ask(1, false, "PUT", "/", "expect", "100-continue", "content-length", "5")
	p.until("the request for the body", func() bool { return p.answers[1] != nil && len(p.answers[1].interim) == 1 })
	_ = p.WriteData(1, true, []byte("hello"))
	if a := p.answer(1); a.get(":status") != "200" || a.body != "hello" {
		t.Errorf("%+v", a)
	}
	p.ask(3, false, "PUT", "/no", "expect", "100-continue", "content-length", "5")
	p.until("the end and the word that nothing is wanted", func() bool { return p.answers[3] != nil && p.answers[3].ended && p.answers[3].reset != "" })
	if a := p.answers[3]; a.get(":status") != "403" || len(a.interim) != 0 || a.reset != "NO_ERROR" {
		t.Errorf("%+v", a)
	}
}

// A window for a body is opened as the server takes it, and no sooner.
func TestHTTP2UploadWaitsForTheServer(t *testing.T) {
	take := make(chan struct{})
	_, addr := clear2(t, raw(t, func(c *net.TCPConn, r *bufio.Reader) {
		readHead(r)
		<-take
		io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		n, _ := io.CopyN(io.Discard, r, 1<<20)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n%d", n)
	}), nil)
	p := http2Dial(t, addr)
	p.until("the settings and the window of the connection", func() bool { return p.settled == 1 && p.windows[0] == 4*256<<10-65535 })
	p.ask(1, false, "POST", "/", "content-length", fmt.Sprint(1<<20), "expect", "100-continue")
	left, part := 1<<20, make([]byte, 16<<10)
	for range 16 { // all of the window
		_ = p.WriteData(1, false, part)
		left -= len(part)
	}
	if got := p.quiet(); got != "" {
		t.Errorf("the server has taken nothing, and the client hears %s", got)
	}
	close(take)
	for room := 0; left > 0; {
		p.until("more room", func() bool { room += int(p.windows[1]); p.windows[1] = 0; return room >= len(part) })
		room -= len(part)
		left -= len(part)
		_ = p.WriteData(1, left == 0, part)
	}
	if a := p.answer(1); a.get(":status") != "200" || a.body != "1048576" {
		t.Errorf("%+v", a)
	}
	// What the connection may send is what it might at first, but for what has not
	// been told yet.
	if n := p.windows[0]; n < 4*256<<10-65535+(1<<20)-256<<10 {
		t.Errorf("the connection's window was opened by %d", n)
	}
}

// The window of a connection is opened by what has come, and never by more,
// however bodies end.
func TestHTTP2ConnectionWindow(t *testing.T) {
	_, addr := clear2(t, web(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/read" {
			io.Copy(io.Discard, r.Body)
		}
	}), func(c *Config) {
		c.Routes = []Route{{Paths: []string{"/fixed"}, Respond: &Respond{Body: "x"}}}
		c.HTTP2.Window = 64 << 10
	})
	p := http2Dial(t, addr)
	p.until("the settings", func() bool { return p.settled == 1 && p.windows[0] > 0 })
	p.windows[0] = 0
	sent, id := 0, uint32(1)
	for i := range 90 {
		path := []string{"/read", "/fixed", "/"}[i%3]
		p.ask(id, false, "POST", path)
		_ = p.WriteDataPadded(id, false, make([]byte, 5000), make([]byte, i))
		_ = p.WriteData(id, true, make([]byte, 5000))
		sent += 10001 + i
		p.answer(id)
		id += 2
	}
	_ = p.WritePing(false, [8]byte{1})
	p.until("all that was said before", func() bool { return p.pings == 1 })
	if got := int(p.windows[0]); got > sent || got < sent-2*64<<10 {
		t.Errorf("the window was opened by %d for %d bytes", got, sent)
	}
}

// An answer keeps to the windows of the stream and the connection.
func TestHTTP2AnswerKeepsToWindows(t *testing.T) {
	_, addr := clear2(t, web(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, strings.Repeat("x", 200000)) }), nil)
	p := http2Dial(t, addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	p.ask(1, true, "GET", "/")
	p.until("10 bytes", func() bool { return p.answers[1] != nil && len(p.answers[1].body) == 10 })
	if got := p.quiet(); got != "" {
		t.Errorf("more than the window: %s", got)
	}
	_ = p.WriteWindowUpdate(1, 100000)
	p.until("the connection's window", func() bool { return len(p.answers[1].body) == 65535 })
	if got := p.quiet(); got != "" {
		t.Errorf("more than the connection's window: %s", got)
	}
	_ = p.WriteWindowUpdate(0, 1<<20)
	p.until("the stream's window", func() bool { return len(p.answers[1].body) == 100010 })
	// The initial window counts for streams that are open, too, even below zero.
	_ = p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	_ = p.WriteWindowUpdate(1, 5)
	if got := p.quiet(); !strings.Contains(got, "SETTINGS") {
		t.Errorf("%s, want the settings acknowledged", got)
	}
	if got := p.quiet(); got != "" {
		t.Errorf("the window is below zero: %s", got)
	}
	_ = p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	if a := p.answer(1); len(a.body) != 200000 {
		t.Errorf("%d bytes, %s", len(a.body), a.reset)
	}
}

// An answer that breaks off is reset, and never looks whole.
func TestHTTP2BrokenAnswers(t *testing.T) {
	for name, answer := range map[string]string{
		"too short":       "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
		"a chunk missing": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"a broken chunk":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n",
	} {
		_, addr := clear2(t, raw(t, func(c *net.TCPConn, r *bufio.Reader) {
			readHead(r)
			io.WriteString(c, answer)
		}), nil)
		p := http2Dial(t, addr)
		p.ask(1, true, "GET", "/")
		if got := p.outcome(1); got != "reset INTERNAL_ERROR" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// A request that its client gives up ends at the server, too, and the connection
// lives on; so it is when the client goes.
func TestHTTP2ClientGivesUp(t *testing.T) {
	came, gone := make(chan struct{}, 1), make(chan struct{}, 1)
	r, addr := clear2(t, web(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			return
		}
		if r.URL.Path == "/begun" {
			w.(http.Flusher).Flush()
		}
		came <- struct{}{}
		<-r.Context().Done()
		gone <- struct{}{}
	}), nil)
	for _, path := range []string{"/waits", "/begun"} {
		p := http2Dial(t, addr)
		p.ask(1, true, "POST", path)
		<-came
		_ = p.WriteRSTStream(1, http2.ErrCodeCancel)
		<-gone
		p.ask(3, true, "GET", "/")
		if got := p.outcome(3); got != "200" {
			t.Errorf("%s: then %s", path, got)
		}
		p.ask(5, true, "POST", path)
		<-came
		p.conn.Close()
		<-gone
	}
	r.until("the end of all", func() bool { return r.engine.Active(nil) == 0 && r.stats("web").Current == 0 })
}

// Beyond max_streams requests are refused, which tells the client that it may
// repeat them.
func TestHTTP2MaxStreams(t *testing.T) {
	release := make(chan struct{})
	_, addr := clear2(t, web(t, func(w http.ResponseWriter, r *http.Request) { <-release }), func(c *Config) { c.HTTP2.MaxStreams = 3 })
	p := http2Dial(t, addr)
	for i := range uint32(4) {
		p.ask(2*i+1, true, "GET", "/")
	}
	if got := p.outcome(7); got != "reset REFUSED_STREAM" {
		t.Errorf("the fourth: %s", got)
	}
	close(release)
	for i := range uint32(3) {
		if got := p.outcome(2*i + 1); got != "200" {
			t.Errorf("stream %d: %s", 2*i+1, got)
		}
	}
	p.ask(9, true, "GET", "/")
	if got := p.outcome(9); got != "200" {
		t.Errorf("then: %s", got)
	}
}

// A client that is asked to leave may send requests until it has heard of it, and
// they are carried out.
func TestHTTP2LeavesNoRequestBehind(t *testing.T) {
	release := make(chan struct{})
	r, addr := clear2(t, web(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-release
		}
	}), nil)
	p := http2Dial(t, addr)
	p.ask(1, true, "GET", "/slow")
	p.until("the settings", func() bool { return p.settled == 1 })
	r.until("the request", func() bool { return r.engine.Active(nil) == 1 })
	r.engine.Quiesce(nil, true)
	f, err := p.ReadFrame()
	if g, ok := f.(*http2.GoAwayFrame); err != nil || !ok || g.LastStreamID != 1<<31-1 || g.ErrCode != http2.ErrCodeNo {
		t.Fatalf("%v, %v; want the announcement", f, err)
	}
	p.ask(3, true, "GET", "/") // was under way
	if got := p.outcome(3); got != "200" {
		t.Errorf("a request that was under way: %s", got)
	}
	p.until("the last word, when p has answered the PING", func() bool { return p.last == 3 })
	p.ask(5, false, "POST", "/") // in spite of all
	_ = p.WriteData(5, true, []byte("x"))
	close(release)
	if got := p.outcome(1); got != "200" {
		t.Errorf("the one that was under way before: %s", got)
	}
	if got := p.ends(); got != "closed" || p.answers[5] != nil {
		t.Errorf("in the end %s, %+v", got, p.answers[5])
	}
}

// Who takes too long is let go: without a request, with half a head, with a body
// that does not come.
func TestHTTP2Timeouts(t *testing.T) {
	r, addr := clear2(t, web(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }), func(c *Config) {
		c.Timeouts = Timeouts{Idle: 300 * time.Millisecond, Header: 100 * time.Millisecond}
	})
	idle := http2Dial(t, addr)
	if got := idle.ends(); got != "closed" {
		t.Errorf("idle: %s", got)
	}
	half := http2Dial(t, addr)
	_ = half.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: half.fields(":method", "GET")})
	began := time.Now()
	if got := half.ends(); got != "closed" || time.Since(began) > patience/2 {
		t.Errorf("half a head: %s", got)
	}
	nothing, in := dial(t, addr, nil)
	_, _ = io.WriteString(nothing, http2.ClientPreface[:20])
	if _, err := io.Copy(io.Discard, in); err != nil {
		t.Errorf("half a preface: %v", err)
	}
	body := http2Dial(t, addr)
	body.ask(1, false, "POST", "/", "content-length", "5")
	_ = body.WriteData(1, false, []byte("hell"))
	if got := body.outcome(1); got != "408" {
		t.Errorf("a body that does not come: %s", got)
	}
	// A frame that comes slowly comes all the same.
	slow := http2Dial(t, addr)
	slow.ask(1, false, "POST", "/", "content-length", "10")
	_, _ = slow.conn.Write(appendFrame(nil, 10, http2.FrameData, http2.FlagDataEndStream, 1))
	for _, b := range []byte("0123456789") {
		time.Sleep(50 * time.Millisecond)
		_, _ = slow.conn.Write([]byte{b})
	}
	if got := slow.outcome(1); got != "200" {
		t.Errorf("a frame in pieces: %s", got)
	}
	r.until("the end of all", func() bool { return r.engine.Active(nil) == 0 && r.stats("web").Current == 0 })
}

// A client that opens its window byte by byte does not hold a server for ever.
func TestHTTP2ClientThatTakesLittle(t *testing.T) {
	r, addr := clear2(t, web(t, func(w http.ResponseWriter, r *http.Request) { io.CopyN(w, zeros{}, 1<<20) }), func(c *Config) {
		c.Timeouts = Timeouts{Idle: 300 * time.Millisecond}
	})
	p := http2Dial(t, addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
	p.ask(1, true, "GET", "/")
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-over:
				return
			case <-time.After(50 * time.Millisecond):
				_ = p.WriteWindowUpdate(1, 1)
			}
		}
	}()
	p.until("the end of the answer", func() bool { return p.answers[1] != nil && p.answers[1].reset != "" })
	close(over)
	<-ended
	if a := p.answers[1]; a.reset != "CANCEL" || len(a.body) < 2 {
		t.Errorf("%s after %d bytes", a.reset, len(a.body))
	}
	r.until("the end of all", func() bool { return r.engine.Active(nil) == 0 && r.stats("web").Current == 0 })
}

// A body that trickles is given up, but no tunnel, and no half of a conversation
// whose length is not known.
func TestHTTP2BodyThatTrickles(t *testing.T) {
	for _, tc := range []struct {
		length, got   int64
		took          time.Duration
		talks, tunnel bool
		slow          bool
	}{
		{10000, 1, time.Minute, false, false, true},
		{10000, 1, time.Minute, true, false, true},
		{10000, 1, time.Second, false, false, false},
		{100000, 50000, time.Minute, false, false, false},
		{10000, 1, time.Hour, false, true, false},
		{-1, 1, time.Minute, false, false, true},
		{-1, 1, time.Second, false, false, false},
		{-1, 50000, time.Minute, false, false, false},
		{-1, 1, time.Hour, true, false, false},
		{-1, 1, time.Hour, false, true, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := &http2Conn{server: &server{set: doorSettings{idle: patience, limits: http2Limits{window: 1 << 20}}}}
			st := &http2Stream{conn: c, tunnel: tc.tunnel}
			st.ex.talks.Store(tc.talks)
			st.body.wake = make(chan struct{}, 1)
			st.body.begin(st, tc.length)
			st.body.began, st.body.got = time.Now().Add(-tc.took), tc.got
			time.AfterFunc(time.Second, func() {
				c.mu.Lock()
				defer c.mu.Unlock()
				st.ended = true
				st.body.wakeUp()
			})
			if _, err := st.body.Read(make([]byte, 1)); tc.slow != isTimeout(err) || !tc.slow && err != io.EOF {
				t.Errorf("%+v: %v", tc, err)
			}
		})
	}
}

// So is one whose frame trickles, but not before it has had time for a whole one.
func TestHTTP2FrameThatTrickles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &http2Conn{server: &server{set: doorSettings{idle: time.Minute, limits: http2Limits{window: 1 << 20}}}}
		st := &http2Stream{conn: c}
		st.body.wake = make(chan struct{}, 1)
		st.body.begin(st, 10000)
		began := time.Now()
		over := make(chan struct{})
		go func() { // each byte that comes
			for {
				select {
				case <-over:
					return
				case <-time.After(10 * time.Second):
					c.mu.Lock()
					st.body.heard = time.Now()
					c.mu.Unlock()
				}
			}
		}()
		_, err := st.body.Read(make([]byte, 1))
		close(over)
		if took := time.Since(began); !isTimeout(err) || took < 2*time.Minute || took > 4*time.Minute {
			t.Errorf("%v after %v", err, took)
		}
		synctest.Wait()
	})
}

// webSocketServer answers an upgrade as RFC 6455 wants it, or with wrong, and then
// sends back what comes.
func webSocketServer(t *testing.T, wrong string) string {
	return raw(t, func(c *net.TCPConn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil || req.Method != "GET" || req.Header.Get("Upgrade") != "websocket" || req.Header.Get("Connection") != "Upgrade" ||
			req.Header.Get("Sec-WebSocket-Version") != "13" || len(req.Header.Values("Sec-WebSocket-Key")) != 1 {
			t.Errorf("%v, %v", req, err)
			return
		}
		sum := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		accept := base64.StdEncoding.EncodeToString(sum[:])
		if wrong != "" {
			io.WriteString(c, wrong)
			return
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+accept+
			"\r\nSec-WebSocket-Protocol: chat\r\n\r\nwelcome")
		io.Copy(c, r)
		io.WriteString(c, "bye")
	})
}

// WebSocket by HTTP/2 gets to a server of HTTP/1.1 (RFC 8441).
func TestHTTP2WebSocket(t *testing.T) {
	r, addr := clear2(t, webSocketServer(t, ""), nil)
	p := http2Dial(t, addr)
	p.head(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a", ":path", "/chat",
		"sec-websocket-version", "13", "sec-websocket-protocol", "chat")
	p.until("the welcome", func() bool { return p.answers[1] != nil && p.answers[1].body == "welcome" })
	if a := p.answers[1]; a.get(":status") != "200" || a.get("sec-websocket-protocol") != "chat" || a.get("sec-websocket-accept") != "" || a.get("upgrade") != "" {
		t.Errorf("%+v", a)
	}
	for i := range 3 {
		p.answers[1].body = ""
		_ = p.WriteData(1, false, []byte("message"))
		p.until("the echo", func() bool { return p.answers[1].body == "message" })
		if n := r.engine.Active(nil); n != 1 {
			t.Errorf("%d active in round %d", n, i)
		}
	}
	// The end of one direction passes, the other one goes on.
	p.answers[1].body = ""
	_ = p.WriteData(1, true, nil)
	if a := p.answer(1); !a.ended || a.body != "bye" {
		t.Errorf("%+v", a)
	}
	r.until("the end", func() bool { return r.engine.Active(nil) == 0 && r.stats("web").Current == 0 })

	// A client that gives up ends it at once.
	p.head(3, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a", ":path", "/chat", "sec-websocket-version", "13")
	p.until("the welcome", func() bool { return p.answers[3] != nil && p.answers[3].body == "welcome" })
	_ = p.WriteRSTStream(3, http2.ErrCodeCancel)
	r.until("the end of the other", func() bool { return r.engine.Active(nil) == 0 && r.stats("web").Current == 0 })
}

// No tunnel is opened that the server has not agreed to.
func TestHTTP2WebSocketRefused(t *testing.T) {
	for name, tc := range map[string]struct{ answer, want string }{
		"with an error":       {"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "403"},
		"with an answer":      {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", "502"},
		"with a wrong accept": {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n", "502"},
		"with another":        {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n", "502"},
	} {
		_, addr := clear2(t, webSocketServer(t, tc.answer), nil)
		p := http2Dial(t, addr)
		p.head(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a", ":path", "/chat", "sec-websocket-version", "13")
		if got := p.outcome(1); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

// A WebSocket has no body: a length would have a server of HTTP/1 wait for the next
// request as if it were one.
func TestHTTP2WebSocketWithALength(t *testing.T) {
	for _, length := range []string{"0", "50"} {
		_, addr := clear2(t, closed(t), nil)
		p := http2Dial(t, addr)
		p.head(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a", ":path", "/chat",
			"sec-websocket-version", "13", "content-length", length)
		if got, want := p.outcome(1), "reset PROTOCOL_ERROR"; got != want {
			t.Errorf("%s: %s, want %s", length, got, want)
		}
	}
}

// Without TLS, HTTP/2 is for those who begin with it, and only if that is wanted.
func TestHTTP2InTheClear(t *testing.T) {
	r := newRig(t)
	r.pool("p", named(t, "x"))
	yes, no := true, false
	on, off, secured := r.addr(), r.addr(), r.addr()
	r.apply(Config{Name: "on", Listen: []netip.AddrPort{on}, Pool: "p", HTTP2: HTTP2Config{Enabled: &yes}},
		Config{Name: "off", Listen: []netip.AddrPort{off}, Pool: "p"},
		Config{Name: "secured", Listen: []netip.AddrPort{secured}, Pool: "p", HTTP2: HTTP2Config{Enabled: &no}, TLS: &TLS{Certificates: []Certificate{makeCert(t, "a")}}})
	p := http2Dial(t, on)
	p.ask(1, true, "GET", "/")
	if a := p.answer(1); a.body != "x" {
		t.Errorf("%+v", a)
	}
	if got := body(t, say(t, on, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")); got != "x" {
		t.Errorf("HTTP/1.1 at the same port: %q", got)
	}
	if resp := say(t, off, http2.ClientPreface); resp.StatusCode != http.StatusHTTPVersionNotSupported {
		t.Errorf("off: %s", resp.Status)
	}
	// Not in the midst of HTTP/1.
	c, in := dial(t, on, nil)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	body(t, answerTo(t, in, "GET"))
	io.WriteString(c, http2.ClientPreface)
	if resp := answerTo(t, in, "GET"); resp.StatusCode != http.StatusHTTPVersionNotSupported {
		t.Errorf("later: %s", resp.Status)
	}
	if resp := get(t, client(t, secured, protocolHTTP1), "https://a/"); resp.ProtoMajor != 1 || body(t, resp) != "x" {
		t.Errorf("with TLS, off: %s", resp.Proto)
	}
	if _, err := client(t, secured, protocolHTTP2).Get("https://a/"); err == nil {
		t.Error("HTTP/2 is spoken though it is off")
	}
}

// A request that came with its body is sent to another server when the first one
// hangs up; so it is by HTTP/1.
func TestHTTP2Retries(t *testing.T) {
	var tries atomic.Int32
	fails := raw(t, func(c *net.TCPConn, r *bufio.Reader) {
		tries.Add(1)
		readHead(r)
	})
	r := newRig(t)
	r.pool("p", fails, web(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	addr, yes := r.addr(), true
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", HTTP2: HTTP2Config{Enabled: &yes}})
	for range 2 {
		p := http2Dial(t, addr)
		p.t = t
		// In one write, so that the body comes with the head.
		p.block.Reset()
		block := p.fields(":method", "PUT", ":scheme", "http", ":authority", "a", ":path", "/", "content-length", "5")
		both := append(appendHead(nil, 1, block, false), appendData(nil, 1, []byte("hello"), true)...)
		_, _ = p.conn.Write(both)
		if a := p.answer(1); a.get(":status") != "200" || a.body != "hello" {
			t.Errorf("%+v", a)
		}
	}
	if tries.Load() == 0 {
		t.Error("the first server was never asked")
	}
}

// Shutdown ends what streams have under way, whatever they wait for.
func TestHTTP2CutStreams(t *testing.T) {
	r, addr := clear2(t, web(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			io.Copy(io.Discard, r.Body)
			return
		}
		fmt.Fprint(w, strings.Repeat("x", 1<<20))
	}), nil)
	p := http2Dial(t, addr)
	p.ask(1, false, "POST", "/") // waits for a body
	p.ask(3, true, "GET", "/")   // waits for a window
	r.until("both", func() bool { return r.engine.Active(nil) == 2 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.engine.Shutdown(ctx); err != context.Canceled {
		t.Error(err)
	}
	if got := p.ends(); got != "closed" {
		t.Errorf("the connection: %s", got)
	}
}
