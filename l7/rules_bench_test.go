package l7

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"appliance/internal/pool"
	"appliance/l7/http1"
)

// What the search for a route and the look at who asks cost a request that no
// rule is for: no allocation.
func BenchmarkNoRules(b *testing.B) {
	var req http1.Request
	if err := req.Parse([]byte(benchRequest)); err != nil {
		b.Fatal(err)
	}
	id := newIdentity(Config{})
	table, err := newTable(Config{Name: "web", Pool: "p"}, map[string]*pool.Pool{"p": pool.New(pool.Config{Name: "p"})})
	if err != nil {
		b.Fatal(err)
	}
	ex := &exchange{method: req.Method, target: req.Target, host: req.Host, fields: req.Fields, peer: newPeer(netip.MustParseAddr("192.0.2.1"))}
	b.ReportAllocs()
	for b.Loop() {
		if to := table.find("blog.example.com", ex); !id.identify(ex) || to.rules != nil {
			b.Fatal("a rule")
		}
	}
}

// A small file by HTTP/1.1, client and service in one process.
func BenchmarkFile(b *testing.B) {
	e := New(zerolog.Nop())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	root := b.TempDir()
	if err := os.WriteFile(filepath.Join(root, "site.css"), []byte(strings.Repeat("0123456789", 200)), 0o600); err != nil {
		b.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	change, err := e.Stage([]Config{{Name: "web", Listen: []netip.AddrPort{addr}, Routes: []Route{{Files: &Files{Root: root}}}}}, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	benchServe(b, e, l, change)
	ask := benchClient(b, addr, nil, strings.Replace(benchRequest, "/forum/topic/17?page=2", "/site.css", 1), "6789")
	ask()
	b.ReportAllocs()
	for b.Loop() {
		ask()
	}
}
