package l7

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"appliance/internal/pool"
)

// http2Web starts a server that speaks HTTP/2 alone, by TLS if config is not nil.
func http2Web(t *testing.T, config *tls.Config, settings *http.HTTP2Config, count *atomic.Int64, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, HTTP2: settings, Protocols: new(http.Protocols), ConnState: func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew && count != nil {
			count.Add(1)
		}
	}}
	s.Protocols.SetHTTP2(config != nil)
	s.Protocols.SetUnencryptedHTTP2(config == nil)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if config == nil {
			_ = s.Serve(l)
			return
		}
		s.TLSConfig = config.Clone()
		_ = s.ServeTLS(l, "", "")
	}()
	t.Cleanup(func() {
		s.Close()
		<-ended
	})
	return l.Addr().String()
}

// byHTTP2 is the transport to servers that speak HTTP/2 without TLS.
var byHTTP2 = Transport{HTTP: HTTP2}

// mirror answers with the body and with trailers that tell of it.
func mirror(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "X-Sum")
	w.Header().Set("X-Seen", fmt.Sprint(r.Proto, r.Host, r.ContentLength, r.Header["Connection"], r.Header.Get("X-Forwarded-Proto")))
	n, err := io.Copy(w, r.Body)
	w.Header().Set("X-Sum", fmt.Sprint(n, err, r.Trailer.Get("X-End")))
}

// Requests and answers of all shapes pass by HTTP/2, with and without TLS, on one
// connection, whatever the client speaks.
func TestServerByHTTP2(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		var config *tls.Config
		wire := byHTTP2
		if encrypted {
			var ca string
			config, ca = serverConfig(t, "app.example.com")
			wire.TLS = &ServerTLS{ServerName: "app.example.com", CAFile: ca}
		}
		var connections atomic.Int64
		server := http2Web(t, config, nil, &connections, mirror)
		r := newRig(t)
		r.pool("p", server)
		r.wires = map[string]Transport{"p": wire}
		plain, secure := r.addr(), r.addr()
		r.apply(Config{Name: "web", Listen: []netip.AddrPort{plain}, Pool: "p"},
			Config{Name: "secure", Listen: []netip.AddrPort{secure}, Pool: "p", TLS: &TLS{Certificates: []Certificate{makeCert(t, "a.example")}}})
		sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
		for i, size := range []int{0, 1, 5000, 20000, len(sent)} {
			for j, sized := range []bool{true, false, true, false} {
				var in io.Reader = bytes.NewReader(sent[:size])
				if !sized {
					in = io.MultiReader(in)
				}
				req, err := http.NewRequest("PUT", "http://a.example/", in)
				if err != nil {
					t.Fatal(err)
				}
				if !sized {
					req.Trailer = http.Header{"X-End": {"yes"}}
				}
				c, scheme := client(t, plain, protocolHTTP1), "http"
				if j >= 2 {
					c, scheme = client(t, secure, protocolHTTP2), "https"
					req.URL.Scheme = scheme
				}
				resp, err := c.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				got, sum := body(t, resp), resp.Trailer.Get("X-Sum")
				want, length := fmt.Sprint(size, nil), size
				if !sized {
					want, length = want+"yes", -1
				}
				if scheme == "http" && resp.ContentLength >= 0 {
					sum = want // by HTTP/1.1 an answer has either a length or trailers
				}
				if got != string(sent[:size]) || sum != want {
					t.Errorf("%d bytes, sized %t, %s: %s, %d back, trailer %q, want %q", size, sized, scheme, resp.Status, len(got), sum, want)
				}
				if length < 0 && scheme == "https" && i < 3 {
					continue // a small body is known when the request is sent
				}
				if got, want := resp.Header.Get("X-Seen"), fmt.Sprint("HTTP/2.0", "a.example", length, []string(nil), scheme); got != want {
					t.Errorf("%d bytes, sized %t: the server saw %q, want %q", size, sized, got, want)
				}
			}
		}
		if n := connections.Load(); n != 2 {
			t.Errorf("encrypted %t: %d connections, want one for each service", encrypted, n)
		}
		if s := r.pools["p"].Servers()[0].Stats(); s.BytesToServer != 4*int64(5001+20000+len(sent)) || s.BytesToClient != s.BytesToServer {
			t.Errorf("%d bytes to the server, %d from it", s.BytesToServer, s.BytesToClient)
		}
	}
}

// Many requests at once share connections, each of which has no more of them than
// the server wants.
func TestStreamsAtATime(t *testing.T) {
	const many, most = 60, 10
	var connections, now, highest atomic.Int64
	perConn := sync.Map{}
	gate := make(chan struct{})
	server := http2Web(t, nil, &http.HTTP2Config{MaxConcurrentStreams: most}, &connections, func(w http.ResponseWriter, r *http.Request) {
		n, _ := perConn.LoadOrStore(r.RemoteAddr, new(atomic.Int64))
		if k := n.(*atomic.Int64).Add(1); k > most {
			t.Errorf("%d requests at a time on one connection", k)
		}
		defer n.(*atomic.Int64).Add(-1)
		if k := now.Add(1); k > highest.Load() {
			highest.Store(k)
		}
		defer now.Add(-1)
		<-gate
		io.WriteString(w, "hello")
	})
	_, addr := over(t, byHTTP2, server)
	c := client(t, addr, protocolHTTP1)
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			resp, err := c.Get("http://a/")
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if got, err := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(got) != "hello" || err != nil {
				t.Errorf("%s %q %v", resp.Status, got, err)
			}
		})
	}
	for end := time.Now().Add(patience); now.Load() < many && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	close(gate)
	wg.Wait()
	if highest.Load() != many || connections.Load() != many/most {
		t.Errorf("%d requests at a time by %d connections, want %d by %d", highest.Load(), connections.Load(), many, many/most)
	}
}

// A client that takes nothing holds up its own stream alone, and of what the server
// sends it there is no more than a window.
func TestSlowClientHoldsUpNobody(t *testing.T) {
	var written atomic.Int64
	stop := make(chan struct{})
	server := http2Web(t, nil, nil, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			io.WriteString(w, "hello")
			return
		}
		for b := make([]byte, 16<<10); ; {
			n, err := w.Write(b)
			written.Add(int64(n))
			select {
			case <-stop:
				return
			default:
			}
			if err != nil {
				return
			}
		}
	})
	r, addr := over(t, byHTTP2, server)
	slow, in := dial(t, addr, nil)
	_ = slow.(*net.TCPConn).SetReadBuffer(4 << 10)
	io.WriteString(slow, "GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
	readHead(in)
	before := int64(-1)
	r.until("the server is held up", func() bool {
		now := written.Load()
		held := now == before && now > 0
		before = now
		time.Sleep(50 * time.Millisecond)
		return held
	})
	for range 20 {
		if got := body(t, get(t, client(t, addr, protocolHTTP1), "http://a/")); got != "hello" {
			t.Errorf("%q", got)
		}
	}
	slow.Close()
	close(stop)
	r.until("the request has ended", func() bool { return r.pools["p"].Servers()[0].Current() == 0 })
}

// muxPeer is a server that speaks HTTP/2 frame by frame.
type muxPeer struct {
	t       *testing.T
	c       net.Conn
	framer  *http2.Framer
	encoded bytes.Buffer
	encoder *hpack.Encoder
}

// frames starts a server that does with each connection what serve says, after the
// prefaces.
func frames(t *testing.T, serve func(p *muxPeer)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(2 * patience))
				preface := make([]byte, len(http2.ClientPreface))
				if _, err := io.ReadFull(c, preface); err != nil || string(preface) != http2.ClientPreface {
					return
				}
				p := &muxPeer{t: t, c: c, framer: http2.NewFramer(c, c)}
				p.framer.AllowIllegalWrites = true
				p.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
				p.encoder = hpack.NewEncoder(&p.encoded)
				if p.framer.WriteSettings() == nil {
					serve(p)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// request returns the next request, and its whole body; id 0 is the end.
func (p *muxPeer) request() (id uint32, method, body string) {
	for {
		f, err := p.framer.ReadFrame()
		if err != nil {
			return 0, "", ""
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if method = f.PseudoValue("method"); f.StreamEnded() {
				return f.StreamID, method, body
			}
		case *http2.DataFrame:
			if body += string(f.Data()); f.StreamEnded() {
				return f.StreamID, method, body
			}
		}
	}
}

// head sends a head; fields are names and values in turn.
func (p *muxPeer) head(id uint32, end bool, fields ...string) {
	p.encoded.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = p.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.encoded.Bytes(), EndHeaders: true, EndStream: end})
}

func (p *muxPeer) data(id uint32, end bool, text string) {
	_ = p.framer.WriteData(id, end, []byte(text))
}

// hello answers in good order.
func (p *muxPeer) hello(id uint32) {
	p.head(id, false, ":status", "200")
	p.data(id, true, "hello")
}

// A request that the server has not looked at is sent again, whatever it is; one
// that it may have looked at only if that does no harm.
func TestRequestsThatAreSentAgain(t *testing.T) {
	for _, tc := range []struct {
		name   string
		refuse func(p *muxPeer, id uint32)
		want   map[string]int // the status, by method
	}{
		{"refused", func(p *muxPeer, id uint32) { _ = p.framer.WriteRSTStream(id, http2.ErrCodeRefusedStream) }, map[string]int{"GET": 200, "POST": 200, "PUT": 200}},
		{"farewell", func(p *muxPeer, id uint32) { _ = p.framer.WriteGoAway(id-2, http2.ErrCodeNo, nil) }, map[string]int{"GET": 200, "POST": 200, "PUT": 200}},
		{"reset", func(p *muxPeer, id uint32) { _ = p.framer.WriteRSTStream(id, http2.ErrCodeInternal) }, map[string]int{"GET": 200, "POST": 502, "PUT": 502}},
		{"closed", func(p *muxPeer, id uint32) { p.c.Close() }, map[string]int{"GET": 200, "POST": 502, "PUT": 502}},
		{"looked at, and closed", func(p *muxPeer, id uint32) { _ = p.framer.WriteGoAway(id, http2.ErrCodeNo, nil); p.c.Close() }, map[string]int{"GET": 200, "POST": 502, "PUT": 502}},
	} {
		for method, want := range tc.want {
			var refused atomic.Bool
			server := frames(t, func(p *muxPeer) {
				for n := 0; ; n++ {
					id, _, body := p.request()
					if id == 0 {
						return
					}
					if n > 0 && refused.CompareAndSwap(false, true) {
						tc.refuse(p, id)
						continue
					}
					if method != "GET" && n > 0 && body != "x" {
						t.Errorf("%s: the body is %q", tc.name, body)
					}
					p.hello(id)
				}
			})
			_, addr := over(t, byHTTP2, server)
			c := client(t, addr, protocolHTTP1)
			body(t, get(t, c, "http://a/"))
			req, err := http.NewRequest(method, "http://a/", nil)
			if method != "GET" {
				req, err = http.NewRequest(method, "http://a/", strings.NewReader("x"))
			}
			if err != nil {
				t.Fatal(err)
			}
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if text := body(t, resp); resp.StatusCode != want || want == 200 && text != "hello" {
				t.Errorf("%s, %s: %s %q, want %d", tc.name, method, resp.Status, text, want)
			}
		}
	}
}

// A server that refuses all the time is not asked for ever, and another one is.
func TestServerThatRefusesAll(t *testing.T) {
	var asked atomic.Int64
	refusing := frames(t, func(p *muxPeer) {
		for {
			id, _, _ := p.request()
			if id == 0 {
				return
			}
			asked.Add(1)
			_ = p.framer.WriteRSTStream(id, http2.ErrCodeRefusedStream)
		}
	})
	r := newRig(t)
	r.pools["p"] = pool.New(pool.Config{Name: "p", Balance: pool.First, Servers: []pool.ServerConfig{
		{Address: refusing}, {Address: http2Web(t, nil, nil, nil, mirror)}}})
	r.wires = map[string]Transport{"p": byHTTP2}
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p"})
	resp, err := client(t, addr, protocolHTTP1).Post("http://a/", "", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	if text := body(t, resp); resp.StatusCode != 200 || text != "x" || asked.Load() != unprocessedTries+1 {
		t.Errorf("%s %q after %d times", resp.Status, text, asked.Load())
	}
}

// An answer that is none is answered 502, or breaks off if it has begun, and others
// on the connection go on.
func TestMalformedAnswersByHTTP2(t *testing.T) {
	const broken = 0 // the answer breaks off
	ok := []string{":status", "200"}
	head := func(fields ...string) func(p *muxPeer, id uint32) {
		return func(p *muxPeer, id uint32) { p.head(id, true, fields...) }
	}
	ended := make(chan struct{}) // when more than the window has been refused
	for _, tc := range []struct {
		name   string
		answer func(p *muxPeer, id uint32)
		want   int
	}{
		{"fine", head(ok...), 200},
		{"no status", head("a", "b"), 502},
		{"two", head(":status", "200", ":status", "200"), 502},
		{"status behind fields", head("a", "b", ":status", "200"), 502},
		{"another pseudo field", head(":status", "200", ":path", "/"), 502},
		{"a short status", head(":status", "20"), 502},
		{"a long status", head(":status", "2000"), 502},
		{"a status that is none", head(":status", "2x0"), 502},
		{"a small status", head(":status", "099"), 502},
		{"101", head(":status", "101"), 502},
		{"interim and end", head(":status", "103"), 502},
		{"upper case", head(":status", "200", "X-A", "b"), 502},
		{"a name with a blank", head(":status", "200", "x a", "b"), 502},
		{"no name", head(":status", "200", "", "b"), 502},
		{"CR LF in a value", head(":status", "200", "a", "b\r\nSet-Cookie: c"), 502},
		{"NUL in a value", head(":status", "200", "a", "b\x00"), 502},
		{"blanks around a value", head(":status", "200", "a", " b"), 502},
		{"connection", head(":status", "200", "connection", "close"), 502},
		{"transfer-encoding", head(":status", "200", "transfer-encoding", "chunked"), 502},
		{"keep-alive", head(":status", "200", "keep-alive", "x"), 502},
		{"upgrade", head(":status", "200", "upgrade", "x"), 502},
		{"passes for a length", head(":status", "200", "content_length", "5"), 502},
		{"two lengths", head(":status", "200", "content-length", "0", "content-length", "0"), 502},
		{"no number", head(":status", "200", "content-length", "+0"), 502},
		{"no body of its length", head(":status", "200", "content-length", "5"), 502},
		{"a body before the head", func(p *muxPeer, id uint32) { p.data(id, true, "hello") }, 502},
		{"too short", func(p *muxPeer, id uint32) {
			p.head(id, false, ":status", "200", "content-length", "6")
			p.data(id, true, "hello")
		}, broken},
		{"too long", func(p *muxPeer, id uint32) {
			p.head(id, false, ":status", "200", "content-length", "4")
			p.data(id, true, "hello")
		}, broken},
		{"reset in its midst", func(p *muxPeer, id uint32) {
			p.head(id, false, ok...)
			p.data(id, false, "hello")
			_ = p.framer.WriteRSTStream(id, http2.ErrCodeInternal)
		}, broken},
		{"reset without an error", func(p *muxPeer, id uint32) {
			p.head(id, false, ok...)
			p.data(id, false, "hello")
			_ = p.framer.WriteRSTStream(id, http2.ErrCodeNo)
		}, broken},
		{"closed in its midst", func(p *muxPeer, id uint32) {
			p.head(id, false, ok...)
			p.data(id, false, "hello")
			p.c.Close()
		}, broken},
		{"a second head", func(p *muxPeer, id uint32) {
			p.head(id, false, ok...)
			p.data(id, false, "hello")
			p.head(id, true, ok...)
		}, broken},
		{"trailers in the midst", func(p *muxPeer, id uint32) {
			p.head(id, false, ok...)
			p.head(id, false, "a", "b")
			p.data(id, true, "hello")
		}, broken},
		{"trailers with CR LF", func(p *muxPeer, id uint32) {
			p.head(id, false, ok...)
			p.data(id, false, "hello")
			p.head(id, true, "a", "b\r\nc: d")
		}, broken},
		{"more than the window", func(p *muxPeer, id uint32) {
			p.head(id, false, ok...)
			go func() {
				defer close(ended)
				for {
					if f, err := p.framer.ReadFrame(); err != nil || f.Header().Type == http2.FrameRSTStream {
						return
					}
				}
			}()
			for {
				select {
				case <-ended:
					return
				default:
					p.data(id, false, strings.Repeat("x", 16<<10))
				}
			}
		}, broken},
		{"a push", func(p *muxPeer, id uint32) {
			_ = p.framer.WritePushPromise(http2.PushPromiseParam{StreamID: id, PromiseID: 2, EndHeaders: true})
		}, 502},
		{"another stream", func(p *muxPeer, id uint32) { p.head(id+2, true, ok...) }, 502},
		{"an even stream", func(p *muxPeer, id uint32) { p.head(2, true, ok...) }, 502},
		{"bad compression", func(p *muxPeer, id uint32) {
			_ = p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0xff, 0xff, 0xff}, EndHeaders: true, EndStream: true})
		}, 502},
		{"a window of nothing", func(p *muxPeer, id uint32) { _ = p.framer.WriteWindowUpdate(0, 0) }, 502},
		{"a window that is too large", func(p *muxPeer, id uint32) {
			_ = p.framer.WriteWindowUpdate(0, 1<<31-1)
		}, 502},
		{"a frame that is too large", func(p *muxPeer, id uint32) {
			p.head(id, false, ok...)
			_ = p.framer.WriteRawFrame(http2.FrameData, 0, id, make([]byte, 20<<10))
		}, broken},
		{"many fields", func(p *muxPeer, id uint32) {
			all := []string{":status", "200"}
			for i := range 300 {
				all = append(all, fmt.Sprint("a", i), "b")
			}
			p.head(id, true, all...)
		}, 502},
	} {
		server := frames(t, func(p *muxPeer) {
			for {
				id, method, _ := p.request()
				if id == 0 {
					return
				}
				if method == "GET" {
					p.hello(id)
				} else {
					tc.answer(p, id)
				}
			}
		})
		_, addr := over(t, byHTTP2, server)
		c := client(t, addr, protocolHTTP1)
		body(t, get(t, c, "http://a/"))
		req, err := http.NewRequest("PATCH", "http://a/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err == nil {
			if tc.name == "more than the window" {
				<-ended // what the client takes opens the window again
			}
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			t.Errorf("%s: nothing comes of it: %v", tc.name, err)
		case tc.want == broken && err == nil:
			t.Errorf("%s: %s and all of a body", tc.name, resp.Status)
		case tc.want != broken && (err != nil || resp.StatusCode != tc.want):
			t.Errorf("%s: %v, %v, want %d", tc.name, resp, err, tc.want)
		}
		if got := body(t, get(t, c, "http://a/")); got != "hello" {
			t.Errorf("%s: afterwards: %q", tc.name, got)
		}
	}
}

// A client that leaves takes its request along.
func TestClientLeavesStream(t *testing.T) {
	codes := make(chan http2.ErrCode, 4)
	asked := make(chan uint32, 4)
	server := frames(t, func(p *muxPeer) {
		for {
			f, err := p.framer.ReadFrame()
			if err != nil {
				return
			}
			switch f := f.(type) {
			case *http2.MetaHeadersFrame:
				asked <- f.StreamID
			case *http2.RSTStreamFrame:
				codes <- f.ErrCode
			}
		}
	})
	_, addr := over(t, byHTTP2, server)
	ctx, leave := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "GET", "http://a/", nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if resp, err := client(t, addr, protocolHTTP1).Do(req); err == nil {
			resp.Body.Close()
		}
	}()
	<-asked
	leave()
	<-ended
	select {
	case code := <-codes:
		if code != http2.ErrCodeCancel {
			t.Errorf("the request was reset with %s", code)
		}
	case <-time.After(patience):
		t.Error("the server was never told")
	}
}

// A server that says nothing is asked for a sign of life: one that answers has its
// time, one that does not is dead long before that.
func TestSilentServerByHTTP2(t *testing.T) {
	t.Parallel()
	for _, alive := range []bool{true, false} {
		server := frames(t, func(p *muxPeer) {
			for {
				f, err := p.framer.ReadFrame()
				if err != nil {
					return
				}
				if ping, ok := f.(*http2.PingFrame); ok && alive && !ping.IsAck() {
					_ = p.framer.WritePing(true, ping.Data)
				}
			}
		})
		r := newRig(t)
		r.pool("p", server)
		r.wires = map[string]Transport{"p": byHTTP2}
		addr := r.addr()
		r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Timeouts: Timeouts{Response: 2 * time.Second}})
		began := time.Now()
		resp, err := client(t, addr, protocolHTTP1).Post("http://a/", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		body(t, resp)
		took := time.Since(began)
		if want := map[bool]int{true: 504, false: 502}[alive]; resp.StatusCode != want || alive == (took < 2*time.Second) {
			t.Errorf("alive %t: %s after %v", alive, resp.Status, took)
		}
	}
}

// Interim answers are passed on, and a client that waits is asked for its body when
// the server asks.
func TestInterimAnswersByHTTP2(t *testing.T) {
	server := http2Web(t, nil, nil, nil, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</x>")
		w.WriteHeader(103)
		mirror(w, r)
	})
	_, addr := over(t, byHTTP2, server)
	c, in := dial(t, addr, nil)
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	if head := readHead(in); !strings.Contains(head, " 103 ") || !strings.Contains(head, "</x>") {
		t.Fatal(head)
	}
	if head := readHead(in); !strings.Contains(head, " 100 ") {
		t.Fatal(head)
	}
	io.WriteString(c, "hello")
	resp := answerTo(t, in, "POST")
	if got := body(t, resp); resp.StatusCode != 200 || got != "hello" {
		t.Errorf("%s %q", resp.Status, got)
	}
}

// What does not speak HTTP/2 is told so in words.
func TestServerWithoutHTTP2(t *testing.T) {
	for name, server := range map[string]string{
		"HTTP/1.1": web(t, func(http.ResponseWriter, *http.Request) {}),
		"mute":     raw(t, func(c *net.TCPConn, _ *bufio.Reader) { _, _ = io.Copy(io.Discard, c) }),
	} {
		r := newRig(t)
		r.pool("p", server)
		r.wires = map[string]Transport{"p": byHTTP2}
		addr := r.addr()
		r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Timeouts: Timeouts{Connect: time.Second / 2}})
		resp := get(t, client(t, addr, protocolHTTP1), "http://a/")
		body(t, resp)
		s := r.pools["p"].Servers()[0].Stats()
		if resp.StatusCode != 502 || !strings.Contains(s.ConnectError.Reason, "does not speak HTTP/2") {
			t.Errorf("%s: %s, %q", name, resp.Status, s.ConnectError.Reason)
		}
	}
}

// Behind an answer with a length, by HTTP/2, clients of HTTP/1.1 get the trailers if
// they ask for them: then the length has to go.
func TestLengthAndTrailers(t *testing.T) {
	server := http2Web(t, nil, nil, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/announced" {
			w.Header().Set("Trailer", "X-Sum")
		}
		w.Header().Set("Content-Length", "5")
		_, _ = io.WriteString(w, "hello")
		w.Header().Set("X-Sum", "7")
	})
	r := newRig(t)
	r.pool("p", server)
	r.wires = map[string]Transport{"p": byHTTP2}
	plain, secure := r.addr(), r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{plain}, Pool: "p"},
		Config{Name: "secure", Listen: []netip.AddrPort{secure}, Pool: "p", TLS: &TLS{Certificates: []Certificate{makeCert(t, "a.example")}}})
	for _, tc := range []struct {
		request string
		want    string // length, trailers that are announced, and those that come
	}{
		{"GET /announced HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n", "-1 map[X-Sum:[]] map[X-Sum:[7]]"},
		{"GET /announced HTTP/1.1\r\nHost: a\r\n\r\n", "5 map[] map[]"},
		{"GET /unsaid HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n", "5 map[] map[]"},
		{"GET /announced HTTP/1.0\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n", "5 map[] map[]"},
	} {
		c, in := dial(t, plain, nil)
		write(t, c, []byte(tc.request))
		resp := answerTo(t, in, "GET")
		got := fmt.Sprint(resp.ContentLength, " ", resp.Trailer)
		if text := body(t, resp); text != "hello" {
			t.Errorf("%q: %q", tc.request, text)
		}
		if got = fmt.Sprint(got, " ", resp.Trailer); strings.ReplaceAll(got, "map[X-Sum:<nil>]", "map[X-Sum:[]]") != tc.want {
			t.Errorf("%q: %s, want %s", tc.request, got, tc.want)
		}
	}
	resp := get(t, client(t, secure, protocolHTTP2), "https://a.example/announced")
	if text := body(t, resp); text != "hello" || resp.ContentLength != 5 || resp.Trailer.Get("X-Sum") != "7" {
		t.Errorf("HTTP/2: %q, %d, %v", text, resp.ContentLength, resp.Trailer)
	}
}

// A server that takes few requests on each connection, as an nginx with
// keepalive_requests does, refuses nobody in the end.
func TestFewRequestsOnAConnection(t *testing.T) {
	server := frames(t, func(p *muxPeer) {
		last := uint32(0)
		for n := 0; ; n++ {
			id, _, _ := p.request()
			switch {
			case id == 0:
				return
			case n < 3:
				last = id
				p.hello(id)
			default:
				_ = p.framer.WriteGoAway(last, http2.ErrCodeNo, nil)
			}
		}
	})
	_, addr := over(t, byHTTP2, server)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			c := client(t, addr, protocolHTTP1)
			for range 40 {
				resp, err := c.Post("http://a/", "", strings.NewReader("x"))
				if err != nil {
					t.Error(err)
					return
				}
				if text := body(t, resp); resp.StatusCode != 200 || text != "hello" {
					t.Errorf("%s %q", resp.Status, text)
				}
			}
		})
	}
	wg.Wait()
}
