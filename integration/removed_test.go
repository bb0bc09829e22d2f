package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/internal/lab"
)

// removedFor bounds how long nobody may answer for an address that somebody took
// off its active node: less than until the next renewal, with adverts of a second.
const removedFor = 700 * time.Millisecond

// unanswered returns the longest time since which nobody answered for the
// address. It waits until the monitor has seen a second of it.
func (p *pair) unanswered(since time.Time) time.Duration {
	p.t.Helper()
	eventually(p.t, 20*time.Second, "somebody answers again, for a second", func() bool {
		last := since
		for _, s := range p.Monitor.Silences() {
			if s.To.After(last) {
				last = s.To
			}
		}
		return time.Since(last) > time.Second
	})
	var longest time.Duration
	for _, s := range p.Monitor.Silences() {
		if s.From.After(since) {
			// Between two answers that were heard lies one interval more.
			longest = max(longest, s.Length()+20*time.Millisecond)
		}
	}
	return longest
}

// ip runs ip(8) on a node.
func (p *pair) ip(n *lab.Node, args ...string) {
	p.t.Helper()
	need(p.t, "ip", "iproute2")
	var out strings.Builder
	cmd := n.Command("ip", args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := n.Run(p.within(20*time.Second), cmd); err != nil {
		p.t.Fatalf("%s$ ip %s: %v: %s", n.Name, strings.Join(args, " "), err, out.String())
	}
}

// Somebody takes the address off the active node: it is put back and announced
// at once, and people can read that it was. The node stays the active one.
func TestRemovedAddressIsBackAtOnce(t *testing.T) {
	t.Parallel()
	p := newPair(t, patientConfig(t, patientAdverts, slowAdverts))
	p.start()
	before := p.transitions(p.LB01)
	// The first announcements are over: what comes from here on is an answer.
	eventually(t, 20*time.Second, "three announcements", func() bool {
		n := 0
		for _, e := range p.Capture.Events() {
			if e.Kind == lab.Gratuitous && e.Host == p.LB01.Name {
				n++
			}
		}
		return n >= 3
	})
	for i, c := range []struct {
		name    string
		command []string
	}{
		{"ip addr del", []string{"addr", "del", "192.168.15.3/24", "dev", lab.LAN}},
		// A network daemon may take its own, the first of the subnet: the kernel
		// takes the rest of the subnet with it.
		{"the node's own goes, and others of its subnet with it", []string{"addr", "del", "192.168.15.11/24", "dev", lab.LAN}},
		{"ip addr flush", []string{"addr", "flush", "dev", lab.LAN}},
	} {
		// A removal in the very moment of a renewal, which comes along with them, is put
		// back by that and not told: between an advert and the next there is none.
		p.waitAdverts(p.LB01, 1)
		removed := time.Now()
		p.ip(p.LB01, c.command...)
		silent := p.unanswered(removed)
		var announced lab.Event
		eventually(t, 10*time.Second, c.name+": the address is announced again", func() (ok bool) {
			announced, ok = p.Capture.First(lab.Gratuitous, p.LB01.Name, removed)
			return ok && announced.Address == p.VIP
		})
		t.Logf("%s: %v unanswered, announced %v after the command began", c.name, silent, announced.Time.Sub(removed).Round(time.Millisecond))
		if silent > removedFor {
			t.Errorf("%s: nobody answered for %v", c.name, silent)
		}
		// A flush looks again whether it is complete, and removes again what is.
		eventually(t, 10*time.Second, fmt.Sprintf("%s: %d restorations are counted", c.name, i+1), func() bool {
			return p.status(p.LB01).VRRP[0].Counters["addresses_restored"] >= uint64(i+1)
		})
		p.alone(p.LB01)
	}
	if now := p.transitions(p.LB01); now != before {
		t.Errorf("lb01 has changed its state %d times", now-before)
	}
	counted := p.status(p.LB01).VRRP[0].Counters["addresses_restored"]
	told := p.events(p.LB01, "address_restored")
	if len(told) < 3 || told[0].Text != "192.168.15.3/24 was missing: removed by somebody else; put back and announced" {
		t.Errorf("events: %+v", told)
	}
	if !strings.Contains(p.LB01.Log(), "addresses were missing on the interface") {
		t.Error("the log says nothing of it")
	}

	// What the appliance takes off itself is no news, and nobody else's business.
	p.ip(p.LB01, "addr", "add", "192.168.15.11/24", "dev", lab.LAN)
	p.failover(p.LB01)
	p.waitActive(p.LB02)
	p.failover(p.LB02)
	p.waitActive(p.LB01)
	for _, n := range p.Nodes() {
		want := map[string]uint64{"lb01": counted, "lb02": 0}[n.Name]
		if got := p.status(n).VRRP[0].Counters["addresses_restored"]; got != want {
			t.Errorf("after two hand-overs %s counts %d restorations, want %d", n.Name, got, want)
		}
	}
	if got := p.events(p.LB02, "address_restored"); len(got) > 0 {
		t.Errorf("lb02 tells of %+v", got)
	}
	if !slices.Equal(p.holders(p.VIP), []string{p.LB01.Name}) {
		t.Errorf("%s is on %v", p.VIP, p.holders(p.VIP))
	}
}
