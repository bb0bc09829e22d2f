package vrrp

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func delayed(c *Config) { c.PreemptDelay = 5 * time.Second }

func TestPreemptDelayCountsFromTheFirstAdvertOfASmallerRouter(t *testing.T) {
	b := newBench(t, delayed)
	b.hearFor(10*time.Second, 110) // longer than the delay from the start
	b.hearFor(5*time.Second, 90)
	b.want(Backup)
	b.hearFor(time.Second, 90)
	b.want(Active)
}

func TestALargerRouterBeginsThePreemptDelayAnew(t *testing.T) {
	b := newBench(t, delayed)
	for range 5 {
		b.hearFor(4900*ms, 90)
		b.hear(110)
	}
	b.want(Backup)
}

func TestPreemptDelayIsNoneForADeadRouter(t *testing.T) {
	b := newBench(t, delayed)
	b.hear(90)
	b.run(downA)
	b.want(Active)
}

func TestPreemptDelayIsNoneForAResignedRouter(t *testing.T) {
	b := newBench(t, delayed)
	b.hear(90)
	b.hear(0)
	b.run(skewA)
	b.want(Active)
}

func TestAReloadMovesThePreemptDelayUnderWay(t *testing.T) {
	b := newBench(t, delayed)
	b.hearFor(2*time.Second, 90)
	cfg := b.m.cfg
	cfg.PreemptDelay = 20 * time.Second
	b.do(Reconfigure{Config: cfg})
	b.hearFor(16*time.Second, 90)
	b.want(Backup)
	cfg.PreemptDelay = 0
	b.do(Reconfigure{Config: cfg})
	b.hearFor(time.Second, 90)
	b.want(Active)
}

func owner(c *Config) { c.Priority, c.Preempt = OwnerPriority, false }

func TestOwnerIsActiveAtOnce(t *testing.T) {
	cfg := testConfig()
	owner(&cfg)
	m := NewMachine(cfg, epoch)
	wantKinds(t, m.Step(epoch, SetFault{Source: StartupFault}), "send 255, acquire, to active")
}

func TestDemotedOwnerStartsAsABackup(t *testing.T) {
	cfg := testConfig()
	owner(&cfg)
	m := NewMachine(cfg, epoch)
	m.Step(epoch, Demote{Source: "web", N: 20})
	wantKinds(t, m.Step(epoch, SetFault{Source: StartupFault}), "to backup")
}

func TestOwnerThatCannotKeepItsAddressesIsNotActiveAtOnce(t *testing.T) {
	b := newBench(t, owner)
	b.want(Active)
	b.do(AcquireFailed{Term: b.m.holding.term, Reason: "no such device"})
	b.do(SetFault{Source: "test", Reason: "no carrier"})
	b.do(SetFault{Source: "test"})
	b.want(Backup)
}

func TestOwnerGivesWayToALargerAddressOnly(t *testing.T) {
	b := newBench(t, owner)
	b.hear(254)
	b.want(Active)
	b.hear(OwnerPriority) // from 192.168.15.12
	b.want(Backup)
}

func TestFailoverOfANodesOwnAddressIsRefused(t *testing.T) {
	b := newBench(t, owner, func(c *Config) { c.Own = append(c.Own, c.Addresses[0].Addr()) })
	b.want(Active)
	b.acquired()
	r, ok := b.do(Failover{ID: 1})[0].(Reply)
	if !ok || !errors.Is(r.Err, ErrRefused) || !strings.Contains(r.Err.Error(), "192.168.15.3 is this node's own address") {
		t.Errorf("%+v", r)
	}
	b.want(Active)
}
