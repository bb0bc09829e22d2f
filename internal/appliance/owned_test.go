package appliance

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"appliance/vrrp/vrrptest"
)

func TestOwnAddressIsNeverLeasedAndNeverTakenOff(t *testing.T) {
	own, other := netip.MustParsePrefix("192.168.15.11/24"), netip.MustParsePrefix("192.168.15.3/24")
	both := []netip.Prefix{own, other}
	holder := vrrptest.NewHolder()
	var missing []netip.Addr
	o := &owned{
		Addresses: holder,
		own:       func() []netip.Addr { return []netip.Addr{own.Addr()} },
		missing:   func([]netip.Addr) ([]netip.Addr, error) { return missing, nil },
	}
	if _, err := o.Acquire(both); err != nil {
		t.Fatal(err)
	}
	if held := holder.Held(); !slices.Equal(held, []netip.Prefix{other}) {
		t.Errorf("leased %v", held)
	}
	if err := o.Announce(both); err != nil {
		t.Error(err)
	}
	missing = []netip.Addr{own.Addr()}
	if _, err := o.Acquire(both); err == nil || !strings.Contains(err.Error(), "192.168.15.11 is this node's own address") {
		t.Errorf("without it: %v", err)
	}
	if err := o.Release(both); err != nil {
		t.Fatal(err)
	}
	if held := holder.Held(); len(held) > 0 {
		t.Errorf("still leased: %v", held)
	}
}
