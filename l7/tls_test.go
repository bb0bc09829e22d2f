package l7

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// presented returns the first name of the certificate that a client gets.
func presented(t *testing.T, addr netip.AddrPort, sni string, proto ...string) (name, protocol string, err error) {
	t.Helper()
	c, _ := dial(t, addr, &tls.Config{InsecureSkipVerify: true, ServerName: sni, NextProtos: proto})
	tc := c.(*tls.Conn)
	if err := tc.Handshake(); err != nil {
		return "", "", err
	}
	state := tc.ConnectionState()
	return state.PeerCertificates[0].DNSNames[0], state.NegotiatedProtocol, nil
}

func TestCertificateBySNI(t *testing.T) {
	r := newRig(t)
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, TLS: &TLS{Certificates: []Certificate{
		makeCert(t, "first.example.com", "also-first.example.com"),
		makeCert(t, "*.Example.com"),
		makeCert(t, "blog.example.com"),
		makeCert(t, "*.deep.example.com"),
	}}})
	for sni, want := range map[string]string{
		"":                       "first.example.com",
		"unknown.org":            "first.example.com",
		"first.example.com":      "first.example.com",
		"ALSO-first.example.com": "first.example.com",
		"blog.example.com":       "blog.example.com",
		"www.example.com":        "*.Example.com",
		"a.deep.example.com":     "*.deep.example.com",
		"a.b.example.com":        "first.example.com", // a wildcard is one label
		"example.com":            "first.example.com",
	} {
		if got, _, err := presented(t, addr, sni); got != want || err != nil {
			t.Errorf("SNI %q: certificate of %q, %v; want %q", sni, got, err, want)
		}
	}
}

func TestTLSVersionsAndALPN(t *testing.T) {
	_, addr := secure(t, closed(t))
	for _, tc := range []struct {
		offer []string
		want  string
	}{
		{[]string{"h2", "http/1.1"}, "h2"},
		{[]string{"http/1.1"}, "http/1.1"},
		{[]string{"http/1.0"}, "http/1.0"},
		{nil, ""},
	} {
		if _, got, err := presented(t, addr, "", tc.offer...); got != tc.want || err != nil {
			t.Errorf("%v: %q, %v; want %q", tc.offer, got, err, tc.want)
		}
	}
	for version, ok := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		c, _ := dial(t, addr, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: version})
		if err := c.(*tls.Conn).Handshake(); (err == nil) != ok {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
}

func TestStageNamesServiceAndFile(t *testing.T) {
	r := newRig(t)
	addr := r.addr()
	good, other := makeCert(t, "a"), makeCert(t, "b")
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for _, tc := range []struct {
		certificates []Certificate
		want         []string
	}{
		{[]Certificate{good, {missing, other.Key}}, []string{"service web", "tls.certificates[1]", "cert", missing, "no such file"}},
		{[]Certificate{{good.Cert, missing}}, []string{"service web", "tls.certificates[0]", "key", missing}},
		{[]Certificate{{good.Cert, other.Key}}, []string{"service web", "key", other.Key, "does not match"}},
	} {
		_, err := r.engine.Stage([]Config{{Name: "web", Listen: []netip.AddrPort{addr}, TLS: &TLS{Certificates: tc.certificates}}}, r.pools, nil)
		for _, want := range tc.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not say %q", err, want)
			}
		}
	}
	two := []Config{{Name: "a", Listen: []netip.AddrPort{addr}}, {Name: "b", Listen: []netip.AddrPort{addr}}}
	if _, err := r.engine.Stage(two, r.pools, nil); err == nil || !strings.Contains(err.Error(), "service b: service a listens on") {
		t.Errorf("two services at one address: %v", err)
	}
	if len(r.engine.Stats()) != 0 {
		t.Errorf("something was put in force")
	}
}

func TestPlainHTTPOnTLSPort(t *testing.T) {
	_, addr := secure(t, closed(t))
	resp := say(t, addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if got := body(t, resp); resp.StatusCode != 400 || !strings.Contains(got, "HTTPS port") {
		t.Errorf("%s %q", resp.Status, got)
	}
}

// Whatever comes in, it is answered or cut off in time, and other clients do
// not notice.
func TestBadInput(t *testing.T) {
	r := newRig(t)
	r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }))
	plain, https := r.addr(), r.addr()
	times := Timeouts{Header: 200 * time.Millisecond, Idle: 200 * time.Millisecond}
	r.apply(
		Config{Name: "plain", Listen: []netip.AddrPort{plain}, Pool: "p", Timeouts: times, MaxHeaderSize: 8 << 10},
		Config{Name: "web", Listen: []netip.AddrPort{https}, Pool: "p", Timeouts: times, MaxHeaderSize: 8 << 10,
			TLS: &TLS{Certificates: []Certificate{makeCert(t, "a")}}},
	)
	insecure := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}
	insecureH2 := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
	mega := strings.Repeat("x", 1<<20)
	others := client(t, https, protocolHTTP2)
	for _, tc := range []struct {
		name string
		addr netip.AddrPort
		tls  *tls.Config
		text string
		want string // how the answer begins; "": a close without one
	}{
		{"nothing", plain, nil, "", ""},
		{"nothing by TLS", https, nil, "", ""},
		{"nothing in TLS", https, insecure, "", ""},
		{"half a request", plain, nil, "GET / HTTP/1.1\r\nHo", "HTTP/1.1 408 "},
		{"half a request in TLS", https, insecure, "GET / HTTP/1.1\r\nHo", "HTTP/1.1 408 "},
		{"garbage", plain, nil, "\x00\x01\x02 what\r\n\r\n", "HTTP/1.1 400 "},
		{"garbage by TLS", https, nil, "\x00\x01\x02 what\r\n\r\n", ""},
		{"garbage in TLS", https, insecure, "\x00\x01\x02 what\r\n\r\n", "HTTP/1.1 400 "},
		{"half a hello", https, nil, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", ""},
		{"garbage in HTTP/2", https, insecureH2, "garbage garbage garbage garbage", ""},
		{"mega header", plain, nil, "GET / HTTP/1.1\r\nHost: a\r\nX: " + mega + "\r\n\r\n", "HTTP/1.1 431 "},
		{"mega header in TLS", https, insecure, "GET / HTTP/1.1\r\nHost: a\r\nX: " + mega + "\r\n\r\n", "HTTP/1.1 431 "},
		{"mega target", plain, nil, "GET /" + mega + " HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 431 "},
		{"two lengths", plain, nil, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "HTTP/1.1 400 "},
		{"unknown coding", plain, nil, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\nxx", "HTTP/1.1 501 "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			began := time.Now()
			c, in := dial(t, tc.addr, tc.tls)
			go io.WriteString(c, tc.text) // may block when nobody reads it any more
			b, err := io.ReadAll(in)
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Fatalf("still open after %v", time.Since(began))
			}
			if !strings.HasPrefix(string(b), tc.want) || tc.want == "" && strings.Contains(string(b), "HTTP/1.1") {
				t.Errorf("answer %q, %v; want %q", b, err, tc.want)
			}
			if got := body(t, get(t, others, "https://a/")); got != "ok" {
				t.Errorf("another client got %q", got)
			}
		})
	}

	if s := r.stats("plain"); s.Requests != 0 {
		t.Errorf("%d requests came through", s.Requests)
	}
}

func TestHeaderSizeThatIsAllowed(t *testing.T) {
	_, addr := simple(t, web(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, len(r.Header.Get("X"))) }))
	for range 2 {
		resp := say(t, addr, "GET / HTTP/1.1\r\nHost: a\r\nX: "+strings.Repeat("x", 60<<10)+"\r\n\r\n")
		if got := body(t, resp); got != "61440" {
			t.Errorf("%s %s", resp.Status, got)
		}
	}
}

func TestIdleConnectionIsClosed(t *testing.T) {
	r := newRig(t)
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Timeouts: Timeouts{Idle: 50 * time.Millisecond}})
	c, in := dial(t, addr, nil)
	for range 2 {
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		body(t, answerTo(t, in, "GET"))
	}
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("%v", err)
	}
}

// A client that does not take its answer is cut off.
func TestClientThatDoesNotRead(t *testing.T) {
	r := newRig(t)
	r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) { io.CopyN(w, zeros{}, 64<<20) }))
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Timeouts: Timeouts{Idle: 100 * time.Millisecond}})
	c, _ := dial(t, addr, nil)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	r.until("the request", func() bool { return r.stats("web").Requests == 1 })
	r.until("the end of the request", func() bool { return r.stats("web").Current == 0 && r.engine.Active(nil) == 0 })
}

// A server that does not take the request is given up.
func TestServerThatDoesNotRead(t *testing.T) {
	r := newRig(t)
	enough := make(chan struct{})
	r.pool("p", raw(t, func(c *net.TCPConn, r *bufio.Reader) { <-enough }))
	defer close(enough)
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Timeouts: Timeouts{Response: 100 * time.Millisecond}})
	c, in := dial(t, addr, nil)
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 67108864\r\n\r\n")
	go io.CopyN(c, zeros{}, 64<<20)
	if resp := answerTo(t, in, "POST"); resp.StatusCode != 504 {
		t.Errorf("%s", resp.Status)
	}
}

// Requests by TLS are found however their records come: several in one, one in
// several, and a record in pieces, each after a while without anything.
func TestRequestsInRecords(t *testing.T) {
	_, addr := secure(t, web(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) }))
	tcp, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	_ = tcp.SetDeadline(time.Now().Add(patience))
	wire := &pieces{Conn: tcp, most: 1 << 20}
	c := tls.Client(wire, &tls.Config{InsecureSkipVerify: true})
	in := bufio.NewReader(c)
	get := func(paths ...string) (text string) {
		for _, p := range paths {
			text += "GET " + p + " HTTP/1.1\r\nHost: a\r\n\r\n"
		}
		return text
	}
	expect := func(paths ...string) {
		t.Helper()
		for _, p := range paths {
			if got := body(t, answerTo(t, in, "GET")); got != p {
				t.Fatalf("got %q, want %q", got, p)
			}
		}
	}
	io.WriteString(c, get("/1", "/2", "/3"))
	expect("/1", "/2", "/3")
	for _, part := range strings.SplitAfter(get("/4"), "\r\n") {
		io.WriteString(c, part)
	}
	expect("/4")
	wire.most = 1 // a byte in each segment, so that records come in pieces
	io.WriteString(c, get("/5", "/6"))
	expect("/5", "/6")
	wire.most = 1 << 20
	io.WriteString(c, get("/7"))
	expect("/7")
}

// pieces writes no more than most bytes at a time.
type pieces struct {
	net.Conn
	most int
}

func (w *pieces) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = w.Conn.Write(p[n:min(len(p), n+w.most)])
		n += k
	}
	return n, err
}
