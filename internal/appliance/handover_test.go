package appliance

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/rs/zerolog"
)

// recorder is addresses that note what is done to them.
type recorder struct{ events []string }

func (r *recorder) Acquire([]netip.Prefix) error { r.events = append(r.events, "acquire"); return nil }
func (r *recorder) Release([]netip.Prefix) error { r.events = append(r.events, "release"); return nil }
func (r *recorder) Announce([]netip.Prefix) error {
	r.events = append(r.events, "announce")
	return nil
}

// The clients of an address are told while packets can still leave.
func TestConnectionsAreCutBeforeTheAddressGoes(t *testing.T) {
	var r recorder
	addresses := []netip.Prefix{netip.MustParsePrefix("192.168.15.3/24")}
	s := severing{&r, func(vips []netip.Addr) int {
		if !slices.Equal(vips, vipsOf(addresses)) {
			t.Errorf("cut the connections to %v, want those to %v", vips, addresses)
		}
		r.events = append(r.events, "cut")
		return len(vips)
	}, zerolog.Nop()}
	for _, step := range []func([]netip.Prefix) error{s.Acquire, s.Announce, s.Release} {
		if err := step(addresses); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"acquire", "announce", "cut", "release"}; !slices.Equal(r.events, want) {
		t.Errorf("got %v, want %v", r.events, want)
	}
}
