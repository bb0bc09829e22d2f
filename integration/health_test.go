package integration

import (
	"strings"
	"testing"
	"time"

	"appliance/internal/control"
	"appliance/internal/lab"
)

// healthConfig is the laboratory's file with faster checks: a server is found
// dead after about 600 ms, and two nodes may differ in that by 420 ms.
func healthConfig(t *testing.T, preempt string) string {
	t.Helper()
	return labConfig(t, preemptOff, preempt, `interval = "500ms", timeout = "250ms"`, `interval = "200ms", timeout = "200ms"`)
}

// checkIntervals returns how many adverts of 100 ms so many checks of
// healthConfig take.
func checkIntervals(n int) (adverts int) { return 2 * n }

// demotions returns what lowers a node's priority.
func (p *pair) demotions(n *lab.Node) []control.Condition {
	p.t.Helper()
	return p.status(n).VRRP[0].Demotions
}

// waitDemoted waits until a node is demoted because of the service web, or no
// longer is.
func (p *pair) waitDemoted(n *lab.Node, demoted bool) {
	p.t.Helper()
	eventually(p.t, 20*time.Second, n.Name+" notices", func() bool {
		d := p.demotions(n)
		if !demoted {
			return len(d) == 0
		}
		return len(d) == 1 && d[0].Source == "service web"
	})
}

// A node that alone loses the way to the servers gives the address to the one
// that has it, whatever the file says on preemption, which decides only what
// happens when the way is there again.
func TestUnhealthyNodeHandsOver(t *testing.T) {
	t.Parallel()
	for name, preempt := range map[string]string{"preempt = false": preemptOff, "preempt = true": preemptOn} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, healthConfig(t, preempt))
			p.start()
			load := p.load(100, 80, 8080)

			cut := time.Now()
			if err := p.Cut(p.LB01.Host, lab.SRV, lab.Silent); err != nil {
				t.Fatal(err)
			}
			p.waitActive(p.LB02)
			moved := time.Now()
			t.Logf("lb02 was active %v after lb01 had lost the way to the servers", moved.Sub(cut).Round(time.Millisecond))
			p.showsDemotion(p.LB01)
			p.waitRequests(load, 100)
			report := load.Report(cut, time.Now())
			t.Logf("at the client: of %d requests %s; no answer for %v at most", report.Requests, report, report.Gap.Round(time.Millisecond))
			p.alone(p.LB02)

			if err := p.Heal(p.LB01.Host, lab.SRV); err != nil {
				t.Fatal(err)
			}
			p.waitDemoted(p.LB01, false)
			active := p.LB02
			if preempt == preemptOn {
				active = p.LB01
			}
			p.waitActive(active)
			p.waitAdverts(active, checkIntervals(10))
			p.waitActive(active)
			p.alone(active)
			p.waitState(p.Other(active), "backup")
		})
	}
}

// showsDemotion fails the test if a node does not tell why its priority is
// lower, to people and to programs.
func (p *pair) showsDemotion(n *lab.Node) {
	p.t.Helper()
	s := p.status(n).VRRP[0]
	if len(s.Demotions) != 1 {
		p.t.Fatalf("%s has the demotions %+v, want one", n.Name, s.Demotions)
	}
	d := s.Demotions[0]
	if d.Source != "service web" || d.Amount != 11 || d.Since.IsZero() || !strings.Contains(d.Reason, "pool web") {
		p.t.Errorf("%s has the demotion %+v", n.Name, d)
	}
	if s.Priority != s.BasePriority-d.Amount {
		p.t.Errorf("%s has priority %d of %d with a demotion by %d", n.Name, s.Priority, s.BasePriority, d.Amount)
	}
	for _, view := range []struct {
		args []string
		want []string
	}{
		{[]string{"status"}, []string{"89 of 100", "demoted by 11: service web: no usable server in pool web"}},
		{[]string{"status", "--json"}, []string{`"source": "service web"`, `"amount": 11`, `"reason": "no usable server in pool web"`, `"priority": 89`}},
	} {
		_, output := p.applianctl(n, view.args...)
		for _, w := range view.want {
			if !strings.Contains(output, w) {
				p.t.Errorf("applianctl %s does not show %q:\n%s", strings.Join(view.args, " "), w, output)
			}
		}
	}
}

// What both nodes see is no reason to move: when all servers die, and when they
// return, the address stays where it is.
func TestNoFlappingWhenServersDie(t *testing.T) {
	t.Parallel()
	for name, preempt := range map[string]string{"preempt = false": preemptOff, "preempt = true": preemptOn} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, healthConfig(t, preempt))
			p.start()
			since := time.Now()
			before := [2]uint64{p.transitions(p.LB01), p.transitions(p.LB02)}

			for _, s := range p.Servers {
				s.Kill()
			}
			p.waitDemoted(p.LB01, true)
			p.waitDemoted(p.LB02, true)
			p.waitAdverts(p.LB01, checkIntervals(6))
			p.stayed("all servers died", since, before)

			for _, s := range p.Servers {
				if err := s.Start(); err != nil {
					t.Fatal(err)
				}
			}
			p.waitDemoted(p.LB01, false)
			p.waitDemoted(p.LB02, false)
			p.waitAdverts(p.LB01, checkIntervals(6))
			p.stayed("all servers returned", since, before)
		})
	}
}

// Two nodes learn of the same trouble at different moments, for their checks
// begin when they like. The one that learns last is not the healthier one.
func TestNoFlappingWhileOneNodeKnows(t *testing.T) {
	t.Parallel()
	for name, preempt := range map[string]string{"preempt = false": preemptOff, "preempt = true": preemptOn} {
		t.Run(name, func(t *testing.T) {
			// Checks that are a second apart may differ by 1.75 s.
			p := newPair(t, labConfig(t, preemptOff, preempt, `interval = "500ms"`, `interval = "1s"`))
			p.start()
			since := time.Now()
			before := [2]uint64{p.transitions(p.LB01), p.transitions(p.LB02)}

			p.setServers(p.LB01, "maint")
			p.waitAdverts(p.LB01, 7) // twice the time that a take-over takes
			p.setServers(p.LB02, "maint")
			p.waitAdverts(p.LB01, 20)
			p.stayed("first lb01, then lb02 lost its servers", since, before)

			p.setServers(p.LB02, "ready")
			p.waitAdverts(p.LB01, 7)
			p.setServers(p.LB01, "ready")
			p.waitAdverts(p.LB01, 20)
			p.stayed("first lb02, then lb01 got its servers back", since, before)
		})
	}
}

// setServers sets the administrative state of all servers of the pool web at a
// node, and waits until that shows in its priority.
func (p *pair) setServers(n *lab.Node, state string) {
	p.t.Helper()
	for _, s := range p.Servers {
		request := control.ServerRequest{Pool: "web", Server: s.Name(), State: state}
		if err := n.Control().SetServer(p.within(10*time.Second), request); err != nil {
			p.t.Fatal(err)
		}
	}
	p.waitDemoted(n, state != "ready")
}

// transitions returns how often a node has changed its state.
func (p *pair) transitions(n *lab.Node) uint64 {
	p.t.Helper()
	return p.status(n).VRRP[0].Counters["transitions"]
}

// stayed fails the test if the address has moved from lb01 since.
func (p *pair) stayed(after string, since time.Time, before [2]uint64) {
	p.t.Helper()
	if now := [2]uint64{p.transitions(p.LB01), p.transitions(p.LB02)}; now != before {
		p.t.Errorf("%s: lb01 went from %d transitions to %d, lb02 from %d to %d", after, before[0], now[0], before[1], now[1])
	}
	for _, e := range p.Capture.Events() {
		if e.Time.Before(since) {
			continue
		}
		if e.Host == p.LB02.Name || e.Kind == lab.Advert && e.Priority == 0 {
			p.t.Errorf("%s: %s of %s, priority %d, %v later", after, e.Kind, e.Host, e.Priority, e.Time.Sub(since))
		}
	}
	p.alone(p.LB01)
}

// An administrator who takes the last server from a node's pool moves the
// address to the node that has servers, and nothing is lost.
func TestMaintenanceOfTheLastServerHandsOver(t *testing.T) {
	t.Parallel()
	p := newPair(t, healthConfig(t, preemptOff))
	p.start()
	for _, server := range []string{"web1", "web2", "web3"} {
		if code, output := p.applianctl(p.LB01, "server", "maint", "web/"+server); code != 0 {
			t.Fatalf("lb01$ applianctl server maint web/%s ended with code %d: %s", server, code, output)
		}
	}
	ordered := time.Now()
	p.waitActive(p.LB02)
	t.Logf("lb02 was active %v after the last server was taken from lb01", time.Since(ordered).Round(time.Millisecond))
	p.showsDemotion(p.LB01)
	load := p.load(100, 80, 8080)
	from := time.Now()
	p.waitRequests(load, 100)
	if report := load.Report(from, time.Now()); report.Failures() > 0 {
		t.Errorf("of %d requests %s, first: %v", report.Requests, report, report.FirstError)
	}
	for _, server := range []string{"web1", "web2", "web3"} {
		if code, output := p.applianctl(p.LB01, "server", "ready", "web/"+server); code != 0 {
			t.Fatalf("lb01$ applianctl server ready web/%s ended with code %d: %s", server, code, output)
		}
	}
	p.waitDemoted(p.LB01, false)
	p.waitAdverts(p.LB02, 20)
	p.alone(p.LB02)
}
