package l7

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"appliance/l7/accesslog"
)

// staticFiles makes a folder, and one beside it with a secret.
func staticFiles(t *testing.T) (root string) {
	t.Helper()
	dir := t.TempDir()
	root = filepath.Join(dir, "static")
	when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, text := range map[string]string{
		"static/a.txt":         "0123456789",
		"static/b.css":         "plain",
		"static/b.css.gz":      "packed by gzip",
		"static/b.css.br":      "packed by brotli",
		"static/c.png":         "png",
		"static/c.png.gz":      "no",
		"static/index.html":    "root",
		"static/d/index.html":  "index of d",
		"static/d/x y%.js":     "blank",
		"static/empty/.keep":   "",
		"static/.env":          "password",
		"static/.well-known/x": "known",
		"static/noext":         "bytes",
		"static/large.bin":     strings.Repeat("0123456789abcdef", 1<<16),
		"secret.txt":           "secret",
		"statics/sibling.txt":  "secret",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"out.txt": "../secret.txt", "abs.txt": filepath.Join(dir, "secret.txt"), "in.txt": "a.txt"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(root, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestFiles(t *testing.T) {
	_, addr := ruledService(t, Config{Routes: []Route{{Paths: []string{"/s"}, StripPrefix: "/s", Files: &Files{Root: staticFiles(t)}}}})
	for _, tc := range []struct {
		target, head string
		want         string // status, some fields, body
	}{
		{"/s/a.txt", "", `200 text/plain; charset=utf-8 10 "" 0123456789`},
		{"/s/%61.txt?v=1", "", `200 text/plain; charset=utf-8 10 "" 0123456789`},
		{"/s/in.txt", "", `200 text/plain; charset=utf-8 10 "" 0123456789`},
		{"/s/noext", "", `200 application/octet-stream 5 "" bytes`},
		{"/s/d/x%20y%25.js", "", `200 text/javascript; charset=utf-8 5 "" blank`},
		{"/s/.well-known/x", "", `200 application/octet-stream 5 "" known`},
		{"/s/", "", `200 text/html; charset=utf-8 4 "" root`},
		{"/s/d/", "", `200 text/html; charset=utf-8 10 "" index of d`},
		{"/s/d?q", "", `301 /s/d/?q`},
		{"/s//d", "", `301 /s/d/`},
		// What is not for clients.
		{"/s/none", "", `404`},
		{"/s/a.txt/", "", `404`},
		{"/s/a.txt/x", "", `404`},
		{"/s/empty/", "", `404`},
		{"/s/empty", "", `404`},
		{"/s/.env", "", `404`},
		{"/s/%2eenv", "", `404`},
		{"/s/fifo", "", `404`},
		{"/s/out.txt", "", `404`},
		{"/s/abs.txt", "", `404`},
		{"/s/x%00", "", `400`},
		{"/s/d%2f..%2f..%2fsecret.txt", "", `404`},
		{"/s/../s/../secret.txt", "", `404`},
		{"/s/..%2fs/..%2fsecret.txt", "", `404`},
		{"/s/%2e%2e/secret.txt", "", `404`},
		{"/s/d/..%5c..%5csecret.txt", "", `400`},
		{"/s/%", "", `400`},
		// Ranges.
		{"/s/a.txt", "Range: bytes=2-4", `206 text/plain; charset=utf-8 3 "" 234`},
		{"/s/a.txt", "Range: bytes=-2", `206 text/plain; charset=utf-8 2 "" 89`},
		{"/s/a.txt", "Range: bytes=10-", `416`},
		{"/s/a.txt", "Range: lines=1-2", `200 text/plain; charset=utf-8 10 "" 0123456789`},
		{"/s/a.txt", "Range: BYTES=2-4", `206 text/plain; charset=utf-8 3 "" 234`},
		{"/s/a.txt", "Range: bytes=9-18446744073709551616", `416`},
		{"/s/a.txt", "Range: bytes=9-9223372036854775807", `206 text/plain; charset=utf-8 1 "" 9`},
		{"/s/a.txt", "Range: bytes=0-9,0-9,0-9", `200 text/plain; charset=utf-8 10 "" 0123456789`},
		{"/s/a.txt", "Range: bytes=2-4\r\nIf-Range: \"other\"", `200 text/plain; charset=utf-8 10 "" 0123456789`},
		{"/s/a.txt", "Range: bytes=2-4\r\nIf-Range: Fri, 02 Jan 2026 03:04:05 GMT", `206 text/plain; charset=utf-8 3 "" 234`},
		// Conditions.
		{"/s/a.txt", "If-Modified-Since: Fri, 02 Jan 2026 03:04:05 GMT", `304`},
		{"/s/a.txt", "If-Modified-Since: Fri, 02 Jan 2026 03:04:04 GMT", `200 text/plain; charset=utf-8 10 "" 0123456789`},
		{"/s/a.txt", "If-Unmodified-Since: Fri, 02 Jan 2026 03:04:04 GMT", `412`},
		{"/s/a.txt", "If-None-Match: *", `304`},
		{"/s/a.txt", "If-Match: \"other\"", `412`},
		// Packed files.
		{"/s/b.css", "Accept-Encoding: gzip", `200 text/css; charset=utf-8 14 "gzip" packed by gzip`},
		{"/s/b.css", "Accept-Encoding: gzip, deflate, br, zstd", `200 text/css; charset=utf-8 16 "br" packed by brotli`},
		{"/s/b.css", "Accept-Encoding: br;q=0, gzip;q=0.1", `200 text/css; charset=utf-8 14 "gzip" packed by gzip`},
		{"/s/b.css", "Accept-Encoding: gzip\r\nRange: bytes=0-5", `206 text/css; charset=utf-8 6 "gzip" packed`},
		{"/s/b.css", "Accept-Encoding: zstd", `200 text/css; charset=utf-8 5 "" plain`},
		{"/s/b.css", "", `200 text/css; charset=utf-8 5 "" plain`},
		{"/s/c.png", "Accept-Encoding: gzip", `200 image/png 3 "" png`},
	} {
		var more []string
		if tc.head != "" {
			more = append(more, tc.head)
		}
		resp, text := askFor(t, addr, tc.target, more...)
		var got string
		switch resp.StatusCode {
		case 200, 206:
			got = fmt.Sprintf("%d %s %d %q %s", resp.StatusCode, resp.Header.Get("Content-Type"), resp.ContentLength, resp.Header.Get("Content-Encoding"), text)
			if resp.Header.Get("ETag") == "" || resp.Header.Get("Last-Modified") == "" || resp.Header.Get("Accept-Ranges") != "bytes" ||
				(resp.Header.Get("Vary") != "") != compressible(resp.Header.Get("Content-Type")) {
				t.Errorf("%s %s: %v", tc.target, tc.head, resp.Header)
			}
		case 301:
			got = "301 " + resp.Header.Get("Location")
		default:
			got = fmt.Sprint(resp.StatusCode)
		}
		if got != tc.want {
			t.Errorf("%s %s: %q, want %q", tc.target, tc.head, got, tc.want)
		}
	}
	resp := say(t, addr, "POST /s/a.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
	if body(t, resp); resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %s %v", resp.Status, resp.Header)
	}
	c, in := dial(t, addr, nil)
	io.WriteString(c, "HEAD /s/a.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=2-4\r\n\r\n")
	if resp = answerTo(t, in, "HEAD"); resp.StatusCode != 200 || resp.ContentLength != 10 {
		t.Errorf("HEAD with a range: %s %v", resp.Status, resp.Header)
	}
	resp, _ = askFor(t, addr, "/s/a.txt")
	tag := resp.Header.Get("ETag")
	if resp, _ = askFor(t, addr, "/s/a.txt", "If-None-Match: \"x\", W/"+tag); resp.StatusCode != 304 || resp.Header.Get("ETag") != tag {
		t.Errorf("the same ETag: %s %v", resp.Status, resp.Header)
	}
	resp, text := askFor(t, addr, "/s/a.txt", "Range: bytes=0-1,8-")
	if resp.StatusCode != 206 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "multipart/byteranges") ||
		!strings.Contains(text, "\r\n\r\n01\r\n") || !strings.Contains(text, "\r\n\r\n89\r\n") {
		t.Errorf("two ranges: %v %q", resp.Header, text)
	}
}

// What is no file goes to the pool of the same route.
func TestFilesBeforePool(t *testing.T) {
	root := staticFiles(t)
	_, addr := ruledService(t, Config{Routes: []Route{{Pool: "p", Files: &Files{Root: root}}}})
	for request, want := range map[string]string{
		"GET /a.txt?x":       "0123456789",
		"GET /d/":            "index of d",
		"GET /none/x?y":      "GET a /none/x?y",
		"GET /d":             "301 Moved Permanently\n",
		"GET /empty":         "GET a /empty",
		"GET /empty/":        "GET a /empty/",
		"GET /.env":          "GET a /.env",
		"GET /out.txt":       "GET a /out.txt",
		"POST /a.txt":        "POST a /a.txt",
		"GET /a.txt/no/such": "GET a /a.txt/no/such",
	} {
		if got := body(t, say(t, addr, request+" HTTP/1.1\r\nHost: a\r\n\r\n")); got != want {
			t.Errorf("%s: %q, want %q", request, got, want)
		}
	}
}

// A large file gets through whole, by each way to send it, and the connection
// can be used again.
func TestLargeFiles(t *testing.T) {
	root := staticFiles(t)
	want, err := os.ReadFile(filepath.Join(root, "large.bin"))
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	plain, tls := r.addr(), r.addr()
	routes := []Route{{Files: &Files{Root: root}}}
	r.apply(Config{Name: "plain", Listen: []netip.AddrPort{plain}, Routes: routes},
		Config{Name: "tls", Listen: []netip.AddrPort{tls}, Routes: routes, TLS: &TLS{Certificates: []Certificate{makeCert(t, "a.example")}}})
	for name, c := range map[string]*http.Client{
		"http://a.example":      client(t, plain, protocolHTTP1),
		"https://a.example":     client(t, tls, protocolHTTP1),
		"https://a.example/./.": client(t, tls, protocolHTTP2),
	} {
		for range 3 {
			resp := get(t, c, name+"/large.bin")
			if got := body(t, resp); !bytes.Equal([]byte(got), want) {
				t.Errorf("%s: %d bytes of %d", name, len(got), len(want))
			}
		}
	}
	if out := r.stats("plain").BytesOut; out != 3*int64(len(want)) {
		t.Errorf("%d bytes were counted", out)
	}
}

func TestAcceptsCoding(t *testing.T) {
	for value, want := range map[string]string{
		"":                        "0 0",
		"gzip":                    "1 0",
		"GZip;q=0.5, br":          "0.5 1",
		"*":                       "1 1",
		"*;q=0.2, br;q=0":         "0.2 0",
		"x-gzip":                  "1 0",
		"gzip;q=2":                "0 0",
		"gzip;q=x, identity, br ": "0 1",
	} {
		f := fields{{Name: "accept-encoding", Value: value}}
		if got := fmt.Sprint(acceptsCoding(f, "gzip"), acceptsCoding(f, "br")); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}

// A file that is changed, removed, or becomes another one because its folder has been
// replaced, is seen within a second or so, and so are its packed forms.
func TestFilesThatChange(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("one/a.css", "first")
	put("two/a.css", "of two")
	if err := os.Symlink("one", filepath.Join(dir, "now")); err != nil {
		t.Fatal(err)
	}
	r, addr := ruledService(t, Config{Routes: []Route{{Files: &Files{Root: filepath.Join(dir, "now")}}}})
	becomes := func(want string, change func()) {
		t.Helper()
		change()
		changed := time.Now()
		r.until("the answer is "+want, func() bool {
			resp, text := askFor(t, addr, "/a.css", "Accept-Encoding: gzip")
			return fmt.Sprint(resp.StatusCode, " ", text) == want
		})
		if took := time.Since(changed); took > cachedFor+2*time.Second {
			t.Errorf("%s: after %v", want, took)
		}
	}
	becomes("200 first", func() {})
	becomes("200 other", func() { put("one/a.css", "other") })
	becomes("200 packed", func() { put("one/a.css.gz", "packed") })
	becomes("200 of two", func() {
		if os.Symlink("two", filepath.Join(dir, "next")) != nil || os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "now")) != nil {
			t.Fatal("cannot replace the link")
		}
	})
	becomes("404 404 Not Found\n", func() { os.Remove(filepath.Join(dir, "two/a.css")) })
}

// What is kept of a folder is bounded.
func TestKeptFilesAreBounded(t *testing.T) {
	var c fileCache
	now := time.Now()
	for i := range 1000 {
		ex := &exchange{now: now}
		ex.out.target = fmt.Sprint("/", i, "?q")
		c.put(ex, &cachedFiles{until: now.Add(cachedFor), forms: make([]cachedForm, 1), size: 30 << 10})
		if c.get(ex) == nil || c.size > cachedMost || len(c.files) > cachedMost/(30<<10) {
			t.Fatalf("%d files of %d bytes", len(c.files), c.size)
		}
		if ex.now = now.Add(cachedFor); c.get(ex) != nil {
			t.Fatal("a file is kept for too long")
		}
	}
}

// A connection is kept for its time from the end of an answer on, however long the
// client took for that.
func TestKeptAfterASlowAnswer(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	const size = 16 << 20
	if err := os.WriteFile(filepath.Join(root, "large"), make([]byte, size), 0o644); err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	addr := r.addr()
	const idle = time.Second
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Routes: []Route{{Files: &Files{Root: root}}}, Timeouts: Timeouts{Idle: idle}})
	c, in := dial(t, addr, nil)
	_ = c.(*net.TCPConn).SetReadBuffer(64 << 10)
	io.WriteString(c, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
	resp := answerTo(t, in, "GET")
	for range 8 {
		time.Sleep(idle / 4)
		if _, err := io.CopyN(io.Discard, resp.Body, size/8); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(idle / 4)
	io.WriteString(c, "GET /none HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != 404 {
		t.Errorf("the next request: %v, %v", resp, err)
	}
}

// Clients who ask for files that cannot be read do not fill the log.
func TestTroubleWithFilesIsToldNowAndThen(t *testing.T) {
	var s static
	now, told := time.Now(), 0
	for range 1000 {
		if s.complains.may(now, complainEvery) {
			told++
		}
		now = now.Add(complainEvery / 100)
	}
	if told != 10 {
		t.Errorf("told %d times", told)
	}
	if end := ownEnd(http.StatusInternalServerError); end != accesslog.Failed {
		t.Errorf("what we fail at is said to be %s", end)
	}
}
