package vrrp

import (
	"testing"
	"time"
)

// A station that never tires of claiming the address is answered a few times at
// once, then once a second.
func TestClaimsAreAnsweredAtOnceThenOnceASecond(t *testing.T) {
	b := newActive(t)
	b.run(3 * time.Second)
	var announced []time.Duration
	begun := b.now
	for b.now.Sub(begun) < 4500*ms {
		out := b.do(Claimed{Address: addr("192.168.15.3"), MAC: "02:00:00:00:00:66", Count: 1})
		for _, a := range append(out, b.run(10*ms)...) {
			if _, ok := a.(Announce); ok {
				announced = append(announced, b.now.Sub(begun).Truncate(100*ms))
			}
		}
	}
	want := []time.Duration{0, 0, 0, 0, time.Second, 2 * time.Second, 3 * time.Second, 4 * time.Second}
	if len(announced) != len(want) {
		t.Fatalf("announced after %v, want %v", announced, want)
	}
	for i := range want {
		if announced[i] != want[i] {
			t.Errorf("announced after %v, want %v", announced, want)
		}
	}
}

// Who woke up and listens does not act as the active router, whatever he hears.
func TestClaimsWhileListeningAreNotAnswered(t *testing.T) {
	b := newActive(t)
	b.now = b.now.Add(time.Second) // stopped
	wantKinds(t, b.do(Claimed{Address: addr("192.168.15.3"), MAC: "02:00:00:00:00:66", Count: 1}), "late")
	if len(b.m.claims.list) > 0 {
		t.Errorf("%+v", b.m.claims.list)
	}
	wantKinds(t, b.do(Recheck{}), "")
}

// A lease that ended while the process was held up is not somebody's doing.
func TestRestoredAfterALongPauseBlamesTheLease(t *testing.T) {
	for age, want := range map[time.Duration]string{
		600 * ms:  "removed by somebody else",
		1900 * ms: "gone with their lease, which was not renewed for 1.9s",
	} {
		b := newActive(t, func(c *Config) { c.AdvertInterval = time.Second })
		leased := b.m.holding.leased
		b.now = leased.Add(age)
		out := b.do(Acquired{Term: b.m.holding.term, At: b.now, Added: b.m.cfg.Addresses})
		wantKinds(t, out, "restored, announce")
		if got := out[0].(Restored).Reason; got != want {
			t.Errorf("after %v: %q, want %q", age, got, want)
		}
	}
}

// What the heir of a switch announces is no foreign claim, and to contradict it
// would undo the switch.
func TestClaimsOfTheHeirAreNotContradicted(t *testing.T) {
	b := newActive(t)
	b.run(3 * time.Second)
	b.m.handover.offered = "b"
	wantKinds(t, b.do(Claimed{Address: addr("192.168.15.3"), MAC: "02:00:00:00:00:0c", Count: 1}), "")
	b.m.handover.offered = ""
	wantKinds(t, b.do(Claimed{Address: addr("192.168.15.3"), MAC: "02:00:00:00:00:0c", Count: 1}), "announce, foreign")
}
