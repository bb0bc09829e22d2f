package l7

import (
	"math"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"appliance/internal/pool"
)

// An error of our own has the form that a client of gRPC understands, and all others
// have theirs.
func TestErrorsInTermsOfGRPC(t *testing.T) {
	r := newRig(t)
	r.pool("p", closed(t))
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, TLS: &TLS{Certificates: []Certificate{makeCert(t, "a")}}, Routes: []Route{
		{Paths: []string{"/nobody"}, Pool: "p"},
		{Paths: []string{"/denied"}, Respond: &Respond{Status: 403, Body: "no"}},
		{Paths: []string{"/fine"}, Respond: &Respond{Status: 200, Body: "yes"}},
		{Paths: []string{"/small"}, Pool: "p", Rules: Rules{MaxBodySize: 1}},
	}})
	for _, tc := range []struct {
		path, kind string
		want       string // the outcome; "": as for everybody
	}{
		{"/nobody", "application/grpc", "14 502 Bad Gateway"},
		{"/nobody", "application/grpc+proto", "14 502 Bad Gateway"},
		{"/nobody", "application/grpc; a=b", "14 502 Bad Gateway"},
		{"/nobody", "application/grpc-web", ""},
		{"/nobody", "application/json", ""},
		{"/none", "application/grpc", "12 404 Not Found"},
		{"/denied", "application/grpc", "7 403 Forbidden"},
		{"/small", "application/grpc", "8 413 Request Entity Too Large"},
		{"/fine", "application/grpc", ""},
	} {
		for _, proto := range []string{protocolHTTP2, protocolHTTP1} {
			req, err := http.NewRequest("POST", "https://a"+tc.path, strings.NewReader("hello"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", tc.kind)
			resp, err := client(t, addr, proto).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			text := body(t, resp)
			got := resp.Header.Get("Grpc-Status")
			if got != "" {
				got += " " + resp.Header.Get("Grpc-Message")
			}
			if got != tc.want || got != "" && (resp.StatusCode != 200 || text != "" || resp.Header.Get("Content-Type") != "application/grpc") {
				t.Errorf("%s %s by %s: %s %q, outcome %q, want %q", tc.path, tc.kind, proto, resp.Status, text, got, tc.want)
			}
		}
	}
	// Calls are POSTs.
	req, err := http.NewRequest("GET", "https://a/denied", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	resp, err := client(t, addr, protocolHTTP2).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if body(t, resp); resp.StatusCode != 403 {
		t.Errorf("a GET is answered %s", resp.Status)
	}
	if s := r.stats("web"); s.Responses[4] == 0 || s.Responses[3] == 0 {
		t.Errorf("errors are not counted as such: %v", s.Responses)
	}
}

// An answer whose head is its end ("Trailers-Only") ends with its head for the client
// too, or that would look for an outcome behind it.
func TestHeadThatIsTheEnd(t *testing.T) {
	server := frames(t, func(p *muxPeer) {
		for {
			id, _, _ := p.request()
			if id == 0 {
				return
			}
			p.head(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "5")
		}
	})
	r := newRig(t)
	r.pool("p", server)
	r.wires = map[string]Transport{"p": byHTTP2}
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", TLS: &TLS{Certificates: []Certificate{makeCert(t, "a")}}})
	c, in := http2Frames(t, addr, nil)
	write(t, c, ask(1, ":path", "/", ":authority", "a", "content-type", "application/grpc"))
	for {
		f, err := readFrame(in)
		if err != nil {
			t.Fatal(err)
		}
		if f.kind == frameHeaders {
			if f.flags&flagEndStream == 0 {
				t.Error("the head is not the end")
			}
			return
		}
	}
}

// A call that its server gives up because its deadline is over has failed by that, and
// the server has not.
func TestGRPCDeadline(t *testing.T) {
	server := frames(t, func(p *muxPeer) {
		for {
			id, _, _ := p.request()
			if id == 0 {
				return
			}
			time.Sleep(20 * time.Millisecond)
			_ = p.framer.WriteRSTStream(id, http2.ErrCodeCancel)
		}
	})
	r, addr := over(t, byHTTP2, server)
	r.pools["p"] = pool.New(pool.Config{Name: "p", Outlier: &pool.Outlier{ConsecutiveFailures: 1}, Servers: []pool.ServerConfig{{Address: server}, {Address: closed(t), Backup: true}}})
	yes := true
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", HTTP2: HTTP2Config{Enabled: &yes}})
	for _, tc := range []struct {
		timeout, want string
		failed        bool
	}{
		{"1m", "4", false}, {"999u", "4", false}, {"2n", "4", false},
		{"1H", "14", true},
	} {
		p := http2Dial(t, addr)
		p.ask(1, true, "POST", "/", "content-type", "application/grpc", "grpc-timeout", tc.timeout)
		if got := p.answer(1).get("grpc-status"); got != tc.want {
			t.Errorf("a call with %s: outcome %q, want %q", tc.timeout, got, tc.want)
		}
		if out := r.pools["p"].Servers()[0].Stats().Ejection.Out(time.Now()); out != tc.failed {
			t.Errorf("a call with %s: the server is ejected %t, want %t", tc.timeout, out, tc.failed)
		}
	}
	for text, want := range map[string]time.Duration{"": -1, "5": -1, "5x": -1, "S": -1, "-1S": -1, "+1S": -1, "123456789S": -1, "99999999H": math.MaxInt64 / time.Hour * time.Hour, "5S": 5 * time.Second} {
		if got, ok := grpcTimeout(text); ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: %v, %t", text, got, ok)
		}
	}
}
