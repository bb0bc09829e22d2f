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
