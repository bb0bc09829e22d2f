package integration

import (
	"bufio"
	"net/netip"
	"testing"
	"time"

	"appliance/internal/lab"
)

// twoArmedConfig is steadyConfig with an address on the servers' LAN as well, of
// one group with the other, and a service at it.
func twoArmedConfig(t *testing.T) string {
	t.Helper()
	return steadyConfig(t, preemptOff, preemptOff+"\ngroup = \"edge\"") + `
[[vrrp]]
name              = "VI_2"
virtual_router_id = 51
interface         = "eth1"
addresses         = ["172.16.1.3/24"]
advert_interval   = "1s"
preempt           = false
group             = "edge"

[[l4]]
name   = "inner"
listen = ["172.16.1.3:3306"]
pool   = "tcp"
`
}

// echoFrom is a conversation of a host with a server of TCP.
func (s *streams) echoFrom(p *pair, h *lab.Host, target netip.AddrPort) {
	p.t.Helper()
	c, err := h.Dial(p.within(10*time.Second), target)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); err != nil { // its greeting
		p.t.Fatal(err)
	}
	s.converse("conversation from "+h.Name+" with "+target.String(), r, c, func() { c.Close() })
}

// The two arms of a group move over the peer link as one router does: nobody
// resigns, and the connections to either address go on.
func TestGroupMovesOverTheLink(t *testing.T) {
	t.Parallel()
	p := newPair(t, twoArmedConfig(t))
	p.dual = overlap
	s := p.startStreams()
	p.start()
	p.waitBoth(p.LB01, "it is the larger node")
	for _, n := range p.Nodes() {
		p.waitPeerRouters(n)
	}
	load := p.load(failoverRate, 80, 8080)
	began := time.Now()
	some := func() {
		for _, target := range p.targets(80, 8080) {
			s.download(p, target)
			s.websocket(p, target)
		}
		s.echoFrom(p, p.Servers[0].Host, netip.AddrPortFrom(srvVIP, 3306))
	}
	for _, c := range []struct {
		on, giver, heir *lab.Node
		args            []string
	}{
		{p.LB01, p.LB01, p.LB02, []string{"failover", "--drain", "60s"}},
		{p.LB01, p.LB02, p.LB01, []string{"failback", "--drain", "60s"}},
	} {
		some()
		p.switchUnder(c.on, c.giver, c.args...)
		p.waitBoth(c.heir, c.args[0])
		p.waitRequests(load, failoverRate)
		s.alive("after the " + c.args[0])
	}
	for _, e := range p.Capture.Events() {
		if e.Kind == lab.Advert && e.Priority == 0 && e.Time.After(began) {
			t.Errorf("%s resigned", e.Host)
		}
	}
	s.finish()
	if report := load.Report(began, time.Now()); report.Failures() > 0 {
		t.Errorf("of %d requests %s, first: %v", report.Requests, report, report.FirstError)
	}
	p.nothingLingers()

	// A failover of one arm moves both, and is refused where one of them would come to
	// harm.
	code, out := p.applianctl(p.LB01, "failover", "--vrrp", "VI_2")
	if code != 0 {
		t.Fatalf("failover of VI_2: %s", out)
	}
	p.waitBoth(p.LB02, "failover of VI_2")
	if err := p.LB02.Terminate(p.within(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	p.waitBoth(p.LB01, "a stop of lb02")
	for _, e := range p.Capture.Events() {
		if e.Kind == lab.Advert && e.Priority == 0 && e.Time.After(began) {
			t.Errorf("%s resigned in the end", e.Host)
		}
	}
}
