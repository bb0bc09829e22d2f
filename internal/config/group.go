package config

import "slices"

// members returns the virtual routers that move together with v, v among them.
func (f *File) members(v VRRPEntry) []VRRPEntry {
	if v.Group == "" {
		return []VRRPEntry{v}
	}
	var members []VRRPEntry
	for _, other := range f.VRRP {
		if other.Group == v.Group {
			members = append(members, other)
		}
	}
	return members
}

// validateGroups reports groups whose members could not move together: on each
// LAN the election is decided by itself, and has to come out the same.
func (f *File) validateGroups(r *report) {
	first := make(map[string]int)
	for i, v := range f.VRRP {
		at := index("vrrp", i)
		if v.Group == "" {
			continue
		}
		if a, node, ok := f.ownAddress(v); ok {
			r.invalid(at+".group", "nothing can move %s, which is %s's own address; leave group out", a, node)
		}
		if len(f.members(v)) == 1 {
			r.dangling(at+".group", "%s is alone in group %s; give another [[vrrp]] the same group, or leave it out", at, v.Group)
		}
		j, ok := first[v.Group]
		if !ok {
			first[v.Group] = i
			f.validateRanking(r, at, v)
			continue
		}
		leader, name := f.VRRP[j], index("vrrp", j)
		if !slices.Equal(f.ranking(v), f.ranking(leader)) {
			r.invalid(at+".group", "%s would have its addresses on %s, and %s of the same group on %s; give the nodes priorities that rank them alike",
				at, f.ranking(v)[0], name, f.ranking(leader)[0])
		}
		f.validateRanking(r, at, v)
		if v.Preempt != leader.Preempt {
			r.invalid(at+".preempt", "must be what it is in %s, which is in the same group: %v", name, leader.Preempt)
		}
		if v.PreemptDelay != leader.PreemptDelay {
			r.invalid(at+".preempt_delay", "must be what it is in %s, which is in the same group: %q", name, leader.PreemptDelay)
		}
	}
}

// validateRanking reports two nodes with the same priority in a member of a
// group: there the addresses of the nodes decide, which may rank them another way
// on every LAN.
func (f *File) validateRanking(r *report, at string, v VRRPEntry) {
	ranking := f.ranking(v)
	for i := range ranking[:max(0, len(ranking)-1)] {
		if p := f.basePriority(v, ranking[i]); p != 0 && p == f.basePriority(v, ranking[i+1]) {
			r.invalid(at+".group", "%s and %s have the same priority %d; in a group one node must be the larger one", ranking[i], ranking[i+1], p)
		}
	}
}
