package appliance

import (
	"net/netip"
	"slices"
	"testing"

	"appliance/internal/guard"
)

// toldGuard notes what it is told, and is addresses that always obey.
type toldGuard struct{ told []guard.Holding }

func (g *toldGuard) Hold(_ string, h guard.Holding) { g.told = append(g.told, h) }

func (g *toldGuard) Acquire([]netip.Prefix) ([]netip.Prefix, error) { return nil, nil }
func (g *toldGuard) Release([]netip.Prefix) error                   { return nil }
func (g *toldGuard) Announce([]netip.Prefix) error                  { return nil }

// The farewell must be one that the other node believes: after a reload that
// changes the password of version 2, for example.
func TestGuardIsToldOfANewFarewell(t *testing.T) {
	fake, farewell := &toldGuard{}, "first"
	g := &guarded{Addresses: fake, guard: fake, name: "VI_1", describe: func(held []netip.Prefix) guard.Holding {
		return guard.Holding{Addresses: held, Farewells: []guard.Farewell{{Message: []byte(farewell)}}}
	}}
	one, two := netip.MustParsePrefix("192.168.15.3/24"), netip.MustParsePrefix("192.168.15.4/24")
	want := func(step string, calls int, farewell string, held ...netip.Prefix) {
		t.Helper()
		last := guard.Holding{}
		if n := len(fake.told); n > 0 {
			last = fake.told[n-1]
		}
		if len(fake.told) != calls || string(last.Farewells[0].Message) != farewell || !slices.Equal(last.Addresses, held) {
			t.Errorf("%s: told %d times, the last %v %s", step, len(fake.told), last.Farewells, last.Addresses)
		}
	}
	g.Acquire([]netip.Prefix{one})
	want("acquired", 1, "first", one)
	g.Acquire([]netip.Prefix{one})
	want("renewed", 1, "first", one)
	farewell = "second"
	g.Acquire([]netip.Prefix{one})
	want("renewed after a reload", 2, "second", one)
	g.Acquire([]netip.Prefix{one, two})
	want("acquired another", 3, "second", one, two)
	g.Release([]netip.Prefix{one})
	want("released the first", 4, "second", two)
	if first := fake.told[2]; !slices.Equal(first.Addresses, []netip.Prefix{one, two}) {
		t.Errorf("what was told before has changed: %s", first.Addresses)
	}
	g.Release([]netip.Prefix{two})
	want("released all", 5, "second")
}
