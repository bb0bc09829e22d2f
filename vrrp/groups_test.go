package vrrp_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"appliance/vrrp"
	"appliance/vrrp/vrrptest"
)

// arms are the routers of one node in a group: one on each of two LANs.
type arms struct {
	groups   *vrrp.Groups
	lan, srv *rig
}

// beginArms runs a node with two arms, ready to take part.
func beginArms(t *testing.T, lan, srv *vrrptest.LAN, host byte, priority int) *arms {
	a := &arms{groups: vrrp.NewGroups()}
	hooks := vrrp.Hooks{Groups: a.groups}
	on := config(netip.AddrFrom4([4]byte{192, 168, 15, host}).String(), priority)
	at := config(netip.AddrFrom4([4]byte{172, 16, 1, host}).String(), priority)
	on.Group, at.Group, at.Name = "edge", "edge", "VI_2"
	at.Addresses = []netip.Prefix{netip.MustParsePrefix("172.16.1.3/24")}
	a.lan, a.srv = prepare(t, lan.Join(on.Source), on, hooks), prepare(t, srv.Join(at.Source), at, hooks)
	a.groups.Join(a.lan.router, a.srv.router)
	a.lan.run()
	a.srv.run()
	return a
}

func (a *arms) want(s vrrp.State) {
	a.lan.t.Helper()
	a.lan.want(s)
	a.srv.want(s)
}

// twoNodes runs two nodes with two arms each until the first is active.
func twoNodes(t *testing.T) (a, b *arms) {
	lan, srv := new(vrrptest.LAN), new(vrrptest.LAN)
	a = beginArms(t, lan, srv, 11, 100)
	b = beginArms(t, lan, srv, 12, 90)
	wait(time.Second)
	a.want(vrrp.Active)
	b.want(vrrp.Backup)
	return a, b
}

func TestRoutersOfAGroupMoveTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := twoNodes(t)
		if _, err := a.srv.router.Failover(t.Context(), vrrp.Move{}); err != nil {
			t.Fatal(err)
		}
		wait(100 * ms)
		a.want(vrrp.Backup)
		b.want(vrrp.Active)
		if len(a.lan.holder.Held()) > 0 || len(b.lan.holder.Held()) != 1 {
			t.Errorf("held: %v and %v", a.lan.holder.Held(), b.lan.holder.Held())
		}
		if _, err := a.lan.router.Failback(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		wait(100 * ms)
		a.want(vrrp.Active)
		b.want(vrrp.Backup)
		a.lan.end()
		a.srv.end() // has ended together with the other one
		wait(time.Second)
		b.want(vrrp.Active)
		b.lan.end()
		b.srv.end()
	})
}

// A router that can hear no adverts any more takes its group along.
func TestADeafRouterTakesItsGroupAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := twoNodes(t)
		a.lan.port.Break(errNoInterface)
		a.want(vrrp.Fault)
		wait(time.Second)
		b.want(vrrp.Active)
		if len(a.srv.holder.Held()) > 0 {
			t.Error("the other arm still holds its address")
		}
		a.lan.port.Break(nil)
		wait(2 * time.Second) // it is the larger one
		a.want(vrrp.Active)
		for _, r := range []*rig{a.lan, a.srv, b.lan, b.srv} {
			r.end()
		}
	})
}

// A reload that takes the group away lets each router go its own way, and one
// that brings it back unites them.
func TestGroupsFollowTheConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := twoNodes(t)
		alone := config("172.16.1.11", 100)
		alone.Addresses = []netip.Prefix{netip.MustParsePrefix("172.16.1.3/24")}
		a.srv.router.Reconfigure(alone)
		a.lan.router.SetFault("test", "no carrier")
		wait(time.Second)
		a.lan.want(vrrp.Fault)
		a.srv.want(vrrp.Active)
		b.want(vrrp.Backup) // b2 hears a2, which is larger
		alone.Group = "edge"
		a.srv.router.Reconfigure(alone)
		wait(time.Second)
		a.want(vrrp.Fault)
		b.want(vrrp.Active)
		for _, r := range []*rig{a.lan, a.srv, b.lan, b.srv} {
			r.end()
		}
	})
}

// A router that is retired leaves first: the others go on.
func TestARetiredRouterLeavesItsGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := twoNodes(t)
		a.groups.Leave(a.srv.router)
		a.srv.end()
		wait(time.Second)
		a.lan.want(vrrp.Active)
		b.want(vrrp.Backup)
		for _, r := range []*rig{a.lan, b.lan, b.srv} {
			r.end()
		}
	})
}
