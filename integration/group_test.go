package integration

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/internal/lab"
)

// groupConfig is a pair of two-armed nodes: an address on the LAN and one on the
// LAN of the servers, which move together. GROUP is replaced.
const groupConfig = `
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
advert_interval   = "200ms"
preempt           = false
GROUP

[[vrrp]]
name              = "VI_2"
virtual_router_id = 51
interface         = "eth1"
addresses         = ["172.16.1.3/24"]
advert_interval   = "200ms"
preempt           = false
GROUP
`

var srvVIP = netip.MustParseAddr("172.16.1.3")

// waitBoth waits until a node has both addresses and the other one none.
func (p *pair) waitBoth(n *lab.Node, why string) {
	p.t.Helper()
	eventually(p.t, 20*time.Second, n.Name+" has both addresses: "+why, func() bool { return p.hasBoth(n) })
}

func (p *pair) hasBoth(n *lab.Node) bool {
	p.t.Helper()
	srv := func(n *lab.Node) bool {
		has, err := n.Network.HasAddress(srvVIP)
		if err != nil {
			p.t.Fatal(err)
		}
		return has
	}
	return slices.Equal(p.holders(p.VIP), []string{n.Name}) && srv(n) && !srv(p.Other(n))
}

// changes returns how often both routers of a node have changed their states.
func (p *pair) changes(n *lab.Node) (sum uint64) {
	p.t.Helper()
	for _, r := range p.status(n).VRRP {
		sum += r.Counters["transitions"]
	}
	return sum
}

// Two addresses on two LANs move together, whatever moves one of them.
func TestGroup(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]string{"without a peer link": groupConfig, "with a peer link": peerTable + groupConfig} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			movesTogether(t, config)
		})
	}
}

func movesTogether(t *testing.T, config string) {
	p := newPair(t, strings.ReplaceAll(config, "GROUP", `group = "edge"`))
	p.start()
	p.waitBoth(p.LB01, "it is the larger node")

	if code, out := p.applianctl(p.LB01, "failover", "--vrrp", "VI_2"); code != 0 {
		t.Fatalf("failover: %s", out)
	}
	p.waitBoth(p.LB02, "failover of VI_2")
	if code, out := p.applianctl(p.LB01, "failback"); code != 0 || !strings.Contains(out, "VI_1") || !strings.Contains(out, "VI_2") {
		t.Errorf("failback of both ended with code %d: %s", code, out)
	}
	p.waitBoth(p.LB01, "failback")

	if err := p.Cut(p.LB01.Host, lab.SRV, lab.Unplugged); err != nil {
		t.Fatal(err)
	}
	p.waitBoth(p.LB02, "lb01 lost the carrier of eth1")
	eventually(t, 10*time.Second, "VI_1 of lb01 has a fault because of VI_2", func() bool {
		s := p.status(p.LB01).VRRP[0]
		return s.State == "fault" && len(s.Faults) == 1 && strings.Contains(s.Faults[0].Reason, "VI_2 has the fault interface eth1")
	})
	if err := p.Heal(p.LB01.Host, lab.SRV); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "both routers of lb01 are backups again", func() bool {
		s := p.status(p.LB01).VRRP
		return s[0].State == "backup" && s[1].State == "backup"
	})

	if err := p.LB02.Kill(); err != nil {
		t.Fatal(err)
	}
	p.waitBoth(p.LB01, "SIGKILL of lb02")
	p.startNode(p.LB02)
	p.staysTogether()
	p.groupGoesAndComes(config)

	if err := p.LB01.Terminate(p.within(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	p.waitBoth(p.LB02, "SIGTERM of lb01")
}

// staysTogether cuts lb02 off the LAN without a word. It hears lb01 on the other
// LAN and takes nothing over; it says so.
func (p *pair) staysTogether() {
	t := p.t
	t.Helper()
	before := p.changes(p.LB01)
	if err := p.Cut(p.LB02.Host, lab.LAN, lab.Silent); err != nil {
		t.Fatal(err)
	}
	const why = "VI_2 of group edge hears 172.16.1.11"
	eventually(t, 20*time.Second, "lb02 says why it does not take over", func() bool {
		return strings.Contains(p.status(p.LB02).VRRP[0].Waiting, why) && strings.Contains(p.LB02.Log(), why)
	})
	p.waitAdverts(p.LB01, 10)
	if !p.hasBoth(p.LB01) {
		t.Errorf("the addresses have moved, to %v", p.holders(p.VIP))
	}
	if _, out := p.applianctl(p.LB02, "status"); !strings.Contains(out, "VI_1: NOT TAKING OVER: ") {
		t.Errorf("status does not tell:\n%s", out)
	}
	if err := p.Heal(p.LB02.Host, lab.LAN); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "lb02 hears lb01 again", func() bool { return p.status(p.LB02).VRRP[0].Waiting == "" })
	p.waitAdverts(p.LB01, 5)
	if after := p.changes(p.LB01); after != before {
		t.Errorf("lb01 went from %d transitions to %d", before, after)
	}
}

// groupGoesAndComes takes the group out of the files and puts it back: nothing
// moves, and in between the routers are on their own.
func (p *pair) groupGoesAndComes(config string) {
	t := p.t
	t.Helper()
	before := p.changes(p.LB01)
	load := func(group string) {
		t.Helper()
		for _, n := range p.Nodes() {
			if err := n.WriteConfig(strings.ReplaceAll(config, "GROUP", group)); err != nil {
				t.Fatal(err)
			}
			if code, out := p.applianctl(n, "reload"); code != 0 {
				t.Fatalf("reload: %s", out)
			}
		}
	}
	load("")
	p.waitAdverts(p.LB01, 5)
	if after := p.changes(p.LB01); after != before || !p.hasBoth(p.LB01) {
		t.Errorf("without the group lb01 went from %d transitions to %d", before, after)
	}
	if code, out := p.applianctl(p.LB01, "failover", "--vrrp", "VI_2"); code != 0 {
		t.Fatalf("failover: %s", out)
	}
	p.waitRouters("active", "backup")

	// Each node has one address now; the larger node gets both.
	load(`group = "edge"`)
	p.waitBoth(p.LB01, "the group is back")
	p.waitRouters("active", "active")
}
