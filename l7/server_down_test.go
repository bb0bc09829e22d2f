package l7

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/http2"

	"appliance/internal/pool"
)

// What is under way with a server whose check fails is broken off where the pool
// says so: a request that may be sent again goes to another server, an answer that
// has begun breaks off, an upgraded connection ends.
func TestOnServerDown(t *testing.T) {
	for _, reset := range []bool{true, false} {
		asked := make(chan string, 8)
		release := make(chan struct{})
		dying := raw(t, func(c *net.TCPConn, r *bufio.Reader) {
			var path string
			fmt.Sscanf(readHead(r), "GET %s", &path)
			switch path {
			case "/begun":
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
			case "/upgrade":
				io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello")
			}
			asked <- path
			<-release
			switch path {
			case "/waiting":
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhelloworld")
			default:
				io.WriteString(c, "world")
			}
		})
		healthy := raw(t, func(c *net.TCPConn, r *bufio.Reader) {
			readHead(r)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\notherwise!")
		})
		r := newRig(t)
		cfg := pool.Config{Name: "p", Balance: pool.First, Checked: true, Servers: []pool.ServerConfig{{Address: dying}, {Address: healthy}}}
		if reset {
			cfg.OnServerDown = pool.DownReset
		}
		p := pool.New(cfg)
		r.pools["p"] = p
		p.SetHealth(dying, pool.Health{State: pool.Up})
		p.SetHealth(healthy, pool.Health{State: pool.Up})
		addr := r.addr()
		r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p"})

		answers := make(map[string]*bufio.Reader)
		for _, path := range []string{"/waiting", "/begun", "/upgrade"} {
			c, in := dial(t, addr, nil)
			answers[path] = in
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n", path)
			if got := <-asked; got != path {
				t.Fatal(got)
			}
		}
		for _, path := range []string{"/begun", "/upgrade"} {
			readHead(answers[path])
			if _, err := io.ReadFull(answers[path], make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
		}
		p.SetHealth(dying, pool.Health{State: pool.Down})
		if !reset {
			close(release)
		}
		want := map[string]string{"/waiting": "helloworld", "/begun": "world", "/upgrade": "world"}
		if reset {
			want = map[string]string{"/waiting": "otherwise!", "/begun": "", "/upgrade": ""}
		}
		for path, text := range want {
			in := answers[path]
			if path == "/waiting" {
				readHead(in)
			}
			got := make([]byte, len(text))
			if _, err := io.ReadFull(in, got); err != nil || string(got) != text {
				t.Errorf("reset %t: %s: %q, %v, want %q", reset, path, got, err, text)
			}
			if reset && text == "" {
				if _, err := in.ReadByte(); err == nil {
					t.Errorf("%s goes on", path)
				}
			}
		}
		if reset {
			close(release)
		}
	}
}

// By HTTP/2 it is the streams that are broken off; the connection stays.
func TestOnServerDownByHTTP2(t *testing.T) {
	asked, codes := make(chan uint32, 4), make(chan http2.ErrCode, 4)
	dying := frames(t, func(p *muxPeer) {
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
	r := newRig(t)
	p := pool.New(pool.Config{Name: "p", Balance: pool.First, Checked: true, OnServerDown: pool.DownReset,
		Servers: []pool.ServerConfig{{Address: dying}, {Address: http2Web(t, nil, nil, nil, mirror)}}})
	r.pools["p"] = p
	r.wires = map[string]Transport{"p": byHTTP2}
	for _, s := range p.Servers() {
		p.SetHealth(s.Address(), pool.Health{State: pool.Up})
	}
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p"})
	statuses := make(chan string, 2)
	ask := func(method string) {
		resp := say(t, addr, method+" / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
		body(t, resp)
		statuses <- fmt.Sprint(method, " ", resp.StatusCode)
	}
	for _, method := range []string{"PUT", "POST"} {
		go ask(method)
		<-asked
	}
	p.SetHealth(dying, pool.Health{State: pool.Down})
	got := []string{<-statuses, <-statuses}
	slices.Sort(got)
	if got[0] != "POST 502" || got[1] != "PUT 200" {
		t.Errorf("%v", got)
	}
	for range 2 {
		if code := <-codes; code != http2.ErrCodeCancel {
			t.Errorf("reset with %s", code)
		}
	}
}
