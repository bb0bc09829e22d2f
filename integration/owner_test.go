package integration

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"appliance/internal/lab"
)

// ownerConfig makes the address that lb01 has anyway the virtual one.
const ownerConfig = `
[node.lb01]
address = "192.168.15.11"
[node.lb02]
address = "192.168.15.12"

[[vrrp]]
name              = "VI_1"
virtual_router_id = 50
interface         = "eth0"
addresses         = ["192.168.15.11/24"]
advert_interval   = "100ms"
preempt           = false
priority          = { lb01 = 255, lb02 = 100 }
`

// The owner of an address is active as soon as it is ready, whatever preempt
// says. Its address is the machine's own: it outlives every lease, a stop and a
// kill of the appliance. The other node has it while the owner is cut off.
func TestOwner(t *testing.T) {
	t.Parallel()
	p := newPair(t, ownerConfig)
	own := netip.MustParseAddr("192.168.15.11")
	has := func(n *lab.Node) bool {
		t.Helper()
		has, err := n.Network.HasAddress(own)
		if err != nil {
			t.Fatal(err)
		}
		return has
	}
	waitStates := func(first, second string) {
		t.Helper()
		eventually(t, 20*time.Second, "lb01 is "+first+", lb02 "+second, func() bool {
			return p.status(p.LB01).VRRP[0].State == first && p.status(p.LB02).VRRP[0].State == second
		})
		if !has(p.LB01) {
			t.Fatal("lb01 has lost its own address")
		}
		if want := second == "active"; has(p.LB02) != want {
			eventually(t, 10*time.Second, "lb02 has the address only while it is active", func() bool { return has(p.LB02) == want })
		}
	}
	start := func(n *lab.Node) {
		t.Helper()
		p.startNode(n)
	}

	start(p.LB02)
	p.waitAdverts(p.LB02, 1)
	start(p.LB01)
	waitStates("active", "backup")
	if s := p.status(p.LB01).VRRP[0]; !strings.Contains(s.Reason, "the owner of the addresses is active at once") || s.Priority != 255 {
		t.Errorf("lb01 is active with priority %d because %q", s.Priority, s.Reason)
	}
	eventually(t, 10*time.Second, "lb01 announces its address", func() bool {
		e, ok := p.Capture.First(lab.Gratuitous, p.LB01.Name, time.Time{})
		return ok && e.Address == own
	})

	// A lease would have ended by then.
	p.waitAdverts(p.LB01, 30)
	if !has(p.LB01) {
		t.Fatal("lb01 has lost its own address")
	}
	if code, out := p.applianctl(p.LB01, "failover"); code == 0 || !strings.Contains(out, "is this node's own address") {
		t.Errorf("failover of the owner ended with code %d: %s", code, out)
	}

	if err := p.Cut(p.LB01.Host, lab.LAN, lab.Silent); err != nil {
		t.Fatal(err)
	}
	waitStates("active", "active")
	if err := p.Heal(p.LB01.Host, lab.LAN); err != nil {
		t.Fatal(err)
	}
	waitStates("active", "backup")

	if err := p.LB01.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "lb02 is active", func() bool { return p.status(p.LB02).VRRP[0].State == "active" && has(p.LB02) })
	p.waitAdverts(p.LB02, 30)
	start(p.LB01)
	waitStates("active", "backup")
	if err := p.LB01.Terminate(p.within(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "lb02 is active again", func() bool { return has(p.LB02) })
	p.waitAdverts(p.LB02, 30)
	if !has(p.LB01) {
		t.Error("a stop has taken lb01's own address off")
	}
}
