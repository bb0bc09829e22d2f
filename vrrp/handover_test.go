package vrrp

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func drain(c *Config) { c.Drain = 5 * time.Second }

// newYielded returns a machine whose failover to node b has succeeded.
func newYielded(t *testing.T, change ...func(*Config)) *bench {
	b := newActive(t, change...)
	b.do(Failover{ID: 1})
	b.run(50 * ms)
	if r := replyOf(t, b.hear(90)); r.Err != nil {
		t.Fatal(r.Err)
	}
	return b
}

func TestFailoverWithoutDrain(t *testing.T) {
	b := newActive(t)
	wantKinds(t, b.do(Failover{ID: 7}), "send 0, release, to backup")
	b.run(50 * ms)
	wantKinds(t, b.hear(0), "") // no news of an active router
	r := replyOf(t, b.hear(90))
	if r.ID != 7 || r.Err != nil || r.Active != addr("192.168.15.12") {
		t.Errorf("%+v", r)
	}
	if out := b.hear(90); len(out) > 0 {
		t.Errorf("a second answer: %q", kinds(out))
	}
}

func TestFailoverAdvertisesWhileItDrains(t *testing.T) {
	b := newActive(t, drain)
	wantKinds(t, b.do(Failover{ID: 1}), "drain")
	wantKinds(t, b.run(250*ms), "send 100, send 100")
	wantKinds(t, b.do(Drained{ID: b.m.handover.drainID}), "send 0, release, resume, to backup")
}

func TestFailoverHandsOverAtTheDeadline(t *testing.T) {
	b := newActive(t, drain)
	out := b.do(Failover{ID: 1})
	if got := out[0].(Drain).Deadline.Sub(b.now); got != 5*time.Second {
		t.Fatalf("drain for %s", got)
	}
	b.run(5*time.Second - ms)
	b.want(Active)
	out = b.run(ms)
	wantKinds(t, out, "send 0, release, resume, to backup")
}

func TestDrainedOfAFormerDrainIsIgnored(t *testing.T) {
	b := newActive(t, drain)
	b.do(Failover{ID: 1})
	wantKinds(t, b.do(Drained{ID: b.m.handover.drainID - 1}), "")
	b.want(Active)
}

func TestFailoverWithNobodyThereFails(t *testing.T) {
	b := newActive(t)
	b.do(Failover{ID: 1})
	r := replyOf(t, b.run(downA))
	want := "no other node took over within 361ms; this node is active again"
	if r.Err == nil || r.Err.Error() != want || errors.Is(r.Err, ErrRefused) {
		t.Errorf("%v", r.Err)
	}
	b.want(Active)
	if b.m.handover.yielded {
		t.Error("still yielded")
	}
}

func TestFailoverThatLosesTheElectionDuringTheDrainSucceeds(t *testing.T) {
	b := newActive(t, drain)
	b.do(Failover{ID: 1})
	out := b.hear(120)
	wantKinds(t, out, "send 100, release, resume, reply, to backup")
	if r := replyOf(t, out); r.Err != nil {
		t.Error(r.Err)
	}
	if !b.m.handover.yielded {
		t.Error("not yielded")
	}
}

func TestFaultDuringAFailoverAnswersIt(t *testing.T) {
	b := newActive(t, drain)
	b.do(Failover{ID: 1})
	out := b.do(SetFault{Source: "eth0", Reason: "no carrier"})
	wantKinds(t, out, "send 0, release, resume, to fault, reply")
	if r := replyOf(t, out); r.Err == nil || !strings.Contains(r.Err.Error(), "no carrier") {
		t.Error(r.Err)
	}
}

func TestShutdownDuringAFailoverAnswersIt(t *testing.T) {
	b := newActive(t, drain)
	b.do(Failover{ID: 1})
	wantKinds(t, b.do(Shutdown{}), "")
	out := b.run(5 * time.Second)
	if r := replyOf(t, out); r.Err == nil {
		t.Error("the failover succeeded")
	}
	if !strings.HasSuffix(kinds(out), "send 0, release, resume, to fault, reply, stopped") {
		t.Error(kinds(out))
	}
}

func TestLostLeaseDuringADrainResumes(t *testing.T) {
	b := newActive(t, drain)
	b.do(Failover{ID: 1})
	out := b.do(AcquireFailed{Term: b.m.holding.term, Reason: "no such device"})
	wantKinds(t, out, "send 0, release, resume, to backup")
	if r := replyOf(t, b.hear(90)); r.Err != nil {
		t.Error(r.Err)
	}
}

func TestFailoverRefusals(t *testing.T) {
	fault := newBench(t)
	fault.do(SetFault{Source: "eth0", Reason: "no carrier"})
	backup := newBench(t)
	backup.hear(110)
	draining := newActive(t, drain)
	draining.do(Failover{ID: 1})
	stopping := newActive(t, drain)
	stopping.do(Shutdown{})
	for _, tt := range []struct {
		name string
		b    *bench
		want string
	}{
		{"fault", fault, "refused: this node takes no part: fault eth0: no carrier"},
		{"backup", backup, "refused: this node is not active, 192.168.15.12 is"},
		{"alone", newBench(t), "refused: this node is not active"},
		{"draining", draining, "refused: a failover is already under way"},
		{"stopping", stopping, "refused: this node is stopping"},
	} {
		before := tt.b.m.State()
		if r := replyOf(t, tt.b.do(Failover{ID: 9})); r.ID != 9 || r.Err == nil || r.Err.Error() != tt.want {
			t.Errorf("%s: %+v", tt.name, r)
		}
		tt.b.want(before)
	}
}

func TestYieldedNeverTakesOverFromALiveActiveRouter(t *testing.T) {
	b := newYielded(t)
	b.hearFor(10*time.Second, 1) // ill, and far smaller
	b.want(Backup)
}

func TestYieldedTakesOverWhenTheActiveRouterIsGone(t *testing.T) {
	b := newYielded(t)
	b.run(downA)
	b.want(Active)
	if b.m.handover.yielded {
		t.Error("still yielded")
	}
}

func TestYieldedTakesOverAfterPriorityZero(t *testing.T) {
	b := newYielded(t)
	b.hear(0)
	b.wantDown(skewA)
	b.run(skewA)
	b.want(Active)
}

// The smaller node gives the addresses back to the larger one: from then on it
// is a backup like any other, also when the larger one falls ill.
func TestFailoverToTheLargerNodeHoldsNothing(t *testing.T) {
	b := newActive(t, func(c *Config) { c.Peers[0].Priority = 110; c.Preempt = false })
	b.do(Failover{ID: 1})
	b.run(50 * ms)
	if r := replyOf(t, b.hear(110)); r.Err != nil {
		t.Fatal(r.Err)
	}
	if b.m.handover.yielded {
		t.Error("yielded")
	}
	b.hearFor(4*time.Second, 90)
	b.want(Active)
}

func TestYieldedOutlastsAFault(t *testing.T) {
	b := newYielded(t)
	b.do(SetFault{Source: "eth1", Reason: "down"})
	b.do(SetFault{Source: "eth1"})
	b.hearFor(2*time.Second, 90)
	b.want(Backup)
}

func TestFailbackTakesOverAtOnce(t *testing.T) {
	b := newYielded(t, func(c *Config) { c.Preempt = false })
	wantKinds(t, b.do(Failback{ID: 2}), "send 100, acquire, to active")
	out := b.acquired()
	if r := replyOf(t, out); r.ID != 2 || r.Err != nil || r.Active != addr("192.168.15.11") {
		t.Errorf("%+v", r)
	}
}

func TestFailbackBetweenEqualsIsWonByTheLargerSource(t *testing.T) {
	b := newYielded(t)
	b.hearFrom("192.168.15.9", 100)
	wantKinds(t, b.do(Failback{ID: 2}), "send 100, acquire, to active")

	b = newYielded(t)
	b.hearFrom("192.168.15.12", 100)
	want := "refused: this node's priority 100 does not beat 100 of 192.168.15.12; type applianctl failover on the active node"
	if r := replyOf(t, b.do(Failback{ID: 2})); r.Err == nil || r.Err.Error() != want {
		t.Errorf("%v", r.Err)
	}
}

func TestFailbackThatCannotAcquireFails(t *testing.T) {
	b := newYielded(t)
	b.do(Failback{ID: 2})
	out := b.do(AcquireFailed{Term: b.m.holding.term, Reason: "no such device"})
	if r := replyOf(t, out); r.Err == nil || !strings.Contains(r.Err.Error(), "no such device") {
		t.Error(r.Err)
	}
}

func TestFailbackRefusals(t *testing.T) {
	fault := newYielded(t)
	fault.do(SetFault{Source: "eth0", Reason: "no carrier"})
	ill := newYielded(t)
	ill.do(Demote{Source: "web", N: 20})
	silent := newYielded(t)
	silent.hear(0)
	plain := newBench(t)
	plain.hear(110)
	for _, tt := range []struct {
		name string
		b    *bench
		want string
	}{
		{"fault", fault, "refused: this node takes no part: fault eth0: no carrier"},
		{"ill", ill, "refused: this node's priority 80 does not beat 90 of 192.168.15.12; type applianctl failover on the active node"},
		{"silent", silent, "refused: no active router is heard; this node takes over by itself if none appears"},
		{"plain", plain, "refused: this node did not yield; nothing holds it back"},
		{"active", newActive(t), "refused: this node is active"},
	} {
		before := tt.b.m.State()
		if r := replyOf(t, tt.b.do(Failback{ID: 9})); r.Err == nil || r.Err.Error() != tt.want {
			t.Errorf("%s: %+v", tt.name, r)
		}
		tt.b.want(before)
	}
}
