package l7

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"appliance/internal/pool"
)

// secureWeb starts an HTTPS server.
func secureWeb(t *testing.T, config *tls.Config, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, TLSConfig: config.Clone(), ErrorLog: log.New(io.Discard, "", 0)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.ServeTLS(l, "", "")
	}()
	t.Cleanup(func() {
		s.Close()
		<-ended
	})
	return l.Addr().String()
}

// serverConfig is that of a TLS server with a certificate for the names.
func serverConfig(t *testing.T, names ...string) (config *tls.Config, ca string) {
	t.Helper()
	pair := makeCert(t, names...)
	c, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{c}}, pair.Cert
}

// over makes a plain service "web" in front of servers that are spoken to by a
// transport.
func over(t *testing.T, wire Transport, servers ...string) (*rig, netip.AddrPort) {
	t.Helper()
	r := newRig(t)
	r.pool("p", servers...)
	r.wires = map[string]Transport{"p": wire}
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p"})
	return r, addr
}

// byTLS is the transport to servers with a certificate for that name.
func byTLS(name, ca string) Transport {
	return Transport{TLS: &ServerTLS{ServerName: name, CAFile: ca}}
}

// Requests and answers of all shapes pass by TLS, on one connection.
func TestServerByTLS(t *testing.T) {
	config, ca := serverConfig(t, "app.example.com")
	var hellos atomic.Int64
	config.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		hellos.Add(1)
		if h.ServerName != "app.example.com" {
			t.Errorf("asked for %q", h.ServerName)
		}
		return nil, nil
	}
	server := secureWeb(t, config, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Trailer", "X-Sum")
		n, err := io.Copy(w, r.Body)
		w.Header().Set("X-Sum", fmt.Sprint(n, err, r.Trailer.Get("X-End")))
	})
	_, addr := over(t, byTLS("app.example.com", ca), server)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	for _, size := range []int{0, 1, 5000, len(sent)} {
		for _, sized := range []bool{true, false} {
			var in io.Reader = bytes.NewReader(sent[:size])
			if !sized {
				in = io.MultiReader(in)
			}
			req, err := http.NewRequest("PUT", "http://"+addr.String()+"/", in)
			if err != nil {
				t.Fatal(err)
			}
			if !sized {
				req.Trailer = http.Header{"X-End": {"yes"}}
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			got := body(t, resp)
			want := fmt.Sprint(size, nil)
			if !sized {
				want += "yes"
			}
			if got != string(sent[:size]) || resp.Trailer.Get("X-Sum") != want {
				t.Errorf("%d bytes, sized %t: %d back, trailer %q, want %q", size, sized, len(got), resp.Trailer.Get("X-Sum"), want)
			}
		}
	}
	http.DefaultClient.CloseIdleConnections()
	// A client that is told the end before it has sent all takes another connection.
	if n := hellos.Load(); n > 3 {
		t.Errorf("%d handshakes for 8 requests", n)
	}
}

// A new connection takes up the session of the one before, and each server has
// its own.
func TestServerSessionsAreTakenUp(t *testing.T) {
	var resumed, fresh atomic.Int64
	h := func(w http.ResponseWriter, r *http.Request) {
		if r.TLS.DidResume {
			resumed.Add(1)
		} else {
			fresh.Add(1)
		}
		w.Header().Set("Connection", "close")
	}
	config, ca := serverConfig(t, "app.example.com")
	_, addr := over(t, byTLS("app.example.com", ca), secureWeb(t, config, h), secureWeb(t, config.Clone(), h))
	for range 6 {
		body(t, get(t, client(t, addr, protocolHTTP1), "http://a/"))
	}
	if resumed.Load() != 4 || fresh.Load() != 2 {
		t.Errorf("%d handshakes resumed and %d full, want 4 and 2", resumed.Load(), fresh.Load())
	}
}

// What is wrong with a server's TLS is told in words, and the client gets 502.
func TestServerTLSThatFails(t *testing.T) {
	config, ca := serverConfig(t, "app.example.com")
	_, otherCA := serverConfig(t, "app.example.com")
	ok := func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") }
	server := secureWeb(t, config, ok)
	strict := config.Clone()
	strict.ClientAuth = tls.RequireAnyClientCert
	mutual := secureWeb(t, strict, ok)
	strict12 := strict.Clone()
	strict12.MaxVersion = tls.VersionTLS12
	mutual12 := secureWeb(t, strict12, ok)
	own := makeCert(t, "lb.example.com")
	shown := byTLS("app.example.com", ca)
	shown.TLS.Cert, shown.TLS.Key = own.Cert, own.Key
	no := false
	for _, tc := range []struct {
		name   string
		wire   Transport
		server string
		want   string // "": it works
	}{
		{"right", byTLS("app.example.com", ca), server, ""},
		{"unknown authority", byTLS("app.example.com", otherCA), server, "TLS: the server's certificate does not pass: "},
		{"system's authorities", byTLS("app.example.com", ""), server, "TLS: the server's certificate does not pass: certificate signed by unknown authority"},
		{"wrong name", byTLS("other.example.com", ca), server, "TLS: the server's certificate does not pass: certificate is valid for app.example.com, not other.example.com"},
		{"an address", byTLS("", ca), server, "cannot validate certificate for 127.0.0.1"},
		{"not looked at", Transport{TLS: &ServerTLS{Verify: &no}}, server, ""},
		{"plain", byTLS("app.example.com", ca), web(t, ok), "TLS: the server's answer is not TLS"},
		{"nobody", byTLS("app.example.com", ca), closed(t), "connection refused"},
		{"certificate wanted", byTLS("app.example.com", ca), mutual, "TLS: the server refuses: certificate required"},
		{"certificate wanted by 1.2", byTLS("app.example.com", ca), mutual12, "TLS: the server refuses: "},
		{"certificate shown", shown, mutual, ""},
		{"certificate shown by 1.2", shown, mutual12, ""},
		{"no HTTP/2", Transport{HTTP: HTTP2, TLS: &ServerTLS{ServerName: "app.example.com", CAFile: ca}}, noALPN(t, config, ok), "does not speak HTTP/2"},
	} {
		r, addr := over(t, tc.wire, tc.server)
		resp := get(t, client(t, addr, protocolHTTP1), "http://a/")
		text := body(t, resp)
		s := r.pools["p"].Servers()[0].Stats()
		switch {
		case tc.want == "" && (resp.StatusCode != 200 || text != "hello" || s.ConnectErrors != 0):
			t.Errorf("%s: %s %q, %q", tc.name, resp.Status, text, s.ConnectError.Reason)
		case tc.want != "" && (resp.StatusCode != 502 || !strings.Contains(s.ConnectError.Reason, tc.want)):
			t.Errorf("%s: %s, %q, want %q", tc.name, resp.Status, s.ConnectError.Reason, tc.want)
		}
	}
}

// noALPN starts an HTTPS server that agrees on no protocol.
func noALPN(t *testing.T, config *tls.Config, h http.HandlerFunc) string {
	config = config.Clone()
	config.NextProtos = nil
	return rawTLS(t, config, func(c *tls.Conn, r *bufio.Reader) { _ = c.Handshake() })
}

// rawTLS is raw by TLS.
func rawTLS(t *testing.T, config *tls.Config, serve func(c *tls.Conn, r *bufio.Reader)) string {
	t.Helper()
	return raw(t, func(tcp *net.TCPConn, _ *bufio.Reader) {
		c := tls.Server(tcp, config)
		serve(c, bufio.NewReader(c))
	})
}

// An answer that lasts until the end of the connection is whole only if TLS says
// so: whoever is between could have cut it.
func TestServerCutByTLS(t *testing.T) {
	for _, farewell := range []bool{true, false} {
		config, ca := serverConfig(t, "a")
		_, addr := over(t, byTLS("a", ca), rawTLS(t, config, func(c *tls.Conn, r *bufio.Reader) {
			readHead(r)
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhello")
			if farewell {
				c.CloseWrite()
			}
		}))
		resp := get(t, client(t, addr, protocolHTTP1), "http://a/")
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(got) != "hello" || (err == nil) != farewell {
			t.Errorf("farewell %t: %q, %v", farewell, got, err)
		}
	}
}

// A kept connection that the server has closed, or on which it has said something
// unasked, is not used again.
func TestKeptConnectionByTLS(t *testing.T) {
	for name, after := range map[string]func(c *tls.Conn){
		"closed":               func(c *tls.Conn) { c.Close() },
		"cut":                  func(c *tls.Conn) { c.NetConn().Close() },
		"unasked":              func(c *tls.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad") },
		"unasked, at once":     nil,
		"kept":                 func(c *tls.Conn) {},
		"farewell, not closed": func(c *tls.Conn) { c.CloseWrite() },
	} {
		config, ca := serverConfig(t, "a")
		var connections atomic.Int64
		settled := make(chan struct{}, 8)
		_, addr := over(t, byTLS("a", ca), rawTLS(t, config, func(c *tls.Conn, r *bufio.Reader) {
			connections.Add(1)
			for readHead(r) != "" {
				text := "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"
				if after == nil {
					text += "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad"
				}
				io.WriteString(c, text)
				if after != nil {
					after(c)
				}
				settled <- struct{}{}
			}
		}))
		cl := client(t, addr, protocolHTTP1)
		for range 2 {
			if got := body(t, post(t, cl)); got != "good" {
				t.Errorf("%s: %q", name, got)
			}
			<-settled
		}
		want := int64(2)
		if name == "kept" {
			want = 1
		}
		if n := connections.Load(); n != want {
			t.Errorf("%s: %d connections, want %d", name, n, want)
		}
	}
}

// post makes a request that must not be sent twice.
func post(t *testing.T, c *http.Client) *http.Response {
	t.Helper()
	resp, err := c.Post("http://a/", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
	return resp
}

// An upgraded connection goes on by TLS, and its end is passed on both ways.
func TestUpgradeByTLS(t *testing.T) {
	config, ca := serverConfig(t, "a")
	_, addr := over(t, byTLS("a", ca), rawTLS(t, config, func(c *tls.Conn, r *bufio.Reader) {
		readHead(r)
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(c, r)
		c.CloseWrite()
	}))
	c, r := dial(t, addr, nil)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
	if head := readHead(r); !strings.Contains(head, " 101 ") {
		t.Fatal(head)
	}
	io.WriteString(c, "hello")
	c.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(r); string(got) != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// A reload keeps the connections to servers while nothing has changed, and gives
// them up when a file has another content.
func TestReloadOfTransport(t *testing.T) {
	config, ca := serverConfig(t, "a")
	r, addr := over(t, byTLS("a", ca), secureWeb(t, config, func(w http.ResponseWriter, r *http.Request) {}))
	body(t, get(t, client(t, addr, protocolHTTP1), "http://a/"))
	up := func() *upstream { return r.engine.services["web"].state.Load().pools[r.pools["p"]] }
	before := up()
	cfg := r.engine.services["web"].state.Load().cfg
	r.apply(cfg)
	if up() != before {
		t.Error("the connections were given up")
	}
	_, other := serverConfig(t, "b")
	text, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	was, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca, append(was, text...), 0o600); err != nil {
		t.Fatal(err)
	}
	r.apply(cfg)
	if up() == before || !before.unused() {
		t.Error("the connections were kept")
	}
	if !x509.NewCertPool().AppendCertsFromPEM(text) {
		t.Fatal("no certificate")
	}
	if err := os.WriteFile(ca, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.engine.Stage([]Config{cfg}, r.pools, r.wires); err == nil || !strings.Contains(err.Error(), "pool p: tls.ca_file: ") {
		t.Errorf("%v", err)
	}
}

// Servers that share an address and have different names share no connection, and each
// has its own kept.
func TestNamesAtOneAddress(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		config, ca := serverConfig(t, "a.example", "b.example", "c.example")
		var hellos atomic.Int64
		config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			hellos.Add(1)
			return nil, nil
		}
		h := func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.TLS.ServerName) }
		wire, one := byTLS("", ca), ""
		if http2 {
			wire.HTTP = HTTP2
			one = http2Web(t, config, nil, nil, h)
		} else {
			one = secureWeb(t, config, h)
		}
		r, addr := over(t, wire, one)
		r.pools["p"].Update(pool.Config{Name: "p", Servers: []pool.ServerConfig{
			{Name: "own", Address: one, ServerName: "a.example"}, {Name: "b", Address: one, Host: "b.example"}, {Name: "c", Address: one, Host: "c.example"},
		}}, nil)
		c, got := client(t, addr, protocolHTTP1), make(map[string]int)
		for range 12 {
			got[body(t, get(t, c, "http://a/"))]++
		}
		if got["a.example"] != 4 || got["b.example"] != 4 || got["c.example"] != 4 || hellos.Load() != 3 {
			t.Errorf("HTTP/2 %t: %v by %d connections", http2, got, hellos.Load())
		}
	}
}

// Each server is asked for its own name, if it has one, and a reload that changes that
// has new connections made.
func TestServersWithNamesOfTheirOwn(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		config, ca := serverConfig(t, "a.example", "b.example", "c.example")
		h := func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.TLS.ServerName) }
		start := func() string {
			if http2 {
				return http2Web(t, config.Clone(), nil, nil, h)
			}
			return secureWeb(t, config.Clone(), h)
		}
		wire := byTLS("a.example", ca)
		if http2 {
			wire.HTTP = HTTP2
		}
		one, two := start(), start()
		r, addr := over(t, wire, one, two)
		c := client(t, addr, protocolHTTP1)
		names := func(second string) string {
			t.Helper()
			r.pools["p"].Update(pool.Config{Name: "p", Servers: []pool.ServerConfig{{Address: one}, {Address: two, ServerName: second}}}, nil)
			got := []string{body(t, get(t, c, "http://a/")), body(t, get(t, c, "http://a/"))}
			slices.Sort(got)
			return strings.Join(got, " ")
		}
		for name, want := range map[string]string{"": "a.example a.example", "b.example": "a.example b.example", "c.example": "a.example c.example"} {
			if got := names(name); got != want {
				t.Errorf("HTTP/2 %t, a server with the name %q: asked for %s", http2, name, got)
			}
		}
		r.pools["p"].Update(pool.Config{Name: "p", Servers: []pool.ServerConfig{{Address: one, ServerName: "other.example"}}}, nil)
		if resp := get(t, c, "http://a/"); body(t, resp) == "" || resp.StatusCode != 502 {
			t.Errorf("HTTP/2 %t, a name that the certificate is not for: %s", http2, resp.Status)
		}
	}
}

// Only a server that minds our certificate has not looked at the request.
func TestServerRefusesUs(t *testing.T) {
	remote := func(text string) error { return &net.OpError{Op: "remote error", Err: errors.New("tls: " + text)} }
	for err, want := range map[error]bool{
		remote("certificate required"): true, remote("unknown certificate authority"): true, remote("access denied"): true,
		remote("internal error"): false, remote("bad record MAC"): false, errors.New("tls: bad certificate"): false, io.EOF: false,
	} {
		if got := refusesUs(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}
