package vrrp

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// linked makes the bench the smaller node, with a link to the larger one.
func linked(c *Config) {
	small(c)
	c.Preempt, c.Linked = false, true
}

// told is a report of node a, heard by the link.
func told(s State, change ...func(*PeerReport)) PeerReport {
	r := PeerReport{Node: "a", Link: LinkUp, Known: true, Source: addr("192.168.15.12"), State: s, Effective: 100}
	for _, c := range change {
		c(&r)
	}
	return r
}

// vouched makes the bench hear node a no more by adverts, but by the link.
func (b *bench) vouched() {
	b.t.Helper()
	b.hear(100)
	b.do(told(Active))
	b.run(b.m.Deadline().Sub(b.now))
	b.do(told(Active)) // it was asked
	b.run(time.Second)
	b.want(Backup)
}

// alarmed says whether the bench's machine has an alarm of that name.
func (b *bench) alarmed(name string) bool {
	return slices.ContainsFunc(b.m.evidence.alarms, func(f FaultReport) bool { return f.Source == name })
}

// Neither node can keep the addresses: the link must not make them pass them on as
// fast as it can.
func TestRouterThatFailedIsNotHurriedByTheLink(t *testing.T) {
	b := newActive(t, linked)
	b.do(AcquireFailed{Term: b.m.holding.term, Reason: "no such device"})
	b.do(told(Active))
	b.do(told(Backup))
	b.want(Backup)
	b.run(b.m.Deadline().Sub(b.now))
	b.want(Active)
}

// The confirmation of a switch was lost, and so are the adverts of the router that
// stays active because of that: the link decides when the switch is over.
func TestSwitchThatLeftTwoActiveRoutersIsJudged(t *testing.T) {
	b := newBench(t, linked)
	b.hear(100)
	b.do(told(Active))
	b.do(TakeOver{ID: 7, Node: "a", Reason: "failover"})
	b.acquired()
	b.do(Announced{Term: b.m.holding.term})
	b.run(successionTime - ms)
	b.want(Active)
	if out := b.run(2 * ms); !strings.Contains(kinds(out), "ask") {
		t.Fatalf("it did not ask whether the other one is active still: %q", kinds(out))
	}
	b.do(told(Active))
	b.run(rivalPatience)
	b.want(Backup)
}

// What the link said last is forgotten with the link.
func TestLinkThatIsNoMoreSaysNothing(t *testing.T) {
	b := newBench(t, linked)
	b.hear(100)
	b.do(told(Active))
	b.do(PeerReport{Node: "a", Link: LinkLost, Reason: "silent"})
	if !b.alarmed(AlarmLink) {
		t.Fatal("no alarm of a broken link")
	}
	b.do(told(Active))
	b.do(PeerReport{Node: "a", Link: LinkLost, Reason: "silent"})
	cfg := b.m.cfg
	cfg.Linked = false
	b.do(Reconfigure{Config: cfg})
	if b.alarmed(AlarmLink) {
		t.Error("the alarm outlived the link")
	}
	// Demoted by what it said by the link: now by its adverts alone.
	b.hearFor(4*time.Second, 70)
	b.want(Active)
}

// A new link begins, by a reload, while the old one vouched for the active router.
func TestNewLinkEndsWhatTheOldOneVouchedFor(t *testing.T) {
	b := newBench(t, linked)
	b.vouched()
	b.do(PeerReport{Node: "a", Link: LinkNone, Reason: "starting"})
	b.want(Active)
}

// The link to one node says nothing of the link to another one.
func TestAlarmOfOneLinkOutlastsNewsOfAnother(t *testing.T) {
	b := newBench(t, linked, func(c *Config) {
		c.Peers = append(c.Peers, Peer{Name: "c", Address: addr("192.168.15.13"), Priority: 80})
	})
	b.do(told(Active))
	b.do(PeerReport{Node: "c", Link: LinkLost, Reason: "silent"})
	b.do(told(Active, func(r *PeerReport) { r.Demoted = 10 }))
	if !b.alarmed(AlarmLink) {
		t.Error("news of a ended the alarm of c")
	}
	b.do(PeerReport{Node: "c", Link: LinkUp})
	if b.alarmed(AlarmLink) {
		t.Error("the alarm goes on")
	}
}

// A request to yield that is refused is not repeated with every advert that does
// not come.
func TestRequestsToYieldAreFew(t *testing.T) {
	b := newBench(t, linked, func(c *Config) { c.Settle = 0 })
	b.vouched()
	b.do(told(Active, func(r *PeerReport) { r.Demoted, r.Effective = 30, 70 }))
	asked := 0
	for _, a := range b.run(10 * time.Second) {
		if _, ok := a.(AskYield); ok {
			asked++
		}
	}
	if asked < 5 || asked > 11 {
		t.Errorf("asked %d times in 10 s", asked)
	}
}

// A reload that ends the link while a switch is under way does not lose the switch.
func TestLinkThatEndsDuringASwitch(t *testing.T) {
	for name, err := range map[string]error{"confirmed": nil, "not confirmed": errors.New("no peer link")} {
		t.Run(name, func(t *testing.T) {
			b := newActive(t, linked)
			b.do(told(Backup))
			b.do(Failover{ID: 3})
			cfg := b.m.cfg
			cfg.Linked = false
			b.do(Reconfigure{Config: cfg})
			r := replyOf(t, b.do(Offered{ID: b.m.handover.offerID, Err: err}))
			if err == nil {
				b.want(Backup)
				if r.Active != addr("192.168.15.12") {
					t.Errorf("active is %s", r.Active)
				}
				return
			}
			b.want(Active)
			if r.Err == nil {
				t.Error("it is said to have worked")
			}
		})
	}
}
