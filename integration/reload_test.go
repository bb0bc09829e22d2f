package integration

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
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
	"appliance/internal/link"
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
servers = [{ name = "web3", address = "172.16.1.53:80" },
           { name = "nobody", address = "172.16.1.99:80" }]
check   = { type = "http", interval = "5s", timeout = "250ms" }
`

// What a reload does not change is not touched by it: over 20 of them, with a
// service and a pool that come and go, connections go on, no request fails, and
// states and counters are as they were.
func TestReloadKeepsWhatDidNotChange(t *testing.T) {
	p := newPair(t, "")
	p.start()
	load := p.load(100, 80, 8080)
	echo := p.dialEcho(3306)
	echo.say("hello")
	browser := p.newBrowser(nil)
	browser.get("http://192.168.15.3/")
	before := map[*lab.Node]control.Status{p.LB01: p.status(p.LB01), p.LB02: p.status(p.LB02)}
	from := time.Now()

	for i := range 20 {
		text := fmt.Sprintf("%s\n# reload %d\n", lab.DefaultConfig, i)
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
	if gap := p.advertGap(p.LB01, from, time.Now()); gap > 300*time.Millisecond {
		t.Errorf("the active node sent no advert for %v, which is more than 3 intervals", gap)
	}
}

// A new service serves from its first moment on: its servers were checked before
// it began. A removed one refuses connections, and those it had go on.
func TestReloadAddsAndRemoves(t *testing.T) {
	p := newPair(t, "")
	p.start()
	load := p.load(100, 80)
	eager := lab.StartLoad(p.Client, lab.LoadOptions{Targets: p.targets(9090), Rate: 200})
	t.Cleanup(eager.Stop)
	eventually(t, 10*time.Second, "50 connections to a port without a service are refused", func() bool {
		return eager.Report(time.Time{}, time.Now()).Kinds[lab.Refused] >= 50
	})
	from := time.Now()
	p.reload(p.LB01, lab.DefaultConfig+reloadExtra)
	done := time.Now()
	p.waitRequests(eager, 100)
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
	text, _, _ := strings.Cut(labConfig(t, "[[l4]]\nname   = \"tcp\"", "[[l4]]\nname   = \"moved\"", "192.168.15.3:3306", "192.168.15.3:3307"), "[pool.tcp]")
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
	for _, o := range eager.Outcomes() {
		if o.Start.After(gone) && o.Kind != lab.Refused {
			t.Errorf("%v after its service had gone a request ended: %s, %v", o.Start.Sub(gone), o.Kind, o.Err)
		}
	}
}

// A service that is given another pool serves from it at once, also on
// connections that clients keep; connections under way stay where they are.
func TestReloadMovesServiceToAnotherPool(t *testing.T) {
	p := newPair(t, labConfig(t, "172.16.1.51:3306\", \"172.16.1.52:3306\", \"172.16.1.53:3306", "172.16.1.51:3306"))
	p.start()
	load := p.load(100, 80, 8080)
	echo, browser := p.dialEcho(3306), p.newBrowser(nil)
	browser.get("http://192.168.15.3/")
	from := time.Now()
	p.reload(p.LB01, labConfig(t, "pool   = \"web\"", "pool   = \"other\"", "pool   = \"tcp\"", "pool   = \"other_tcp\"")+`
[pool.other]
servers = [{ name = "web2", address = "172.16.1.52:80" }]
check   = { type = "http", interval = "5s", timeout = "250ms" }

[pool.other_tcp]
servers = ["172.16.1.52:3306"]
check   = { type = "tcp", interval = "5s", timeout = "250ms" }
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
	text := func(layer int) string {
		return labConfig(t, "192.168.15.3:8080", "192.168.15.3:8081") +
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

// reloadAsk asks the LAN from the client who has an address, and reports
// whether that is answered soon.
func (p *pair) reloadAsk(address netip.Addr) bool {
	p.t.Helper()
	var tap *link.Tap
	err := p.Client.Do(func() (err error) {
		tap, err = link.OpenTap()
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	stop := time.AfterFunc(500*time.Millisecond, func() { tap.Close() })
	defer func() {
		if stop.Stop() {
			tap.Close()
		}
	}()
	port, err := p.Client.Network.Index(lab.LAN)
	if err != nil {
		p.t.Fatal(err)
	}
	mac := net.HardwareAddr{0x02, 0, 192, 168, 15, 100}
	frame := slices.Concat([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac, []byte{0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1},
		mac, []byte{0, 0, 0, 0}, make([]byte, 6), address.AsSlice())
	if err := tap.Send(port, frame); err != nil {
		p.t.Fatal(err)
	}
	buf := make([]byte, 2048)
	for {
		f, err := tap.Read(buf)
		if err != nil {
			return false // nobody in time
		}
		if len(f.Data) >= 42 && binary.BigEndian.Uint16(f.Data[12:]) == 0x0806 && f.Data[21] == 2 && slices.Equal(f.Data[28:32], address.AsSlice()) {
			return true
		}
	}
}

// Priority, preemption and the list of addresses of a virtual router change
// while it stays what it is.
func TestReloadVirtualRouter(t *testing.T) {
	p := newPair(t, "")
	p.start()
	load := p.load(100, 80)
	before, from := p.status(p.LB01), time.Now()
	second := netip.MustParseAddr("192.168.15.4")
	if p.reloadAsk(second) {
		t.Fatalf("somebody answers for %s already", second)
	}
	with := []string{
		`addresses         = ["192.168.15.3/24"]`, `addresses         = ["192.168.15.3/24", "192.168.15.4/24"]`,
		`listen = ["192.168.15.3:80"]`, `listen = ["192.168.15.3:80", "192.168.15.4:80"]`,
	}
	p.reload(p.LB02, labConfig(t, with...))
	p.reload(p.LB01, labConfig(t, append(with, "priority = 100 ", "priority = 120 ")...))
	eventually(t, 10*time.Second, "lb01 announces the added address", func() bool {
		return slices.ContainsFunc(p.Capture.Events(), func(e lab.Event) bool {
			return e.Kind == lab.Gratuitous && e.Host == "lb01" && e.Address == second
		})
	})
	if !p.reloadAsk(second) {
		t.Errorf("nobody answers for %s, which was added", second)
	}
	browser := p.newBrowser(nil)
	browser.get("http://192.168.15.4/")
	eventually(t, 10*time.Second, "lb01 says its new priority", func() bool {
		last, ok := p.Capture.Last(lab.Advert, "lb01", time.Now())
		return ok && last.Priority == 120
	})
	s := p.status(p.LB01)
	reloadSame(t, before, s)
	if v := s.VRRP[0]; v.BasePriority != 120 || v.Priority != 120 || !slices.Equal(v.Addresses, []string{"192.168.15.3/24", "192.168.15.4/24"}) {
		t.Errorf("status shows priority %d of %d and the addresses %v", v.Priority, v.BasePriority, v.Addresses)
	}

	// It goes again; the first address never does.
	p.reload(p.LB01, lab.DefaultConfig)
	p.reload(p.LB02, lab.DefaultConfig)
	eventually(t, 10*time.Second, "no node has the removed address", func() bool { return len(p.holders(second)) == 0 })
	if p.reloadAsk(second) {
		t.Errorf("somebody answers for %s, which was removed", second)
	}
	reloadSame(t, before, p.status(p.LB01))
	p.waitRequests(load, 25)
	reloadNoFailures(t, load, from)
	for _, silence := range p.Monitor.Silences() {
		if silence.Probes > 1 && silence.From.After(from) {
			t.Errorf("for %v nobody answered for %s", silence.Length(), p.VIP)
		}
	}

	// A larger priority alone moves nothing: preempt is false. With preempt it
	// does, which shows that the reload put both in force.
	larger := []string{"priority = 90", "priority = 110"}
	p.reload(p.LB02, labConfig(t, larger...))
	p.waitAdverts(p.LB01, 10)
	reloadSame(t, before, p.status(p.LB01))
	p.reload(p.LB02, labConfig(t, append(larger, preemptOff, preemptOn)...))
	p.waitActive(p.LB02)
}

// A certificate that was replaced is shown to new clients, also if the file's
// text is the same; those who are connected notice nothing.
func TestReloadCertificate(t *testing.T) {
	oldCert, oldKey := newCertificate(t, "blog.example")
	newCert, newKey := newCertificate(t, "blog.example")
	text := labConfig(t, `listen = ["192.168.15.3:80"]`, `listen = ["192.168.15.3:443"]
tls    = { certificates = [{ cert = "blog.pem", key = "blog.key" }] }`)
	p := newPair(t, text)
	write := func(cert, key []byte) {
		t.Helper()
		for _, n := range p.Nodes() {
			for path, data := range map[string][]byte{"/run/appliance/blog.pem": cert, "/run/appliance/blog.key": key} {
				if err := n.WriteFile(path, data); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	write(oldCert, oldKey)
	p.start()
	kept := p.newBrowser(reloadTrust(t, oldCert))
	kept.get("https://192.168.15.3/")

	write(newCert, newKey)
	p.newBrowser(reloadTrust(t, oldCert)).get("https://192.168.15.3/") // in force until the reload
	for i, reload := range []func(*lab.Node, string){p.reload, p.reloadBySignal} {
		for _, n := range p.Nodes() {
			reload(n, text)
		}
		if i == 0 {
			p.newBrowser(reloadTrust(t, newCert)).get("https://192.168.15.3/")
			kept.get("https://192.168.15.3/")
		}
	}
	if n := kept.dials.Load(); n != 1 {
		t.Errorf("the kept client had to connect %d times", n)
	}
	stranger := p.newBrowser(reloadTrust(t, oldCert))
	if response, err := stranger.client.Get("https://192.168.15.3/"); err == nil {
		response.Body.Close()
		t.Error("the old certificate is still shown to new clients")
	}

	// The pair of two halves is refused, and the good one stays.
	write(oldCert, newKey)
	if code, output := p.applianctl(p.LB01, "reload"); code != 1 || !strings.Contains(output, "does not match") {
		t.Errorf("reload with a key that does not match: exit code %d: %s", code, output)
	}
	p.newBrowser(reloadTrust(t, newCert)).get("https://192.168.15.3/")
}

// A server that drains goes on draining, whatever else a reload changes.
func TestReloadKeepsDrain(t *testing.T) {
	p := newPair(t, "")
	p.start()
	if code, output := p.applianctl(p.LB01, "server", "drain", "web/web2"); code != 0 {
		t.Fatalf("server drain: exit code %d: %s", code, output)
	}
	drained := time.Now()
	load := p.load(100, 80, 8080)
	for _, text := range []string{
		lab.DefaultConfig + "\n# changed\n",
		labConfig(t, `address = "172.16.1.52:80" }`, `address = "172.16.1.52:80", weight = 5 }`),
		labConfig(t, `[pool.web]`, "[pool.web]\nbalance = \"least_conn\""),
		labConfig(t, `check   = { type = "http", interval = "500ms"`, `check   = { type = "http", interval = "400ms"`),
	} {
		p.reload(p.LB01, text)
		p.waitRequests(load, 30)
	}
	if r := load.Report(drained, time.Now()); r.Failures() > 0 || r.Servers["web2"] > 0 || r.Servers["web1"] == 0 || r.Servers["web3"] == 0 {
		t.Errorf("%d requests: %s; answered by %v", r.Requests, r, r.Servers)
	}
	for _, s := range p.status(p.LB01).Pools[1].Servers {
		if want := map[bool]string{true: "drain", false: "ready"}[s.Name == "web2"]; s.Admin != want {
			t.Errorf("%s is %s, want %s", s.Name, s.Admin, want)
		}
	}
}

// A check that is changed judges at once: servers that do not pass the new one
// are out of use when the reload is done, those that pass it never were.
func TestReloadChangesCheck(t *testing.T) {
	p := newPair(t, "")
	p.Servers[0].SetHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "web1")
	}))
	p.start()
	load := p.load(100, 80)
	from := time.Now()
	const check = `check   = { type = "http", interval = "500ms", timeout = "250ms" }`
	without := labConfig(t, check, "")
	stricter := labConfig(t, check, `check   = { type = "http", path = "/health", interval = "500ms", timeout = "250ms" }`)
	healths := func() string {
		var all []string
		for _, s := range p.status(p.LB01).Pools[1].Servers {
			all = append(all, s.Name+" "+s.Health)
		}
		return strings.Join(all, ", ")
	}
	const lessOne, everyone = "web1 down, web2 up, web3 up", "web1 up, web2 up, web3 up"
	for i, step := range []struct{ text, want string }{
		{stricter, lessOne}, {lab.DefaultConfig, everyone}, {without, everyone}, {stricter, lessOne}, {without, everyone},
	} {
		p.reload(p.LB01, step.text)
		done := time.Now()
		if got := healths(); got != step.want {
			t.Errorf("step %d: after the reload: %s; want %s", i, got, step.want)
		}
		p.waitRequests(load, 30)
		for _, o := range load.Outcomes() {
			if step.want == lessOne && o.Start.After(done) && o.Server == "web1" {
				t.Errorf("step %d: %v after the reload web1 served a request", i, o.Start.Sub(done))
				break
			}
		}
	}
	reloadNoFailures(t, load, from)
}

// A reload that fails after the file was found good, for an address that
// another program has, changes nothing of what the file says.
func TestReloadAddressTaken(t *testing.T) {
	p := newPair(t, "")
	p.start()
	load := p.load(100, 80, 8080)
	taken, err := p.LB01.Listen(netip.MustParseAddrPort("0.0.0.0:9091"))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	before, from := p.status(p.LB01), time.Now()

	// Everything changes in this file, and one address of it is not to be had.
	text := labConfig(t,
		"priority = 100 ", "priority = 150 ",
		`addresses         = ["192.168.15.3/24"]`, `addresses         = ["192.168.15.3/24", "192.168.15.4/24"]`,
		`           { name = "web2", address = "172.16.1.52:80" },`+"\n", "",
		`{ name = "web1", address = "172.16.1.51:80" }`, `{ name = "web1", address = "172.16.1.51:80", weight = 9 }`,
		`listen = ["192.168.15.3:8080"]`, `listen = ["192.168.15.3:8081"]`,
		`listen = ["192.168.15.3:3306"]`, `listen = ["192.168.15.3:3306", "192.168.15.3:9091"]`,
	) + reloadExtra
	if err := p.LB01.WriteConfig(text); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		code, output := p.applianctl(p.LB01, "reload")
		if code != 1 || !strings.Contains(output, "192.168.15.3:9091") || !strings.Contains(output, "in use") {
			t.Fatalf("reload: exit code %d, want 1 and the address that is taken: %s", code, output)
		}
	}
	p.waitRequests(load, 50)
	p.waitAdverts(p.LB01, 3)
	now := p.status(p.LB01)
	reloadSame(t, before, now)
	if !strings.Contains(now.Config.Error, "192.168.15.3:9091") || now.Config.SHA256 != before.Config.SHA256 {
		t.Errorf("config.error is %q, sha256 %s", now.Config.Error, now.Config.SHA256)
	}
	if v := now.VRRP[0]; v.BasePriority != 100 || len(v.Addresses) != 1 {
		t.Errorf("the virtual router has priority %d and the addresses %v", v.BasePriority, v.Addresses)
	}
	if last, ok := p.Capture.Last(lab.Advert, "lb01", time.Now()); !ok || last.Priority != 100 {
		t.Errorf("lb01 says priority %d", last.Priority)
	}
	if has, err := p.LB01.Network.HasAddress(lab.LAN, netip.MustParseAddr("192.168.15.4")); err != nil || has {
		t.Errorf("lb01 has the address of the refused file: %v, %v", has, err)
	}
	if s := now.Pools[1].Servers; len(s) != 3 || s[0].Weight != 1 {
		t.Errorf("the pool has %+v", s)
	}
	if len(now.Pools) != 2 || len(now.Services) != 3 {
		t.Errorf("there are %d pools and %d services, want 2 and 3", len(now.Pools), len(now.Services))
	}
	for _, port := range []uint16{8081, 9090} {
		if c, err := p.Client.Dial(p.within(5*time.Second), netip.AddrPortFrom(p.VIP, port)); err == nil {
			c.Close()
			t.Errorf("port %d of the refused file accepts connections", port)
		}
	}
	reloadNoFailures(t, load, from)
	if r := load.Report(from, time.Now()); r.Servers["web2"] == 0 {
		t.Errorf("web2 was taken out by the refused file: %v", r.Servers)
	}
	load.Stop()

	// When the address is free the same file is taken.
	taken.Close()
	p.reload(p.LB01, text)
	if now := p.status(p.LB01); now.Config.Error != "" || now.VRRP[0].BasePriority != 150 || len(now.Pools) != 3 {
		t.Errorf("after the reload: error %q, priority %d, %d pools", now.Config.Error, now.VRRP[0].BasePriority, len(now.Pools))
	}
	p.dialEcho(9091)
}

// reloadTrust accepts one certificate, and shows no session of before.
func reloadTrust(t *testing.T, cert []byte) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(cert) {
		t.Fatal("no certificate")
	}
	return &tls.Config{RootCAs: pool, ServerName: "blog.example"}
}
