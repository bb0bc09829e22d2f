package l7

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"appliance/internal/pool"
	"appliance/l7/accesslog"
)

// logged is a line of an access log in JSON.
type logged struct {
	Service, Client, Proxy, ID, User, Method, Scheme, Host, Target, Protocol, Start string
	Route, Pool, Server, Referer, End, Problem                                      string

	Status    int
	BytesIn   int64    `json:"bytes_in"`
	BytesOut  int64    `json:"bytes_out"`
	Head      *float64 `json:"head_seconds"`
	Wait      *float64 `json:"wait_seconds"`
	Connect   *float64 `json:"connect_seconds"`
	FirstByte *float64 `json:"first_byte_seconds"`
	Total     float64  `json:"total_seconds"`
	Retries   int
	Version   string `json:"tls_version"`
	Cipher    string `json:"tls_cipher"`
	SNI       string `json:"tls_sni"`
	Resumed   bool   `json:"tls_resumed"`
	UserAgent string `json:"user_agent"`
}

// logLines returns a function that waits for the next line of the log at path.
func logLines(t *testing.T, r *rig, path string) func() logged {
	t.Helper()
	seen := 0
	return func() logged {
		t.Helper()
		var line string
		r.until("another line of the access log", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := r.engine.ReopenLogs(ctx); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.SplitAfter(string(b), "\n")
			if len(lines) < seen+2 {
				return false
			}
			line = lines[seen]
			seen++
			return true
		})
		var l logged
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		return l
	}
}

// Every end that a request by HTTP/1 can have is told.
func TestAccessLogEnds(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	server := raw(t, func(c *net.TCPConn, r *bufio.Reader) {
		head := readHead(r)
		path := strings.Fields(head)[1]
		switch {
		case path == "/fails":
			io.WriteString(c, "what?\r\n\r\n")
		case path == "/cut":
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
		case path == "/slow":
			<-release
		case path == "/endless":
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\nfirst")
			for {
				if _, err := c.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		case path == "/socket":
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n")
			b := make([]byte, 5)
			_, _ = io.ReadFull(r, b)
			io.WriteString(c, "goodbye")
		default:
			if strings.Contains(head, "Content-Length: 5") {
				_, _ = r.Discard(5)
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	dead := closed(t)
	r := newRig(t)
	r.pool("p", server)
	r.pool("dead", dead)
	r.pools["none"] = pool.New(pool.Config{Name: "none", Servers: []pool.ServerConfig{{Address: dead}}})
	if err := r.pools["none"].SetAdmin(dead, pool.Maint); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "access.log")
	addr := r.addr()
	r.apply(Config{
		Name: "web", Listen: []netip.AddrPort{addr}, AccessLog: &AccessLog{Path: path}, RequestID: "X-Request-ID", MaxHeaderSize: 1 << 10,
		Timeouts: Timeouts{Response: 300 * time.Millisecond, Header: 300 * time.Millisecond},
		Routes: []Route{
			{Paths: []string{"/p", "/"}, Hosts: []string{"Blog.example"}, Pool: "p"},
			{Paths: []string{"/dead"}, Pool: "dead"},
			{Paths: []string{"/none"}, Pool: "none"},
			{Paths: []string{"/moved"}, Redirect: &Redirect{To: "/there"}},
			{Paths: []string{"/fixed"}, Respond: &Respond{Status: 503, Body: "closed"}},
			{Paths: []string{"/forbidden"}, Pool: "p", Rules: Rules{Deny: prefixes("127.0.0.0/8")}},
			{Paths: []string{"/bounded"}, Pool: "p", Rules: Rules{MaxBodySize: 2}},
			{Paths: []string{"/files"}, Files: &Files{Root: staticFiles(t)}, StripPrefix: "/files"},
		},
	})
	line := logLines(t, r, path)
	for _, one := range []struct {
		name, send string
		read       bool // the answer, to its end
		want       string
	}{
		{"a server's answer", "GET /x?y=z HTTP/1.1\r\nHost: blog.example\r\nReferer: http://r/\r\nUser-Agent: test \"1\"\r\nConnection: close\r\n\r\n", true,
			"done 200 in=0 out=2 GET /x?y=z HTTP/1.1 blog.example/p p " + server},
		{"a body", "POST / HTTP/1.0\r\nHost: blog.example\r\nContent-Length: 5\r\n\r\nhello", true, "done 200 in=5 out=2 POST / HTTP/1.0 blog.example/p p " + server},
		{"no route", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", true, "not_found 404 in=0 out=14 GET / HTTP/1.1   "},
		{"a redirect", "GET /moved HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", true, "own 308 in=0 out=23 GET /moved HTTP/1.1 /moved  "},
		{"a fixed answer", "GET /fixed HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", true, "own 503 in=0 out=6 GET /fixed HTTP/1.1 /fixed  "},
		{"a file", "GET /files/large.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", true, "own 200 in=0 out=1048576 GET /files/large.bin HTTP/1.1 /files  "},
		{"no file", "GET /files/none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", true, "not_found 404 in=0 out=14 GET /files/none HTTP/1.1 /files  "},
		{"denied", "GET /forbidden HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", true, "denied 403 in=0 out=14 GET /forbidden HTTP/1.1 /forbidden  "},
		{"a body too large", "POST /bounded HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", true, "too_large 413 in=5 out=29 POST /bounded HTTP/1.1 /bounded  "},
		{"no server", "GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", true, "no_server 503 in=0 out=24 GET /none HTTP/1.1 /none none "},
		{"dead server", "GET /dead HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", true, "connect_failed 502 in=0 out=16 GET /dead HTTP/1.1 /dead dead " + dead},
		{"no answer", "GET /fails HTTP/1.1\r\nHost: blog.example\r\nConnection: close\r\n\r\n", true, "server_failed 502 in=0 out=16 GET /fails HTTP/1.1 blog.example/p p " + server},
		{"a slow server", "GET /slow HTTP/1.1\r\nHost: blog.example\r\nConnection: close\r\n\r\n", true, "server_slow 504 in=0 out=20 GET /slow HTTP/1.1 blog.example/p p " + server},
		{"half an answer", "GET /cut HTTP/1.1\r\nHost: blog.example\r\n\r\n", true, "server_cut 200 in=0 out=4 GET /cut HTTP/1.1 blog.example/p p " + server},
		{"a tunnel", "GET /socket HTTP/1.1\r\nHost: blog.example\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\nhello", true,
			"upgraded 101 in=5 out=7 GET /socket HTTP/1.1 blog.example/p p " + server},
		{"no method we know", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", true, "bad_request 501 in=0 out=20 CONNECT a:80 HTTP/1.1   "},
		{"no request", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", true, "bad_request 400 in=0 out=16 start=GET / HTTP/1.1"},
		{"nothing of the kind", "\x16\x03\x01\x00\xff\"\r\n\r\n", true, "bad_request 400 in=0 out=16 start=\x16\x03\x01\x00\ufffd\""},
		{"a head too large", "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 8<<10), true, "too_large 431 in=0 out=36 start=GET / HTTP/1.1"},
		{"a head too slow", "GET / HT", true, "client_slow 408 in=0 out=20 start=GET / HT"},
		{"half a head", "GET / H", false, "client_gone 0 in=0 out=0 start=GET / H"},
	} {
		c, in := dial(t, addr, nil)
		write(t, c, []byte(one.send))
		if one.read {
			_ = c.SetReadDeadline(time.Now().Add(patience))
			_, _ = io.Copy(io.Discard, in)
		}
		c.Close()
		l := line()
		got := fmt.Sprintf("%s %d in=%d out=%d ", l.End, l.Status, l.BytesIn, l.BytesOut)
		if l.Method != "" {
			got += fmt.Sprintf("%s %s %s %s %s %s", l.Method, l.Target, l.Protocol, l.Route, l.Pool, l.Server)
			if len(l.ID) != 32 && l.End != "bad_request" || l.Scheme != "http" || l.Head == nil {
				t.Errorf("%s: %+v", one.name, l)
			}
		} else {
			got += "start=" + l.Start
		}
		if got != one.want {
			t.Errorf("%s:\n got %s\nwant %s\n%+v", one.name, got, one.want, l)
		}
		if l.Service != "web" || l.Client != "127.0.0.1" || l.Total < 0 || l.Total > patience.Seconds() {
			t.Errorf("%s: %+v", one.name, l)
		}
		switch one.name {
		case "a server's answer":
			if l.Referer != "http://r/" || l.UserAgent != `test "1"` || l.Wait == nil || l.Connect == nil || l.FirstByte == nil {
				t.Errorf("%+v", l)
			}
		case "dead server":
			if !strings.Contains(l.Problem, "refused") || l.FirstByte != nil {
				t.Errorf("%+v", l)
			}
		case "a slow server", "a head too slow":
			if l.Total < 0.2 { // the limit of 0.3 s counts from before the first byte
				t.Errorf("%s took %v", one.name, l.Total)
			}
		}
	}

	// The client goes in the midst of an answer.
	c, in := dial(t, addr, nil)
	io.WriteString(c, "GET /endless HTTP/1.1\r\nHost: blog.example\r\n\r\n")
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if l := line(); l.End != "client_gone" || l.Status != 200 || l.BytesOut == 0 {
		t.Errorf("%+v", l)
	}
	// A connection on which nothing was said is no request.
	c, _ = dial(t, addr, nil)
	c.Close()
	if s := r.stats("web"); s.NoRequests != 5 {
		t.Errorf("%d were no requests, want 5", s.NoRequests)
	}
}

func TestAccessLogOfTLS(t *testing.T) {
	r := newRig(t)
	waiting := make(chan struct{})
	r.pool("p", web(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/wait" {
			close(waiting)
			<-req.Context().Done()
		}
		io.WriteString(w, "ok")
	}))
	path := filepath.Join(t.TempDir(), "access.log")
	addr := r.addr()
	cfg := Config{
		Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", AccessLog: &AccessLog{Path: path},
		TLS: &TLS{Certificates: []Certificate{makeCert(t, "blog.example.com")}},
	}
	r.apply(cfg)
	line := logLines(t, r, path)
	for proto, want := range map[string]string{"http/1.1": "HTTP/1.1", "h2": "HTTP/2.0"} {
		c := client(t, addr, proto)
		body(t, get(t, c, "https://blog.example.com/x"))
		l := line()
		if l.End != "done" || l.Status != 200 || l.Protocol != want || l.Version != "TLS 1.3" || !strings.HasPrefix(l.Cipher, "TLS_") || l.SNI != "blog.example.com" ||
			l.Scheme != "https" || l.BytesOut != 2 || l.Target != "/x" {
			t.Errorf("%s: %+v", proto, l)
		}
	}
	// A stream that is no request, and one whose client does not want the answer.
	h2, _ := http2Frames(t, addr, nil)
	write(t, h2, ask(1, ":authority", "blog.example.com"))
	if l := line(); l.End != "bad_request" || l.Status != 0 || l.Protocol != "HTTP/2.0" || l.Problem == "" {
		t.Errorf("%+v", l)
	}
	write(t, h2, ask(3, ":authority", "blog.example.com", ":path", "/wait"))
	<-waiting
	write(t, h2, frame{kind: 3, stream: 3, payload: []byte{0, 0, 0, 8}}.bytes())
	if l := line(); l.End != "client_gone" || l.Status != 0 || l.Target != "/wait" || l.Server == "" {
		t.Errorf("%+v", l)
	}
	_, err := tls.Dial("tcp", addr.String(), &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11, InsecureSkipVerify: true})
	if err == nil {
		t.Fatal("TLS 1.1")
	}
	if l := line(); l.End != "tls_failed" || l.Status != 0 || !strings.Contains(l.Problem, "version") {
		t.Errorf("%+v", l)
	}
	c, in := dial(t, addr, nil)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	_, _ = io.Copy(io.Discard, in)
	if l := line(); l.End != "tls_failed" {
		t.Errorf("%+v", l)
	}
	c, _ = dial(t, addr, nil)
	c.Close() // who only looks
	if n := r.stats("web").TLSFailures; n != 2 {
		t.Errorf("%d failures", n)
	}
	// The log of a handshake has no line in the format of requests.
	cfg.AccessLog = &AccessLog{Path: path + ".2", Format: accesslog.Combined}
	r.apply(cfg)
	if _, err := tls.Dial("tcp", addr.String(), &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11, InsecureSkipVerify: true}); err == nil {
		t.Fatal("TLS 1.1")
	}
	r.until("the failure is counted", func() bool { return r.stats("web").TLSFailures == 3 })
	body(t, get(t, client(t, addr, "http/1.1"), "https://blog.example.com/"))
	r.until("the request is logged", func() bool {
		b, err := os.ReadFile(path + ".2")
		return err == nil && strings.HasPrefix(string(b), `127.0.0.1 - - [`) && strings.HasSuffix(string(b), `"GET / HTTP/1.1" 200 2 "-" "Go-http-client/1.1"`+"\n") &&
			strings.Count(string(b), "\n") == 1
	})
}

// A log is shared, taken over by reloads, and closed when nobody writes to it.
func TestAccessLogsOverReloads(t *testing.T) {
	r := newRig(t)
	leave := make(chan struct{})
	r.pool("p", web(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/wait" {
			<-leave
		}
		io.WriteString(w, "ok")
	}))
	dir := t.TempDir()
	a, b := r.addr(), r.addr()
	one := Config{Name: "one", Listen: []netip.AddrPort{a}, Pool: "p", AccessLog: &AccessLog{Path: dir + "/shared.log"}}
	two := Config{Name: "two", Listen: []netip.AddrPort{b}, Pool: "p", AccessLog: &AccessLog{Path: dir + "/shared.log", Format: accesslog.Common}}
	r.apply(one, two)
	body(t, say(t, a, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	body(t, say(t, b, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	if s := r.engine.LogStats(); len(s) != 1 || s[0].Path != dir+"/shared.log" {
		t.Errorf("%+v", s)
	}
	// A configuration that is refused leaves nothing behind.
	bad := one
	bad.AccessLog = &AccessLog{Path: dir + "/bad.log"}
	if _, err := r.engine.Stage([]Config{bad, {Name: "x", Listen: []netip.AddrPort{b}, Pool: "unknown"}}, r.pools, nil); err == nil {
		t.Fatal("staged")
	}
	bad.AccessLog = &AccessLog{Path: dir + "/none/bad.log"}
	if _, err := r.engine.Stage([]Config{bad}, r.pools, nil); err == nil || !strings.Contains(err.Error(), "service one: access log: open "+dir+"/none/bad.log") {
		t.Errorf("%v", err)
	}

	// An exchange under way ends in the log that it began with.
	c, in := dial(t, b, nil)
	io.WriteString(c, "GET /wait HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	r.until("it is under way", func() bool { return r.stats("two").Current == 1 })
	one.AccessLog = &AccessLog{Path: dir + "/new.log"}
	r.apply(one)
	close(leave)
	if _, err := io.ReadAll(in); err != nil {
		t.Fatal(err)
	}
	body(t, say(t, a, "GET /new HTTP/1.1\r\nHost: a\r\n\r\n"))
	read := func(name string) string {
		b, _ := os.ReadFile(dir + name)
		return string(b)
	}
	r.until("all is written", func() bool {
		return strings.Contains(read("/shared.log"), "GET /wait HTTP/1.1\" 200") && strings.Count(read("/shared.log"), "\n") == 3 && strings.Contains(read("/new.log"), `"/new"`)
	})
	r.engine.mu.Lock()
	leaving := r.engine.leaving
	r.engine.mu.Unlock()
	r.until("the old log is closed", func() bool { return len(leaving) == 1 && leaving[0].Closed() })

	// What is under way when the engine stops is written, and told as cut.
	c, _ = dial(t, a, nil)
	io.WriteString(c, "POST /cut HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
	r.until("it is under way", func() bool { return r.stats("one").Current == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = r.engine.Shutdown(ctx)
	if last := read("/new.log"); !strings.Contains(last, `"target":"/cut"`) || !strings.Contains(last, `"end":"stopped"`) {
		t.Errorf("the log ends in %s", last)
	}
}
