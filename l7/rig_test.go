package l7

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/listen"
	"appliance/internal/pool"
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

func TestMain(m *testing.M) {
	code := m.Run()
	if left := leftGoroutines(); code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "goroutines left behind:\n%s\n", left)
		code = 1
	}
	os.Exit(code)
}

// leftGoroutines returns the stacks of what runs still after the last test.
func leftGoroutines() string {
	var left []string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		buf := make([]byte, 4<<20)
		left = nil
		for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if !strings.Contains(g, "TestMain") && (strings.Contains(g, "appliance/l7.") || strings.Contains(g, "net/http.")) {
				left = append(left, g)
			}
		}
		if len(left) == 0 {
			return ""
		}
	}
	return strings.Join(left, "\n\n")
}

// rig is an engine with listeners on loopback.
type rig struct {
	t      *testing.T
	engine *Engine
	pools  map[string]*pool.Pool
	log    *logBuffer
	accept sync.WaitGroup

	mu        sync.Mutex
	listeners map[netip.AddrPort]*net.TCPListener
	handlers  map[netip.AddrPort]listen.Handler
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{
		t:         t,
		log:       &logBuffer{},
		pools:     make(map[string]*pool.Pool),
		listeners: make(map[netip.AddrPort]*net.TCPListener),
		handlers:  make(map[netip.AddrPort]listen.Handler),
	}
	r.engine = New(zerolog.New(r.log))
	t.Cleanup(func() {
		for _, l := range r.listeners {
			l.Close()
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = r.engine.Shutdown(ctx) // cuts what a test has left open
		r.accept.Wait()
		if n := r.engine.Active(nil); n != 0 && !r.eventually(func() bool { return r.engine.Active(nil) == 0 }) {
			t.Errorf("%d requests under way after Shutdown", n)
		}
		for name, p := range r.pools {
			for _, s := range p.Servers() {
				if n := s.Current(); n != 0 {
					t.Errorf("pool %s: server %s: %d connections after Shutdown", name, s.Label(), n)
				}
			}
		}
		if text := r.log.String(); strings.Contains(text, "panic") {
			t.Errorf("a panic was logged: %s", text)
		}
		if t.Failed() {
			t.Log(r.log.String())
		}
	})
	return r
}

// addr opens a listener, on which nothing is accepted before apply.
func (r *rig) addr() netip.AddrPort { return r.addrOn("127.0.0.1:0") }

func (r *rig) addrOn(on string) netip.AddrPort {
	r.t.Helper()
	l, err := net.Listen("tcp", on)
	if err != nil {
		r.t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	r.listeners[addr] = l.(*net.TCPListener)
	return addr
}

// pool makes a pool of servers.
func (r *rig) pool(name string, servers ...string) {
	cfg := pool.Config{Name: name}
	for _, s := range servers {
		cfg.Servers = append(cfg.Servers, pool.ServerConfig{Address: s})
	}
	r.pools[name] = pool.New(cfg)
}

// apply stages and commits a configuration.
func (r *rig) apply(cfgs ...Config) {
	r.t.Helper()
	c, err := r.engine.Stage(cfgs, r.pools)
	if err != nil {
		r.t.Fatal(err)
	}
	c.Commit()
	r.mu.Lock()
	defer r.mu.Unlock()
	for addr, h := range c.Handlers() {
		_, running := r.handlers[addr]
		r.handlers[addr] = h
		if !running {
			r.accept.Add(1)
			go r.run(addr, r.listeners[addr])
		}
	}
}

func (r *rig) run(addr netip.AddrPort, l *net.TCPListener) {
	defer r.accept.Done()
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return
		}
		r.mu.Lock()
		h := r.handlers[addr]
		r.mu.Unlock()
		r.accept.Add(1)
		go func() {
			defer r.accept.Done()
			h.ServeConn(c)
		}()
	}
}

func (r *rig) eventually(cond func() bool) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if cond() {
			return true
		}
	}
	return false
}

// until waits for cond.
func (r *rig) until(what string, cond func() bool) {
	r.t.Helper()
	if !r.eventually(cond) {
		r.t.Fatalf("never happened: %s", what)
	}
}

func (r *rig) stats(name string) ServiceStats {
	r.t.Helper()
	for _, s := range r.engine.Stats() {
		if s.Name == name {
			return s
		}
	}
	r.t.Fatalf("no service %s", name)
	panic("unreachable")
}

// simple makes a plain service "web" in front of one server.
func simple(t *testing.T, server string) (*rig, netip.AddrPort) {
	t.Helper()
	r := newRig(t)
	r.pool("p", server)
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p"})
	return r, addr
}

// secure makes a service "web" with TLS in front of one server.
func secure(t *testing.T, server string) (*rig, netip.AddrPort) {
	t.Helper()
	r := newRig(t)
	r.pool("p", server)
	addr := r.addr()
	cert := makeCert(t, "blog.example.com")
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", TLS: &TLS{Certificates: []Certificate{cert}}})
	return r, addr
}

// web starts an HTTP server and returns its address.
func web(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, DisableGeneralOptionsHandler: true}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Close()
		<-ended
	})
	return l.Addr().String()
}

// raw starts a server that does with each connection what serve says, and
// closes it.
func raw(t *testing.T, serve func(c *net.TCPConn, r *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Add(1)
			go func() {
				defer wg.Done()
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(2 * patience))
				serve(c.(*net.TCPConn), bufio.NewReader(c))
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// closed returns an address at which nothing listens.
func closed(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// readHead reads a head up to its empty line.
func readHead(r *bufio.Reader) string {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil || line == "\r\n" {
			return b.String()
		}
	}
}

// dial connects, by TLS if config is not nil.
func dial(t *testing.T, addr netip.AddrPort, config *tls.Config) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	if config != nil {
		c = tls.Client(c, config)
	}
	t.Cleanup(func() { c.Close() })
	return c, bufio.NewReader(c)
}

// say sends text on a new connection and returns the answer.
func say(t *testing.T, addr netip.AddrPort, text string) *http.Response {
	t.Helper()
	c, r := dial(t, addr, nil)
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return answerTo(t, r, "GET")
}

func answerTo(t *testing.T, r *bufio.Reader, method string) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	return resp
}

func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	return string(b)
}

// client returns an HTTP client for the service at addr, whatever the host of
// the URL is. proto is "http/1.1" or "h2".
func client(t *testing.T, addr netip.AddrPort, proto string) *http.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(proto == protocolHTTP1)
	protocols.SetHTTP2(proto == protocolHTTP2)
	transport := &http.Transport{
		Protocols:       protocols,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr.String())
		},
		DisableCompression: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		Timeout:       2 * patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func get(t *testing.T, c *http.Client, url string) *http.Response {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// makeCert writes a self-signed certificate for the names.
func makeCert(t *testing.T, names ...string) Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		DNSNames:     names,
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pair := Certificate{Cert: filepath.Join(dir, "c.pem"), Key: filepath.Join(dir, "k.pem")}
	for path, block := range map[string]*pem.Block{
		pair.Cert: {Type: "CERTIFICATE", Bytes: der},
		pair.Key:  {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return pair
}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
