package vrrp

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestStartsInFaultUntilReady(t *testing.T) {
	m := NewMachine(testConfig(), epoch)
	if m.State() != Fault || !m.Deadline().IsZero() {
		t.Fatalf("state %s, deadline %s", m.State(), m.Deadline())
	}
	if out := m.Step(epoch.Add(time.Hour), Tick{}); len(out) > 0 {
		t.Fatalf("a tick in fault did %q", kinds(out))
	}
	wantKinds(t, m.Step(epoch, SetFault{Source: StartupFault}), "to backup")
}

func TestFaultRaisedAgainOnlyChangesItsReason(t *testing.T) {
	m := NewMachine(testConfig(), epoch)
	later := epoch.Add(time.Second)
	want := "waiting for the first check of mysql/db1"
	if out := m.Step(later, SetFault{Source: StartupFault, Reason: want}); len(out) > 0 {
		t.Errorf("did %q", kinds(out))
	}
	s := m.snapshot()
	if len(s.Faults) != 1 || s.Faults[0] != (FaultReport{Source: StartupFault, Reason: want, Since: epoch}) || s.Since != epoch || s.Reason != "starting" {
		t.Errorf("%+v", s)
	}
}

func TestColdStartCostsOneActiveDownInterval(t *testing.T) {
	b := newBench(t)
	b.wantDown(downA)
}

func TestSkewTimeOfTheLargestPriorityIsTheShortest(t *testing.T) {
	for _, tt := range []struct {
		priority int
		want     time.Duration
	}{{254, 2 * 100 * ms / 256}, {100, skewA}, {1, 255 * 100 * ms / 256}} {
		b := newBench(t, func(c *Config) { c.Priority = tt.priority })
		b.wantDown(300*ms + tt.want)
	}
}

func TestPromotionIsAdvertAcquireAnnounce(t *testing.T) {
	b := newBench(t)
	wantKinds(t, b.run(downA), "send 100, acquire, to active")
	wantKinds(t, b.acquired(), "announce")
}

func TestBackupPriorityZeroSetsTimerToSkewTime(t *testing.T) {
	b := newBench(t)
	b.hear(110)
	wantKinds(t, b.hear(0), "")
	b.wantDown(skewA)
	b.run(skewA)
	b.want(Active)
	if b.m.reason != "192.168.15.12 resigned" {
		t.Error(b.m.reason)
	}
}

func TestBackupHigherOrEqualPriorityRestartsTimer(t *testing.T) {
	for _, priority := range []int{100, 101, 255} {
		b := newBench(t)
		b.run(200 * ms)
		b.hear(priority)
		b.wantDown(downA)
	}
}

func TestBackupLowerPriorityWithPreemptKeepsTimerRunning(t *testing.T) {
	b := newBench(t)
	b.run(200 * ms)
	b.hear(90)
	b.wantDown(downA - 200*ms)
}

func TestBackupLowerPriorityWithoutPreemptRestartsTimer(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Preempt = false })
	b.run(200 * ms)
	b.hear(90)
	b.wantDown(downA)
}

func TestBackupLearnsTheActiveInterval(t *testing.T) {
	b := newBench(t)
	b.do(Heard{Source: addr("192.168.15.12"), Priority: 200, Interval: time.Second})
	b.wantDown(10 * downA)
	// The own interval is used once active.
	b.run(10 * downA)
	b.acquired()
	if got := b.m.Deadline().Sub(b.now); got != 100*ms {
		t.Errorf("next advert in %s", got)
	}
}

func TestActiveSendsEveryAdvertisementInterval(t *testing.T) {
	b := newActive(t)
	out := b.run(400 * ms)
	wantKinds(t, out, "send 100, send 100, send 100, send 100")
}

func TestActiveLatenessDoesNotAddUp(t *testing.T) {
	b := newActive(t)
	due := b.m.Deadline()
	b.now = due.Add(7 * ms)
	wantKinds(t, b.do(Tick{}), "send 100")
	if got := b.m.Deadline(); got != due.Add(100*ms) {
		t.Errorf("next advert %s after the last was due", got.Sub(due))
	}
}

func TestActivePriorityZeroSendsAtOnce(t *testing.T) {
	b := newActive(t)
	b.run(50 * ms)
	wantKinds(t, b.hear(0), "send 100")
	b.want(Active)
	if got := b.m.Deadline().Sub(b.now); got != 100*ms {
		t.Errorf("Adver_Timer %s after it was reset", got)
	}
}

func TestActiveLowerPrioritySendsAtOnceAndAnnounces(t *testing.T) {
	b := newActive(t)
	b.run(1100 * ms) // past the first repetition
	b.run(950 * ms)
	wantKinds(t, b.hear(90), "send 100, announce")
	b.want(Active)
}

// A claim soon after an announcement is answered too, but a neighbour that does
// not hear us makes no ARP storm.
func TestAnnouncementsThatClaimsProvokeAreSoonASecondApart(t *testing.T) {
	b := newActive(t)
	start := b.now
	var at []time.Duration
	note := func(out []Action) {
		for _, a := range out {
			if _, ok := a.(Announce); ok {
				at = append(at, b.now.Sub(start).Round(10*ms))
			}
		}
	}
	for b.now.Sub(start) < 9*time.Second {
		if since := b.now.Sub(start); since >= 1500*ms && since < 3*time.Second {
			note(b.hear(90)) // lasts from 1.5 s to 3 s
		}
		note(b.run(100 * ms))
	}
	// After a promotion 0 s and 1 s, then by the claims, then once more as after
	// a promotion.
	want := []time.Duration{time.Second, 1500 * ms, 1600 * ms, 1700 * ms, 1800 * ms, 2500 * ms, 3500 * ms, 4500 * ms, 8500 * ms}
	if !reflect.DeepEqual(at, want) {
		t.Errorf("announced after %s, want %s", at, want)
	}
}

func TestActiveHigherPriorityBecomesBackup(t *testing.T) {
	b := newActive(t)
	wantKinds(t, b.hear(101), "send 100, release, to backup") // the winner hears of the claim
	b.wantDown(downA)
}

func TestActiveEqualPriorityLargerSourceBecomesBackup(t *testing.T) {
	b := newActive(t)
	b.hearFrom("192.168.15.9", 100) // smaller as a number, larger as a text
	b.want(Active)
	b.hearFrom("192.168.15.12", 100)
	b.want(Backup)
}

func TestAnnouncementIsRepeatedAndRefreshed(t *testing.T) {
	b := newActive(t)
	start := b.now
	var at []time.Duration
	for b.now.Sub(start) < 130*time.Second {
		for _, a := range b.run(100 * ms) {
			if _, ok := a.(Announce); ok {
				at = append(at, b.now.Sub(start).Round(time.Second))
			}
		}
	}
	want := []time.Duration{time.Second, 5 * time.Second, 65 * time.Second, 125 * time.Second}
	if !reflect.DeepEqual(at, want) {
		t.Errorf("announced after %s, want %s", at, want)
	}
}

func TestLeaseIsRenewedEveryHalfSecond(t *testing.T) {
	b := newActive(t)
	n := strings.Count(kinds(b.run(5*time.Second)), "renew")
	if n != 10 {
		t.Errorf("%d renewals in 5 s", n)
	}
}

func TestActiveThatWasStoppedLongerThanTheLeaseIsBackup(t *testing.T) {
	b := newActive(t)
	b.now = b.now.Add(2100 * ms)
	wantKinds(t, b.do(Tick{}), "send 0, release, to backup")
	// It leaves whoever took over alone for a while, although it is larger.
	b.run(100 * ms)
	b.hearFor(9*time.Second, 90)
	b.want(Backup)
	b.hearFor(2*time.Second, 90)
	b.want(Active)
}

func TestRenewalsThatGetNoAnswerEndTheActiveState(t *testing.T) {
	b := newActive(t)
	for end := b.now.Add(2500 * ms); b.now.Before(end) && b.m.State() == Active; {
		b.now = b.m.Deadline()
		b.do(Tick{}) // no Acquired follows
	}
	b.want(Backup)
}

func TestLateTickListensOnceMore(t *testing.T) {
	b := newBench(t)
	b.hear(110)
	b.now = b.m.Deadline().Add(150 * ms)
	wantKinds(t, b.do(Tick{}), "late")
	b.wantDown(100 * ms)
	b.now = b.m.Deadline().Add(150 * ms)
	wantKinds(t, b.do(Tick{}), "send 100, acquire, to active")
}

func TestAcquireFailureResigns(t *testing.T) {
	b := newBench(t)
	b.run(downA)
	out := b.do(AcquireFailed{Term: b.m.holding.term, Reason: "no such device"})
	wantKinds(t, out, "send 0, release, to backup")
	b.wantDown(downA)
	if want := "the addresses could not be acquired: no such device"; b.m.reason != want {
		t.Error(b.m.reason)
	}
}

func TestOutcomeOfAFormerTermIsIgnored(t *testing.T) {
	b := newBench(t)
	b.run(downA)
	old := b.m.holding.term
	b.hear(200)
	b.run(downA) // active again
	b.want(Active)
	wantKinds(t, b.do(AcquireFailed{Term: old, Reason: "late"}), "")
	wantKinds(t, b.do(Acquired{Term: old, At: b.now}), "")
	b.want(Active)
}

func TestEffectivePriorityIsNeverBelowOne(t *testing.T) {
	b := newBench(t)
	b.do(Demote{Source: "web", N: 60})
	b.do(Demote{Source: "mysql", N: 70})
	if got := b.m.Effective(); got != 1 {
		t.Errorf("effective %d", got)
	}
	b.do(Demote{Source: "web", N: 60}) // idempotent
	b.do(Demote{Source: "mysql"})
	if got := b.m.Effective(); got != 40 {
		t.Errorf("effective %d", got)
	}
	b.do(Demote{Source: "web"})
	b.do(Demote{Source: "never", N: 0})
	if got := b.m.Effective(); got != 100 || len(b.m.demotions) != 0 {
		t.Errorf("effective %d, %+v", got, b.m.demotions)
	}
}

func TestDemotionWhileActiveIsAdvertisedAtOnce(t *testing.T) {
	b := newActive(t)
	b.run(50 * ms)
	wantKinds(t, b.do(Demote{Source: "web", N: 20, Reason: "no server"}), "send 80")
	wantKinds(t, b.do(Demote{Source: "web", N: 20, Reason: "still none"}), "")
	wantKinds(t, b.do(Demote{Source: "web"}), "send 100")
}

func TestFaultWhileActiveResignsBeforeItReleases(t *testing.T) {
	b := newActive(t)
	wantKinds(t, b.do(SetFault{Source: "eth0", Reason: "no carrier"}), "send 0, release, to fault")
	if out := b.run(time.Minute); len(out) > 0 {
		t.Errorf("in fault: %q", kinds(out))
	}
	// Only the last fault's end ends it.
	b.do(SetFault{Source: "listener", Reason: "cannot bind"})
	wantKinds(t, b.do(SetFault{Source: "eth0"}), "")
	wantKinds(t, b.do(SetFault{Source: "listener"}), "to backup")
	b.wantDown(downA)
}

func TestFaultKeepsTrackOfTheActiveRouter(t *testing.T) {
	b := newBench(t)
	b.do(SetFault{Source: "eth1", Reason: "down"})
	b.hear(90)
	if got := b.m.snapshot().Active; got.Address != addr("192.168.15.12") || got.Priority != 90 {
		t.Errorf("%+v", got)
	}
	b.hear(0)
	if got := b.m.snapshot().Active; got.Address.IsValid() {
		t.Errorf("%+v", got)
	}
}

func TestReconfigureWhileActiveMovesOnlyTheDifference(t *testing.T) {
	b := newActive(t)
	cfg := testConfig()
	kept, added := cfg.Addresses[0], netip.MustParsePrefix("192.168.15.4/24")
	cfg.Addresses = []netip.Prefix{kept, added}
	cfg.VRID, cfg.Name = 99, "other"
	out := b.do(Reconfigure{Config: cfg})
	wantKinds(t, out, "acquire, send 100")
	if b.m.cfg.VRID != 50 || b.m.cfg.Name != "VI_1" {
		t.Errorf("identity changed: %+v", b.m.cfg)
	}
	wantKinds(t, b.acquired(), "announce")

	cfg.Addresses = []netip.Prefix{added}
	out = b.do(Reconfigure{Config: cfg})
	wantKinds(t, out, "release, acquire, send 100")
	if got := out[0].(Release).Addresses; !reflect.DeepEqual(got, []netip.Prefix{kept}) {
		t.Errorf("released %s", got)
	}
	b.want(Active)
	wantKinds(t, b.do(Reconfigure{Config: cfg}), "")
}

func TestRenewalUnderWayDoesNotAnnounceNewAddresses(t *testing.T) {
	b := newActive(t)
	renewal := b.m.holding.term
	cfg := testConfig()
	cfg.Addresses = append(cfg.Addresses, netip.MustParsePrefix("192.168.15.4/24"))
	b.do(Reconfigure{Config: cfg})
	wantKinds(t, b.do(Acquired{Term: renewal, At: b.now}), "")
	wantKinds(t, b.acquired(), "announce")
}

func TestEachFailureInARowHoldsOffLonger(t *testing.T) {
	b := newBench(t)
	fail := func() time.Duration {
		b.run(b.m.Deadline().Sub(b.now))
		b.do(AcquireFailed{Term: b.m.holding.term, Reason: "no such device"})
		return b.m.backup.holdOff.Sub(b.now)
	}
	for i, want := range []time.Duration{10, 20, 40, 80, 160, 320, 320} {
		if got := fail(); got != want*time.Second {
			t.Errorf("failure %d: %s", i+1, got)
		}
	}
	b.run(b.m.Deadline().Sub(b.now))
	b.acquired()
	b.hear(200)
	b.run(downA)
	if got := fail(); got != 10*time.Second {
		t.Errorf("after a success: %s", got)
	}
}

func TestReconfigurePriorityIsAdvertisedAtOnce(t *testing.T) {
	b := newActive(t)
	cfg := testConfig()
	cfg.Priority = 120
	wantKinds(t, b.do(Reconfigure{Config: cfg}), "send 120")
}

func TestShutdownOfABackupIsSilent(t *testing.T) {
	b := newBench(t)
	wantKinds(t, b.do(Shutdown{}), "to fault, stopped")
	if out := b.do(Tick{}); out != nil || !b.m.Deadline().IsZero() {
		t.Errorf("after the stop: %q, %s", kinds(out), b.m.Deadline())
	}
}

func TestShutdownInFaultStops(t *testing.T) {
	m := NewMachine(testConfig(), epoch)
	wantKinds(t, m.Step(epoch, Shutdown{}), "stopped")
}

func TestShutdownWhileActiveResignsBeforeItReleases(t *testing.T) {
	b := newActive(t)
	wantKinds(t, b.do(Shutdown{}), "send 0, release, to fault, stopped")
}

func TestShutdownWhileActiveDrainsFirst(t *testing.T) {
	b := newActive(t, drain)
	wantKinds(t, b.do(Shutdown{}), "drain")
	wantKinds(t, b.run(150*ms), "send 100")
	wantKinds(t, b.do(Shutdown{}), "")
	wantKinds(t, b.do(Drained{ID: b.m.handover.drainID}), "send 0, release, resume, to fault, stopped")
}

func TestShutdownDuringADrainThatLosesTheElectionStops(t *testing.T) {
	b := newActive(t, drain)
	b.do(Shutdown{})
	wantKinds(t, b.hear(200), "send 100, release, resume, to backup, to fault, stopped")
}

func TestRefusedCommandsSaySo(t *testing.T) {
	b := newBench(t)
	b.hear(110)
	for _, ev := range []Event{Failover{ID: 1}, Failback{ID: 2}} {
		if r := replyOf(t, b.do(ev)); !errors.Is(r.Err, ErrRefused) {
			t.Errorf("%T: %v", ev, r.Err)
		}
	}
}
