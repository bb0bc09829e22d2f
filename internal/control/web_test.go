package control

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

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
