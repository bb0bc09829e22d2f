package l7

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"appliance/internal/pool"
)

// full makes a service "web" whose server takes one request at a time and has as
// many wait as queue says. free lets the server answer once.
func full(t *testing.T, queue int, timeout time.Duration) (r *rig, addr netip.AddrPort, free chan struct{}, highest *atomic.Int64) {
	t.Helper()
	free, highest = make(chan struct{}), new(atomic.Int64)
	var now atomic.Int64
	server := web(t, func(w http.ResponseWriter, r *http.Request) {
		if n := now.Add(1); n > highest.Load() {
			highest.Store(n)
		}
		<-free
		now.Add(-1)
		io.WriteString(w, "hello")
	})
	r = newRig(t)
	r.pools["p"] = pool.New(pool.Config{Name: "p", Queue: queue, QueueTimeout: timeout, Servers: []pool.ServerConfig{{Address: server, MaxConnections: 1}}})
	addr = r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p"})
	return r, addr, free, highest
}

// Requests wait while all servers are full, as many as may, and each gets its turn.
func TestQueue(t *testing.T) {
	r, addr, free, highest := full(t, 3, time.Minute)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			if got := body(t, get(t, client(t, addr, protocolHTTP1), "http://a/")); got != "hello" {
				t.Errorf("%q", got)
			}
		})
		r.until(fmt.Sprint(i, " requests wait"), func() bool {
			return r.pools["p"].Waiting() == i && r.pools["p"].Servers()[0].Current() == 1
		})
	}
	resp := get(t, client(t, addr, protocolHTTP1), "http://a/")
	if text := body(t, resp); resp.StatusCode != 503 {
		t.Errorf("beyond the queue: %s %q", resp.Status, text)
	}
	for range 4 {
		free <- struct{}{}
	}
	wg.Wait()
	if highest.Load() != 1 {
		t.Errorf("%d requests at a time", highest.Load())
	}
	r.until("all is counted", func() bool { return r.stats("web").Current == 0 })
	if s := r.stats("web"); s.Troubles["full"] != 1 || s.NoServer != 1 || s.Responses[1] != 4 {
		t.Errorf("%+v", s)
	}
}

// Who has waited for too long is told so, and who leaves gives the place up.
func TestQueueThatIsLeft(t *testing.T) {
	r, addr, free, _ := full(t, 1, 300*time.Millisecond)
	first := make(chan string)
	go func() { first <- body(t, get(t, client(t, addr, protocolHTTP1), "http://a/")) }()
	r.until("the server is full", func() bool { return r.pools["p"].Servers()[0].Current() == 1 })
	resp := get(t, client(t, addr, protocolHTTP1), "http://a/")
	if body(t, resp); resp.StatusCode != 503 {
		t.Errorf("too late: %s", resp.Status)
	}
	free <- struct{}{}
	if got := <-first; got != "hello" {
		t.Errorf("%q", got)
	}

	r, addr, free, _ = full(t, 1, time.Minute)
	go func() { first <- body(t, get(t, client(t, addr, protocolHTTP1), "http://a/")) }()
	r.until("the server is full", func() bool { return r.pools["p"].Servers()[0].Current() == 1 })
	c, _ := dial(t, addr, nil)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	r.until("a request waits", func() bool { return r.pools["p"].Waiting() == 1 })
	c.(*net.TCPConn).Close()
	r.until("it does not wait any more", func() bool { return r.pools["p"].Waiting() == 0 })
	free <- struct{}{}
	if got := <-first; got != "hello" {
		t.Errorf("%q", got)
	}
	r.until("it is counted", func() bool { return r.stats("web").Troubles["client_gone"] == 1 })
}

// A request whose server cannot be had, or hangs up, waits for the others where those
// are full, and so does the question whether it may pass.
func TestQueueAfterAFailure(t *testing.T) {
	hangsUp := raw(t, func(_ *net.TCPConn, r *bufio.Reader) { readHead(r) })
	for name, tc := range map[string]struct {
		bad   string
		asked bool // the pool is that of forward_auth
		frees bool
		want  int
		end   string
	}{
		"refused":               {bad: closed(t), frees: true, want: 200},
		"refused, and too late": {bad: closed(t), want: 503, end: "queue_timeout"},
		"hung up":               {bad: hangsUp, frees: true, want: 200},
		"hung up, and too late": {bad: hangsUp, want: 503, end: "queue_timeout"},
		"a question":            {bad: closed(t), asked: true, frees: true, want: 200},
		"a question, and late":  {bad: closed(t), asked: true, want: 503, end: "queue_timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			free := make(chan struct{})
			server := web(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("X-Wait") != "" {
					<-free
				}
				io.WriteString(w, "hello")
			})
			timeout := time.Minute
			if !tc.frees {
				timeout = 200 * time.Millisecond
			}
			r := newRig(t)
			r.pools["p"] = pool.New(pool.Config{Name: "p", Queue: 1, QueueTimeout: timeout, Balance: pool.First,
				Servers: []pool.ServerConfig{{Address: server, MaxConnections: 1}, {Address: tc.bad}}})
			r.pool("other", server)
			addr := r.addr()
			cfg := Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p"}
			if tc.asked {
				cfg.Pool, cfg.ForwardAuth = "other", &ForwardAuth{Pool: "p"}
			}
			r.apply(cfg)
			first := make(chan string)
			go func() {
				req, _ := http.NewRequest("GET", "http://a/", nil)
				req.Header.Set("X-Wait", "yes")
				resp, err := client(t, addr, protocolHTTP1).Do(req)
				if err != nil {
					first <- err.Error()
					return
				}
				first <- body(t, resp)
			}()
			p := r.pools["p"]
			r.until("the server is full", func() bool { return p.Servers()[0].Current() == 1 })
			second := make(chan *http.Response)
			go func() { second <- get(t, client(t, addr, protocolHTTP1), "http://a/") }()
			r.until("the second waits", func() bool { return p.Waiting() == 1 })
			// The queue is full: a third one is told why the other server did not do.
			if tc.frees {
				resp := get(t, client(t, addr, protocolHTTP1), "http://a/")
				if body(t, resp); resp.StatusCode != 502 {
					t.Errorf("the third: %s", resp.Status)
				}
				close(free)
			}
			resp := <-second
			if body(t, resp); resp.StatusCode != tc.want {
				t.Errorf("the second: %s, want %d", resp.Status, tc.want)
			}
			if !tc.frees {
				close(free)
			}
			if got := <-first; got != "hello" {
				t.Errorf("the first: %q", got)
			}
			r.until("nothing is left", func() bool {
				return r.stats("web").Current == 0 && p.Waiting() == 0 && p.Servers()[0].Current() == 0 && p.Servers()[1].Current() == 0
			})
			if s := r.stats("web"); tc.end != "" && (s.Troubles[tc.end] != 1 || s.NoServer != 1) {
				t.Errorf("%+v", s)
			}
		})
	}
}

// Who waited gets no server that has died on its way to it.
func TestQueueWhoseServerDies(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // who waited goes on when we wait, not before
	for name, other := range map[string]bool{"another one is free": true, "there is no other one": false} {
		t.Run(name, func(t *testing.T) {
			cfg := pool.Config{Name: "p", Queue: 1, QueueTimeout: 100 * time.Millisecond, Servers: []pool.ServerConfig{
				{Address: "192.0.2.1:1", MaxConnections: 1}, {Address: "192.0.2.2:1", MaxConnections: 1}}}
			if other {
				cfg.QueueTimeout = time.Minute
			}
			from := pool.New(cfg)
			one, _ := from.Pick()
			two, _ := from.Pick(one)
			type outcome struct {
				s   *pool.Server
				err error
			}
			got := make(chan outcome, 1)
			go func() {
				s, err := new(pipeline).wait(t.Context(), from, netip.Addr{}, new(exchange), nil)
				got <- outcome{s, err}
			}()
			for from.Waiting() == 0 {
				runtime.Gosched()
			}
			one.Done() // it is given to who waits
			from.SetHealth(one.Address(), pool.Health{State: pool.Down})
			want := outcome{err: errQueueTimeout}
			if other {
				two.Done()
				want = outcome{s: two}
			}
			if o := <-got; o != want {
				t.Errorf("%+v, want %+v", o, want)
			}
			if n := one.Current(); n != 0 {
				t.Errorf("%d connections of the dead server", n)
			}
		})
	}
}

// A client that leaves while the question whether it may pass waits, with a server
// or without, has gone: nothing was refused.
func TestQuestionThatIsLeft(t *testing.T) {
	for name, bad := range map[string][]pool.ServerConfig{"at first": nil, "after a failure": {{Address: closed(t)}}} {
		for _, at := range []string{"in the queue", "at the server"} {
			t.Run(name+" "+at, func(t *testing.T) {
				free := make(chan struct{})
				server := web(t, func(w http.ResponseWriter, r *http.Request) { <-free })
				r := newRig(t)
				p := pool.New(pool.Config{Name: "p", Queue: 1, QueueTimeout: time.Minute, Balance: pool.First,
					Servers: append(bad, pool.ServerConfig{Address: server, MaxConnections: 1})})
				r.pools["p"] = p
				addr := r.addr()
				r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Rules: Rules{ForwardAuth: &ForwardAuth{Pool: "p"}}})
				busy := p.Servers()[len(bad)]
				if at == "in the queue" && !p.Take(busy) {
					t.Fatal("the server is full")
				}
				c, _ := dial(t, addr, nil)
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				r.until("the question waits", func() bool { return busy.Current() == 1 && (at == "at the server" || p.Waiting() == 1) })
				c.(*net.TCPConn).Close()
				r.until("it does not wait any more", func() bool { return r.stats("web").Current == 0 })
				close(free)
				if at == "in the queue" {
					busy.Done()
				}
				if s := r.stats("web"); s.Troubles["client_gone"] != 1 || s.Responses != [5]int64{} {
					t.Errorf("%+v", s)
				}
			})
		}
	}
}

// Answers that tell of a server's failure eject it where the pool counts them.
func TestAnswersThatEject(t *testing.T) {
	for _, counts := range []bool{true, false} {
		failing := web(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
		r := newRig(t)
		r.pools["p"] = pool.New(pool.Config{Name: "p", Balance: pool.First, Outlier: &pool.Outlier{ConsecutiveFailures: 3, Count5xx: counts},
			Servers: []pool.ServerConfig{{Address: failing}, {Address: named(t, "other")}}})
		addr := r.addr()
		r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p"})
		failed := 0
		for range 8 {
			resp := get(t, client(t, addr, protocolHTTP1), "http://a/")
			body(t, resp)
			if resp.StatusCode == 500 {
				failed++
			}
		}
		if want := map[bool]int{true: 3, false: 8}[counts]; failed != want {
			t.Errorf("counts %t: %d of 8 requests failed, want %d", counts, failed, want)
		}
	}
}
