package integration

import (
	"strings"
	"testing"
	"time"

	"appliance/internal/lab"
)

// overlap is how long two nodes may answer at the same time during a planned
// switch: a few milliseconds, and what a busy machine adds.
const overlap = 300 * time.Millisecond

// switched runs a move on a node, and shows that heir is active then, that
// nobody's adverts were missed meanwhile, and that nobody resigned.
func (p *pair) switched(on *lab.Node, verb string, heir *lab.Node, args ...string) {
	p.t.Helper()
	began := time.Now()
	code, output := p.applianctl(on, append([]string{verb}, args...)...)
	s := p.status(heir).VRRP[0]
	ended := time.Now()
	if code != 0 {
		p.t.Fatalf("%s$ applianctl %s ended with code %d: %s", on.Name, verb, code, output)
	}
	if s.State != "active" || !strings.Contains(output, heir.Name) {
		p.t.Errorf("%s$ applianctl %s has returned, and %s is %s: %s", on.Name, verb, heir.Name, s.State, output)
	}
	p.waitActive(heir)
	p.alone(heir)
	var last time.Time
	var gap time.Duration
	for _, e := range p.Capture.Events() {
		if e.Kind != lab.Advert || e.Time.Before(began) || e.Time.After(ended) {
			continue
		}
		if e.Priority == 0 {
			p.t.Errorf("%s resigned", e.Host)
		}
		if !last.IsZero() {
			gap = max(gap, e.Time.Sub(last))
		}
		last = e.Time
	}
	p.t.Logf("%s$ applianctl %s: %s; longest time without an advert: %v", on.Name, verb, strings.TrimSpace(output), gap.Round(time.Millisecond))
	if gap > threeAdverts {
		p.t.Errorf("for %v there was no advert", gap)
	}
}

// A planned switch goes over the link, typed on either node, there and back: no
// request fails, and at no time is there nobody.
func TestSwitchOverTheLink(t *testing.T) {
	t.Parallel()
	for name, preempt := range map[string]string{"preempt = false": preemptOff, "preempt = true": preemptOn} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, linkedConfig(t, preemptOff, preempt, quickAdverts, patientAdverts))
			p.dual = overlap
			p.serveSlowly(time.Second)
			p.startLinked()
			load := p.load(failoverRate, 80, 8080)
			began := time.Now()

			p.switched(p.LB01, "failover", p.LB02)
			if s := p.status(p.LB01).VRRP[0]; !s.Yielded {
				t.Error("lb01 has not yielded")
			}
			p.stays(p.LB01, "backup", p.LB02)
			p.switched(p.LB02, "failback", p.LB01)
			if s := p.status(p.LB02).VRRP[0]; s.Yielded {
				t.Error("after a failback lb02 has yielded")
			}
			p.switched(p.LB02, "failover", p.LB02)
			p.switched(p.LB01, "failback", p.LB01)
			p.stays(p.LB02, "backup", p.LB01)

			p.waitRequests(load, failoverRate)
			report := load.Report(began, time.Now())
			t.Logf("at the client: of %d requests %s; no answer for %v at most", report.Requests, report, report.Gap.Round(time.Millisecond))
			if report.Failures() > 0 {
				t.Errorf("of %d requests %s, first: %v", report.Requests, report, report.FirstError)
			}
		})
	}
}

// What would do harm is refused with a reason, unless it is forced.
func TestSwitchIsRefusedWhereItWouldHarm(t *testing.T) {
	t.Parallel()
	p := newPair(t, linkedConfig(t, quickAdverts, patientAdverts))
	p.startLinked()
	// lb02 does not reach the servers.
	if err := p.Cut(p.LB02.Host, lab.SRV, lab.Silent); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "lb01 knows that lb02 is demoted", func() bool {
		s := p.peerOf(p.LB01)
		return len(s.VRRP) == 1 && len(s.VRRP[0].Demotions) == 1
	})
	p.mustRefuse(p.LB01, "failover", "lb02 is less healthy", "service web", "--force")
	p.mustRefuse(p.LB02, "failover", "lb02 is less healthy")
	p.alone(p.LB01)
	p.switched(p.LB02, "failover", p.LB02, "--force")
	p.switched(p.LB01, "failback", p.LB01)
	if err := p.Heal(p.LB02.Host, lab.SRV); err != nil {
		t.Fatal(err)
	}

	if err := p.LB02.Terminate(p.within(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	p.waitLink(p.LB01, "goodbye")
	p.mustRefuse(p.LB01, "failover", "lb02 is absent", "it has stopped")
	p.alone(p.LB01)
}

// A stop hands over as a failover does: with adverts of 1 s nobody is missed.
func TestStopOverTheLink(t *testing.T) {
	t.Parallel()
	p := newPair(t, linkedConfig(t, quickAdverts, slowAdverts))
	p.dual = overlap
	p.serveSlowly(time.Second)
	p.startLinked()
	load := p.load(failoverRate, 80, 8080)
	stopped := time.Now()
	if err := p.LB01.Terminate(p.within(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	ended := time.Now()
	p.waitActive(p.LB02)
	p.waitLink(p.LB02, "goodbye")
	first, ok := p.Capture.First(lab.Advert, p.LB02.Name, stopped)
	if !ok || first.Time.After(ended) {
		t.Errorf("lb02 was active after lb01 had ended: %+v", first)
	}
	if e, ok := p.Capture.Last(lab.Advert, p.LB01.Name, time.Now()); ok && e.Priority == 0 {
		t.Error("lb01 resigned instead of handing over")
	}
	p.waitRequests(load, failoverRate)
	report := load.Report(stopped, time.Now())
	t.Logf("lb02 was active %v after SIGTERM; at the client: of %d requests %s; no answer for %v at most",
		first.Time.Sub(stopped).Round(time.Millisecond), report.Requests, report, report.Gap.Round(time.Millisecond))
	if report.Failures() > 0 {
		t.Errorf("of %d requests %s, first: %v", report.Requests, report, report.FirstError)
	}
}

// Each node is active in one virtual router. A failback without a name gives back
// what has been yielded, and leaves the other one where it was all along.
func TestFailbackTakesWhatWasYieldedOnly(t *testing.T) {
	t.Parallel()
	p := newPair(t, replaced(t, severalConfig, "[handover]\ndrain = \"10s\"\n", "[peer]\nsecret_file = \"peer.secret\"\n"))
	p.start()
	for _, on := range []*lab.Node{p.LB01, p.LB02} {
		p.waitRouters("active", "backup")
		for _, n := range p.Nodes() {
			eventually(t, 20*time.Second, n.Name+" has a peer link", func() bool {
				s := p.peerOf(n)
				return s.Link == "up" && len(s.VRRP) == 2 && (s.VRRP[0].State == "active" || s.VRRP[1].State == "active")
			})
		}
		if code, output := p.applianctl(p.LB01, "failover", "--vrrp", "VI_1"); code != 0 {
			t.Fatalf("lb01$ applianctl failover --vrrp VI_1 ended with code %d: %s", code, output)
		}
		p.waitRouters("backup", "backup")
		_, before := p.routerState(p.LB02, "VI_2")
		code, output := p.applianctl(on, "failback")
		if code != 0 || !strings.Contains(output, "VI_1: lb01") || strings.Contains(output, "VI_2") {
			t.Fatalf("%s$ applianctl failback ended with code %d: %s", on.Name, code, output)
		}
		p.waitRouters("active", "backup")
		if _, now := p.routerState(p.LB02, "VI_2"); now != before {
			t.Errorf("VI_2 went from %d transitions to %d with the failback of VI_1", before, now)
		}
	}
}
