package integration

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"appliance/internal/lab"
)

// knownAtOnce is by when the other node has taken over from a dead process: before
// it misses one advert of a second.
const knownAtOnce = 900 * time.Millisecond

// The active node is killed, with adverts of 1 s: the link tells the other one,
// with the guard's word and without it.
func TestKillIsKnownAtOnce(t *testing.T) {
	t.Parallel()
	for _, guarded := range []bool{true, false} {
		name := map[bool]string{true: "guard lives", false: "guard killed as well"}[guarded]
		t.Run(name, func(t *testing.T) {
			p := newPair(t, linkedConfig(t, quickAdverts, slowAdverts))
			p.dual = afterFreeze
			p.startLinked()
			load := p.load(500, 80, 8080)
			guard := p.guardOf(p.LB01)

			killed := time.Now()
			if !guarded {
				// Frozen first, so that it cannot act.
				if err := syscall.Kill(guard, syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				killed = time.Now()
			}
			if err := p.LB01.Kill(); err != nil {
				t.Fatal(err)
			}
			w := p.takeOverAfter(killed, p.LB01, p.LB02)
			if !guarded {
				syscall.Kill(guard, syscall.SIGKILL)
			}
			t.Logf("the first advert of lb02 came %v after the kill, its gratuitous ARP %v after that",
				w.first.Time.Sub(killed).Round(100*time.Microsecond), w.announce.Time.Sub(w.first.Time).Round(100*time.Microsecond))
			if took := w.first.Time.Sub(killed); took > knownAtOnce {
				t.Errorf("lb02 was active %v after the kill, want at most %v", took, knownAtOnce)
			}
			p.waitRequests(load, 500)
			report := load.Report(killed, time.Now())
			t.Logf("at the client: no answer for %v at most; of %d requests %s", report.Gap.Round(time.Millisecond), report.Requests, report)
			if guarded && report.Gap > knownAtOnce {
				t.Errorf("the client had no answer for %v", report.Gap)
			}
			if s := p.peerOf(p.LB02); s.Link != "died" {
				t.Errorf("lb02 says that the link is %s, %s", s.Link, s.Reason)
			}
			p.waitActive(p.LB02)
		})
	}
}

// apart is a file by which the link goes over the servers' LAN: the adverts may
// be cut, and it stays.
func apart(t *testing.T, oldnew ...string) string {
	return linkedConfig(t, append([]string{
		`"192.168.15.11"`, `"172.16.1.11"`, `"192.168.15.12"`, `"172.16.1.12"`,
	}, oldnew...)...)
}

// No adverts pass and the link does: there is no second active node, and people
// are told. Only when the link is cut as well does the other one take over.
func TestAdvertsCutAndLinkAlive(t *testing.T) {
	t.Parallel()
	p := newPair(t, apart(t))
	// Cut from the LAN, lb02 may be active there: nobody hears it.
	p.startLinked()
	if err := p.Cut(p.LB02.Host, lab.LAN, lab.Silent); err != nil {
		t.Fatal(err)
	}
	p.waitAlarm(p.LB02, "adverts", true)
	p.stays(p.LB02, "backup", p.LB01)
	p.alone(p.LB01)
	if err := p.Heal(p.LB02.Host, lab.LAN); err != nil {
		t.Fatal(err)
	}
	p.waitAlarm(p.LB02, "adverts", false)
	p.stays(p.LB02, "backup", p.LB01)

	if err := p.Cut(p.LB02.Host, lab.LAN, lab.Silent); err != nil {
		t.Fatal(err)
	}
	p.waitAlarm(p.LB02, "adverts", true)
	if err := p.Cut(p.LB02.Host, lab.SRV, lab.Silent); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "lb02 is active", func() bool { return p.status(p.LB02).VRRP[0].State == "active" })

	// The link comes back first: it decides between the two.
	if err := p.Heal(p.LB02.Host, lab.SRV); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "lb02 is a backup", func() bool { return p.status(p.LB02).VRRP[0].State == "backup" })
	if err := p.Heal(p.LB02.Host, lab.LAN); err != nil {
		t.Fatal(err)
	}
	p.waitActive(p.LB01)
	p.alone(p.LB01)
}

// The link is cut and adverts are heard: people are told, and nothing moves.
func TestLinkCutAndAdvertsAlive(t *testing.T) {
	t.Parallel()
	p := newPair(t, apart(t))
	p.startLinked()
	load := p.load(100, 80)
	began := time.Now()
	if err := p.Cut(p.LB02.Host, lab.SRV, lab.Silent); err != nil {
		t.Fatal(err)
	}
	p.waitLink(p.LB02, "lost")
	p.waitAlarm(p.LB01, "peer link", true)
	p.waitAlarm(p.LB02, "peer link", true)
	p.stays(p.LB02, "backup", p.LB01)
	p.mustRefuse(p.LB01, "failover", "lb02 is absent", "--force")
	if err := p.Heal(p.LB02.Host, lab.SRV); err != nil {
		t.Fatal(err)
	}
	p.waitAlarm(p.LB01, "peer link", false)
	p.alone(p.LB01)
	if report := load.Report(began, time.Now()); report.Failures() > 0 {
		t.Errorf("of %d requests %s, first: %v", report.Requests, report, report.FirstError)
	}
}

// The active node freezes: neither adverts nor the link are heard, and the other
// one takes over. Thawed, it does not act as active.
func TestFreezeWithLink(t *testing.T) {
	t.Parallel()
	p := newPair(t, linkedConfig(t))
	p.dual = afterFreeze
	p.startLinked()
	frozen := time.Now()
	if err := p.LB01.Appliance().Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w := p.takeOverAfter(frozen, p.LB01, p.LB02)
	t.Logf("the first advert of lb02 came %v after the freeze", w.first.Time.Sub(frozen).Round(time.Millisecond))
	p.waitActive(p.LB02)
	if err := p.LB01.Appliance().Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	p.waitLink(p.LB02, "up")
	p.stays(p.LB02, "active", p.LB02)
	eventually(t, 20*time.Second, "lb01 is a backup", func() bool { return p.status(p.LB01).VRRP[0].State == "backup" })
	if holders := p.holders(p.VIP); !slices.Equal(holders, []string{"lb02"}) {
		t.Errorf("%s is on %v", p.VIP, holders)
	}
}
