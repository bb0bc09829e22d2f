package integration

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/internal/lab"
)

// sickFile is what keepalived's track_file looks at: what it says is added to the
// priority.
const sickFile = "/run/sick"

// newSickly builds a pair of which lb01 is ours, with servers that it tracks, and
// lb02 a keepalived that can be told to be ill. Neither is started.
func newSickly(t *testing.T, preempt bool) *mixed {
	d := dialects[slices.IndexFunc(dialects, func(d dialect) bool { return d.name == "version 3" })]
	m := &mixed{dialect: d, ours: 100, theirs: 90, program: need(t, "keepalived", "keepalived")}
	m.pair = newPair(t, fmt.Sprintf(`
[node.lb01]
address    = "192.168.15.11"
priority   = 100
[node.lb02]
address    = "192.168.15.12"
priority   = 90
keepalived = true
[[vrrp]]
name              = "VI_1"
virtual_router_id = 50
addresses         = ["192.168.15.3/24"]
preempt           = %v
track             = [{ service = "web" }]
%s
[[l4]]
name    = "web"
listen  = ["192.168.15.3:80"]
servers = ["172.16.1.51:80", "172.16.1.52:80"]
check   = { type = "tcp", interval = "200ms", timeout = "200ms" }
`, preempt, d.ours))
	nopreempt := ""
	if !preempt {
		nopreempt = "nopreempt"
	}
	text := fmt.Sprintf(`global_defs {
 router_id lb02
}
track_file sick {
 file %s
 weight 1
}
vrrp_instance VI_1 {
 state BACKUP
 interface eth0
 virtual_router_id 50
 priority 90
 %s
 %s
 track_file {
 sick weight 1
 }
 virtual_ipaddress {
 192.168.15.3/24
 }
}
`, sickFile, nopreempt, d.keepalived)
	if err := m.LB02.WriteFile(keepalivedConfig, []byte(text)); err != nil {
		t.Fatal(err)
	}
	m.makeSick(0)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of keepalived:\n%s", m.keepalivedLog())
		}
	})
	return m
}

// makeSick takes so much off keepalived's priority.
func (m *mixed) makeSick(by int) {
	m.t.Helper()
	if err := m.LB02.WriteFile(sickFile, fmt.Appendf(nil, "%d\n", -by)); err != nil {
		m.t.Fatal(err)
	}
}

// killServers lets lb01 have no servers; reviveServers gives them back.
func (m *mixed) killServers() {
	for _, s := range m.Servers[:2] {
		s.Kill()
	}
}

func (m *mixed) reviveServers() {
	m.t.Helper()
	for _, s := range m.Servers[:2] {
		if err := s.Start(); err != nil {
			m.t.Fatal(err)
		}
	}
	m.waitDemoted(m.LB01, false)
}

// rests shows that nothing moves while a node sends so many adverts.
func (m *mixed) rests(n *lab.Node, adverts int) {
	m.t.Helper()
	since := time.Now()
	m.waitAdverts(n, adverts)
	m.alone(n)
	other := m.Other(n)
	if e, ok := m.Capture.First(lab.Advert, other.Name, since); ok {
		m.t.Errorf("%s is active, and %s sent an advert of priority %d", n.Name, other.Name, e.Priority)
	}
}

// A pair with a keepalived: the healthier node has the address, whichever of
// them falls ill, and whether keepalived preempts or not.
func TestHealthWithKeepalived(t *testing.T) {
	t.Parallel()
	for _, preempt := range []bool{true, false} {
		t.Run(fmt.Sprintf("preempt = %v", preempt), func(t *testing.T) {
			t.Parallel()
			m := newSickly(t, preempt)
			m.startOurs()
			m.waitActive(m.LB01)
			m.startKeepalived()
			m.rests(m.LB01, 10)

			// Ours falls ill.
			began := time.Now()
			m.killServers()
			m.waitActive(m.LB02)
			t.Logf("keepalived was active %v after our servers had died", time.Since(began).Round(time.Millisecond))
			m.waitDemoted(m.LB01, true)
			m.alone(m.LB02)
			if preempt {
				m.checkReason("192.168.15.12 is active with priority 90")
			} else {
				m.checkReason("the keepalived lb02, with priority 90, is to take over")
			}
			m.rests(m.LB02, 20)

			// Ours is well again: preempt decides.
			m.reviveServers()
			if !preempt {
				m.rests(m.LB02, 20)
				// keepalived falls ill, as the active one.
				m.makeSick(20)
			}
			m.waitActive(m.LB01)
			m.alone(m.LB01)
			if !preempt {
				m.checkReason("192.168.15.12 is demoted by 20 and this node by 0")
			}
			m.rests(m.LB01, 20)

			// Both are ill. What keepalived has said of itself is remembered; where
			// it has said nothing yet, one trial tells.
			if preempt {
				m.makeSick(20)
			}
			m.killServers()
			m.waitDemoted(m.LB01, true)
			if preempt {
				eventually(t, 20*time.Second, "ours has tried keepalived and has come back", func() bool {
					s := m.status(m.LB01).VRRP[0]
					return s.State == "active" && strings.Contains(s.Reason, "its own priority 89 is above 70")
				})
			}
			m.waitActive(m.LB01)
			m.rests(m.LB01, 60) // much longer than the rule of health waits
			m.checkPeace()
		})
	}
}

// The keepalived is not there any more: the trial costs the time in which it
// could have taken over, and is not made again soon.
func TestHealthWithADeadKeepalived(t *testing.T) {
	t.Parallel()
	m := newSickly(t, false)
	m.startOurs()
	m.waitActive(m.LB01)
	began := time.Now()
	m.killServers()
	eventually(t, 20*time.Second, "ours has tried keepalived and has come back", func() bool {
		s := m.status(m.LB01).VRRP[0]
		return s.State == "active" && strings.Contains(s.Reason, "the keepalived did not take over")
	})
	var resigned, back lab.Event
	eventually(t, 10*time.Second, "ours has resigned and sends adverts again", func() bool {
		resigned, back = lab.Event{}, lab.Event{}
		for _, e := range m.Capture.Events() {
			switch {
			case e.Kind != lab.Advert || e.Time.Before(began):
			case e.Priority == 0:
				resigned = e
			case !resigned.Time.IsZero() && back.Time.IsZero():
				back = e
			}
		}
		return !back.Time.IsZero()
	})
	// Skew_Time of priority 90 and 200 ms.
	if gap := back.Time.Sub(resigned.Time); gap < 200*time.Millisecond || gap > time.Second {
		t.Errorf("nobody had the address for %v, want about 265 ms", gap)
	} else {
		t.Logf("nobody had the address for %v", gap.Round(time.Millisecond))
	}
	before := m.changes(m.LB01)
	m.waitAdverts(m.LB01, 60)
	if after := m.changes(m.LB01); after != before {
		t.Errorf("tried again: %d transitions became %d", before, after)
	}
	m.alone(m.LB01)
	if _, err := os.Stat(m.LB02.Path(keepalivedLog)); err == nil {
		t.Error("there was a keepalived")
	}
}
