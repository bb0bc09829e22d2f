package l7

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/listen"
)

// parking is a rig whose connections are accepted as in the appliance, so that idle
// ones can be parked, and are at once.
type parking struct {
	*rig
	set    *listen.Set
	cfg    Config
	tls    *tls.Config // of clients; nil: plain
	listen netip.AddrPort
}

// eachParking calls f with a service in front of server, without TLS and with it.
func eachParking(t *testing.T, server string, f func(t *testing.T, p *parking)) {
	for _, secure := range []bool{false, true} {
		t.Run(map[bool]string{false: "plain", true: "TLS"}[secure], func(t *testing.T) {
			p := &parking{rig: newRig(t), listen: netip.MustParseAddrPort("127.0.0.1:0")}
			p.engine.awake = time.Millisecond
			p.pool("p", server)
			p.cfg = Config{Name: "web", Listen: []netip.AddrPort{p.listen}, Pool: "p"}
			if secure {
				p.cfg.TLS = &TLS{Certificates: []Certificate{makeCert(t, "blog.example.com")}}
				p.tls = &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}
			}
			p.set = listen.NewSet(zerolog.Nop(), nil)
			p.commit()
			t.Cleanup(func() { // before that of the rig, which lets the connections go
				if err := p.set.Close(); err != nil {
					t.Error(err)
				}
				p.engine.close()
				p.set.Wait()
			})
			f(t, p)
		})
	}
}

// commit puts p.cfg in force.
func (p *parking) commit() {
	p.t.Helper()
	c, err := p.engine.Stage([]Config{p.cfg}, p.pools, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	doors, err := p.set.Stage(c.Handlers())
	if err != nil {
		p.t.Fatal(err)
	}
	doors.Commit()
	c.Commit()
}

// dial returns a connection that has carried a request.
func (p *parking) dial() (net.Conn, *bufio.Reader) {
	p.t.Helper()
	c, in := dial(p.t, p.set.Addr(p.listen), p.tls)
	p.ask(c, in)
	return c, in
}

// ask puts a request on a connection and returns the answer, whose body is ok.
func (p *parking) ask(c io.Writer, in *bufio.Reader) *http.Response {
	p.t.Helper()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		p.t.Fatal(err)
	}
	resp := answerTo(p.t, in, "GET")
	if got := body(p.t, resp); got != "ok" {
		p.t.Fatalf("answer %q", got)
	}
	return resp
}

// parked waits until no connection has a goroutine.
func (p *parking) parked() {
	p.t.Helper()
	p.until("no connection has a goroutine", func() bool { return !someAwake() })
}

// someAwake reports whether a connection has a goroutine.
func someAwake() bool {
	buf := make([]byte, 1<<20)
	return strings.Contains(string(buf[:runtime.Stack(buf, true)]), "http1Conn).serve")
}

// connections returns how many there are.
func (p *parking) connections() (n int) {
	p.engine.mu.Lock()
	defer p.engine.mu.Unlock()
	for _, at := range p.engine.places {
		at.mu.Lock()
		n += len(at.all)
		at.mu.Unlock()
	}
	return n
}

// none waits until there is no connection.
func (p *parking) none() {
	p.t.Helper()
	p.until("all connections have ended", func() bool { return p.connections() == 0 })
}

func ok(t *testing.T) string {
	return web(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
}

// An idle connection has no goroutine, and carries requests as any.
func TestParkedConnectionGoesOn(t *testing.T) {
	eachParking(t, ok(t), func(t *testing.T, p *parking) {
		one, oneIn := p.dial()
		other, otherIn := p.dial()
		for range 3 {
			p.parked()
			p.ask(one, oneIn)
			p.ask(one, oneIn)
			p.ask(other, otherIn)
		}
		p.parked()
		if n := p.engine.Active(nil); n != 0 {
			t.Errorf("%d are active", n)
		}
		// A head in parts.
		io.WriteString(one, "GET / HT")
		p.until("it has a goroutine again", someAwake)
		io.WriteString(one, "TP/1.1\r\nHost: a\r\n\r\n")
		if got := body(t, answerTo(t, oneIn, "GET")); got != "ok" {
			t.Errorf("%q", got)
		}
		p.parked()
		one.Close()
		other.Close()
		p.none()
	})
}

// What ends idle connections ends parked ones.
func TestParkedConnectionEnds(t *testing.T) {
	vips := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	for _, tc := range []struct {
		name string
		do   func(p *parking)
		want error // of a client that reads
	}{
		{"quiesce", func(p *parking) { p.engine.Quiesce(vips, true) }, io.EOF},
		{"reload", func(p *parking) {
			p.cfg.MaxHeaderSize = 20000
			p.commit()
		}, io.EOF},
		{"shutdown", func(p *parking) {
			if err := p.engine.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		}, io.EOF},
		{"cut of the engine", func(p *parking) { p.engine.cutAll() }, io.EOF},
		{"cut of the address", func(p *parking) {
			if n := p.set.Cut(vips); n != 1 {
				t.Errorf("%d connections were cut", n)
			}
		}, syscall.ECONNRESET},
	} {
		t.Run(tc.name, func(t *testing.T) {
			eachParking(t, ok(t), func(t *testing.T, p *parking) {
				_, in := p.dial()
				p.parked()
				tc.do(p)
				if _, err := in.ReadByte(); !errors.Is(err, tc.want) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("the client reads: %v, want %v", err, tc.want)
				}
				p.none()
			})
		})
	}
}

// A reload that changes nothing of importance leaves parked connections, and their next
// request follows it.
func TestParkedConnectionOutlivesReload(t *testing.T) {
	eachParking(t, ok(t), func(t *testing.T, p *parking) {
		c, in := p.dial()
		p.parked()
		p.pool("q", web(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "new") }))
		p.cfg.Pool = "q"
		p.commit()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if got := body(t, answerTo(t, in, "GET")); got != "new" {
			t.Errorf("%q", got)
		}
		// Dismiss leaves it alone, too, and has its next answer say goodbye.
		p.parked()
		p.engine.Dismiss([]netip.Addr{netip.MustParseAddr("127.0.0.1")})
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if resp := answerTo(t, in, "GET"); !resp.Close || body(t, resp) != "new" {
			t.Errorf("close %v", resp.Close)
		}
		p.none()
	})
}

// A parked connection counts as one of its client, until it has ended.
func TestParkedConnectionCounts(t *testing.T) {
	eachParking(t, ok(t), func(t *testing.T, p *parking) {
		p.cfg.PerClient, p.cfg.MaxConnections = &PerClient{MaxConnections: 1}, 2
		p.commit()
		c, in := p.dial()
		p.parked()
		_, refused := dial(t, p.set.Addr(p.listen), nil)
		if _, err := refused.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a second connection: %v", err)
		}
		p.ask(c, in)
		p.parked()
		c.Close()
		counts := &p.engine.services["web"].conns
		p.until("it does not count", func() bool {
			counts.mu.Lock()
			defer counts.mu.Unlock()
			return counts.all.Load() == 0 && len(counts.by) == 0
		})
		p.dial()
	})
}

// A parked connection ends when its time is up, and not before.
func TestParkedConnectionTimesOut(t *testing.T) {
	eachParking(t, ok(t), func(t *testing.T, p *parking) {
		p.cfg.Timeouts.Idle = 300 * time.Millisecond
		p.commit()
		began := time.Now()
		_, in := p.dial()
		p.parked()
		if _, err := in.ReadByte(); err != io.EOF {
			t.Errorf("%v", err)
		}
		if d := time.Since(began); d < p.cfg.Timeouts.Idle {
			t.Errorf("closed after %v", d)
		}
		p.none()
	})
}

// Requests that come just as a connection is parked are answered, whatever else
// happens.
func TestRequestsWhileParking(t *testing.T) {
	eachParking(t, ok(t), func(t *testing.T, p *parking) {
		var clients sync.WaitGroup
		for range 16 {
			c, in := p.dial()
			clients.Go(func() {
				defer c.Close()
				for range 100 {
					time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
					if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
						t.Error(err)
						return
					}
					resp, err := http.ReadResponse(in, nil)
					if err != nil {
						t.Error(err)
						return
					}
					if _, err := io.Copy(io.Discard, resp.Body); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		clients.Wait()
		p.none()
	})
}

// Clients that are let go while connections are parked all leave, or get an answer that
// says that they are to.
func TestQuiesceWhileParking(t *testing.T) {
	vips := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	eachParking(t, ok(t), func(t *testing.T, p *parking) {
		for range 20 {
			for range 8 {
				p.dial()
			}
			time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
			p.engine.Quiesce(vips, true)
			p.none()
			p.engine.Quiesce(vips, false)
		}
	})
}

// A request that has come before its client is let go gets its answer, however late the
// connection gets to see it: the answer before did not say that it was the last.
func TestRequestBeforeQuiesce(t *testing.T) {
	vips := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	const request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	t.Run("parked", func(t *testing.T) {
		eachParking(t, ok(t), func(t *testing.T, p *parking) {
			for range 5 {
				var answers []*bufio.Reader
				var clients []net.Conn
				for range 8 {
					c, in := p.dial()
					clients, answers = append(clients, c), append(answers, in)
				}
				p.parked()
				rest := busy()
				for _, c := range clients {
					io.WriteString(c, request)
				}
				p.engine.Quiesce(vips, true)
				for _, in := range answers {
					if got := body(t, answerTo(t, in, "GET")); got != "ok" {
						t.Errorf("%q", got)
					}
				}
				rest()
				p.none()
				p.engine.Quiesce(vips, false)
			}
		})
	})
	t.Run("during an answer", func(t *testing.T) {
		goOn := make(chan struct{}, 1)
		server := web(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "2")
			io.WriteString(w, "o")
			w.(http.Flusher).Flush()
			<-goOn
			io.WriteString(w, "k")
		})
		eachParking(t, server, func(t *testing.T, p *parking) {
			c, in := dial(t, p.set.Addr(p.listen), p.tls)
			io.WriteString(c, request)
			resp := answerTo(t, in, "GET")
			io.WriteString(c, request)
			p.engine.Quiesce(vips, true)
			goOn <- struct{}{}
			if got := body(t, resp); got != "ok" || resp.Close {
				t.Errorf("%q, close %v", got, resp.Close)
			}
			goOn <- struct{}{}
			if resp = answerTo(t, in, "GET"); body(t, resp) != "ok" || !resp.Close {
				t.Errorf("close %v", resp.Close)
			}
			p.none()
		})
	})
}

// The time that a connection may be idle begins when the answer is there, also if that took
// longer.
func TestIdleAfterSlowAnswer(t *testing.T) {
	const idle = 300 * time.Millisecond
	server := web(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(idle + 400*time.Millisecond)
		io.WriteString(w, "ok")
	})
	eachParking(t, server, func(t *testing.T, p *parking) {
		p.cfg.Timeouts.Idle = idle
		p.commit()
		c, in := p.dial()
		time.Sleep(idle / 10)
		p.ask(c, in)
	})
}

// busy has all processors be busy until rest is called.
func busy() (rest func()) {
	var tasks sync.WaitGroup
	var over atomic.Bool
	for range 2 * runtime.GOMAXPROCS(0) {
		tasks.Go(func() {
			for !over.Load() {
				runtime.KeepAlive(over.Load())
			}
		})
	}
	return func() { over.Store(true); tasks.Wait() }
}
