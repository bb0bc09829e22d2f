package config

import (
	"net/netip"
	"slices"
)

// minDefaultWeight is the smallest weight of a tracked service that gives none.
const minDefaultWeight = 10

// basePriority returns the base priority of a node in a virtual router: what
// the router says for the node, or for all, or else what the node says. It is 0
// when nothing does.
func (f *File) basePriority(v VRRPEntry, node string) int {
	if p := v.Priority.ByNode[node]; p != 0 {
		return p
	}
	if v.Priority.All != 0 {
		return v.Priority.All
	}
	return f.Nodes[node].Priority
}

// ranking returns the names of the nodes by their base priorities in a virtual
// router, the largest first.
func (f *File) ranking(v VRRPEntry) []string {
	names := f.NodeNames()
	slices.SortStableFunc(names, func(a, b string) int { return f.basePriority(v, b) - f.basePriority(v, a) })
	return names
}

// defaultWeight returns what a tracked service without a weight takes off the
// priority: one more than the gap between the largest and the smallest base
// priority of the virtual router, so that one such service makes any node
// smaller than any other, and at least minDefaultWeight.
func (f *File) defaultWeight(v VRRPEntry) int {
	names := f.ranking(v)
	if len(names) == 0 {
		return minDefaultWeight
	}
	return max(minDefaultWeight, f.basePriority(v, names[0])-f.basePriority(v, names[len(names)-1])+1)
}

// tracks returns what a virtual router tracks, weights filled in. Those that move
// together track together: what one of them lists concerns all, with the largest
// of the weights that they give it.
func (f *File) tracks(v VRRPEntry) []Track {
	members := f.members(v)
	standard := 0
	for _, m := range members {
		standard = max(standard, f.defaultWeight(m))
	}
	var tracks []Track
	for _, m := range members {
		for _, t := range m.Track {
			track := Track(t)
			if t.Weight == 0 && t.Interface == "" {
				track.Weight = standard
			}
			i := slices.IndexFunc(tracks, track.same)
			switch {
			case i < 0:
				tracks = append(tracks, track)
			case tracks[i].Weight == 0 || track.Weight == 0:
				tracks[i].Weight = 0 // a fault, which is more
			default:
				tracks[i].Weight = max(tracks[i].Weight, track.Weight)
			}
		}
	}
	return tracks
}

// same says whether two tracks name the same thing.
func (t Track) same(other Track) bool {
	return t.Service == other.Service && t.Interface == other.Interface && t.Reach == other.Reach
}

// validateTracks reports mistakes in what the virtual routers track.
func (f *File) validateTracks(r *report) {
	services := make(map[string]service)
	for _, s := range f.services() {
		if s.name != "" {
			services[s.name] = s
		}
	}
	for i, v := range f.VRRP {
		at := index("vrrp", i) + ".track"
		for j, t := range v.Track {
			f.validateTrack(r, index(at, j), t, services)
			for k, other := range v.Track[:j] {
				if t.Service == other.Service && t.Interface == other.Interface && t.Reach == other.Reach {
					r.invalid(index(at, j), "is the same as track[%d]", k)
					break
				}
			}
		}
		f.validateWeights(r, at, v)
	}
}

func (f *File) validateTrack(r *report, at string, t TrackEntry, services map[string]service) {
	s, known := services[t.Service]
	switch {
	case named(t.Service != "", t.Interface != "", t.Reach.IsValid()) != 1:
		r.invalid(at, "needs one of service, interface and reach")
	case t.Reach.IsValid():
		f.validateReach(r, at+".reach", t.Reach)
	case t.Service != "" && !known:
		r.dangling(at+".service", "there is no service %s%s", t.Service, hint(t.Service, services, "the file has no services"))
	case t.Service != "" && len(s.pools) == 0:
		r.dangling(at+".service", "service %s forwards to no servers; there is nothing to track", t.Service)
	case t.Service != "":
		f.validateChecked(r, at+".service", s)
	}
	validateInterface(r, at+".interface", t.Interface)
	if t.Weight < 0 || t.Weight > 253 {
		r.invalid(at+".weight", "weight %d is out of range; 1 to 253 are allowed, to be taken off the priority", t.Weight)
	}
}

// named counts what is set.
func named(set ...bool) (n int) {
	for _, is := range set {
		if is {
			n++
		}
	}
	return n
}

// validateReach reports a host that says nothing about this node when it is not
// reached.
func (f *File) validateReach(r *report, at string, a netip.Addr) {
	validateUsable(r, at, a)
	switch {
	case a.IsUnspecified():
		r.invalid(at, "%s is no address of a host", a)
	case f.isOwn(a):
		r.invalid(at, "%s is one of the pair's own addresses; name a host that both nodes should reach, such as the gateway", a)
	}
}

// validateChecked reports that the service tracked at a path can never fail, for
// none of its servers is checked.
func (f *File) validateChecked(r *report, at string, s service) {
	for _, name := range s.pools {
		table, p := join("pool", name), f.Pools[name]
		if len(s.servers) > 0 && name == s.name {
			table, p = s.path, s.ownPool()
		}
		if p.Check != nil || len(p.Servers) == 0 || r.isBad(table+".check") {
			return // has one, or has other mistakes, which come first
		}
	}
	where := "the service"
	if pool := s.pools[0]; len(s.servers) == 0 || pool != s.name {
		where = "pool " + pool
	}
	// What could not be read may have been the check.
	r.dangling(at, "service %s cannot fail: nothing checks its servers, so they are always taken to be up; add a check to %s", s.name, where)
}

// validateWeights reports weights that can never move the virtual addresses:
// even when all tracked things fail together, the node with the largest base
// priority stays above the next. A live node's priority never goes below 1, so
// nothing falls below a node that has that.
func (f *File) validateWeights(r *report, at string, v VRRPEntry) {
	sum := 0
	for _, t := range f.tracks(v) {
		sum += t.Weight
	}
	names := f.ranking(v)
	if sum == 0 || len(names) < 2 {
		return // only faults, which need no weight, or no other node to compare with
	}
	first, second := names[0], names[1]
	largest, next := f.basePriority(v, first), f.basePriority(v, second)
	switch {
	case next == 0:
		// That a priority is missing is said elsewhere.
	case next == 1:
		r.invalid(at, "can never move the addresses: nothing falls below %s, which has priority 1; give it more", second)
	case largest-sum >= next:
		r.invalid(at, "can never move the addresses: all weights together take %d off %s's %d, which must fall below %s's %d; more than %d is needed",
			sum, first, largest, second, next, largest-next)
	}
}
