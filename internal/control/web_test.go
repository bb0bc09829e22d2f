package control

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

func webBackend(s Status) Backend {
	return Backend{
		Status:   func() Status { return s },
		Sessions: func() []Session { return []Session{{ID: 7}} },
		Reload:   func(context.Context) error { panic("reload by the door of watchers") },
		Events:   func(uint64) ([]Event, <-chan struct{}) { return nil, nil },
	}
}

var someMetrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "metrics") })

func TestWebShowsAndChangesNothing(t *testing.T) {
	w, err := ListenWeb(netip.MustParseAddrPort("127.0.0.1:0"), webBackend(Status{Node: "lb01", Ready: true}), someMetrics, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	w.Allow(nil)
	w.Serve()
	defer w.Close()
	base := "http://" + w.listener.Addr().String()
	for _, one := range []struct {
		method, path string
		status       int
		has          string
	}{
		{"GET", "/metrics", 200, "metrics"},
		{"HEAD", "/metrics", 200, ""},
		{"GET", "/healthz", 200, "ok"},
		{"GET", "/v1/status", 200, `"node": "lb01"`},
		{"GET", "/v1/sessions", 200, `"id": 7`},
		{"GET", "/v1/events", 200, ""},
		{"POST", "/v1/reload", 404, ""},
		{"POST", "/v1/failover", 404, ""},
		{"POST", "/v1/status", 405, ""},
		{"GET", "/", 404, ""},
	} {
		req, err := http.NewRequest(one.method, base+one.path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != one.status || !strings.Contains(string(text), one.has) {
			t.Errorf("%s %s: %d %s", one.method, one.path, resp.StatusCode, text)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestWebRefusesStrangers(t *testing.T) {
	w := &Web{}
	w.Allow([]netip.Prefix{netip.MustParsePrefix("192.168.15.7/24"), netip.MustParsePrefix("2001:db8::/32")})
	h := w.guard(someMetrics)
	for _, one := range []struct {
		from, host string
		want       int
	}{
		{"192.168.15.200:1", "lb01.example:9112", 200},
		{"[2001:db8::1]:1", "lb01", 200},
		{"[::ffff:192.168.15.1]:1", "lb01", 200},
		{"192.168.16.1:1", "lb01", 403},
		{"[2001:db9::1]:1", "lb01", 403},
		{"127.0.0.1:1", "127.0.0.1:9112", 200},
		{"[::1]:1", "[::1]:9112", 200},
		{"127.0.0.1:1", "localhost:9112", 200},
		{"127.0.0.1:1", "evil.example:9112", 403},
		{"127.0.0.1:1", "", 403},
		{"nonsense", "127.0.0.1", 403},
	} {
		r := httptest.NewRequest("GET", "/metrics", nil)
		r.RemoteAddr, r.Host = one.from, one.host
		got := httptest.NewRecorder()
		h.ServeHTTP(got, r)
		if got.Code != one.want {
			t.Errorf("from %s by %q: %d %s, want %d", one.from, one.host, got.Code, got.Body, one.want)
		}
	}
}

func TestHealthz(t *testing.T) {
	for _, one := range []struct {
		status Status
		code   int
		text   string
	}{
		{Status{Ready: true, VRRP: []VRRP{{Name: "VI_1", State: "backup"}}}, 200, "ok\n"},
		{Status{}, 503, "not ready: waiting for the first checks\n"},
		{Status{Ready: true, VRRP: []VRRP{{Name: "VI_1", Faults: []Condition{{Source: "interface eth0", Reason: "is down"}}}}, Services: []Service{{Name: "web", Fault: "in use"}}},
			503, "vrrp VI_1: interface eth0: is down\nservice web: in use\n"},
	} {
		w := httptest.NewRecorder()
		healthz(w, one.status)
		if w.Code != one.code || w.Body.String() != one.text {
			t.Errorf("%d %q, want %d %q", w.Code, w.Body, one.code, one.text)
		}
	}
}

func TestWebThatNeverServed(t *testing.T) {
	w, err := ListenWeb(netip.MustParseAddrPort("127.0.0.1:0"), webBackend(Status{}), someMetrics, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	at := w.listener.Addr().String()
	if _, err := ListenWeb(netip.MustParseAddrPort(at), webBackend(Status{}), someMetrics, zerolog.Nop()); err == nil || !strings.HasPrefix(err.Error(), "admin.listen: listen tcp "+at) {
		t.Errorf("%v", err)
	}
	w.Close()
	if _, err := http.Get("http://" + at); err == nil {
		t.Error("it answers")
	}
}

// Who asks and never reads is not waited for for ever, but one who follows events is
// there for as long as it reads.
func TestWebReaderThatDoesNotRead(t *testing.T) {
	const patience, end = 200 * time.Millisecond, 20 * time.Second
	news := make(chan struct{})
	backend := webBackend(Status{})
	backend.Events = func(after uint64) ([]Event, <-chan struct{}) {
		select {
		case <-news:
			return []Event{{Seq: 2, Text: "news"}}, nil
		default:
		}
		if after == 1 {
			return nil, news
		}
		return []Event{{Seq: 1, Text: strings.Repeat("x", 16<<20)}}, news
	}
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("x", 16<<20)) })
	w, err := listenWeb(netip.MustParseAddrPort("127.0.0.1:0"), backend, metrics, zerolog.Nop(), patience)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan string, 10)
	w.http.ConnState = func(c net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			ended <- c.RemoteAddr().String()
		}
	}
	w.Allow(nil)
	w.Serve()
	defer w.Close()
	ask := func(path string) net.Conn {
		c, err := net.Dial("tcp", w.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(end))
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path)
		return c
	}
	for _, path := range []string{"/metrics", "/v1/events?follow=true"} {
		c := ask(path)
		select {
		case who := <-ended:
			if who != c.LocalAddr().String() {
				t.Errorf("the connection of %s has ended", who)
			}
		case <-time.After(end):
			t.Errorf("%s is not ended", path)
		}
	}
	follower := ask("/v1/events?after=1&follow=true")
	resp, err := http.ReadResponse(bufio.NewReader(follower), nil)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * patience)
	close(news)
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || !strings.Contains(line, "news") {
		t.Errorf("one that reads: %q, %v", line, err)
	}
}
