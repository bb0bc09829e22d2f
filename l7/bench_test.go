package l7

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"github.com/rs/zerolog"

	"appliance/internal/pool"
)

const (
	benchRequest = "GET /forum/topic/17?page=2 HTTP/1.1\r\nHost: blog.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0)\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n" +
		"Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nCookie: sessionid=0123456789abcdef0123456789abcdef\r\n\r\n"
	benchPost   = "POST /form HTTP/1.1\r\nHost: blog.example.com\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
	benchSized  = "HTTP/1.1 200 OK\r\nServer: x\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Length: 60\r\nConnection: keep-alive\r\n\r\n012345678901234567890123456789012345678901234567890123456789"
	benchChunks = "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
)

// benchServer answers each request, told by its size, with answer. It allocates
// nothing while it does.
func benchServer(tb testing.TB, answer string) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in, out := make([]byte, 4<<10), []byte(answer)
				for {
					if _, err := c.Read(in); err != nil { // one request is one segment
						return
					}
					if _, err := c.Write(out); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// benchClient returns a function that makes one exchange on a connection that is
// kept.
func benchClient(tb testing.TB, addr netip.AddrPort, config *tls.Config, request, end string) func() {
	tb.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		tb.Fatal(err)
	}
	if config != nil {
		c = tls.Client(c, config)
	}
	tb.Cleanup(func() { c.Close() })
	in, out, last := make([]byte, 4<<10), []byte(request), []byte(end)
	return func() {
		if _, err := c.Write(out); err != nil {
			tb.Fatal(err)
		}
		for n := 0; !bytes.HasSuffix(in[:n], last); {
			k, err := c.Read(in[n:])
			if err != nil {
				tb.Fatal(err)
			}
			n += k
		}
	}
}

type benchCase struct {
	name, request, answer, end string
	tls, logged                bool
}

var benchCases = []benchCase{
	{"sized", benchRequest, benchSized, "6789", false, false},
	{"chunked", benchRequest, benchChunks, "0\r\n\r\n", false, false},
	{"post", benchPost, benchSized, "6789", false, false},
	{"TLS", benchRequest, benchSized, "6789", true, false},
	{"logged", benchRequest, benchSized, "6789", false, true},
}

// start puts a service in front of a server of the case.
func (bc benchCase) start(b testing.TB) func() {
	e := New(zerolog.Nop())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	cfg := Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p"}
	if bc.logged {
		cfg.AccessLog = &AccessLog{Path: b.TempDir() + "/access.log"}
	}
	var config *tls.Config
	if bc.tls {
		cfg.TLS = &TLS{Certificates: []Certificate{makeCert(b, "a")}}
		config = &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocolHTTP1}}
	}
	pools := map[string]*pool.Pool{"p": pool.New(pool.Config{Name: "p", Servers: []pool.ServerConfig{{Address: benchServer(b, bc.answer)}}})}
	change, err := e.Stage([]Config{cfg}, pools, nil)
	if err != nil {
		b.Fatal(err)
	}
	benchServe(b, e, l, change)
	return benchClient(b, addr, config, bc.request, bc.end)
}

func BenchmarkExchange(b *testing.B) {
	for _, bc := range benchCases {
		b.Run(bc.name, func(b *testing.B) {
			ask := bc.start(b)
			ask()
			b.ReportAllocs()
			for b.Loop() {
				ask()
			}
		})
	}
}

// A request that is forwarded allocates nothing, once all buffers are there.
func TestExchangeAllocatesNothing(t *testing.T) {
	for _, bc := range benchCases {
		const n = 2000
		ask := bc.start(t)
		for range 50 {
			ask()
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range n {
			ask()
		}
		runtime.ReadMemStats(&after)
		most := 0.05 // a garbage collection empties the pools
		if bc.tls {
			most = 3.1 // what crypto/tls does: twice for a message here and there, once for looking in vain
		}
		if got := float64(after.Mallocs-before.Mallocs) / n; got > most && !raceDetector {
			t.Errorf("%s: %.2f allocations for each request", bc.name, got)
		}
	}
}

// benchServe puts change in force and serves what comes to l, until b ends.
func benchServe(b testing.TB, e *Engine, l net.Listener, change *Change) {
	change.Commit()
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go change.Handlers()[addr].ServeConn(adopt(c.(*net.TCPConn)))
		}
	}()
	b.Cleanup(func() {
		l.Close()
		<-ended
		e.cutAll()
		_ = e.Shutdown(b.Context())
	})
}
