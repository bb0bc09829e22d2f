package integration

import (
	"strings"
	"testing"
	"time"

	"appliance/internal/lab"
)

// reachConfig tracks the client, which stands for the gateway.
var reachConfig = nodesConfig + `track = [{ reach = "192.168.15.100" }]
`

// A node that alone does not reach the gateway gives the address up, although
// adverts still pass. A gateway that neither node reaches moves nothing.
func TestReach(t *testing.T) {
	t.Parallel()
	p := newPair(t, reachConfig)
	p.start()
	waitDemoted := func(n *lab.Node, demoted bool) {
		t.Helper()
		eventually(t, 20*time.Second, n.Name+" notices", func() bool {
			d := p.demotions(n)
			if !demoted {
				return len(d) == 0
			}
			return len(d) == 1 && d[0].Source == "reach 192.168.15.100" && d[0].Amount == 11
		})
	}

	cut := time.Now()
	if err := p.Part(true, p.LB01.Host, p.Client); err != nil {
		t.Fatal(err)
	}
	p.waitActive(p.LB02)
	t.Logf("lb02 was active %v after lb01 had lost the gateway", time.Since(cut).Round(time.Millisecond))
	waitDemoted(p.LB01, true)
	if s := p.status(p.LB02).VRRP[0]; !strings.Contains(s.Reason, "is demoted by 11") {
		t.Errorf("lb02 is active because %q", s.Reason)
	}
	if err := p.Part(false, p.LB01.Host, p.Client); err != nil {
		t.Fatal(err)
	}
	waitDemoted(p.LB01, false)
	before := p.changes(p.LB01) + p.changes(p.LB02)

	if err := p.Cut(p.Client, "eth0", lab.Silent); err != nil {
		t.Fatal(err)
	}
	waitDemoted(p.LB01, true)
	waitDemoted(p.LB02, true)
	p.waitAdverts(p.LB02, 25) // longer than the rule of health waits
	if after := p.changes(p.LB01) + p.changes(p.LB02); after != before {
		t.Errorf("the loss of the gateway on both nodes made %d transitions", after-before)
	}
	if err := p.Heal(p.Client, "eth0"); err != nil {
		t.Fatal(err)
	}
	waitDemoted(p.LB01, false)
	waitDemoted(p.LB02, false)
	p.waitAdverts(p.LB02, 25)
	if after := p.changes(p.LB01) + p.changes(p.LB02); after != before {
		t.Errorf("the return of the gateway made %d transitions", after-before)
	}
	p.alone(p.LB02)

	// lb01 is cut off and hears nobody. It asks the gateway before it believes that,
	// much sooner than its checks notice.
	if err := p.Cut(p.LB01.Host, lab.LAN, lab.Silent); err != nil {
		t.Fatal(err)
	}
	const why = "this node may be the one that is cut off: it does not reach 192.168.15.100"
	eventually(t, 20*time.Second, "lb01 says that it may be cut off", func() bool { return strings.Contains(p.LB01.Log(), why) })
	p.waitAdverts(p.LB02, 15)
	if s := p.status(p.LB01).VRRP[0]; s.State != "backup" {
		t.Errorf("lb01 is cut off, and %s: %s", s.State, s.Reason)
	}
	if err := p.Heal(p.LB01.Host, lab.LAN); err != nil {
		t.Fatal(err)
	}
	waitDemoted(p.LB01, false)
	if after := p.changes(p.LB01) + p.changes(p.LB02); after != before {
		t.Errorf("the cut of the backup made %d transitions", after-before)
	}

	// The machine of lb02 dies, as far as anybody can tell, and the gateway answers.
	cut = time.Now()
	if err := p.Cut(p.LB02.Host, lab.LAN, lab.Silent); err != nil {
		t.Fatal(err)
	}
	p.waitActive(p.LB01)
	t.Logf("lb01 was active %v after lb02 had fallen silent", time.Since(cut).Round(time.Millisecond))
	if s := p.status(p.LB01).VRRP[0]; !strings.Contains(s.Reason, "no advert from 192.168.15.12") {
		t.Errorf("lb01 is active because %q", s.Reason)
	}
}
