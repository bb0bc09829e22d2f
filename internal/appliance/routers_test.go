package appliance

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"appliance/internal/config"
	"appliance/vrrp"
)

func entry(name, iface, address string, vrid int) config.VRRPNode {
	return config.VRRPNode{Config: vrrp.Config{
		Name: name, VRID: vrid, Interface: iface, Version: 3, AdvertInterval: vrrp.MinAdvertInterval, Priority: 100,
		Addresses: []netip.Prefix{netip.MustParsePrefix(address)},
	}}
}

// names returns the routers' names.
func names(members []*member) string {
	var list []string
	for _, m := range members {
		list = append(list, m.config.Name)
	}
	return strings.Join(list, " ")
}

// stage stages cfgs on a host whose network has nothing to do with them.
func stage(t *testing.T, a *Appliance, old []*member, cfgs ...config.VRRPNode) *routerChange {
	t.Helper()
	c, err := a.stageRouters(old, cfgs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.discard)
	return c
}

// An interface that is not there is that router's trouble, not the file's.
func TestMissingInterfaceIsNoReasonToRefuseAFile(t *testing.T) {
	a := newAppliance(Options{Log: zerolog.Nop()}, &config.Node{})
	c := stage(t, a, nil, entry("VI_1", "nowhere9", "198.51.100.3/24", 50))
	if names(c.started) != "VI_1" {
		t.Errorf("started: %s", names(c.started))
	}
	if s := c.next[0].router.Status(); s.State != vrrp.Fault {
		t.Errorf("%+v", s)
	}
}

func TestUndetectableInterfaceIsRefusedUnlessTheRouterRuns(t *testing.T) {
	a := newAppliance(Options{Log: zerolog.Nop()}, &config.Node{})
	left := entry("VI_1", "", "198.51.100.3/24", 50)
	_, err := a.stageRouters(nil, []config.VRRPNode{left})
	if err == nil || !strings.Contains(err.Error(), "vrrp VI_1: no interface has an address in the subnet of 198.51.100.3/24") {
		t.Errorf("%v", err)
	}
	// One that runs keeps the interface that it was detected on.
	old := stage(t, a, nil, entry("VI_1", "nowhere9", "198.51.100.3/24", 50)).next
	old[0].detected = true
	left.Priority = 90
	c := stage(t, a, old, left)
	if len(c.started)+len(c.retired) > 0 || c.next[0].config.Interface != "nowhere9" || c.next[0].config.Priority != 90 {
		t.Errorf("started %s, retired %s, next %+v", names(c.started), names(c.retired), c.next[0].config)
	}
	// Unless the first address is another one.
	left.Addresses = []netip.Prefix{netip.MustParsePrefix("203.0.113.3/24")}
	if _, err := a.stageRouters(old, []config.VRRPNode{left}); err == nil {
		t.Error("moved to another network on the old interface")
	}
}

func TestRetiredRoutersAreSeenUntilTheyHaveEnded(t *testing.T) {
	a := newAppliance(Options{Log: zerolog.Nop()}, &config.Node{})
	old := stage(t, a, nil, entry("kept", "nowhere9", "198.51.100.3/24", 50), entry("moved", "nowhere9", "198.51.100.4/24", 51)).next
	c := stage(t, a, old, entry("moved", "nowhere9", "198.51.100.4/24", 61), entry("kept", "nowhere9", "198.51.100.3/24", 50))
	if got := names(c.next); got != "moved kept" {
		t.Errorf("next: %s", got)
	}
	seen := c.meanwhile()
	if names(seen) != "kept moved" || seen[0].router != old[0].router || seen[1] != old[1] {
		t.Errorf("meanwhile: %s", names(seen))
	}
}

func TestClashOfIdentifiersIsRefused(t *testing.T) {
	a := newAppliance(Options{Log: zerolog.Nop()}, &config.Node{})
	_, err := a.stageRouters(nil, []config.VRRPNode{
		entry("VI_1", "nowhere9", "198.51.100.3/24", 50), entry("VI_2", "nowhere9", "198.51.100.4/24", 50)})
	if err == nil || !strings.Contains(err.Error(), "already that of vrrp VI_1 on interface nowhere9") {
		t.Errorf("%v", err)
	}
}
