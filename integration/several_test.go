package integration

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/internal/lab"
)

// severalConfig has two virtual routers, each with its favourite node, and the
// same service on both addresses.
const severalConfig = `
[node.lb01]
address = "192.168.15.11"
[node.lb02]
address = "192.168.15.12"

[handover]
drain = "10s"

[[vrrp]]
name              = "VI_1"
virtual_router_id = 50
addresses         = ["192.168.15.3/24"]
advert_interval   = "100ms"
priority          = { lb01 = 100, lb02 = 90 }

[[vrrp]]
name              = "VI_2"
virtual_router_id = 51
addresses         = ["192.168.15.4/24"]
advert_interval   = "100ms"
priority          = { lb01 = 90, lb02 = 100 }

[[l7]]
name   = "web"
listen = ["192.168.15.3:80", "192.168.15.4:80"]
pool   = "web"

[[l4]]
name   = "relay"
listen = ["192.168.15.3:8080", "192.168.15.4:8080"]
pool   = "web"

[pool.web]
servers = ["172.16.1.51:80", "172.16.1.52:80", "172.16.1.53:80"]
check   = { type = "http", interval = "500ms", timeout = "250ms" }
`

// secondVIP is the address of VI_2 of severalConfig.
var secondVIP = netip.MustParseAddr("192.168.15.4")

// routerState returns what a node says of one of its virtual routers.
func (p *pair) routerState(n *lab.Node, name string) (state string, transitions uint64) {
	p.t.Helper()
	for _, r := range p.status(n).VRRP {
		if r.Name == name {
			return r.State, r.Counters["transitions"]
		}
	}
	p.t.Fatalf("%s has no virtual router %s", n.Name, name)
	return "", 0
}

// waitRouters waits until both nodes say of both virtual routers what is wanted:
// lb01's state of VI_1 and of VI_2, and the opposite at lb02.
func (p *pair) waitRouters(first, second string) {
	p.t.Helper()
	opposite := map[string]string{"active": "backup", "backup": "active"}
	want := []string{first, second, opposite[first], opposite[second]}
	eventually(p.t, 20*time.Second, "lb01 is "+first+" for VI_1 and "+second+" for VI_2", func() bool {
		var got []string
		for _, n := range p.Nodes() {
			for _, name := range []string{"VI_1", "VI_2"} {
				state, _ := p.routerState(n, name)
				got = append(got, state)
			}
		}
		return slices.Equal(got, want)
	})
}

// Two virtual routers in one process: each node serves one address, and a
// failover of one leaves the other where it is.
func TestTwoRouters(t *testing.T) {
	t.Parallel()
	p := newPair(t, severalConfig)
	p.serveSlowly(time.Second)
	p.start()
	p.waitRouters("active", "backup")
	first := p.targets(80, 8080)
	second := []netip.AddrPort{netip.AddrPortFrom(secondVIP, 80), netip.AddrPortFrom(secondVIP, 8080)}
	load := lab.StartLoad(p.Client, lab.LoadOptions{Targets: append(first, second...), Rate: failoverRate})
	t.Cleanup(load.Stop)
	began := time.Now()
	p.waitRequests(load, failoverRate)
	_, before := p.routerState(p.LB01, "VI_1")

	// The drain of VI_2 lasts as long as this download, and concerns VI_2 only.
	d := p.startDownload(netip.AddrPortFrom(secondVIP, 80))
	ordered := time.Now()
	code, output := p.applianctl(p.LB02, "failover", "--vrrp", "VI_2")
	returned := time.Now()
	if code != 0 || !strings.Contains(output, "VI_2: lb01") {
		t.Fatalf("lb02$ applianctl failover --vrrp VI_2 ended with code %d: %s", code, output)
	}
	t.Logf("lb02$ applianctl failover --vrrp VI_2: %s", strings.TrimSpace(output))
	p.waitRouters("active", "active")
	p.waitRequests(load, 2*failoverRate)
	p.alone(p.LB01)
	if holders := p.holders(secondVIP); !slices.Equal(holders, []string{p.LB01.Name}) {
		t.Errorf("%s is on %v, want it on lb01 alone", secondVIP, holders)
	}
	if _, now := p.routerState(p.LB01, "VI_1"); now != before {
		t.Errorf("VI_1 went from %d transitions to %d with the failover of VI_2", before, now)
	}
	if err := d.wait(); err != nil {
		t.Errorf("the download was cut after %d of %d bytes: %v", d.got, downloadSize, err)
	}
	if n := p.answered(load, p.VIP, ordered, returned); n < 20 {
		t.Errorf("in the %v that %s took to move only %d requests to %s were answered", returned.Sub(ordered), secondVIP, n, p.VIP)
	}

	code, output = p.applianctl(p.LB01, "failover", "--vrrp", "VI_1")
	if code != 0 || !strings.Contains(output, "VI_1: lb02") {
		t.Fatalf("lb01$ applianctl failover --vrrp VI_1 ended with code %d: %s", code, output)
	}
	p.waitRouters("backup", "active")
	p.waitActive(p.LB02)
	p.waitRequests(load, 2*failoverRate)
	p.alone(p.LB02)
	if report := load.Report(began, time.Now()); report.Failures() > 0 {
		t.Errorf("of %d requests %s, first: %v", report.Requests, report, report.FirstError)
	}
	if code, output := p.applianctl(p.LB01, "failover", "--vrrp", "VI_3"); code != 1 || !strings.Contains(output, `no vrrp "VI_3"`) {
		t.Errorf("a failover of VI_3, which there is not, ended with code %d: %s", code, output)
	}
}

// answered counts the requests to an address that began and ended well in a
// stretch of time.
func (p *pair) answered(load *lab.Load, address netip.Addr, from, to time.Time) int {
	n := 0
	for _, o := range load.Outcomes() {
		if o.Target.Addr() == address && o.Kind == lab.OK && o.Start.After(from) && o.End.Before(to) {
			n++
		}
	}
	return n
}

// A file with nothing but an election is a complete one.
func TestElectionAlone(t *testing.T) {
	t.Parallel()
	p := newPair(t, `
[node.lb01]
address  = "192.168.15.11"
priority = 100
[node.lb02]
address  = "192.168.15.12"
priority = 90

[[vrrp]]
name              = "VI_1"
virtual_router_id = 50
addresses         = ["192.168.15.3/24"]
advert_interval   = "100ms"
`)
	p.start()
	p.alone(p.LB01)
	if s := p.status(p.LB01); len(s.Services) != 0 || len(s.Pools) != 0 || !s.Ready {
		t.Errorf("ready %v, services %+v, pools %+v", s.Ready, s.Services, s.Pools)
	}
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
	p.alone(p.LB01)
}
