package integration

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"appliance/internal/lab"
)

const (
	// takeOverEarliest is what three missed adverts of 100 ms take: a backup
	// that is faster than that does not wait for a late one.
	takeOverEarliest = 300 * time.Millisecond
	// takeOverLatest is when people begin to notice.
	takeOverLatest = 3 * time.Second

	preemptOff = "preempt           = false"
	preemptOn  = "preempt           = true"
)

// takeOver is a change of the active node as the LAN saw it.
type takeOver struct {
	last     lab.Event // the last advert of the node that was active
	first    lab.Event // the first advert of the other one
	announce lab.Event // the other one's first gratuitous ARP after that
}

// takeOverAfter waits until heir has announced the virtual address after a time
// at which gone ceased to be heard, and returns what the wire tells of it.
func (p *pair) takeOverAfter(since time.Time, gone, heir *lab.Node) takeOver {
	p.t.Helper()
	var w takeOver
	eventually(p.t, 20*time.Second, heir.Name+" announces the address", func() bool {
		var ok bool
		w.announce, ok = p.Capture.First(lab.Gratuitous, heir.Name, since)
		return ok
	})
	var ok bool
	if w.last, ok = p.Capture.Last(lab.Advert, gone.Name, since); !ok {
		p.t.Fatalf("%s was never heard", gone.Name)
	}
	if w.first, ok = p.Capture.First(lab.Advert, heir.Name, w.last.Time); !ok {
		p.t.Fatalf("%s announced the address and sent no advert", heir.Name)
	}
	if w.announce.Time.Before(w.first.Time) {
		p.t.Errorf("%s announced the address %v before its first advert", heir.Name, w.first.Time.Sub(w.announce.Time))
	}
	// Over IPv6 the link-local address comes first.
	if w.announce.Address != p.VIP && !w.announce.Address.IsLinkLocalUnicast() {
		p.t.Errorf("%s announced %s, not %s", heir.Name, w.announce.Address, p.VIP)
	}
	return w
}

// gap is how long nobody claimed the address.
func (w takeOver) gap() time.Duration { return w.first.Time.Sub(w.last.Time) }

// String tells the take-over in a sentence.
func (w takeOver) String() string {
	return fmt.Sprintf("on the wire: the first advert of %s came %v after the last one of %s, its gratuitous ARP %v after that",
		w.first.Host, w.gap().Round(100*time.Microsecond), w.last.Host, w.announce.Time.Sub(w.first.Time).Round(100*time.Microsecond))
}

// checkGap fails the test if the gap is not what three missed adverts make.
func (w takeOver) checkGap(t *testing.T) {
	t.Helper()
	if gap := w.gap(); gap < takeOverEarliest || gap > takeOverLatest {
		t.Errorf("the other node was active after %v, want about 366 ms, at least %v, at most %v", gap, takeOverEarliest, takeOverLatest)
	}
}

// checkKill fails the test unless the guard of a node that was killed has taken
// the address off, and told the other one not to wait.
func (w takeOver) checkKill(p *pair, killed time.Time) {
	p.t.Helper()
	if gap := w.gap(); gap > takeOverLatest {
		p.t.Errorf("the other node was active after %v, want at most %v", gap, takeOverLatest)
	}
	farewell, ok := p.resignation(w.last.Host, killed)
	if !ok || farewell.Time.After(w.first.Time) {
		p.t.Errorf("after the kill %s was heard with %+v, want an advert of priority 0 before %v", w.last.Host, farewell, w.first.Time)
	} else {
		p.t.Logf("the guard resigned %v after the kill, and the other node was active %v after that",
			farewell.Time.Sub(killed).Round(100*time.Microsecond), w.first.Time.Sub(farewell.Time).Round(100*time.Microsecond))
	}
	if last, ok := p.Monitor.LastAnswer(w.last.Host); ok {
		stale := max(0, last.Sub(killed))
		p.t.Logf("the machine of the killed one answered for the address for %v more", stale.Round(time.Millisecond))
		if stale > duringTakeOver {
			p.t.Errorf("the machine of the killed one answered for the address for %v, allowed are %v", stale, duringTakeOver)
		}
	}
}

// settle waits until one node is active and one a backup.
func (p *pair) settle() {
	p.t.Helper()
	eventually(p.t, 20*time.Second, "one node is active and one a backup", func() bool {
		a, b := p.status(p.LB01).VRRP[0].State, p.status(p.LB02).VRRP[0].State
		return a == "active" && b == "backup" || a == "backup" && b == "active"
	})
}

// resignation returns the first advert of priority 0 of a host since. One of
// another priority may have left just before a kill.
func (p *pair) resignation(host string, since time.Time) (lab.Event, bool) {
	for _, e := range p.Capture.Events() {
		if e.Kind == lab.Advert && e.Host == host && e.Priority == 0 && !e.Time.Before(since) {
			return e, true
		}
	}
	return lab.Event{}, false
}

// wellAgain waits until the client is served again after a take-over, and tells
// what it saw since the time given.
func (p *pair) wellAgain(load *lab.Load, since time.Time, w takeOver) {
	p.t.Helper()
	p.waitRequests(load, 100)
	report := load.Report(since, time.Now())
	p.t.Logf("at the client: %v without an answer; of %d requests %s", report.Gap.Round(time.Millisecond), report.Requests, report)
	if report.Gap > takeOverLatest {
		p.t.Errorf("the client had no answer for %v", report.Gap)
	}
	// The client hears the gratuitous ARP as early as the capture, almost.
	settled := w.announce.Time.Add(200 * time.Millisecond)
	for _, o := range load.Outcomes() {
		if o.Start.After(settled) && o.Kind != lab.OK {
			p.t.Errorf("a request that began %v after the take-over failed: %v", o.Start.Sub(w.announce.Time), o.Err)
		}
	}
}

// alone fails the test unless the node, and no other, holds the address. The other
// one may be about to let go: for how long both may answer is the monitor's to judge.
func (p *pair) alone(n *lab.Node) {
	p.t.Helper()
	eventually(p.t, 5*time.Second, fmt.Sprintf("%s is on %s alone", p.VIP, n.Name), func() bool {
		return slices.Equal(p.holders(p.VIP), []string{n.Name})
	})
}

// waitState waits until the first virtual router of a node is in a state.
func (p *pair) waitState(n *lab.Node, state string) {
	p.t.Helper()
	eventually(p.t, 20*time.Second, n.Name+" is "+state, func() bool { return p.status(n).VRRP[0].State == state })
}

// The active node is killed without a word: the other one serves, the address
// goes from the dead one, and when that returns the file says what happens.
func TestTakeOverAfterKill(t *testing.T) {
	t.Parallel()
	for name, preempt := range map[string]string{"preempt = false": preemptOff, "preempt = true": preemptOn} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, labConfig(t, preemptOff, preempt))
			p.start()
			load := p.load(200, 80, 8080)

			killed := time.Now()
			if err := p.LB01.Kill(); err != nil {
				t.Fatal(err)
			}
			w := p.takeOverAfter(killed, p.LB01, p.LB02)
			t.Log(w)
			w.checkKill(p, killed)
			p.wellAgain(load, killed, w)
			p.waitActive(p.LB02)
			p.alone(p.LB02)

			returned := time.Now()
			p.startNode(p.LB01)
			if preempt == preemptOn {
				p.takesBack(load, returned)
			} else {
				p.staysBackup(load, returned)
			}
		})
	}
}

// takesBack waits until lb01 has the address again, because its priority is the
// larger one, and tells what that cost.
func (p *pair) takesBack(load *lab.Load, since time.Time) {
	p.t.Helper()
	p.waitActive(p.LB01)
	p.alone(p.LB01)
	p.waitRequests(load, 100)
	report := load.Report(since, time.Now())
	p.t.Logf("lb01 is back and took over again: the client was %v without an answer; of %d requests %s",
		report.Gap.Round(time.Millisecond), report.Requests, report)
	if report.Gap > takeOverLatest {
		p.t.Errorf("when lb01 took over again the client had no answer for %v", report.Gap)
	}
}

// staysBackup shows that lb01, ready again, leaves the address where it is and
// disturbs nobody.
func (p *pair) staysBackup(load *lab.Load, since time.Time) {
	p.t.Helper()
	eventually(p.t, 20*time.Second, "lb01 is a backup, and knows lb02 as the active one", func() bool {
		s := p.status(p.LB01).VRRP[0]
		return s.State == "backup" && s.ActiveRouter != nil && s.ActiveRouter.Address == "192.168.15.12"
	})
	p.stays(p.LB01, "backup", p.LB02)
	p.alone(p.LB02)
	if e, ok := p.Capture.First(lab.Advert, p.LB01.Name, since); ok {
		p.t.Errorf("lb01 is back as a backup, and sent an advert with priority %d", e.Priority)
	}
	if report := load.Report(since, time.Now()); report.Failures() > 0 {
		p.t.Errorf("the return of lb01: of %d requests %s, first: %v", report.Requests, report, report.FirstError)
	}
}

// A supervisor starts a crashed appliance at once, while the kernel still has
// the address: it goes at the start, and there is one active node in the end.
func TestRestartAtOnceAfterKill(t *testing.T) {
	t.Parallel()
	p := newPair(t, "")
	p.start()
	if err := p.LB01.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	p.startNode(p.LB01)
	// It is active before it has the address, and is asked after.
	if has, err := p.LB01.Network.HasAddress(p.VIP); err != nil {
		t.Fatal(err)
	} else if s := p.status(p.LB01).VRRP[0]; has && s.State != "active" {
		t.Errorf("lb01 is %s and has the address of its former life", s.State)
	}
	active, err := p.WaitAnyActive(p.within(20 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s is active, and alone, %v after the crash", active.Name, time.Since(killed).Round(time.Millisecond))
	p.waitState(p.Other(active), "backup")
	p.stays(p.Other(active), "backup", active)
	p.alone(active)
}

// The cable of the active node is cut: with the carrier, or by a switch that
// forwards nothing any more. The other node serves. When the cable is whole
// again there is one active node, and its announcement is the last one.
func TestTakeOverAfterCut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		how     lab.Cut
		preempt string
		after   string // who is active when the cable is whole again
	}{
		// Who lost its carrier has left the election; it comes back as a backup.
		{"carrier lost", lab.Unplugged, preemptOff, "lb02"},
		{"carrier lost, preempt", lab.Unplugged, preemptOn, "lb01"},
		// Who noticed nothing is active still: of two the larger priority stays.
		{"silent", lab.Silent, preemptOff, "lb01"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, labConfig(t, preemptOff, c.preempt))
			p.start()
			load := p.load(200, 80, 8080)

			cut := time.Now()
			if err := p.Cut(p.LB01.Host, lab.LAN, c.how); err != nil {
				t.Fatal(err)
			}
			w := p.takeOverAfter(cut, p.LB01, p.LB02)
			t.Log(w)
			w.checkGap(t)
			p.waitActive(p.LB02)
			p.wellAgain(load, cut, w)
			if c.how == lab.Unplugged {
				p.alone(p.LB02)
				eventually(t, 20*time.Second, "lb01 says that it has no carrier", func() bool {
					s := p.status(p.LB01).VRRP[0]
					return s.State == "fault" && len(s.Faults) == 1 && s.Faults[0].Source == "interface eth0"
				})
			}

			healed := time.Now()
			if err := p.Heal(p.LB01.Host, lab.LAN); err != nil {
				t.Fatal(err)
			}
			p.settlesOn(c.after)
			p.waitRequests(load, 100)
			report := load.Report(healed, time.Now())
			t.Logf("the cable is whole again and %s is active; the client was %v without an answer; of %d requests %s",
				c.after, report.Gap.Round(time.Millisecond), report.Requests, report)
			p.announcedLast(c.after)
			if report.Gap > takeOverLatest {
				t.Errorf("after the cable was whole again the client had no answer for %v", report.Gap)
			}
		})
	}
}

// nodeNamed returns the node of that name and the other one.
func (p *pair) nodeNamed(name string) (named, other *lab.Node) {
	if name == p.LB02.Name {
		return p.LB02, p.LB01
	}
	return p.LB01, p.LB02
}

// settlesOn waits until the node of that name alone is active.
func (p *pair) settlesOn(name string) {
	p.t.Helper()
	winner, loser := p.nodeNamed(name)
	eventually(p.t, 20*time.Second, winner.Name+" is active and "+loser.Name+" a backup", func() bool {
		a, b := p.status(winner).VRRP[0], p.status(loser).VRRP[0]
		return a.State == "active" && b.State == "backup"
	})
	p.waitActive(winner)
	p.waitAdverts(winner, 10)
	p.alone(winner)
}

// announcedLast shows that the LAN heard last from the node of that name where
// the address is.
func (p *pair) announcedLast(name string) {
	p.t.Helper()
	winner, loser := p.nodeNamed(name)
	announced, ok := p.Capture.Last(lab.Gratuitous, winner.Name, time.Now())
	if !ok {
		p.t.Fatalf("%s never announced the address", winner.Name)
	}
	if e, ok := p.Capture.First(lab.Gratuitous, loser.Name, announced.Time); ok {
		p.t.Errorf("the last gratuitous ARP is one of %s, %v after the one of %s, which is active",
			loser.Name, e.Time.Sub(announced.Time), winner.Name)
	}
}
