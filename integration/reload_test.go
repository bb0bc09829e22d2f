package integration

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"appliance/internal/control"
	"appliance/internal/lab"
)

// reload puts a file on a node and in force, by the command.
func (p *pair) reload(n *lab.Node, text string) {
	p.t.Helper()
	if err := n.WriteConfig(text); err != nil {
		p.t.Fatal(err)
	}
	if code, output := p.applianctl(n, "reload"); code != 0 || output != "reloaded\n" {
		p.t.Fatalf("%s: reload: exit code %d: %s", n.Name, code, output)
	}
}

// reloadBySignal does the same by SIGHUP, and waits until it is done.
func (p *pair) reloadBySignal(n *lab.Node, text string) {
	p.t.Helper()
	if err := n.WriteConfig(text); err != nil {
		p.t.Fatal(err)
	}
	if err := n.Appliance().Signal(syscall.SIGHUP); err != nil {
		p.t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(text))
	eventually(p.t, 10*time.Second, n.Name+": the new file is in force", func() bool {
		return p.status(n).Config.SHA256 == hex.EncodeToString(sum[:])
	})
}

// reloadEcho is a connection to an echo server through the appliance.
type reloadEcho struct {
	t      *testing.T
	conn   net.Conn
	reader *bufio.Reader
	server string // that answers
}

// dialEcho connects to a port of the virtual address and takes the greeting.
func (p *pair) dialEcho(port uint16) *reloadEcho {
	p.t.Helper()
	c, err := p.Client.Dial(p.within(10*time.Second), netip.AddrPortFrom(p.VIP, port))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	e := &reloadEcho{t: p.t, conn: c, reader: bufio.NewReader(c)}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	greeting, err := e.reader.ReadString('\n')
	if err != nil {
		p.t.Fatalf("no greeting from port %d: %v", port, err)
	}
	e.server = strings.TrimSpace(greeting)
	return e
}

// say sends a line and fails the test if it does not come back.
func (e *reloadEcho) say(line string) {
	e.t.Helper()
	e.conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(e.conn, line+"\n"); err != nil {
		e.t.Fatalf("the connection to %s broke: %v", e.server, err)
	}
	if got, err := e.reader.ReadString('\n'); err != nil || got != line+"\n" {
		e.t.Fatalf("the connection to %s: sent %q, got %q, %v", e.server, line, got, err)
	}
}

// reloadBrowser is a client that keeps one connection for all its requests.
type reloadBrowser struct {
	t      *testing.T
	client http.Client
	dials  atomic.Int32
}

// newBrowser returns a browser on the client host; trust is for https, or nil.
func (p *pair) newBrowser(trust *tls.Config) *reloadBrowser {
	b := &reloadBrowser{t: p.t}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			b.dials.Add(1)
			return p.Client.DialContext(ctx, network, address)
		},
		MaxConnsPerHost: 1,
		TLSClientConfig: trust,
	}
	b.client = http.Client{Transport: transport, Timeout: 10 * time.Second}
	p.t.Cleanup(transport.CloseIdleConnections)
	return b
}

// get asks for a page, which must be answered 200, and returns its text.
func (b *reloadBrowser) get(url string) string {
	b.t.Helper()
	response, err := b.client.Get(url)
	if err != nil {
		b.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		b.t.Fatalf("GET %s: %s, %v", url, response.Status, err)
	}
	return strings.TrimSpace(string(body))
}

// reloadSame fails the test for each server and virtual router of before that
// is not the same any more: its state must have the same beginning, and nothing
// it has counted may be lost.
func reloadSame(t *testing.T, before, now control.Status) {
	t.Helper()
	for _, v := range before.VRRP {
		i := slices.IndexFunc(now.VRRP, func(o control.VRRP) bool { return o.Name == v.Name })
		if i < 0 {
			t.Errorf("vrrp %s is gone", v.Name)
			continue
		}
		o := now.VRRP[i]
		if o.State != v.State || !o.Since.Equal(v.Since) || o.Counters["transitions"] != v.Counters["transitions"] {
			t.Errorf("vrrp %s was %s since %v, is %s since %v because %s", v.Name, v.State, v.Since, o.State, o.Since, o.Reason)
		}
		for name, n := range v.Counters {
			if o.Counters[name] < n {
				t.Errorf("vrrp %s: the counter %s fell from %d to %d", v.Name, name, n, o.Counters[name])
			}
		}
	}
	for _, pool := range before.Pools {
		i := slices.IndexFunc(now.Pools, func(o control.Pool) bool { return o.Name == pool.Name })
		if i < 0 {
			t.Errorf("pool %s is gone", pool.Name)
			continue
		}
		for _, s := range pool.Servers {
			j := slices.IndexFunc(now.Pools[i].Servers, func(o control.Server) bool { return o.Name == s.Name })
			if j < 0 {
				t.Errorf("server %s/%s is gone", pool.Name, s.Name)
				continue
			}
			o := now.Pools[i].Servers[j]
			if o.Health != s.Health || !o.Since.Equal(s.Since) || o.Admin != s.Admin {
				t.Errorf("server %s/%s was %s, %s since %v, is %s, %s since %v", pool.Name, s.Name, s.Admin, s.Health, s.Since, o.Admin, o.Health, o.Since)
			}
			if o.Total < s.Total || o.BytesIn < s.BytesIn || o.BytesOut < s.BytesOut || o.ConnectErrors < s.ConnectErrors {
				t.Errorf("server %s/%s: a counter fell: %+v, then %+v", pool.Name, s.Name, s, o)
			}
		}
	}
	for _, s := range before.Services {
		i := slices.IndexFunc(now.Services, func(o control.Service) bool { return o.Name == s.Name })
		if i < 0 {
			t.Errorf("service %s is gone", s.Name)
			continue
		}
		if o := now.Services[i]; o.Total < s.Total || o.BytesIn < s.BytesIn || o.BytesOut < s.BytesOut || o.NoServer < s.NoServer {
			t.Errorf("service %s: a counter fell: %+v, then %+v", s.Name, s, o)
		}
	}
}

// reloadNoFailures fails the test if a request since from did not end well.
func reloadNoFailures(t *testing.T, load *lab.Load, from time.Time) {
	t.Helper()
	if r := load.Report(from, time.Now()); r.Requests == 0 || r.Failures() > 0 {
		t.Errorf("%d requests: %s, first: %v", r.Requests, r, r.FirstError)
	}
}

// reloadExtra is a service and a pool for the end of a file.
const reloadExtra = `
[[l7]]
name   = "extra"
listen = ["192.168.15.3:9090"]
pool   = "extra"

[pool.extra]
servers = [{ name = "web3", address = "172.16.1.53:80" }]
check   = { type = "http", interval = "5s", timeout = "1s" }
`

// What a reload does not change is not touched by it: over 20 of them, with a
// service and a pool that come and go, connections go on, no request fails, and
// states and counters are as they were.
func TestReloadKeepsWhatDidNotChange(t *testing.T) {
	t.Parallel()
	p := newPair(t, patientConfig(t))
	p.start()
	load := p.load(100, 80, 8080)
	echo := p.dialEcho(3306)
	echo.say("hello")
	browser := p.newBrowser(nil)
	browser.get("http://192.168.15.3/")
	before := map[*lab.Node]control.Status{p.LB01: p.status(p.LB01), p.LB02: p.status(p.LB02)}
	from := time.Now()

	for i := range 20 {
		text := fmt.Sprintf("%s\n# reload %d\n", patientConfig(t), i)
		if i%4 < 2 {
			text += reloadExtra
		}
		for _, n := range p.Nodes() {
			if i%2 == 0 {
				p.reload(n, text)
			} else {
				p.reloadBySignal(n, text)
			}
		}
		echo.say(fmt.Sprintf("after reload %d", i))
		browser.get("http://192.168.15.3/")
	}

	p.waitRequests(load, 50)
	reloadNoFailures(t, load, from)
	if n := browser.dials.Load(); n != 1 {
		t.Errorf("the browser had to connect %d times", n)
	}
	for n, was := range before {
		reloadSame(t, was, p.status(n))
	}
	if gap := p.advertGap(p.LB01, from, time.Now()); gap > threeAdverts {
		t.Errorf("the active node sent no advert for %v, which is more than 3 intervals", gap)
	}
}

// A new service serves from its first moment on: its servers were checked before
// it began. A removed one refuses connections, and those it had go on.
func TestReloadAddsAndRemoves(t *testing.T) {
	t.Parallel()
	p := newPair(t, patientConfig(t))
	p.start()
	load := p.load(100, 80)
	eager := lab.StartLoad(p.Client, lab.LoadOptions{Targets: p.targets(9090), Rate: 200})
	t.Cleanup(eager.Stop)
	eventually(t, 10*time.Second, "50 connections to a port without a service are refused", func() bool {
		return eager.SoFar(time.Time{}).Kinds[lab.Refused] >= 50
	})
	from := time.Now()
	// One of its servers does not exist: it is never asked.
	p.reload(p.LB01, patientConfig(t)+strings.Replace(reloadExtra, "80\" }]", "80\" },\n{ name = \"nobody\", address = \"172.16.1.99:80\" }]", 1))
	done := time.Now()
	p.waitRequests(eager, 100)
	eager.Await(time.Now())
	for _, o := range eager.Outcomes() {
		switch {
		case o.Kind == lab.OK && o.Server == "web3":
		case o.Kind == lab.Refused && o.Start.Before(done):
		default:
			t.Errorf("%v after the reload a request to the new service ended: %s, server %q, %v", o.Start.Sub(done), o.Kind, o.Server, o.Err)
		}
	}

	// Now both it and the echo service go.
	echo, kept := p.dialEcho(3306), p.newBrowser(nil)
	echo.say("before")
	kept.get("http://192.168.15.3:9090/")
	text, _, _ := strings.Cut(patientConfig(t, "[[l4]]\nname   = \"tcp\"", "[[l4]]\nname   = \"moved\"", "192.168.15.3:3306", "192.168.15.3:3307"), "[pool.tcp]")
	p.reload(p.LB01, text+"[pool.tcp]\nservers = [\"172.16.1.51:3306\"]\n")
	gone := time.Now()
	for _, port := range []uint16{3306, 9090} {
		if c, err := p.Client.Dial(p.within(5*time.Second), netip.AddrPortFrom(p.VIP, port)); err == nil {
			c.Close()
			t.Errorf("port %d still accepts connections", port)
		} else if !strings.Contains(err.Error(), "refused") {
			t.Errorf("port %d: %v, want the connection refused", port, err)
		}
	}
	echo.say("after")
	if other := p.dialEcho(3307); other.server != "web1" {
		t.Errorf("the new service on port 3307 serves from %s, want web1", other.server)
	}
	for _, s := range p.status(p.LB01).Services {
		if s.Name == "extra" || s.Name == "tcp" {
			t.Errorf("status still lists the service %s", s.Name)
		}
	}
	p.waitRequests(load, 25)
	reloadNoFailures(t, load, from)
	eager.Stop()
	for _, o := range eager.Outcomes() {
		if o.Start.After(gone) && o.Kind != lab.Refused {
			t.Errorf("%v after its service had gone a request ended: %s, %v", o.Start.Sub(gone), o.Kind, o.Err)
		}
	}
}

// A service that is given another pool serves from it at once, also on
// connections that clients keep; connections under way stay where they are.
func TestReloadMovesServiceToAnotherPool(t *testing.T) {
	t.Parallel()
	p := newPair(t, patientConfig(t, "172.16.1.51:3306\", \"172.16.1.52:3306\", \"172.16.1.53:3306", "172.16.1.51:3306"))
	p.start()
	load := p.load(100, 80, 8080)
	echo, browser := p.dialEcho(3306), p.newBrowser(nil)
	browser.get("http://192.168.15.3/")
	from := time.Now()
	p.reload(p.LB01, patientConfig(t, "pool   = \"web\"", "pool   = \"other\"", "pool   = \"tcp\"", "pool   = \"other_tcp\"")+`
[pool.other]
servers = [{ name = "web2", address = "172.16.1.52:80" }]
check   = { type = "http", interval = "5s", timeout = "1s" }

[pool.other_tcp]
servers = ["172.16.1.52:3306"]
check   = { type = "tcp", interval = "5s", timeout = "1s" }
`)
	done := time.Now()
	for range 5 {
		if server := browser.get("http://192.168.15.3/"); server != "web2" {
			t.Errorf("a kept connection is served by %s, want web2", server)
		}
	}
	if n := browser.dials.Load(); n != 1 {
		t.Errorf("the browser had to connect %d times", n)
	}
	echo.say("still here")
	if now := p.dialEcho(3306); echo.server != "web1" || now.server != "web2" {
		t.Errorf("the echo came from %s before, from %s now; want web1, web2", echo.server, now.server)
	}
	p.waitRequests(load, 50)
	reloadNoFailures(t, load, from)
	for _, o := range load.Outcomes() {
		if o.Start.After(done) && o.Server != "web2" {
			t.Errorf("%v after the reload a request was served by %s", o.Start.Sub(done), o.Server)
		}
	}
}

// An address that goes from a TCP to an HTTP service and back accepts all the
// while.
func TestReloadAddressChangesLayer(t *testing.T) {
	t.Parallel()
	text := func(layer int) string {
		return patientConfig(t, "192.168.15.3:8080", "192.168.15.3:8081") +
			fmt.Sprintf("\n[[l%d]]\nname = \"page\"\nlisten = [\"192.168.15.3:8080\"]\npool = \"web\"\n", layer)
	}
	p := newPair(t, text(4))
	p.start()
	load := p.load(300, 8080)
	from := time.Now()
	for i := range 10 {
		layer := []int{7, 4}[i%2]
		p.reload(p.LB01, text(layer))
		for _, s := range p.status(p.LB01).Services {
			if s.Name == "page" && s.Layer != layer {
				t.Fatalf("the service is of layer %d, want %d", s.Layer, layer)
			}
		}
		p.waitRequests(load, 20)
	}
	reloadNoFailures(t, load, from)
}
