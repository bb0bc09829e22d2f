package vrrp

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// small makes the bench node b's view: base 90, the other one 100.
func small(c *Config) {
	c.Priority = 90
	c.Peers = []Peer{{Name: "a", Address: addr("192.168.15.12"), Priority: 100}}
}

func noPreempt(c *Config) { c.Preempt = false }

func TestHealthierBackupTakesOverAfterSettling(t *testing.T) {
	for name, change := range map[string]func(*Config){"preempt": small, "no preempt": func(c *Config) { small(c); c.Preempt = false }} {
		b := newBench(t, change)
		b.hearFor(time.Second, 100)
		start := b.now
		b.hearFor(3*time.Second, 80)
		b.want(Backup)
		b.hearFor(time.Second, 80)
		b.want(Active)
		took := b.m.since.Sub(start)
		if took < 3*time.Second || took > 3*time.Second+400*ms {
			t.Errorf("%s: took over after %s", name, took)
		}
	}
}

func TestAdvertOfAHealthyRouterResetsTheSettlingClock(t *testing.T) {
	b := newBench(t, small)
	for range 5 {
		b.hearFor(2900*ms, 80)
		b.hearFor(100*ms, 100)
	}
	b.want(Backup)
}

func TestEquallyDemotedBackupStays(t *testing.T) {
	b := newBench(t, small)
	b.hear(100)
	b.do(Demote{Source: "web", N: 20})
	b.hearFor(10*time.Second, 80)
	b.want(Backup)
}

func TestLargerBackupWithoutPreemptStaysBehindAHealthyRouter(t *testing.T) {
	b := newBench(t, noPreempt)
	b.hearFor(10*time.Second, 90)
	b.want(Backup)
}

func TestBackupThatFallsIllWhileItsTimerRunsDownStays(t *testing.T) {
	b := newBench(t, small)
	b.hearFor(time.Second, 100)
	b.hearFor(3100*ms, 80) // settled: adverts are ignored
	b.run(-b.now.Sub(b.m.Deadline()) - 10*ms)
	if b.m.backup.ignoring == "" {
		t.Fatal("the timer is not running down")
	}
	b.do(Demote{Source: "web", N: 20, Reason: "no server"})
	b.run(100 * ms)
	b.want(Backup)
}

func TestEqualBaseIsDecidedByHealthAlone(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Peers[0].Priority = 100 })
	b.hear(100)
	b.hearFor(2900*ms, 80)
	b.want(Backup)
	b.hearFor(time.Second, 80)
	b.want(Active)
}

func TestBaseOfASender(t *testing.T) {
	two := func(c *Config) {
		c.Peers = append(c.Peers, Peer{Name: "c", Address: addr("192.168.15.13"), Priority: 80})
	}
	for _, tt := range []struct {
		source string
		change func(*Config)
		base   int
		known  bool
	}{
		{"192.168.15.12", two, 90, true},
		{"192.168.15.13", two, 80, true},
		{"192.168.15.99", two, 0, false},
		{"192.168.15.99", func(*Config) {}, 90, true},
		{"192.168.15.12", func(c *Config) { c.Peers = nil }, 0, false},
	} {
		b := newBench(t, tt.change)
		if base, known := b.m.baseOf(addr(tt.source)); base != tt.base || known != tt.known {
			t.Errorf("%s: %d, %t", tt.source, base, known)
		}
	}
}

func TestUnknownSenderCountsAsNotDemoted(t *testing.T) {
	b := newBench(t, noPreempt, func(c *Config) { c.Peers = nil })
	b.hearFor(10*time.Second, 1)
	b.want(Backup)
	b = newBench(t, func(c *Config) { c.Peers = nil })
	b.hearFor(time.Second, 1) // ordinary preemption
	b.want(Active)
}

// TestSameDeadServersNeverMoveAnything lets both nodes see the same servers
// die and return, each up to two and a half seconds apart, whichever first.
func TestSameDeadServersNeverMoveAnything(t *testing.T) {
	for _, base := range []int{90, 100} {
		for _, preempt := range []bool{true, false} {
			t.Run(fmt.Sprintf("preempt=%t,base=%d", preempt, base), func(t *testing.T) {
				for seed := range uint64(40) {
					sameDeadServers(t, preempt, base, rand.New(rand.NewPCG(seed, 1)))
				}
			})
		}
	}
}

func sameDeadServers(t *testing.T, preempt bool, base int, random *rand.Rand) {
	n := newNetwork()
	n.add("a", "192.168.15.11", func(c *Config) { c.Priority, c.Preempt = 100, preempt })
	n.add("b", "192.168.15.12", func(c *Config) { c.Priority, c.Preempt = base, preempt })
	n.meet()
	n.node("a").step(SetFault{Source: StartupFault})
	n.run(time.Second)
	n.node("b").step(SetFault{Source: StartupFault})
	n.run(time.Second)
	for _, x := range n.nodes {
		x.transitions = 0
	}
	for range 6 {
		for _, amount := range []int{20, 0} {
			first, second := n.nodes[0], n.nodes[1]
			if random.IntN(2) == 0 {
				first, second = second, first
			}
			first.step(Demote{Source: "web", N: amount, Reason: "no server"})
			n.run(time.Duration(random.IntN(2500)) * ms)
			second.step(Demote{Source: "web", N: amount, Reason: "no server"})
			n.run(time.Duration(500+random.IntN(10000)) * ms)
		}
	}
	for _, x := range n.nodes {
		if x.transitions > 0 {
			t.Fatalf("%s changed its state %d times:\n%s", x.name, x.transitions, n.log.String())
		}
	}
}
