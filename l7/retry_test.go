package l7

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"appliance/internal/pool"
)

// A server that takes a request and hangs up does not cost the client its answer,
// if asking another one does no harm.
func TestRetry(t *testing.T) {
	var taken atomic.Int64
	bad := raw(t, func(c *net.TCPConn, r *bufio.Reader) {
		readHead(r)
		taken.Add(1)
	})
	good := web(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.Method, b)
	})
	r := newRig(t)
	r.pools["p"] = pool.New(pool.Config{Name: "p", Balance: pool.First, Servers: []pool.ServerConfig{{Address: bad}, {Address: good}}})
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Routes: []Route{{Paths: []string{"/once"}, Pool: "p", Rules: Rules{Retry: &Retry{Tries: 1}}}}})
	for request, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n":                                        "200 GET ",
		"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n":                                     "200 DELETE ",
		"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy":                 "200 PUT xy",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy":                "502 502 Bad Gateway\n",
		"POST / HTTP/1.1\r\nHost: a\r\n\r\n":                                       "502 502 Bad Gateway\n",
		"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": "502 502 Bad Gateway\n",
		"GET /once HTTP/1.1\r\nHost: a\r\n\r\n":                                    "502 502 Bad Gateway\n",
	} {
		before := taken.Load()
		resp := say(t, addr, request)
		if got := fmt.Sprint(resp.StatusCode, " ", body(t, resp)); got != want {
			t.Errorf("%q: %q, want %q", request, got, want)
		}
		if taken.Load() != before+1 {
			t.Errorf("%q: the bad server was asked %d times", request, taken.Load()-before)
		}
	}
}

func TestRetryByStatus(t *testing.T) {
	busy := web(t, func(w http.ResponseWriter, r *http.Request) { http.Error(w, "busy", http.StatusServiceUnavailable) })
	good := web(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "good") })
	r := newRig(t)
	r.pools["p"] = pool.New(pool.Config{Name: "p", Balance: pool.First, Servers: []pool.ServerConfig{{Address: busy}, {Address: good}}})
	r.pool("busy", busy)
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Rules: Rules{Retry: &Retry{Statuses: []int{503}}},
		Routes: []Route{{Paths: []string{"/alone"}, Pool: "busy"}, {Paths: []string{"/plain"}, Pool: "p", Rules: Rules{Retry: &Retry{Tries: 2}}}}})
	for request, want := range map[string]string{
		"GET /":      "200 good",
		"POST /":     "503 busy\n",
		"GET /alone": "503 busy\n", // nobody else can be asked
		"GET /plain": "503 busy\n",
	} {
		resp := say(t, addr, request+" HTTP/1.1\r\nHost: a\r\n\r\n")
		if got := fmt.Sprint(resp.StatusCode, " ", body(t, resp)); got != want {
			t.Errorf("%s: %q, want %q", request, got, want)
		}
	}
}

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b budget
		spend := func(requests int64) (n int) {
			for b.spend(20, requests, time.Now()) {
				n++
			}
			return n
		}
		if n := spend(1000); n != freeRetries {
			t.Errorf("%d free ones", n)
		}
		if n := spend(2000); n != 200-freeRetries { // a thousand requests later
			t.Errorf("%d of a thousand", n)
		}
		time.Sleep(budgetWindow + 1)
		if n := spend(2000); n != 200 { // those of the window before count
			t.Errorf("%d in the next window", n)
		}
		time.Sleep(3 * budgetWindow)
		if n := spend(3000); n != freeRetries {
			t.Errorf("%d after a pause", n)
		}
	})
}
