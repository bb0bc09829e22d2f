package l7

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"strings"
	"testing"

	"appliance/internal/pool"
)

// protocols runs a test by HTTP/1.1 and HTTP/2, both over TLS.
func protocols(t *testing.T, server func(t *testing.T) string, test func(t *testing.T, r *rig, c *http.Client)) {
	for _, proto := range []string{protocolHTTP1, protocolHTTP2} {
		t.Run(proto, func(t *testing.T) {
			r, addr := secure(t, server(t))
			test(t, r, client(t, addr, proto))
		})
	}
}

func TestRequestAndAnswerPassUnchanged(t *testing.T) {
	const target = "/a%2Fb/%7e//c/../d|e?q=%20+;&"
	server := func(t *testing.T) string {
		return web(t, func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			w.Header().Set("Date", "Thu, 01 Jan 1970 00:00:00 GMT")
			w.Header().Set("Server", "theirs")
			w.Header()["Content-Type"] = nil
			w.Header().Set("X-Seen", fmt.Sprint(r.Method, " ", r.RequestURI, " ", r.Host, " ", string(b), " ", r.ContentLength,
				r.Header["User-Agent"], r.Header["Accept-Encoding"], r.Header["X-Forwarded-Proto"], r.Header["X-Forwarded-For"]))
			w.WriteHeader(http.StatusTeapot)
			io.WriteString(w, "<html>")
		})
	}
	protocols(t, server, func(t *testing.T, r *rig, c *http.Client) {
		req, _ := http.NewRequest("PUT", "https://Blog.example.com:8443/", strings.NewReader("hello"))
		req.URL.Opaque = target
		req.Header["User-Agent"] = nil
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := resp.Header.Get("X-Seen"), "PUT "+target+" Blog.example.com:8443 hello 5 [] [] [https] [127.0.0.1]"; got != want {
			t.Errorf("the server saw\n%s\nwant\n%s", got, want)
		}
		if resp.StatusCode != http.StatusTeapot || resp.Header.Get("Server") != "theirs" || resp.Header.Get("Date") != "Thu, 01 Jan 1970 00:00:00 GMT" {
			t.Errorf("%s %v", resp.Status, resp.Header)
		}
		if got, ok := resp.Header["Content-Type"]; ok {
			t.Errorf("Content-Type was made up: %q", got)
		}
		if got := body(t, resp); got != "<html>" {
			t.Errorf("body %q", got)
		}
		s := r.stats("web")
		r.until("accounting", func() bool { s = r.stats("web"); return s.Current == 0 })
		if s.Requests != 1 || s.Responses != [5]int64{3: 1} || s.BytesIn != 5 || s.BytesOut != 6 || !s.TLS {
			t.Errorf("stats: %+v", s)
		}
		st := r.pools["p"].Servers()[0].Stats()
		if st.Total != 1 || st.Current != 0 || st.BytesToServer != 5 || st.BytesToClient != 6 {
			t.Errorf("server: %+v", st)
		}
	})
}

func TestTargetsThatLookLikeSomethingElse(t *testing.T) {
	_, addr := simple(t, web(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s", r.RequestURI, r.Host) }))
	for sent, want := range map[string]string{
		"GET //evil.example/x?y HTTP/1.1\r\nHost: a":          "//evil.example/x?y a",
		"GET //a/?? HTTP/1.1\r\nHost: a":                      "//a/?? a",
		"GET http://B.example/x?y HTTP/1.1\r\nHost: a":        "/x?y B.example",
		"GET http://b.example?y HTTP/1.1\r\nHost: a":          "/?y b.example",
		"GET http://b.example HTTP/1.1\r\nHost: a":            "/ b.example",
		"OPTIONS * HTTP/1.1\r\nHost: a":                       "* a",
		"GET /x? HTTP/1.1\r\nHost: a":                         "/x? a",
		"GET /../\"<>^`{|}x HTTP/1.1\r\nHost: a":              "/../\"<>^`{|}x a",
		"GET HTTPS://b.example/x HTTP/1.1\r\nHost: a":         "/x b.example",
		"GET / HTTP/1.0\r\nHost: a":                           "/ a",
		"GET /\xc3\xbc HTTP/1.1\r\nHost: a\r\nX-Dropped: \t ": "/\xc3\xbc a",
	} {
		resp := say(t, addr, sent+"\r\nConnection: close\r\n\r\n")
		if got := body(t, resp); got != want {
			t.Errorf("%q: server saw %q, want %q", sent, got, want)
		}
	}
}

func TestHead(t *testing.T) {
	server := func(t *testing.T) string {
		return web(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "1234") })
	}
	protocols(t, server, func(t *testing.T, r *rig, c *http.Client) {
		for range 2 {
			resp, err := c.Head("https://blog.example.com/")
			if err != nil {
				t.Fatal(err)
			}
			if resp.ContentLength != 1234 || body(t, resp) != "" {
				t.Errorf("length %d", resp.ContentLength)
			}
		}
	})
}

func TestTrailers(t *testing.T) {
	server := func(t *testing.T) string {
		return web(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Trailer", "X-Sum")
			io.WriteString(w, "data")
			w.(http.Flusher).Flush()
			w.Header().Set("X-Sum", fmt.Sprint(r.Trailer))
			w.Header().Set(http.TrailerPrefix+"X-Late", "yes")
		})
	}
	protocols(t, server, func(t *testing.T, r *rig, c *http.Client) {
		req, _ := http.NewRequest("POST", "https://blog.example.com/", io.MultiReader(strings.NewReader("x")))
		req.Trailer = http.Header{"X-Up": {"up"}, "X-Forwarded-For": {"1.1.1.1"}}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if got := body(t, resp); got != "data" {
			t.Errorf("body %q", got)
		}
		if got, want := fmt.Sprint(resp.Trailer), "map[X-Late:[yes] X-Sum:[map[X-Up:[up]]]]"; got != want {
			t.Errorf("trailers %s, want %s", got, want)
		}
	})
}

func TestInterimAnswers(t *testing.T) {
	server := func(t *testing.T) string {
		return web(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a.css>")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
			io.WriteString(w, "ok")
		})
	}
	protocols(t, server, func(t *testing.T, r *rig, c *http.Client) {
		var hints []string
		req, _ := http.NewRequest("GET", "https://blog.example.com/", nil)
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				hints = append(hints, fmt.Sprint(code, " ", h["Link"]))
				return nil
			}}))
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if got := body(t, resp); got != "ok" || resp.Header.Get("Link") != "" {
			t.Errorf("%q %v", got, resp.Header)
		}
		if fmt.Sprint(hints) != "[103 [</a.css>]]" {
			t.Errorf("hints %q", hints)
		}
	})
}

func TestExpectContinue(t *testing.T) {
	addr := func(t *testing.T, ask bool) netip.AddrPort {
		_, addr := simple(t, raw(t, func(c *net.TCPConn, r *bufio.Reader) {
			head := readHead(r)
			if !strings.Contains(head, "Expect: 100-continue\r\n") {
				t.Errorf("the server saw %q", head)
			}
			if !ask {
				io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
				return
			}
			io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
			b := make([]byte, 5)
			io.ReadFull(r, b)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n%s", b)
		}))
		return addr
	}
	const head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"

	t.Run("the server asks for the body", func(t *testing.T) {
		c, r := dial(t, addr(t, true), nil)
		io.WriteString(c, head)
		if got := readHead(r); got != "HTTP/1.1 100 Continue\r\n\r\n" {
			t.Fatalf("first came %q", got)
		}
		io.WriteString(c, "hello")
		if got := body(t, answerTo(t, r, "POST")); got != "hello" {
			t.Errorf("body %q", got)
		}
	})
	t.Run("the server refuses it", func(t *testing.T) {
		c, r := dial(t, addr(t, false), nil)
		io.WriteString(c, head)
		if resp := answerTo(t, r, "POST"); resp.StatusCode != 413 || !resp.Close {
			t.Errorf("%s, close %v", resp.Status, resp.Close)
		}
	})
}

func TestConnectFailureGoesToAnotherServer(t *testing.T) {
	good := web(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	r := newRig(t)
	r.pool("p", closed(t), good)
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p"})
	c := client(t, addr, protocolHTTP1)
	for range 4 { // the turn comes to each of them
		resp, err := c.Post("http://a/", "text/plain", strings.NewReader("precious"))
		if err != nil {
			t.Fatal(err)
		}
		if got := body(t, resp); resp.StatusCode != 200 || got != "precious" {
			t.Errorf("%s %q", resp.Status, got)
		}
	}
	dead := r.pools["p"].Servers()[0].Stats()
	if dead.ConnectErrors == 0 || dead.ConnectErrors != dead.Total || dead.BytesToServer != 0 {
		t.Errorf("dead server: %+v", dead)
	}
}

func TestEachServerIsTriedOnceAndThreeAtMost(t *testing.T) {
	for _, n := range []int{1, 2, 5} {
		r := newRig(t)
		var dead []string
		for range n {
			dead = append(dead, closed(t))
		}
		r.pool("p", dead...)
		addr := r.addr()
		r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p"})
		resp := say(t, addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if got := body(t, resp); resp.StatusCode != 502 || got != "502 Bad Gateway\n" {
			t.Errorf("%s %q", resp.Status, got)
		}
		var tries int64
		for _, s := range r.pools["p"].Servers() {
			st := s.Stats()
			tries += st.ConnectErrors
			if st.ConnectErrors > 1 {
				t.Errorf("%d servers: one was tried %d times", n, st.ConnectErrors)
			}
		}
		if want := int64(min(n, 3)); tries != want {
			t.Errorf("%d servers: %d tries, want %d", n, tries, want)
		}
	}
}

func TestErrorsOfOurOwn(t *testing.T) {
	r := newRig(t)
	r.pool("none", closed(t))
	if err := r.pools["none"].SetAdmin(r.pools["none"].Servers()[0].Label(), pool.Maint); err != nil {
		t.Fatal(err)
	}
	silent := raw(t, func(c *net.TCPConn, rd *bufio.Reader) { readHead(rd); io.Copy(io.Discard, rd) })
	garbage := raw(t, func(c *net.TCPConn, rd *bufio.Reader) { readHead(rd); io.WriteString(c, "what?\r\n\r\n") })
	hangup := raw(t, func(c *net.TCPConn, rd *bufio.Reader) { readHead(rd) })
	oddStatus := raw(t, func(c *net.TCPConn, rd *bufio.Reader) {
		readHead(rd)
		io.WriteString(c, "HTTP/1.1 012 Odd\r\nContent-Length: 0\r\n\r\n")
	})
	uninvited := raw(t, func(c *net.TCPConn, rd *bufio.Reader) {
		readHead(rd)
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	})
	r.pool("silent", silent)
	r.pool("garbage", garbage)
	r.pool("hangup", hangup)
	r.pool("odd", oddStatus)
	r.pool("uninvited", uninvited)
	addr := r.addr()
	cfg := Config{Name: "web", Listen: []netip.AddrPort{addr}, Timeouts: Timeouts{Response: 50e6}}
	for _, name := range []string{"none", "silent", "garbage", "hangup", "odd", "uninvited"} {
		cfg.Routes = append(cfg.Routes, Route{Paths: []string{"/" + name}, Pool: name})
	}
	r.apply(cfg)
	for _, tc := range []struct {
		request string
		status  int
		text    string
	}{
		{"GET /nowhere", 404, "404 Not Found\n"},
		{"GET /none", 503, "503 Service Unavailable\n"},
		{"GET /silent", 504, "504 Gateway Timeout\n"},
		{"GET /garbage", 502, "502 Bad Gateway\n"},
		{"POST /hangup", 502, "502 Bad Gateway\n"},
		{"GET /odd", 502, "502 Bad Gateway\n"},
		{"GET /uninvited", 502, "502 Bad Gateway\n"},
		{"CONNECT example.com:443", 501, "501 Not Implemented\n"},
	} {
		resp := say(t, addr, tc.request+" HTTP/1.1\r\nHost: a\r\n\r\n")
		got := body(t, resp)
		if resp.StatusCode != tc.status || got != tc.text || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("%s: %s %v %q", tc.request, resp.Status, resp.Header, got)
		}
	}
	s := r.stats("web")
	if s.NoServer != 1 || s.Responses != [5]int64{3: 1, 4: 7} {
		t.Errorf("stats: %+v", s)
	}
}

func TestRedirect(t *testing.T) {
	r := newRig(t)
	addr := r.addr()
	r.apply(Config{Name: "plain", Listen: []netip.AddrPort{addr}, Redirect: &Redirect{Scheme: "https"}})
	resp := say(t, addr, "POST /a%2F?b=c HTTP/1.1\r\nHost: Blog.example.com:80\r\nContent-Length: 0\r\n\r\n")
	if got, want := resp.Header.Get("Location"), "https://blog.example.com/a%2F?b=c"; resp.StatusCode != 308 || got != want {
		t.Errorf("%s to %q, want %q", resp.Status, got, want)
	}
	for _, head := range []string{"GET / HTTP/1.0\r\n", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a/b\r\n", "GET / HTTP/1.1\r\nHost: a$b\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n"} {
		if resp := say(t, addr, head+"\r\n"); resp.StatusCode != 400 || resp.Header.Get("Location") != "" {
			t.Errorf("%q: %s to %q", head, resp.Status, resp.Header.Get("Location"))
		}
	}
}
