package integration

import (
	"crypto/rand"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/internal/control"
	"appliance/internal/lab"
)

// slowAdverts are those by which a dead node is missed after 3.6 s.
const slowAdverts = `advert_interval   = "1s"`

const quickAdverts = `advert_interval   = "100ms"`

// patientAdverts are those of nodesConfig and patientConfig.
const patientAdverts = `advert_interval   = "200ms"`

// peerOf returns what a node knows of the other one by the link.
func (p *pair) peerOf(n *lab.Node) control.Peer {
	p.t.Helper()
	peers := p.status(n).Peers
	if len(peers) != 1 {
		p.t.Fatalf("%s has %d peers", n.Name, len(peers))
	}
	return peers[0]
}

// waitLink waits until the link of a node is in a state.
func (p *pair) waitLink(n *lab.Node, state string) {
	p.t.Helper()
	eventually(p.t, 20*time.Second, "the link of "+n.Name+" is "+state, func() bool { return p.peerOf(n).Link == state })
}

// startLinked starts the pair, and returns when both know of each other what is
// to be known.
func (p *pair) startLinked() {
	p.t.Helper()
	p.start()
	for _, n := range p.Nodes() {
		want := "backup"
		if n == p.LB02 {
			want = "active"
		}
		eventually(p.t, 20*time.Second, n.Name+" knows that the other node is "+want, func() bool {
			s := p.peerOf(n)
			return s.Link == "up" && len(s.VRRP) == 1 && s.VRRP[0].State == want
		})
	}
}

// waitPeerRouters waits until a node knows by the link of all routers of the other
// one, and that they take part.
func (p *pair) waitPeerRouters(n *lab.Node) {
	p.t.Helper()
	eventually(p.t, 20*time.Second, n.Name+" knows of the routers of the other node", func() bool {
		s := p.status(n)
		return len(s.Peers) == 1 && s.Peers[0].Link == "up" && len(s.Peers[0].VRRP) == len(s.VRRP) &&
			!slices.ContainsFunc(s.Peers[0].VRRP, func(r control.PeerVRRP) bool { return r.State == "fault" })
	})
}

// waitAlarm waits until an alarm is raised on a node, or is over.
func (p *pair) waitAlarm(n *lab.Node, name string, raised bool) {
	p.t.Helper()
	eventually(p.t, 20*time.Second, "the alarm "+name+" of "+n.Name, func() bool {
		for _, a := range p.status(n).VRRP[0].Alarms {
			if a.Source == name {
				return raised
			}
		}
		return !raised
	})
}

// stays shows that a node has not changed its state since a time, by as many
// adverts of the active one as would have made it do so.
func (p *pair) stays(n *lab.Node, state string, active *lab.Node) {
	p.t.Helper()
	before := p.status(n).VRRP[0]
	p.waitAdverts(active, 10)
	if after := p.status(n).VRRP[0]; before.State != state || after.State != state || !after.Since.Equal(before.Since) {
		p.t.Errorf("%s was %s, and is %s (%s)", n.Name, before.State, after.State, after.Reason)
	}
}

// Either node shows both, and tells when the files differ, which moves nothing.
func TestPeerLinkShowsTheOtherNode(t *testing.T) {
	t.Parallel()
	p := newPair(t, linkedConfig(t))
	p.startLinked()
	a, b := p.peerOf(p.LB01), p.peerOf(p.LB02)
	if a.Node != "lb02" || b.Node != "lb01" || a.Version == "" || a.Version != b.Version || !a.SameConfig || !b.SameConfig {
		t.Errorf("lb01 knows %+v\nlb02 knows %+v", a, b)
	}
	eventually(t, 10*time.Second, "lb02 knows of three services, and three servers of the first", func() bool {
		b := p.peerOf(p.LB02)
		return len(b.Services) == 3 && b.Services[0].Usable == 3
	})
	code, output := p.applianctl(p.LB02, "status")
	for _, words := range []string{"PEER lb01 (192.168.15.11:7112): link up", "same configuration", "VI_1 on lb01: ACTIVE", "priority 100 of 100"} {
		if code != 0 || !strings.Contains(output, words) {
			t.Errorf("status lacks %q:\n%s", words, output)
		}
	}

	if err := p.LB02.WriteConfig(linkedConfig(t) + "\n# another file\n"); err != nil {
		t.Fatal(err)
	}
	if code, output := p.applianctl(p.LB02, "reload"); code != 0 {
		t.Fatalf("reload: %s", output)
	}
	eventually(t, 10*time.Second, "lb01 sees that the files differ", func() bool { return !p.peerOf(p.LB01).SameConfig })
	if _, output := p.applianctl(p.LB01, "status"); !strings.Contains(output, "DIFFERENT CONFIGURATION") {
		t.Errorf("status says nothing of another file:\n%s", output)
	}
	eventually(t, 10*time.Second, "the log tells of another file", func() bool {
		return strings.Contains(p.LB01.Log(), "runs another configuration file")
	})
	p.stays(p.LB02, "backup", p.LB01)
	if s := p.peerOf(p.LB01); s.Link != "up" || !s.Since.Equal(a.Since) {
		t.Errorf("the reload touched the link: %s since %s, %s", s.Link, s.Since, s.Reason)
	}
}

// Another file on one node never makes two active routers: not even one by which
// the nodes refuse each other's adverts.
func TestDifferentFilesMakeNoSecondActiveNode(t *testing.T) {
	t.Parallel()
	for name, c := range map[string][2]string{
		"another identifier": {"virtual_router_id = 50", "virtual_router_id = 51"},
		"another version":    {quickAdverts, "version = 2\n" + slowAdverts},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, linkedConfig(t))
			if err := p.LB02.WriteConfig(linkedConfig(t, c[0], c[1])); err != nil {
				t.Fatal(err)
			}
			if err := p.Start(); err != nil {
				t.Fatal(err)
			}
			for _, n := range p.Nodes() {
				if err := p.WaitReady(p.within(20*time.Second), n); err != nil {
					t.Fatal(err)
				}
			}
			// A node that is active before the other one has started stays so: the other
			// takes nothing from a node that it does not hear.
			active, backup := p.LB01, p.LB02
			eventually(t, 20*time.Second, "one of the nodes is a backup that hears no adverts", func() bool {
				for _, n := range p.Nodes() {
					r := p.status(n).VRRP[0]
					if r.State == "backup" && slices.ContainsFunc(r.Alarms, func(a control.Condition) bool { return a.Source == "adverts" }) {
						active, backup = p.Other(n), n
						return true
					}
				}
				return false
			})
			p.waitActive(active)
			p.stays(backup, "backup", active)
			p.alone(active)
		})
	}
}

// A node with another secret gets no link, and the service goes on by adverts.
func TestPeerLinkRefusesAnotherSecret(t *testing.T) {
	t.Parallel()
	p := newPair(t, linkedConfig(t))
	if err := p.LB02.WriteFile(lab.SecretPath, []byte(strings.Repeat("another secret ", 4))); err != nil {
		t.Fatal(err)
	}
	p.start()
	eventually(t, 20*time.Second, "lb01 tells of the secret", func() bool {
		return strings.Contains(p.LB01.Log(), "its secret is another one") || strings.Contains(p.LB01.Log(), "it refuses this node's secret")
	})
	p.stays(p.LB02, "backup", p.LB01)
	if s := p.peerOf(p.LB01); s.Link != "connecting" || s.Reported != nil {
		t.Errorf("the link is %s, %s", s.Link, s.Reason)
	}
	p.mustRefuse(p.LB01, "failover", "there has been no peer link to lb02 yet", "--force")
}

// Whoever talks rubbish to the port gets nothing, and costs nobody a thing.
func TestPeerLinkTakesNoRubbish(t *testing.T) {
	t.Parallel()
	p := newPair(t, linkedConfig(t))
	p.startLinked()
	load := p.load(100, 80)
	began := time.Now()
	up := p.peerOf(p.LB02).Since
	port := netip.MustParseAddrPort("192.168.15.11:7112")
	for range 30 {
		for _, from := range []*lab.Host{p.LB02.Host, p.Client} {
			conn, err := from.Dial(p.within(10*time.Second), port)
			if err != nil {
				continue // reset as soon as it was accepted
			}
			rubbish := make([]byte, 2000)
			rand.Read(rubbish)
			conn.Write(rubbish)
			conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			// At most a TLS alert, which is 7 bytes.
			if answer, err := io.ReadAll(conn); len(answer) > 7 || err != nil && strings.Contains(err.Error(), "timeout") {
				t.Errorf("%s got the answer %x, %v", from.Name, answer, err)
			}
			conn.Close()
		}
	}
	p.waitRequests(load, 50)
	if s := p.peerOf(p.LB02); s.Link != "up" || !s.Since.Equal(up) {
		t.Errorf("the link is %s since %s, %s", s.Link, s.Since, s.Reason)
	}
	if report := load.Report(began, time.Now()); report.Failures() > 0 {
		t.Errorf("of %d requests %s, first: %v", report.Requests, report, report.FirstError)
	}
	if n := strings.Count(p.LB01.Log(), "refused a connection to the peer link"); n == 0 || n > 6 {
		t.Errorf("the log tells of it %d times", n)
	}
}
