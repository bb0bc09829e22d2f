package l7

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// rows reads a table of raw messages and what becomes of them.
func rows(t *testing.T, path string) (list [][2]string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if l = strings.TrimSpace(l); l == "" || l[0] == '#' {
			continue
		}
		want, quoted, _ := strings.Cut(l, " ")
		text, err := strconv.Unquote(strings.TrimSpace(quoted))
		if err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		list = append(list, [2]string{want, text})
	}
	if len(list) < 50 {
		t.Fatalf("%s has %d rows", path, len(list))
	}
	return list
}

// Requests, byte for byte, to a service: what is none is answered so, once, and
// costs the connection; no server sees any of it as something else.
func TestRawRequests(t *testing.T) {
	_, addr := simple(t, web(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		io.WriteString(w, r.Method+" "+string(b))
	}))
	for _, row := range rows(t, "http1/testdata/requests.txt") {
		want, text := row[0], row[1]
		c, in := dial(t, addr, nil)
		io.WriteString(c, text)
		if want == "more" {
			c.(*net.TCPConn).CloseWrite()
			if b, _ := io.ReadAll(in); len(b) > 0 {
				t.Errorf("%q was answered %q", text, b)
			}
			continue
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		got := body(t, resp)
		if want == "ok" {
			method, _, _ := strings.Cut(text, " ")
			if resp.StatusCode != 200 || !strings.HasPrefix(got, method+" ") || strings.Contains(text, "hello") != strings.Contains(got, "hello") {
				t.Errorf("%q: %s %q", text, resp.Status, got)
			}
			c.(*net.TCPConn).CloseWrite()
		} else if strconv.Itoa(resp.StatusCode) != want || !resp.Close {
			t.Errorf("%q: %s, close %v; want %s", text, resp.Status, resp.Close, want)
		}
		if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
			t.Errorf("%q: after the answer came %q, %v", text, rest, err)
		}
		c.Close()
	}
}

// Answers, byte for byte, from a server: what is none becomes 502 or breaks off.
func TestRawAnswers(t *testing.T) {
	next := make(chan string, 1)
	r, addr := simple(t, raw(t, func(c *net.TCPConn, r *bufio.Reader) {
		readHead(r)
		io.WriteString(c, <-next)
	}))
	for _, row := range rows(t, "http1/testdata/responses.txt") {
		want, text := row[0], row[1]
		next <- text
		c, in := dial(t, addr, nil)
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		resp, err := http.ReadResponse(in, nil)
		for err == nil && resp.StatusCode == 103 {
			resp, err = http.ReadResponse(in, nil)
		}
		status, got, whole := 0, "", false
		if err == nil {
			b, err := io.ReadAll(resp.Body)
			status, got, whole = resp.StatusCode, string(b), err == nil
		}
		switch want {
		case "ok":
			if status == 502 || !whole || strings.Contains(text, "hello") != (got == "hello") {
				t.Errorf("%q: %d %q, whole %v", text, status, got, whole)
			}
		default:
			if status != 502 && whole {
				t.Errorf("%q: %d %q", text, status, got)
			}
		}
		c.Close()
	}
	r.until("the end", func() bool { return r.stats("web").Current == 0 })
}

// Requests that come at once are answered one after the other.
func TestPipelining(t *testing.T) {
	_, addr := simple(t, web(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		io.WriteString(w, r.URL.Path+string(b))
	}))
	c, in := dial(t, addr, nil)
	io.WriteString(c, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxx"+
		"POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nyy\r\n0\r\n\r\n\r\nHEAD /4 HTTP/1.1\r\nHost: a\r\n\r\nGET /5 HTTP/1.1\r\nHo")
	for _, want := range []string{"/1", "/2xx", "/3yy"} {
		if got := body(t, answerTo(t, in, "GET")); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if resp := answerTo(t, in, "HEAD"); resp.ContentLength != 2 {
		t.Errorf("HEAD: %+v", resp)
	}
	io.WriteString(c, "st: a\r\n\r\n")
	if got := body(t, answerTo(t, in, "GET")); got != "/5" {
		t.Errorf("%q", got)
	}
}

// By HTTP/1.0 a connection is kept only if the client asks for that, and there
// are no chunks.
func TestHTTP10(t *testing.T) {
	_, addr := simple(t, web(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/chunked" {
			w.(http.Flusher).Flush()
		}
		io.WriteString(w, "hello")
	}))
	c, in := dial(t, addr, nil)
	for range 2 {
		io.WriteString(c, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
		resp := answerTo(t, in, "GET")
		if got := body(t, resp); got != "hello" || resp.Header.Get("Connection") != "keep-alive" {
			t.Errorf("%q %v", got, resp.Header)
		}
	}
	io.WriteString(c, "GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
	if b, err := io.ReadAll(in); err != nil || !strings.HasSuffix(string(b), "\r\nConnection: close\r\n\r\nhello") || strings.Contains(string(b), "chunked") {
		t.Errorf("%q, %v", b, err)
	}
}

func TestMaxForwards(t *testing.T) {
	_, addr := simple(t, web(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("Max-Forwards")) }))
	for request, want := range map[string]string{
		"OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0":   "200 200 OK\n",
		"TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0":     "405 405 Method Not Allowed\n",
		"OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 7":   "200 6",
		"GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0":       "200 0",
		"OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: all": "200 all",
	} {
		resp := say(t, addr, request+"\r\n\r\n")
		if got := strconv.Itoa(resp.StatusCode) + " " + body(t, resp); got != want {
			t.Errorf("%q: %q, want %q", request, got, want)
		}
	}
}

// Fields pass in the order and with the names that they were sent with.
func TestOrderOfFields(t *testing.T) {
	heads := make(chan string, 1)
	_, addr := simple(t, raw(t, func(c *net.TCPConn, r *bufio.Reader) {
		heads <- readHead(r)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nz-LAST: 1\r\nA-first: 2\r\nContent-Length: 0\r\nz-last: 3\r\nDate: d\r\n\r\n")
	}))
	c, in := dial(t, addr, nil)
	io.WriteString(c, "GET / HTTP/1.1\r\nzZ: 1\r\nHost: a\r\naccept: 2\r\nZz: 3\r\n\r\n")
	if got, want := <-heads, "GET / HTTP/1.1\r\nHost: a\r\nzZ: 1\r\naccept: 2\r\nZz: 3\r\nX-Forwarded-For: "; !strings.HasPrefix(got, want) {
		t.Errorf("the server saw %q", got)
	}
	if got, want := readHead(in), "HTTP/1.1 200 OK\r\nz-LAST: 1\r\nA-first: 2\r\nContent-Length: 0\r\nz-last: 3\r\nDate: d\r\n\r\n"; got != want {
		t.Errorf("the client saw %q", got)
	}
}

// What a server sends without being asked is never the answer to the next
// request.
func TestAnswerNobodyAskedFor(t *testing.T) {
	for _, extra := range []string{"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", "x"} {
		sent := make(chan struct{}, 10)
		_, addr := simple(t, raw(t, func(c *net.TCPConn, r *bufio.Reader) {
			for n := 0; readHead(r) != ""; n++ {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				if n == 0 {
					io.WriteString(c, extra)
					sent <- struct{}{}
				}
			}
		}))
		c, in := dial(t, addr, nil)
		for range 3 {
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			if resp := answerTo(t, in, "GET"); body(t, resp) != "ok" {
				t.Errorf("%q: %+v", extra, resp)
			}
			<-sent
		}
	}
}

// The time for a head counts from its first byte, not from that of the request
// before on the same connection.
func TestHeadBehindSlowRequest(t *testing.T) {
	r := newRig(t)
	r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/slow" {
			time.Sleep(300 * time.Millisecond)
		}
		io.WriteString(w, r.URL.Path)
	}))
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Timeouts: Timeouts{Header: 200 * time.Millisecond}})
	c, in := dial(t, addr, nil)
	io.WriteString(c, "POST /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nyy\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHo")
	if got := body(t, answerTo(t, in, "POST")); got != "/slow" {
		t.Errorf("%q", got)
	}
	io.WriteString(c, "st: a\r\n\r\n")
	if got := body(t, answerTo(t, in, "GET")); got != "/2" {
		t.Errorf("%q", got)
	}
}

// A server that announces a body where there is none does not have its clients, or
// the next one, wait for it or take it for an answer.
func TestBodiesThatCannotBe(t *testing.T) {
	late := "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
	for head, want := range map[string]string{
		"103 Early Hints\r\nLink: </x>\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 0\r\n\r\n": "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
		"204 No Content\r\nDate: d\r\nContent-Length: " + strconv.Itoa(len(late)) + "\r\n\r\n":                              "HTTP/1.1 204 No Content\r\nDate: d\r\n\r\n",
		"204 No Content\r\nDate: d\r\nTransfer-Encoding: chunked\r\n\r\n":                                                   "HTTP/1.1 204 No Content\r\nDate: d\r\n\r\n",
	} {
		_, addr := simple(t, raw(t, func(c *net.TCPConn, r *bufio.Reader) {
			for n := 0; readHead(r) != ""; n++ {
				if n > 0 {
					io.WriteString(c, late)
				}
				io.WriteString(c, "HTTP/1.1 "+head)
			}
		}))
		c, in := dial(t, addr, nil)
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if got := readHead(in); got != want {
			t.Errorf("%q: the client got %q", head, got)
		}
		if strings.HasPrefix(head, "103") {
			continue
		}
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if got := readHead(in); got != want {
			t.Errorf("%q: then the client got %q", head, got)
		}
	}
}
