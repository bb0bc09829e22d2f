package l7

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// unpack returns the content of a body in that coding.
func unpack(t *testing.T, coding string, r io.Reader) string {
	t.Helper()
	var err error
	switch coding {
	case "gzip":
		r, err = gzip.NewReader(r)
	case "zstd":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1)); err == nil {
			defer d.Close()
			r = d
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("%s: %v", coding, err)
	}
	return string(b)
}

func TestCompress(t *testing.T) {
	text := strings.Repeat("all work and no play ", 5000)
	r := newRig(t)
	r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("ETag", `"tag"`)
		h.Set("Content-Type", "text/html; charset=utf-8")
		for name, values := range r.URL.Query() {
			h.Set(name, values[0])
		}
		content := text
		if r.URL.Path == "/small" {
			content = "small"
		}
		if r.URL.Path != "/chunked" {
			h.Set("Content-Length", strconv.Itoa(len(content)))
		}
		if r.URL.Path == "/part" {
			w.WriteHeader(206)
		}
		io.WriteString(w, content)
	}))
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "file.css"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	addr, tls := r.addr(), r.addr()
	cfg := Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Rules: Rules{Compress: &Compress{}},
		Routes: []Route{{Paths: []string{"= /file.css"}, Files: &Files{Root: root}}, {Paths: []string{"= /respond"}, Respond: &Respond{Body: text}}}}
	secure := cfg
	secure.Name, secure.Listen, secure.TLS = "tls", []netip.AddrPort{tls}, &TLS{Certificates: []Certificate{makeCert(t, "a.example")}}
	r.apply(cfg, secure)
	plain, http2 := client(t, addr, protocolHTTP1), client(t, tls, protocolHTTP2)
	for _, tc := range []struct {
		target, accept, want string // coding and ETag
	}{
		{"/", "gzip, deflate, br, zstd", `zstd W/"tag"`},
		{"/", "gzip", `gzip W/"tag"`},
		{"/", "zstd;q=0.5, gzip", `gzip W/"tag"`},
		{"/chunked", "zstd", `zstd W/"tag"`},
		{"/chunked", "gzip", `gzip W/"tag"`},
		{"/?ETag=W/%22w%22", "gzip", `gzip W/"w"`},
		{"/respond", "gzip", `gzip `},
		{"/file.css", "gzip", `gzip W/`},
		// Not these.
		{"/", "", ` "tag"`},
		{"/", "br, gzip;q=0", ` "tag"`},
		{"/small", "gzip", ` "tag"`},
		{"/part", "gzip", ` "tag"`},
		{"/?Content-Type=image/png", "gzip", ` "tag"`},
		{"/?Content-Type=text/event-stream", "gzip", ` "tag"`},
		{"/?Content-Encoding=br", "gzip", `br "tag"`},
		{"/?Cache-Control=public,no-transform", "gzip", ` "tag"`},
	} {
		for base, c := range map[string]*http.Client{"http://a.example": plain, "https://a.example": http2} {
			req, err := http.NewRequest("GET", base+tc.target, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Accept-Encoding", tc.accept)
			for range 2 { // the second time with a packer that was used
				resp, err := c.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				coding := resp.Header.Get("Content-Encoding")
				packed := coding == "gzip" || coding == "zstd"
				content := unpack(t, coding, resp.Body)
				resp.Body.Close()
				if got := coding + " " + resp.Header.Get("ETag"); !strings.HasPrefix(got, tc.want) || tc.want != got && tc.target != "/file.css" {
					t.Errorf("%s%s for %q: %q, want %q", base, tc.target, tc.accept, got, tc.want)
				}
				if content != text && tc.target != "/small" {
					t.Errorf("%s%s for %q: %d bytes of content", base, tc.target, tc.accept, len(content))
				}
				if packed && (resp.ContentLength >= 0 || resp.Header.Get("Vary") != "Accept-Encoding" || resp.Header.Get("Accept-Ranges") != "") {
					t.Errorf("%s%s for %q: %v", base, tc.target, tc.accept, resp.Header)
				}
			}
		}
	}
	resp := say(t, addr, "HEAD / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n")
	if resp.Header.Get("Content-Encoding") != "gzip" || resp.Header.Get("Content-Length") != "" {
		t.Errorf("HEAD: %v", resp.Header)
	}
	resp = say(t, addr, "GET / HTTP/1.0\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n")
	if got := unpack(t, "gzip", resp.Body); got != text {
		t.Errorf("HTTP/1.0: %d bytes", len(got))
	}
	if out := r.stats("web").BytesOut; out < int64(len(text)) || out > 20*int64(len(text)) {
		t.Errorf("%d bytes were counted", out)
	}
}

// What a server sends and then waits gets through at once, packed.
func TestCompressStreams(t *testing.T) {
	next := make(chan struct{})
	r := newRig(t)
	r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		for range 3 {
			io.WriteString(w, "part")
			w.(http.Flusher).Flush()
			<-next
		}
	}))
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Rules: Rules{Compress: &Compress{}}})
	for _, coding := range []string{"gzip", "zstd"} {
		req, _ := http.NewRequest("GET", "http://a.example/", nil)
		req.Header.Set("Accept-Encoding", coding)
		resp, err := client(t, addr, protocolHTTP1).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var body io.Reader
		if coding == "gzip" {
			body, err = gzip.NewReader(resp.Body)
		} else {
			body, err = zstd.NewReader(resp.Body, zstd.WithDecoderConcurrency(1))
		}
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			var b [4]byte
			if _, err := io.ReadFull(body, b[:]); err != nil || string(b[:]) != "part" {
				t.Fatalf("%s: %q, %v", coding, b, err)
			}
			next <- struct{}{}
		}
		resp.Body.Close()
	}
}

// An answer that breaks off does not look complete because it is packed.
func TestCompressBrokenAnswer(t *testing.T) {
	r := newRig(t)
	r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", "100000")
		io.WriteString(w, strings.Repeat("x", 50000))
		panic(http.ErrAbortHandler)
	}))
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Rules: Rules{Compress: &Compress{}}})
	req, _ := http.NewRequest("GET", "http://a.example/", nil)
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := client(t, addr, protocolHTTP1).Do(req)
	if err == nil {
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("%d bytes look complete", len(b))
		}
	}
}

func TestHSTS(t *testing.T) {
	for _, tc := range []struct {
		hsts HSTS
		want string
	}{
		{HSTS{}, "max-age=31536000"},
		{HSTS{MaxAge: time.Hour, IncludeSubdomains: true}, "max-age=3600; includeSubDomains"},
		{HSTS{IncludeSubdomains: true, Preload: true}, "max-age=31536000; includeSubDomains; preload"},
	} {
		if got := tc.hsts.value(); got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.hsts, got, tc.want)
		}
	}
	r := newRig(t)
	r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Strict-Transport-Security", "max-age=1") }))
	plain, tls := r.addr(), r.addr()
	rules := Rules{HSTS: &HSTS{}}
	r.apply(Config{Name: "plain", Listen: []netip.AddrPort{plain}, Pool: "p", Rules: rules},
		Config{Name: "tls", Listen: []netip.AddrPort{tls}, Pool: "p", Rules: rules, TLS: &TLS{Certificates: []Certificate{makeCert(t, "a.example")}}})
	for url, want := range map[string]string{"http://a.example/": "[max-age=1]", "https://a.example/": "[max-age=31536000]"} {
		addr := plain
		if strings.HasPrefix(url, "https") {
			addr = tls
		}
		resp := get(t, client(t, addr, protocolHTTP1), url)
		if got := fmt.Sprint(resp.Header["Strict-Transport-Security"]); got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
		body(t, resp)
	}
}

// No more answers are packed at a time than may be; the others pass as they are, and
// who breaks off makes room.
func TestCompressIsBounded(t *testing.T) {
	text := strings.Repeat("all work and no play ", 1000)
	more := make(chan struct{})
	r := newRig(t)
	r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, text)
		if r.URL.Path == "/slow" {
			w.(http.Flusher).Flush()
			select {
			case <-more:
			case <-r.Context().Done():
			}
		}
	}))
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Rules: Rules{Compress: &Compress{MaxAnswers: 2}},
		Routes: []Route{{Paths: []string{"/a"}, Pool: "p"}}})
	ask := func(path string) (resp *http.Response, packed bool) {
		t.Helper()
		req, _ := http.NewRequest("GET", "http://a.example"+path, nil)
		req.Header.Set("Accept-Encoding", "gzip")
		resp, err := client(t, addr, protocolHTTP1).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp, resp.Header.Get("Content-Encoding") == "gzip"
	}
	one, first := ask("/slow")
	two, second := ask("/slow")
	if !first || !second {
		t.Fatal("not the first two are packed")
	}
	for range 3 {
		resp, packed := ask("/a/x") // of the service's, though another route
		if got := body(t, resp); packed || got != text || resp.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("a third: packed %t, %d bytes, %v", packed, len(got), resp.Header)
		}
	}
	if log := r.log.String(); strings.Count(log, "unpacked") != 1 {
		t.Errorf("want one warning:\n%s", log)
	}
	one.Body.Close()
	r.until("the first has broken off", func() bool { return r.stats("web").Current == 1 })
	if resp, packed := ask("/a/x"); !packed || unpack(t, "gzip", resp.Body) != text {
		t.Error("there is no room where one has broken off")
	}
	close(more)
	if got := unpack(t, "gzip", two.Body); got != text {
		t.Errorf("the second: %d bytes", len(got))
	}
	for range 2 {
		if resp, packed := ask("/"); !packed || unpack(t, "gzip", resp.Body) != text {
			t.Error("there is no room where all have ended")
		}
	}
	if n := r.engine.order[0].state.Load().routes.own.compress.busy.Load(); n != 0 {
		t.Errorf("%d are at work", n)
	}
}
