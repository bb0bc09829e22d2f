package integration

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"appliance/internal/control"
	"appliance/internal/lab"
)

// failoverRate is the load of new connections per second during a hand-over.
const failoverRate = 240

// mustRefuse runs a verb that has to be refused with a reason that contains all
// of the words.
func (p *pair) mustRefuse(n *lab.Node, verb string, words ...string) {
	p.t.Helper()
	code, output := p.applianctl(n, verb)
	if code != 1 {
		p.t.Errorf("%s$ applianctl %s ended with code %d, want 1; it said: %s", n.Name, verb, code, output)
	}
	for _, w := range words {
		if !strings.Contains(output, w) {
			p.t.Errorf("%s$ applianctl %s said %q, want the words %q", n.Name, verb, output, w)
		}
	}
}

// failover runs `applianctl failover` on a node and shows that it returned when
// the other one was active.
func (p *pair) failover(n *lab.Node) {
	p.t.Helper()
	heir := p.Other(n)
	code, output := p.applianctl(n, "failover")
	s := p.status(heir).VRRP[0]
	if code != 0 {
		p.t.Fatalf("%s$ applianctl failover ended with code %d: %s", n.Name, code, output)
	}
	if s.State != "active" {
		p.t.Errorf("%s$ applianctl failover has returned, and %s is %s", n.Name, heir.Name, s.State)
	}
	if !strings.Contains(output, heir.Name) {
		p.t.Errorf("%s$ applianctl failover said %q, and not that %s is active", n.Name, output, heir.Name)
	}
	p.t.Logf("%s$ applianctl failover: %s", n.Name, strings.TrimSpace(output))
}

// The address is given away by command under load: no client notices more than
// a second's delay, and it stays there, whatever the file says on preemption.
func TestFailover(t *testing.T) {
	t.Parallel()
	for name, preempt := range map[string]string{"preempt = false": preemptOff, "preempt = true": preemptOn} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, labConfig(t, preemptOff, preempt))
			p.serveSlowly(time.Second)
			p.start()
			load := p.load(failoverRate, 80, 8080)
			began := time.Now()
			p.waitRequests(load, failoverRate)
			p.mustRefuse(p.LB02, "failover", "no virtual router is active here", "lb01 (192.168.15.11) is")
			p.mustRefuse(p.LB01, "failback", "no virtual router has yielded")

			p.failover(p.LB01)
			p.waitActive(p.LB02)
			p.alone(p.LB02)
			p.waitRequests(load, 2*failoverRate)
			report := load.Report(began, time.Now())
			t.Logf("at the client: %d requests, %s; no answer for %v at most", report.Requests, report, report.Gap.Round(time.Millisecond))
			if report.Failures() > 0 {
				t.Errorf("of %d requests %s, first: %v", report.Requests, report, report.FirstError)
			}

			p.holds()
			p.failback(load)
		})
	}
}

// holds shows that lb01 has yielded, and goes on doing so.
func (p *pair) holds() {
	p.t.Helper()
	since := time.Now()
	p.waitAdverts(p.LB02, 15)
	p.alone(p.LB02)
	if e, ok := p.Capture.First(lab.Advert, p.LB01.Name, since); ok {
		p.t.Errorf("lb01 has yielded, and sent an advert with priority %d", e.Priority)
	}
	if a, b := p.status(p.LB01).VRRP[0], p.status(p.LB02).VRRP[0]; a.State != "backup" || !a.Yielded || b.Yielded {
		p.t.Errorf("lb01 is %s, yielded %v; lb02 is %s, yielded %v", a.State, a.Yielded, b.State, b.Yielded)
	}
	if _, output := p.applianctl(p.LB01, "status"); !strings.Contains(output, "BACKUP (yielded)") {
		p.t.Errorf("status does not show that lb01 has yielded:\n%s", output)
	}
}

// failback takes the address back to lb01 and tells what that cost. Taking is
// not giving: what is under way on lb02 is cut, and its clients learn of that.
func (p *pair) failback(load *lab.Load) {
	p.t.Helper()
	p.mustRefuse(p.LB02, "failback", "no virtual router has yielded")
	idle := p.startIdle()
	began := time.Now()
	code, output := p.applianctl(p.LB01, "failback")
	if code != 0 || !strings.Contains(output, "lb01") {
		p.t.Fatalf("lb01$ applianctl failback ended with code %d: %s", code, output)
	}
	if s := p.status(p.LB01).VRRP[0]; s.State != "active" || s.Yielded {
		p.t.Errorf("after failback lb01 is %s, yielded %v", s.State, s.Yielded)
	}
	p.waitActive(p.LB01)
	p.waitRequests(load, failoverRate)
	p.alone(p.LB01)
	idle.cut()
	report := load.Report(began, time.Now())
	p.t.Logf("lb01$ applianctl failback: %s; at the client: of %d requests %s; no answer for %v at most",
		strings.TrimSpace(output), report.Requests, report, report.Gap.Round(time.Millisecond))
	if report.Gap > takeOverLatest {
		p.t.Errorf("a failback kept the client without an answer for %v", report.Gap)
	}
}

// The way back that breaks nothing is a failover of the other node: it gives.
func TestFailoverAndBack(t *testing.T) {
	t.Parallel()
	p := newPair(t, "")
	p.serveSlowly(time.Second)
	p.start()
	load := p.load(failoverRate, 80, 8080)
	began := time.Now()
	p.failover(p.LB01)
	p.waitRequests(load, failoverRate)
	p.failover(p.LB02)
	p.waitActive(p.LB01)
	p.waitRequests(load, failoverRate)
	if report := load.Report(began, time.Now()); report.Failures() > 0 {
		t.Errorf("of %d requests %s, first: %v", report.Requests, report, report.FirstError)
	}
	if a, b := p.status(p.LB01).VRRP[0], p.status(p.LB02).VRRP[0]; a.State != "active" || a.Yielded || b.State != "backup" || b.Yielded {
		t.Errorf("lb01 is %s, yielded %v; lb02 is %s, yielded %v", a.State, a.Yielded, b.State, b.Yielded)
	}
}

// Nobody is there to take the address: the command says so, and this node goes
// on.
func TestFailoverWithoutTheOther(t *testing.T) {
	t.Parallel()
	p := newPair(t, "")
	p.start()
	if err := p.LB02.Kill(); err != nil {
		t.Fatal(err)
	}
	load := p.load(failoverRate, 80, 8080)
	began := time.Now()
	p.mustRefuse(p.LB01, "failover", "no other node took over", "active again")
	p.waitActive(p.LB01)
	p.waitRequests(load, 2*failoverRate)
	p.alone(p.LB01)
	if s := p.status(p.LB01).VRRP[0]; s.State != "active" || s.Yielded {
		t.Errorf("lb01 is %s, yielded %v", s.State, s.Yielded)
	}
	report := load.Report(began, time.Now())
	t.Logf("at the client: of %d requests %s; no answer for %v at most", report.Requests, report, report.Gap.Round(time.Millisecond))
	if report.Failures() > 0 || report.Gap > 2*takeOverLatest {
		t.Errorf("of %d requests %s, first: %v; no answer for %v", report.Requests, report, report.FirstError, report.Gap)
	}
}

// A node that has yielded is a backup like any other when the active one dies.
func TestYieldedNodeTakesOver(t *testing.T) {
	t.Parallel()
	p := newPair(t, "")
	p.start()
	p.failover(p.LB01)
	p.waitActive(p.LB02)
	killed := time.Now()
	if err := p.LB02.Kill(); err != nil {
		t.Fatal(err)
	}
	w := p.takeOverAfter(killed, p.LB02, p.LB01)
	t.Log(w)
	w.checkKill(p, killed)
	p.waitActive(p.LB01)
	if s := p.status(p.LB01).VRRP[0]; s.State != "active" || s.Yielded {
		t.Errorf("lb01 is %s, yielded %v", s.State, s.Yielded)
	}
}

// A download is given handover.drain to end before the address goes, and no
// longer.
func TestFailoverDrains(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, drain string
		length      time.Duration
		whole       bool
	}{
		{"shorter than the drain", "5s", 1500 * time.Millisecond, true},
		{"longer than the drain", "500ms", 20 * time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, labConfig(t, "[[vrrp]]", "[handover]\ndrain = \""+c.drain+"\"\n\n[[vrrp]]"))
			p.serveSlowly(c.length)
			p.start()
			var running []*download
			for _, target := range p.targets(80, 8080) {
				running = append(running, p.startDownload(target))
			}
			if !c.whole {
				defer p.startIdle().cut()
			}
			began := time.Now()
			results, err := p.LB01.Control().Failover(p.within(30*time.Second), control.MoveRequest{})
			took := time.Since(began)
			if err != nil || len(results) != 1 || results[0].ActiveNode != "lb02" {
				t.Fatalf("failover: %+v, %v", results, err)
			}
			p.waitActive(p.LB02)
			t.Logf("the failover took %v", took.Round(time.Millisecond))
			if took > c.length+takeOverLatest {
				t.Errorf("the failover took %v", took)
			}
			for _, d := range running {
				switch err := d.wait(); {
				case c.whole && err != nil:
					t.Errorf("the download from %s was cut after %d of %d bytes: %v", d.target, d.got, downloadSize, err)
				case !c.whole && err == nil:
					t.Errorf("the download from %s was not cut", d.target)
				case errors.Is(err, os.ErrDeadlineExceeded):
					t.Errorf("the download from %s was cut, and the client not told", d.target)
				}
			}
		})
	}
}

// idleClient is a client of the service tcp that waits for the server to speak.
type idleClient struct {
	p    *pair
	conn net.Conn
}

// startIdle connects such a client.
func (p *pair) startIdle() idleClient {
	p.t.Helper()
	conn, err := p.Client.Dial(p.within(10*time.Second), p.targets(3306)[0])
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(conn, make([]byte, len("web1\n"))); err != nil {
		p.t.Fatal(err)
	}
	return idleClient{p, conn}
}

// cut shows that the client learns that its connection is gone, without having
// sent a thing.
func (c idleClient) cut() {
	c.p.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(takeOverLatest))
	_, err := c.conn.Read(make([]byte, 1))
	if !errors.Is(err, syscall.ECONNRESET) {
		c.p.t.Errorf("a client that waits for its server read: %v, want a reset", err)
	}
}

const (
	downloadSteps = 20
	downloadChunk = 32 << 10
	downloadSize  = downloadSteps * downloadChunk
)

// requestTime is how long an answer takes, so that a hand-over finds some under
// way.
const requestTime = 25 * time.Millisecond

// serveSlowly makes the servers take requestTime for an answer, and send the one
// to /download over a length of time.
func (p *pair) serveSlowly(length time.Duration) {
	for _, s := range p.Servers {
		s.SetHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/download" {
				time.Sleep(requestTime)
				fmt.Fprintln(w, s.Name())
				return
			}
			w.Header().Set("Content-Length", fmt.Sprint(downloadSize))
			step := time.NewTicker(length / downloadSteps)
			defer step.Stop()
			for range downloadSteps {
				if _, err := w.Write(make([]byte, downloadChunk)); err != nil {
					return
				}
				http.NewResponseController(w).Flush()
				select {
				case <-step.C:
				case <-r.Context().Done():
					return
				}
			}
		}))
	}
}

// download is a long answer that a client is reading.
type download struct {
	target netip.AddrPort
	got    int64 // of wait
	err    error // of wait
	done   chan struct{}
}

// startDownload asks the target for /download and returns when the answer has
// begun. The client gives up when nothing has come for 3 s.
func (p *pair) startDownload(target netip.AddrPort) *download {
	p.t.Helper()
	conn, err := p.Client.Dial(p.within(10*time.Second), target)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, "GET /download HTTP/1.1\r\nHost: lab.example\r\nConnection: close\r\n\r\n"); err != nil {
		p.t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		p.t.Fatalf("download from %s: %s", target, response.Status)
	}
	d := &download{target: target, done: make(chan struct{})}
	go func() {
		defer close(d.done)
		defer conn.Close() // or the drain would wait for this side of it
		buf := make([]byte, downloadChunk)
		for d.err == nil {
			conn.SetReadDeadline(time.Now().Add(3 * time.Second))
			var n int
			n, d.err = response.Body.Read(buf)
			d.got += int64(n)
		}
	}()
	return d
}

// wait returns nil when the whole answer has come, else what ended it.
func (d *download) wait() error {
	<-d.done
	switch {
	case !errors.Is(d.err, io.EOF):
		return d.err
	case d.got != downloadSize:
		return io.ErrUnexpectedEOF
	}
	return nil
}
