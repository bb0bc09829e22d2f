package vrrp

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// twoArmed is a LAN of two nodes with two arms each, which are groups.
func twoArmed(t *testing.T, settings string) *network {
	t.Helper()
	n := newNetwork()
	for _, line := range []string{
		"node a1 192.168.15.11 priority=100 lan=lan host=a " + settings,
		"node a2 172.16.1.11 priority=100 lan=srv host=a vip=172.16.1.3/24 " + settings,
		"node b1 192.168.15.12 priority=90 lan=lan host=b " + settings,
		"node b2 172.16.1.12 priority=90 lan=srv host=b vip=172.16.1.3/24 " + settings,
		"group a a1 a2", "group b b1 b2", "start a1 a2 b1 b2",
	} {
		if err := n.command(strings.Fields(line)); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// divided names the groups of which some members are in another state than the
// others; empty if there are none.
func (n *network) divided() string {
	for _, pair := range [][2]string{{"a1", "a2"}, {"b1", "b2"}} {
		x, y := n.node(pair[0]).m, n.node(pair[1]).m
		if x.state != y.state {
			return fmt.Sprintf("%s is %s, %s is %s", pair[0], x.state, pair[1], y.state)
		}
	}
	return ""
}

// Whatever happens, the members of a group are in the same state after every
// step, and when all is well again one node has both arms.
func TestGroupsAreNeverDivided(t *testing.T) {
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 3))
		preempt := []string{"true", "false"}[seed%2]
		n := twoArmed(t, "settle=2s drain=200ms preempt="+preempt)
		n.check = func() {
			if d := n.divided(); d != "" {
				t.Fatalf("seed %d: %s\n%s", seed, d, n.log.String())
			}
		}
		linked := seed%4 >= 2
		if linked {
			n.link()
		}
		arms := []string{"a1", "a2", "b1", "b2"}
		for range 60 {
			arm := arms[random.IntN(len(arms))]
			both := arm[:1]
			lines := [][]string{
				{"cut " + arm}, {"heal " + arm}, {"heal " + arm},
				{"fault " + arm + " no carrier"}, {"fault " + arm}, {"fault " + arm},
				{"demote " + both + "1 11", "demote " + both + "2 11"}, {"demote " + both + "1 0", "demote " + both + "2 0"},
				{"failover " + arm}, {"failback " + arm},
				{"acquire-fails " + arm}, {"acquire-works " + arm}, {"acquire-works " + arm},
				{"stop " + both + "1", "stop " + both + "2"}, {"cont " + both + "1", "cont " + both + "2"}, {"cont " + both + "1", "cont " + both + "2"},
			}
			if linked {
				lines = append(lines, []string{"linkcut"}, []string{"linkheal"}, []string{"linkheal"})
			}
			line := lines[random.IntN(len(lines))]
			n.note("# %s", strings.Join(line, ", "))
			for _, l := range line {
				if err := n.command(strings.Fields(l)); err != nil {
					t.Fatal(err)
				}
			}
			n.run(time.Duration(random.IntN(1500)) * ms)
		}
		n.note("# all is well")
		if linked {
			if err := n.command([]string{"linkheal"}); err != nil {
				t.Fatal(err)
			}
		}
		for _, arm := range arms {
			for _, l := range []string{"heal " + arm, "fault " + arm, "demote " + arm + " 0", "acquire-works " + arm, "cont " + arm} {
				if err := n.command(strings.Fields(l)); err != nil {
					t.Fatal(err)
				}
			}
		}
		n.run(10 * time.Second)
		var active []string
		for _, arm := range arms {
			if n.node(arm).m.state == Active {
				active = append(active, arm)
			}
		}
		if !slices.Equal(active, []string{"a1", "a2"}) && !slices.Equal(active, []string{"b1", "b2"}) {
			t.Fatalf("seed %d: %v are active\n%s", seed, active, n.log.String())
		}
	}
}

func TestGroupStaysWhileAnotherArmHearsABetterRouter(t *testing.T) {
	n := twoArmed(t, "settle=2s preempt=false")
	n.run(time.Second)
	n.cut["a1"] = true
	n.run(time.Minute)
	b1 := n.node("b1").m.snapshot()
	if b1.State != Backup || !strings.Contains(b1.Waiting, "b2 of group b hears 172.16.1.11 with priority 100") {
		t.Errorf("%s, waiting: %q", b1.State, b1.Waiting)
	}
	n.cut["a1"] = false
	n.run(time.Second)
	if b1 := n.node("b1").m.snapshot(); b1.State != Backup || b1.Waiting != "" {
		t.Errorf("healed: %s, waiting: %q", b1.State, b1.Waiting)
	}
	if got := strings.Count(n.log.String(), "held:"); got != 2 { // and of the end
		t.Errorf("told %d times", got)
	}
}

func TestFailbackOfAGroupNeedsAllToWin(t *testing.T) {
	n := twoArmed(t, "settle=2s preempt=false")
	n.run(time.Second)
	n.node("a1").step(Failover{ID: 1})
	n.run(time.Second)
	n.node("a2").step(Demote{Source: "web", N: 50})
	n.node("a1").step(Failback{ID: 2})
	if got := n.log.String(); !strings.Contains(got, "a2 has priority 50, which does not beat 90 of 172.16.1.12") {
		t.Error(got)
	}
	if s := n.node("a1").m.state; s != Backup {
		t.Error(s)
	}
}

func TestAMemberThatLeavesEndsTheWait(t *testing.T) {
	n := twoArmed(t, "settle=2s preempt=false")
	n.run(time.Second)
	n.cut["a1"] = true
	n.run(time.Second)
	if err := n.command([]string{"leave", "b2"}); err != nil {
		t.Fatal(err)
	}
	n.run(ms)
	if s := n.node("b1").m.state; s != Active {
		t.Errorf("b1 is %s", s)
	}
}

// A reload joins a router that is active with one that it has just made, in
// either order: nothing is given up for the sake of what is not ready yet.
func TestANewMemberTakesNothingFromAnActiveOne(t *testing.T) {
	for _, order := range [][]string{{"a1", "a2"}, {"a2", "a1"}} {
		n := newNetwork()
		for _, line := range []string{
			"node a1 192.168.15.11 priority=100 lan=lan", "node a2 172.16.1.11 priority=100 lan=srv vip=172.16.1.3/24",
			"start a1", "run 1s", "group a " + order[0], "group a " + order[1], "run 1s",
		} {
			if err := n.command(strings.Fields(line)); err != nil {
				t.Fatal(err)
			}
		}
		a1, a2 := n.node("a1"), n.node("a2")
		if a1.m.state != Active || a1.transitions != 2 || a2.m.state != Fault {
			t.Errorf("%v: %s and %s\n%s", order, a1.m.state, a2.m.state, n.log.String())
		}
		a2.step(SetFault{Source: StartupFault})
		if a1.m.state != Active || a1.transitions != 2 || a2.m.state != Active {
			t.Errorf("%v, ready: %s and %s\n%s", order, a1.m.state, a2.m.state, n.log.String())
		}
		a2.step(SetFault{Source: "test", Reason: "no carrier"})
		if a1.m.state != Fault {
			t.Errorf("%v: the fault of a member that was ready is its own", order)
		}
	}
}

// Whatever befalls a switch of a group by the link in whichever moment, the members of
// each node stay together, and in the end one living node has both arms.
func TestGroupSwitchEndsWell(t *testing.T) {
	for _, trouble := range [][]string{
		{"kill a1", "kill a2"}, {"kill b1", "kill b2"}, {"linkcut"}, {"linkcut", "acquire-fails b2"},
		{"fault a2 no carrier"}, {"fault b2 no carrier"}, {"acquire-fails b2"}, {"cut a1"}, {"cut b2"}, {"shutdown a1", "shutdown a2"}, {"shutdown b1", "shutdown b2"},
	} {
		for _, preempt := range []string{"true", "false"} {
			for at := range 9 {
				n := twoArmed(t, "preempt="+preempt)
				n.link()
				n.check = func() {
					if d := n.divided(); d != "" {
						t.Fatalf("%v after %d half milliseconds: %s\n%s", trouble, at, d, n.log.String())
					}
				}
				n.run(time.Second)
				if n.node("a1").m.state != Active {
					t.Fatal(n.log.String())
				}
				command := func(line string) {
					if err := n.command(strings.Fields(line)); err != nil {
						t.Fatal(line, err)
					}
				}
				command("failover a1")
				n.run(time.Duration(at) * ms / 2)
				for _, line := range trouble {
					command(line)
				}
				var active []string
				both := 0 * ms
				for range 1000 {
					n.run(10 * ms)
					active = nil
					for _, x := range n.nodes {
						if !x.dead && x.m.state == Active {
							active = append(active, x.name)
						}
					}
					if len(active) == 4 {
						both += 10 * ms
					}
				}
				if both > time.Second {
					t.Errorf("%v after %d half milliseconds: both nodes were active for %s\n%s", trouble, at, both, n.log.String())
				}
				if !slices.Equal(active, []string{"a1", "a2"}) && !slices.Equal(active, []string{"b1", "b2"}) {
					t.Errorf("%v after %d half milliseconds: %v are active\n%s", trouble, at, active, n.log.String())
				}
			}
		}
	}
}
