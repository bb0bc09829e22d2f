package integration

import (
	"strings"
	"testing"
	"time"

	"appliance/internal/lab"
)

// The larger node comes back and waits before it preempts; it does not wait when
// the other node dies.
func TestPreemptDelay(t *testing.T) {
	t.Parallel()
	const delay = 4 * time.Second
	p := newPair(t, strings.Replace(nodesConfig, "preempt           = false", "preempt_delay = \"4s\"", 1))
	p.startNode(p.LB02)
	p.waitActive(p.LB02)

	began := time.Now()
	p.startNode(p.LB01)
	p.waitActive(p.LB01)
	e, ok := p.Capture.First(lab.Advert, p.LB01.Name, began)
	if waited := e.Time.Sub(began); !ok || waited < delay {
		t.Errorf("lb01 preempted %v after its start", waited)
	} else {
		t.Logf("lb01 preempted %v after its start", waited.Round(time.Millisecond))
	}
	if s := p.status(p.LB01).VRRP[0]; !strings.Contains(s.Reason, "its own priority 100 is above 90") {
		t.Errorf("lb01 is active because %q", s.Reason)
	}

	if err := p.LB01.Terminate(p.within(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	p.waitActive(p.LB02)
	p.startNode(p.LB01)
	eventually(t, 20*time.Second, "lb01 is backup", func() bool { return p.status(p.LB01).VRRP[0].State == "backup" })
	killed := time.Now()
	if err := p.LB02.Kill(); err != nil {
		t.Fatal(err)
	}
	p.waitActive(p.LB01)
	e, ok = p.Capture.First(lab.Advert, p.LB01.Name, killed)
	if took := e.Time.Sub(killed); !ok || took >= delay {
		t.Errorf("lb01 took over %v after the death of lb02", took)
	}
}
