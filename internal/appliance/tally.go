package appliance

import (
	"net/netip"
	"slices"

	"appliance/internal/control"
)

// tally counts what was under way by service, connections of l4 and requests of
// l7.
type tally map[string]int64

// count returns what is under way now in the services that serve vips.
func (a *Appliance) count(vips []netip.Addr) tally {
	serves := func(listen []netip.AddrPort) bool {
		return slices.ContainsFunc(listen, func(l netip.AddrPort) bool {
			return l.Addr().IsUnspecified() || slices.Contains(vips, l.Addr())
		})
	}
	t := make(tally)
	for _, s := range a.l4.Stats() {
		if serves(s.Listen) {
			t[s.Name] = s.Current
		}
	}
	for _, s := range a.l7.Stats() {
		if serves(s.Listen) {
			t[s.Name] = s.Current
		}
	}
	return t
}

// since says what became of those that were under way in before: what is still
// under way now is cut.
func (t tally) since(before tally) []control.MovedService {
	moved := []control.MovedService{}
	for name, cut := range t {
		if ended := max(0, before[name]-cut); ended+cut > 0 {
			moved = append(moved, control.MovedService{Service: name, Ended: ended, Cut: cut})
		}
	}
	slices.SortFunc(moved, func(a, b control.MovedService) int {
		if a.Service < b.Service {
			return -1
		}
		return 1
	})
	return moved
}
