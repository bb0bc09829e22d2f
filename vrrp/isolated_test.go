package vrrp_test

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"appliance/vrrp"
	"appliance/vrrp/vrrptest"
)

// A router that hears nobody asks the hosts that it should reach, and takes over
// only when they answer.
func TestSilenceIsCheckedAgainstTheHostsToReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gateway := []netip.Addr{netip.MustParseAddr("192.168.15.1")}
		var gone atomic.Bool
		gone.Store(true)
		lan := new(vrrptest.LAN)
		a := begin(t, lan, config("192.168.15.11", 100), vrrp.Hooks{})
		cfg := config("192.168.15.12", 90)
		cfg.Reach = gateway
		b := begin(t, lan, cfg, vrrp.Hooks{Missing: func(ctx context.Context, hosts []netip.Addr) []netip.Addr {
			if !slices.Equal(hosts, gateway) {
				t.Errorf("asks %v", hosts)
			}
			if !gone.Load() {
				return nil
			}
			<-ctx.Done()
			return hosts
		}})
		wait(time.Second)
		b.want(vrrp.Backup)
		a.port.Cut(true, true)
		wait(5 * time.Second)
		b.want(vrrp.Backup)
		if alarms := b.router.Status().Alarms; len(alarms) != 1 || alarms[0].Source != vrrp.AlarmIsolated {
			t.Errorf("alarms %+v", alarms)
		}
		gone.Store(false)
		wait(time.Second)
		b.want(vrrp.Active)
		if alarms := b.router.Status().Alarms; len(alarms) > 0 {
			t.Errorf("alarms %+v", alarms)
		}
		a.end()
		b.end()
	})
}
