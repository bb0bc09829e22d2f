package vrrp_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"appliance/vrrp"
	"appliance/vrrp/vrrptest"
)

// diary is what a router told.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) tell(n vrrp.Notice) {
	d.mu.Lock()
	defer d.mu.Unlock()
	line := strings.TrimPrefix(fmt.Sprintf("%T", n), "vrrp.")
	switch n := n.(type) {
	case vrrp.Transition:
		line += fmt.Sprintf(" %s: %s", n.To, n.Reason)
	case vrrp.Demoted:
		line += fmt.Sprintf(" %s %d %s", n.Source, n.N, n.Reason)
	case vrrp.Faulted:
		line += fmt.Sprintf(" %s %s", n.Source, n.Reason)
	case vrrp.Restored:
		line += fmt.Sprintf(" %s %s, %d not told", n.Addresses, n.Reason, n.NotTold)
	case vrrp.Foreign:
		line += fmt.Sprintf(" %s %s %d", n.Claim.Address, n.Claim.MAC, n.Claim.Count)
	}
	d.lines = append(d.lines, line)
}

// since returns what was told since the last call.
func (d *diary) since() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	lines := d.lines
	d.lines = nil
	return lines
}

func (d *diary) want(t *testing.T, lines ...string) {
	t.Helper()
	synctest.Wait()
	if got := d.since(); !slices.Equal(got, lines) {
		t.Errorf("told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
}

// Every change is told once, the cause before what it leads to, and a repeated
// call is no change.
func TestRouterTellsOfEveryChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		r := begin(t, new(vrrptest.LAN), config("192.168.15.11", 100), vrrp.Hooks{Tell: d.tell})
		wait(time.Minute)
		d.want(t, "Transition backup: ready", "Transition active: no active router heard for 361ms")

		r.router.SetDemotion("service web", 20, "no server")
		r.router.SetDemotion("service web", 20, "no server")
		r.router.SetDemotion("service web", 30, "no server at all")
		r.router.SetDemotion("service web", 0, "")
		r.router.SetDemotion("service web", 0, "")
		d.want(t, "Demoted service web 20 no server", "Demoted service web 30 no server at all", "Demoted service web 0 ")

		r.router.SetFault("interface eth0", "no carrier")
		r.router.SetFault("interface eth0", "does not exist")
		r.router.SetFault("interface eth0", "")
		d.want(t, "Faulted interface eth0 no carrier", "Transition fault: fault interface eth0: no carrier",
			"Faulted interface eth0 ", "Transition backup: ready: the fault interface eth0 is over")

		r.end()
		d.want(t, "Transition fault: stopping")
	})
}

// Whoever sees an address go says so, and it is back at once: the next renewal
// would be too late for clients.
func TestRouterPutsBackWhatSomebodyRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		r := begin(t, new(vrrptest.LAN), config("192.168.15.11", 100), vrrp.Hooks{Tell: d.tell})
		wait(time.Minute)
		d.since()
		r.holder.Announced()

		r.router.Recheck() // a false alarm
		d.want(t)
		for range 3 {
			r.holder.Lose()
			r.router.Recheck()
			synctest.Wait()
			if held := r.holder.Held(); !slices.Equal(held, []netip.Prefix{vip}) {
				t.Fatalf("holds %s at once", held)
			}
			wait(100 * ms)
		}
		one := "Restored [192.168.15.3/24] removed by somebody else, 0 not told"
		d.want(t, one, one, one)
		if got := r.holder.Announced(); len(got) != 3 {
			t.Errorf("announced %s", got)
		}
		wait(10 * time.Second)
		r.holder.Lose() // and nobody says so: the renewal finds it
		wait(600 * ms)
		d.want(t, one)
		for range 10 { // a fight
			r.holder.Lose()
			r.router.Recheck()
			wait(100 * ms)
		}
		d.want(t, one, one, one, one)
		wait(time.Minute)
		r.holder.Lose()
		r.router.Recheck()
		d.want(t, "Restored [192.168.15.3/24] removed by somebody else, 6 not told")
		if got := r.router.Status().Counters.AddressesRestored; got != 15 {
			t.Errorf("%d counted", got)
		}
		r.end()
	})
}

func TestRouterTellsOfForeignClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		_, a, b := pair(t, vrrp.Hooks{Tell: d.tell}, 0)
		wait(time.Minute)
		d.since()
		a.holder.Announced()
		for _, r := range []*rig{a, b} {
			r.router.Claimed(vip.Addr(), "02:00:00:00:00:66", 2)
			r.router.Claimed(vip.Addr(), "02:00:00:00:00:66", 3)
			r.router.Claimed(netip.MustParseAddr("192.168.15.4"), "02:00:00:00:00:66", 1)
		}
		d.want(t, "Foreign 192.168.15.3 02:00:00:00:00:66 2")
		s := a.router.Status()
		if len(s.Claims) != 1 || s.Claims[0].Count != 5 || s.Claims[0].First.IsZero() || s.Counters.ForeignClaims != 5 {
			t.Errorf("%+v, %d counted", s.Claims, s.Counters.ForeignClaims)
		}
		if got := a.holder.Announced(); len(got) != 2 {
			t.Errorf("announced %s", got)
		}
		if s := b.router.Status(); len(s.Claims) > 0 || s.Counters.ForeignClaims > 0 || len(b.holder.Announced()) > 0 {
			t.Errorf("the backup minds: %+v", s)
		}
		a.end()
		b.end()
	})
}

// Who forges hardware addresses fills neither the status nor the log.
func TestForeignClaimsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		r := begin(t, new(vrrptest.LAN), config("192.168.15.11", 100), vrrp.Hooks{Tell: d.tell})
		wait(time.Minute)
		d.since()
		for i := range 1000 {
			r.router.Claimed(vip.Addr(), fmt.Sprintf("02:00:00:00:%02x:%02x", i>>8, i&0xff), 1)
			wait(ms)
		}
		s := r.router.Status()
		if told := d.since(); len(told) != 8 || len(s.Claims) != 16 || s.Counters.ForeignClaims != 1000 {
			t.Errorf("told %d, remembers %d, counts %d", len(told), len(s.Claims), s.Counters.ForeignClaims)
		}
		if got := s.Claims[999%16].MAC; got != "02:00:00:00:03:e7" {
			t.Errorf("the latest is not remembered: %s", got)
		}
		r.end()
	})
}
