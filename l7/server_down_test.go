package l7

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

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
