package l7

import (
	"bufio"
	"bytes"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"appliance/internal/pool"
)

// awaitBody reads until n bytes of a body have come, or all of it, and returns its
// stream.
func (p *muxPeer) awaitBody(n int) (id uint32, got int) {
	for {
		f, err := p.framer.ReadFrame()
		if err != nil {
			return 0, got
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if id = f.StreamID; n == 0 || f.StreamEnded() {
				return id, got
			}
		case *http2.DataFrame:
			if f.StreamID != id {
				_ = p.framer.WriteWindowUpdate(0, uint32(max(1, len(f.Data()))))
				continue
			}
			_ = p.framer.WriteWindowUpdate(0, uint32(max(1, len(f.Data()))))
			if got += len(f.Data()); got >= n || f.StreamEnded() {
				return id, got
			}
		}
	}
}

// A body that is on its way when the server says that it will not look at the request
// goes to it again, or to another server, if what was sent is not more than is kept.
func TestBodiesThatAreSentAgain(t *testing.T) {
	refusals := map[string]func(p *muxPeer, id uint32){
		"refused":  func(p *muxPeer, id uint32) { _ = p.framer.WriteRSTStream(id, http2.ErrCodeRefusedStream) },
		"farewell": func(p *muxPeer, id uint32) { _ = p.framer.WriteGoAway(max(id, 2)-2, http2.ErrCodeNo, nil) },
	}
	text := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB
	for _, tc := range []struct {
		name  string
		size  int // of the body
		taken int // of it, when the server refuses
		held  int // of it, until it does
		more  uint32
		want  int
	}{
		{name: "nothing came yet", size: 100, taken: 0, held: 0, want: 200},
		{name: "a part came", size: 40000, taken: 1000, held: 1000, want: 200},
		{name: "all came", size: 40000, taken: 40000, held: 40000, want: 200},
		{name: "a window was filled", size: len(text), taken: 65535, held: len(text), want: 200},
		{name: "the rest comes later", size: len(text), taken: 65535, held: 70000, want: 200},
		{name: "more than is kept", size: len(text), taken: 300000, held: len(text), more: 1 << 20, want: 502},
	} {
		for kind, refuse := range refusals {
			for _, elsewhere := range []bool{false, true} {
				for _, version := range []string{protocolHTTP1, protocolHTTP2} {
					var refused atomic.Int64
					came := make(chan struct{}, 16)
					server := frames(t, func(p *muxPeer) {
						for {
							if tc.more > 0 {
								_ = p.framer.WriteWindowUpdate(0, tc.more)
								_ = p.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65535 + tc.more})
							}
							id, _ := p.awaitBody(tc.taken)
							if id == 0 {
								return
							}
							refused.Add(1)
							refuse(p, id)
							came <- struct{}{}
						}
					})
					servers := []pool.ServerConfig{{Address: server}, {Address: http2Web(t, nil, nil, nil, func(w http.ResponseWriter, r *http.Request) {
						text, _ := io.ReadAll(r.Body)
						_, _ = io.WriteString(w, sumOf(string(text)))
					})}}
					if !elsewhere {
						// The same server, which is ready from the second time on.
						var once atomic.Bool
						servers = []pool.ServerConfig{{Address: frames(t, func(p *muxPeer) {
							if tc.more > 0 {
								_ = p.framer.WriteWindowUpdate(0, tc.more)
								_ = p.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65535 + tc.more})
							}
							if once.CompareAndSwap(false, true) {
								id, _ := p.awaitBody(tc.taken)
								refused.Add(1)
								refuse(p, id)
								came <- struct{}{}
							}
							p.summarize()
						})}}
					}
					r := newRig(t)
					r.pools["p"] = pool.New(pool.Config{Name: "p", Balance: pool.First, Servers: servers})
					r.wires = map[string]Transport{"p": byHTTP2}
					plain, secure := r.addr(), r.addr()
					r.apply(Config{Name: "web", Listen: []netip.AddrPort{plain}, Pool: "p"},
						Config{Name: "secure", Listen: []netip.AddrPort{secure}, Pool: "p", TLS: &TLS{Certificates: []Certificate{makeCert(t, "a.example")}}})
					c, url := client(t, plain, protocolHTTP1), "http://a.example/"
					if version == protocolHTTP2 {
						c, url = client(t, secure, protocolHTTP2), "https://a.example/"
					}
					pr, pw := io.Pipe()
					go func() {
						_, _ = pw.Write(text[:tc.held])
						if tc.held < tc.size {
							<-came
							_, _ = pw.Write(text[tc.held:tc.size])
						}
						_ = pw.Close()
					}()
					req, err := http.NewRequest("POST", url, pr)
					if err != nil {
						t.Fatal(err)
					}
					resp, err := c.Do(req)
					if err != nil {
						t.Errorf("%s, %s, elsewhere %t, %s: %v", tc.name, kind, elsewhere, version, err)
						continue
					}
					got := body(t, resp)
					if resp.StatusCode != tc.want || tc.want == 200 && got != sumOf(string(text[:tc.size])) || refused.Load() == 0 {
						t.Errorf("%s, %s, elsewhere %t, %s: %s %q for %d bytes, refused %d times", tc.name, kind, elsewhere, version, resp.Status, got, tc.size, refused.Load())
					}
				}
			}
		}
	}
}

// summarize answers each request with what its body was.
func (p *muxPeer) summarize() {
	for {
		id, text := p.wholeBody()
		if id == 0 {
			return
		}
		p.head(id, false, ":status", "200")
		p.data(id, true, sumOf(text))
	}
}

func sumOf(text string) string {
	return fmt.Sprintf("%d bytes, %08x", len(text), crc32.ChecksumIEEE([]byte(text)))
}

// wholeBody is request for bodies that are larger than the windows.
func (p *muxPeer) wholeBody() (id uint32, text string) {
	var all bytes.Buffer
	for {
		f, err := p.framer.ReadFrame()
		if err != nil {
			return 0, ""
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if id = f.StreamID; f.StreamEnded() {
				return id, all.String()
			}
		case *http2.DataFrame:
			if f.StreamID != id {
				continue
			}
			if n := uint32(len(f.Data())); n > 0 {
				_ = p.framer.WriteWindowUpdate(0, n)
				_ = p.framer.WriteWindowUpdate(id, n)
			}
			if all.Write(f.Data()); f.StreamEnded() {
				return id, all.String()
			}
		}
	}
}

// A body that no server looks at ends with the exchange.
func TestBodyThatNobodyTakes(t *testing.T) {
	var refused atomic.Int64
	server := frames(t, func(p *muxPeer) {
		for {
			id, _ := p.awaitBody(1000)
			if id == 0 {
				return
			}
			refused.Add(1)
			_ = p.framer.WriteRSTStream(id, http2.ErrCodeRefusedStream)
		}
	})
	_, addr := over(t, byHTTP2, server)
	pr, pw := io.Pipe()
	defer pw.Close()
	go func() { _, _ = pw.Write(make([]byte, 1000)) }()
	req, err := http.NewRequest("POST", "http://a.example/", pr)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client(t, addr, protocolHTTP1).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if body(t, resp); resp.StatusCode != 502 || refused.Load() != unprocessedTries+1 {
		t.Errorf("%s after %d times", resp.Status, refused.Load())
	}
}

// A body that turns out to be none while its request is on the way to another
// connection is answered at once.
func TestBodyThatBreaksBetweenServers(t *testing.T) {
	refused := make(chan struct{}, 1)
	var conns atomic.Int64
	server := frames(t, func(p *muxPeer) {
		if id, _ := p.awaitBody(1000); id > 0 && conns.Load() == 1 {
			_ = p.framer.WriteGoAway(0, http2.ErrCodeNo, nil)
			refused <- struct{}{}
		}
		for { // and no answer, ever
			if _, err := p.framer.ReadFrame(); err != nil {
				return
			}
		}
	})
	// Its second connection takes a while to be greeted.
	slow := raw(t, func(c *net.TCPConn, in *bufio.Reader) {
		if conns.Add(1) > 1 {
			time.Sleep(300 * time.Millisecond)
		}
		to, err := net.Dial("tcp", server)
		if err != nil {
			t.Error(err)
			return
		}
		go func() {
			_, _ = io.Copy(c, to)
			c.Close()
		}()
		_, _ = io.Copy(to, in)
		to.Close()
	})
	r := newRig(t)
	r.pool("p", slow)
	r.wires = map[string]Transport{"p": byHTTP2}
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Timeouts: Timeouts{Response: 5 * time.Second}})
	c, in := dial(t, addr, nil)
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n%s\r\n", bytes.Repeat([]byte("x"), 1000))
	<-refused
	r.until("a second connection", func() bool { return conns.Load() == 2 })
	began := time.Now()
	io.WriteString(c, "none\r\n")
	resp := answerTo(t, in, "POST")
	if took := time.Since(began); resp.StatusCode != 400 || took > 4*time.Second {
		t.Errorf("%s after %v", resp.Status, took)
	}
}

// Many bodies at once to servers that refuse now and then, at any moment: each arrives
// whole or is answered 502, and nothing is left behind.
func TestBodiesAmongRefusals(t *testing.T) {
	server := frames(t, func(p *muxPeer) {
		type stream struct {
			sum    hash.Hash32
			n, end int // refused when so much has come; -1: never
		}
		chance := rand.New(rand.NewPCG(1, uint64(p.c.RemoteAddr().(*net.TCPAddr).Port)))
		streams := make(map[uint32]*stream)
		for {
			f, err := p.framer.ReadFrame()
			if err != nil {
				return
			}
			var st *stream
			id, done := f.Header().StreamID, false
			switch f := f.(type) {
			case *http2.MetaHeadersFrame:
				st = &stream{sum: crc32.NewIEEE(), end: -1}
				if chance.IntN(2) == 0 {
					st.end = chance.IntN(50000)
				}
				streams[id], done = st, f.StreamEnded()
			case *http2.DataFrame:
				if n := uint32(len(f.Data())); n > 0 {
					_ = p.framer.WriteWindowUpdate(0, n)
					if st = streams[id]; st != nil && !f.StreamEnded() {
						_ = p.framer.WriteWindowUpdate(id, n)
					}
				}
				if st = streams[id]; st != nil {
					st.n += len(f.Data())
					st.sum.Write(f.Data())
					done = f.StreamEnded()
				}
			case *http2.RSTStreamFrame:
				delete(streams, id)
			}
			switch {
			case st == nil:
			case st.end >= 0 && st.n >= st.end:
				_ = p.framer.WriteRSTStream(id, http2.ErrCodeRefusedStream)
				delete(streams, id)
			case done:
				p.head(id, false, ":status", "200")
				p.data(id, true, fmt.Sprintf("%d bytes, %08x", st.n, st.sum.Sum32()))
				delete(streams, id)
			}
		}
	})
	r := newRig(t)
	r.pools["p"] = pool.New(pool.Config{Name: "p", Servers: []pool.ServerConfig{{Address: server}, {Name: "again", Address: server}}})
	r.wires = map[string]Transport{"p": byHTTP2}
	plain, secure := r.addr(), r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{plain}, Pool: "p"},
		Config{Name: "secure", Listen: []netip.AddrPort{secure}, Pool: "p", TLS: &TLS{Certificates: []Certificate{makeCert(t, "a.example")}}})
	var wg sync.WaitGroup
	var whole, lost atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			chance := rand.New(rand.NewPCG(2, uint64(i)))
			c, url := client(t, plain, protocolHTTP1), "http://a.example/"
			if i%2 == 1 {
				c, url = client(t, secure, protocolHTTP2), "https://a.example/"
			}
			for range 30 {
				text := bytes.Repeat([]byte{byte('a' + i)}, chance.IntN(200000))
				pr, pw := io.Pipe()
				go func() {
					for rest := text; len(rest) > 0; {
						n := min(len(rest), 1+chance.IntN(40000))
						if _, err := pw.Write(rest[:n]); err != nil {
							return
						}
						rest = rest[n:]
					}
					_ = pw.Close()
				}()
				resp, err := c.Post(url, "", pr)
				if err != nil {
					t.Errorf("%d bytes: %v", len(text), err)
					continue
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				_ = pr.Close()
				switch {
				case err == nil && resp.StatusCode == 200 && string(got) == sumOf(string(text)):
					whole.Add(1)
				case err == nil && resp.StatusCode == 502:
					lost.Add(1)
				default:
					t.Errorf("%d bytes: %s %q, %v; want %q", len(text), resp.Status, got, err, sumOf(string(text)))
				}
			}
		})
	}
	wg.Wait()
	if whole.Load() < lost.Load() {
		t.Errorf("%d arrived whole, %d did not", whole.Load(), lost.Load())
	}
}
