package vrrp

import (
	"strings"
	"testing"
	"time"
)

// held lets d pass in which the process is stopped: no tick, and an
// acquisition that is as old as the last one.
func (b *bench) held(d time.Duration) []Action {
	b.now = b.now.Add(d)
	return b.do(Tick{})
}

func TestActiveThatWasHeldUpListensBeforeItGoesOn(t *testing.T) {
	b := newActive(t)
	b.run(50 * ms) // the last advert is as old
	wantKinds(t, b.held(downA-50*ms), "send 100")
	wantKinds(t, b.held(downA+ms), "late")
	// Nothing is sent meanwhile, whatever happens.
	wantKinds(t, b.do(Demote{Source: "web", N: 20}), "")
	wantKinds(t, b.hear(0), "")
	wantKinds(t, b.run(99*ms), "")
	// Nobody took over: nothing is lost.
	b.want(Active)
	if out := kinds(b.run(ms)); !strings.HasPrefix(out, "send 80") {
		t.Error(out)
	}
	wantKinds(t, b.run(100*ms), "send 80")
}

func TestActiveThatWasHeldUpGivesWayToWhoeverTookOver(t *testing.T) {
	b := newActive(t)
	wantKinds(t, b.held(time.Second), "late")
	wantKinds(t, b.hear(90), "release, to backup")
	if want := "this node was silent for 1s, and 192.168.15.12 has taken over"; b.m.reason != want {
		t.Error(b.m.reason)
	}
	// Although it is larger, it stays away for a while.
	b.hearFor(9*time.Second, 90)
	b.want(Backup)
	b.hearFor(2*time.Second, 90)
	b.want(Active)
}

// The advert that tells of the other one comes before the tick that was due.
func TestActiveThatWasHeldUpHearsWhatIsWaiting(t *testing.T) {
	b := newActive(t)
	b.now = b.now.Add(time.Second)
	wantKinds(t, b.hear(90), "late, release, to backup")
}

func TestActiveThatIsHeldUpAgainAndAgainListensAgain(t *testing.T) {
	b := newActive(t)
	wantKinds(t, b.held(500*ms), "late")
	wantKinds(t, b.held(500*ms), "late")
	if out := kinds(b.held(100 * ms)); !strings.HasPrefix(out, "send 100") {
		t.Error(out)
	}
}

func TestFailoverAndStopNeedNoListening(t *testing.T) {
	b := newActive(t)
	b.held(time.Second)
	wantKinds(t, b.do(Failover{ID: 1}), "send 0, release, to backup")
	b = newActive(t)
	b.held(time.Second)
	wantKinds(t, b.do(Shutdown{}), "send 0, release, to fault, stopped")
}

// A silence is not believed while packets wait that nobody has read, whose reader
// was held up, but not for ever: they may be none of this router's.
func TestBackupWithPacketsUnreadListensBeforeItTakesOver(t *testing.T) {
	b := newBench(t)
	b.hear(90)
	wait, lates := b.m.Deadline().Sub(b.now), 0
	for begun := b.m.Deadline(); b.m.State() == Backup; {
		b.now = b.m.Deadline()
		if kinds(b.do(Tick{Unread: true})) == "late" {
			lates++
		}
		if held := b.now.Sub(begun); held > unreadIntervals*100*ms {
			t.Fatalf("still waiting after %v", held)
		} else if b.m.State() != Backup && held != unreadIntervals*100*ms {
			t.Errorf("it waited for %v", held)
		}
	}
	if lates != 1 {
		t.Errorf("it said %d times that it is late", lates)
	}

	// What is read meanwhile counts as ever.
	b = newBench(t)
	b.hear(120)
	b.now = b.m.Deadline()
	wantKinds(t, b.do(Tick{Unread: true}), "late")
	b.hear(120)
	b.wantDown(wait)
}

// With adverts of 10 ms a backup that was starved for longer than it waits for
// adverts, but wakes up in time to judge, has nothing but what is unread.
func TestBackupThatIsStarvedBesideTheShortestInterval(t *testing.T) {
	b := newBench(t, func(c *Config) { c.AdvertInterval, c.Priority = MinAdvertInterval, 90 })
	hear := func() { b.do(Heard{Source: addr("192.168.15.12"), Priority: 100, Interval: MinAdvertInterval}) }
	hear()
	b.now = b.m.Deadline().Add(MinAdvertInterval) // as late as is not called late
	wantKinds(t, b.do(Tick{Unread: true}), "late")
	hear()
	wantKinds(t, b.run(30*ms), "")
	b.want(Backup)
	b.now = b.m.Deadline().Add(MinAdvertInterval + 1)
	wantKinds(t, b.do(Tick{}), "late")
	b.now = b.m.Deadline().Add(time.Hour)
	wantKinds(t, b.do(Tick{}), "send 90, acquire, to active")
}

func TestAdvertsSayWhenTheyWereDue(t *testing.T) {
	b := newActive(t)
	due := b.m.Deadline()
	b.now = due.Add(7 * ms)
	if out := b.do(Tick{}); out[0] != (Send{Priority: 100, Due: due}) {
		t.Errorf("on time: %+v", out)
	}
	// One that asserts the state is due to no timer.
	b.now = b.now.Add(20 * ms)
	if out := b.hear(90); out[0] != (Send{Priority: 100}) {
		t.Errorf("in answer to a claim: %+v", out)
	}
}
