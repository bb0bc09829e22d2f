package appliance

import (
	"net/netip"
	"testing"

	"github.com/rs/zerolog"

	"appliance/internal/config"
	"appliance/vrrp"
)

// Who is told that this node cannot do it learns which one could.
func TestStateWordsNameTheActiveNode(t *testing.T) {
	a := newAppliance(Options{Log: zerolog.Nop()}, &config.Node{})
	known, unknown := netip.MustParseAddr("192.168.15.12"), netip.MustParseAddr("192.168.15.99")
	m := &member{config: vrrp.Config{
		Name: "VI_1", Source: netip.MustParseAddr("192.168.15.11"), Peers: []vrrp.Peer{{Name: "lb02", Address: known}},
	}}
	linkLocal := netip.MustParseAddr("fe80::12")
	for want, s := range map[string]vrrp.Status{
		"VI_1 is backup, lb02 (fe80::12) is active": {State: vrrp.Backup, Active: vrrp.PeerAdvert{Address: linkLocal}},
		"VI_1 is active": {State: vrrp.Active, Active: vrrp.PeerAdvert{Address: m.config.Source}},
		"VI_1 is backup": {State: vrrp.Backup},
		"VI_1 is backup, lb02 (192.168.15.12) is active": {State: vrrp.Backup, Active: vrrp.PeerAdvert{Address: known}},
		"VI_1 is fault, 192.168.15.99 is active":         {State: vrrp.Fault, Active: vrrp.PeerAdvert{Address: unknown}},
	} {
		if got := a.stateWords(m, s); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
