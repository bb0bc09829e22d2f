package l7

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/net/http2/hpack"

	"appliance/internal/pool"
)

// http2BenchStreams is how many requests are under way at the same time.
const http2BenchStreams = 10

var http2BenchHead = []hpack.HeaderField{
	{Name: ":method", Value: "GET"}, {Name: ":path", Value: "/forum/topic/17?page=2"}, {Name: ":scheme", Value: "https"},
	{Name: ":authority", Value: "blog.example.com"}, {Name: "user-agent", Value: "Mozilla/5.0 (X11; Linux x86_64; rv:128.0)"},
	{Name: "accept", Value: "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}, {Name: "accept-language", Value: "en-US,en;q=0.5"},
	{Name: "cookie", Value: "sessionid=0123456789abcdef0123456789abcdef"},
}

// http2Bench puts a service in front of a server and returns a function that
// makes http2BenchStreams exchanges at the same time on one connection.
func http2Bench(tb testing.TB, withTLS bool, answer string) func() {
	tb.Helper()
	e := New(zerolog.Nop())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	yes := true
	cfg := Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", HTTP2: HTTP2Config{Enabled: &yes}}
	if withTLS {
		cfg.TLS = &TLS{Certificates: []Certificate{makeCert(tb, "a")}}
	}
	pools := map[string]*pool.Pool{"p": pool.New(pool.Config{Name: "p", Servers: []pool.ServerConfig{{Address: benchServer(tb, answer)}}})}
	change, err := e.Stage([]Config{cfg}, pools, nil)
	if err != nil {
		tb.Fatal(err)
	}
	benchServe(tb, e, l, change)

	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		tb.Fatal(err)
	}
	if withTLS {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocolHTTP2}})
	}
	tb.Cleanup(func() { c.Close() })
	if _, err := c.Write(preface([]byte{0, settingInitialWindow, 0x7f, 0xff, 0xff, 0xff})); err != nil {
		tb.Fatal(err)
	}
	var block bytes.Buffer
	e2 := hpack.NewEncoder(&block)
	next, in, have := uint32(1), make([]byte, 64<<10), 0
	out := make([]byte, 0, 4<<10)
	return func() {
		out = append(out[:0], 0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, http2BenchStreams*60>>8, http2BenchStreams*60&0xff) // WINDOW_UPDATE
		for range http2BenchStreams {
			block.Reset()
			for _, f := range http2BenchHead { // the first request fills the table
				_ = e2.WriteField(f)
			}
			head := block.Bytes()
			out = append(out, 0, 0, byte(len(head)), frameHeaders, flagEndHeaders|flagEndStream)
			out = binary.BigEndian.AppendUint32(out, next)
			out = append(out, head...)
			next += 2
		}
		if _, err := c.Write(out); err != nil {
			tb.Fatal(err)
		}
		for ended := 0; ended < http2BenchStreams; {
			n, err := c.Read(in[have:])
			if err != nil {
				tb.Fatal(err)
			}
			have += n
			b := in[:have]
			for len(b) >= 9 {
				size := 9 + int(b[0])<<16 + int(b[1])<<8 + int(b[2])
				if len(b) < size {
					break
				}
				if b[3] <= frameHeaders && b[4]&flagEndStream != 0 {
					ended++
				}
				if b[3] == frameGoAway || b[3] == frameReset {
					tb.Fatal(io.ErrUnexpectedEOF)
				}
				b = b[size:]
			}
			have = copy(in, b)
		}
	}
}

func BenchmarkHTTP2(b *testing.B) {
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		b.Run(name, func(b *testing.B) {
			ask := http2Bench(b, secure, benchSized)
			ask()
			b.ReportAllocs()
			for b.Loop() {
				ask()
			}
		})
	}
}

// A request by HTTP/2 allocates little: what the framer makes of its frame, and
// the strings of its head that are in no table.
func TestHTTP2AllocatesLittle(t *testing.T) {
	const n = 500
	ask := http2Bench(t, false, benchSized)
	for range 50 {
		ask()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		ask()
	}
	runtime.ReadMemStats(&after)
	if got := float64(after.Mallocs-before.Mallocs) / n / http2BenchStreams; got > 1.3 && !raceDetector {
		t.Errorf("%.2f allocations for each request", got)
	}
}
