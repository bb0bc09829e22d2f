package appliance

import (
	"net/netip"
	"slices"
	"testing"
)

// holding is what is on an interface.
type holding map[netip.Prefix]bool

func (h holding) Announce([]netip.Prefix) error { return nil }

func (h holding) Acquire(addresses []netip.Prefix) (added []netip.Prefix, err error) {
	for _, a := range addresses {
		if !h[a] {
			added = append(added, a)
		}
		h[a] = true
	}
	return added, nil
}

func (h holding) Release(addresses []netip.Prefix) error {
	for _, a := range addresses {
		delete(h, a)
	}
	return nil
}

// A reload moves an address from one router to another: whoever acts first, and
// whatever renewal is still under way, the address stays.
func TestAddressThatMovesBetweenRoutersStays(t *testing.T) {
	vip := []netip.Prefix{netip.MustParsePrefix("192.168.15.3/24")}
	const loser, gainer = 0, 1
	for name, orders := range map[string][]func(routers [2]*shared) error{
		"gainer first":  {acquire(gainer, vip), release(loser, vip)},
		"loser first":   {release(loser, vip), acquire(gainer, vip)},
		"late renewal":  {acquire(gainer, vip), acquire(loser, vip), release(loser, vip)},
		"renewed twice": {acquire(gainer, vip), acquire(gainer, vip), release(loser, vip)},
	} {
		on, claims := holding{}, newClaims()
		routers := [2]*shared{{on, "eth0", claims}, {on, "eth0", claims}}
		steps := append([]func([2]*shared) error{acquire(loser, vip)}, orders...)
		for _, step := range steps {
			if err := step(routers); err != nil {
				t.Fatal(err)
			}
		}
		if !on[vip[0]] {
			t.Errorf("%s: the address is gone", name)
		}
		if err := routers[gainer].Release(vip); err != nil || len(on) > 0 || len(claims.holders) > 0 {
			t.Errorf("%s: after the gainer's release: %v on the interface, claims %v, %v", name, on, claims.holders, err)
		}
	}
}

func acquire(i int, vip []netip.Prefix) func([2]*shared) error {
	return func(routers [2]*shared) error {
		_, err := routers[i].Acquire(vip)
		return err
	}
}

func release(i int, vip []netip.Prefix) func([2]*shared) error {
	return func(routers [2]*shared) error { return routers[i].Release(vip) }
}

// What a crash left is swept, what another router holds is not, and the same
// address on another interface is another one.
func TestSweepLeavesWhatIsHeld(t *testing.T) {
	vips := []netip.Prefix{netip.MustParsePrefix("192.168.15.3/24"), netip.MustParsePrefix("192.168.15.4/24")}
	claims := newClaims()
	held := shared{holding{}, "eth0", claims}
	if _, err := held.Acquire(vips[:1]); err != nil {
		t.Fatal(err)
	}
	for iface, want := range map[string][]netip.Prefix{"eth0": vips[1:], "eth1": vips} {
		swept, err := claims.sweep(iface, vips, func(a []netip.Prefix) ([]netip.Prefix, error) { return a, nil })
		if err != nil || !slices.Equal(swept, want) {
			t.Errorf("%s: swept %s, %v; want %s", iface, swept, err, want)
		}
	}
}
