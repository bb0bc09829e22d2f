package kernel

import (
	"cmp"
	"hash/fnv"
	"net/netip"
	"slices"
)

// tableSize is the number of places in a table of servers: a prime, as the
// permutations below need, and a hundred times the number of servers that keeps
// their shares within about one percent.
const tableSize = 16381

// candidate is a server that may have new flows.
type candidate struct {
	addr   netip.AddrPort
	weight int
	id     uint32
}

// maglev fills the table by which new flows find their server: Maglev hashing
// (Eisenbud et al., NSDI 2016, section 3.4), with weights. It depends on the
// addresses and weights alone, not on their order nor on ids, so that both nodes
// have the same; a server that comes or goes changes few places but its own.
// Without candidates it returns nil.
func maglev(candidates []candidate) []uint32 {
	if len(candidates) == 0 {
		return nil
	}
	candidates = slices.Clone(candidates)
	slices.SortFunc(candidates, func(a, b candidate) int { return a.addr.Compare(b.addr) })
	heaviest := slices.MaxFunc(candidates, func(a, b candidate) int { return cmp.Compare(a.weight, b.weight) }).weight

	type turn struct{ offset, skip, next, credit int }
	turns := make([]turn, len(candidates))
	for i, c := range candidates {
		turns[i].offset = int(hash(c.addr, 1) % tableSize)
		turns[i].skip = int(hash(c.addr, 2)%(tableSize-1)) + 1
	}
	table := make([]uint32, tableSize)
	for filled := 0; ; {
		for i := range candidates {
			t := &turns[i]
			// The heaviest takes a place in each round, one of half its weight in
			// every other.
			if t.credit += candidates[i].weight; t.credit < heaviest {
				continue
			}
			t.credit -= heaviest
			for table[(t.offset+t.next*t.skip)%tableSize] != 0 {
				t.next++
			}
			table[(t.offset+t.next*t.skip)%tableSize] = candidates[i].id
			if filled++; filled == tableSize {
				return table
			}
		}
	}
}

// hash returns a number that is the same on all machines.
func hash(a netip.AddrPort, seed byte) uint64 {
	h := fnv.New64a()
	b := a.Addr().As16()
	h.Write([]byte{seed})
	h.Write(b[:])
	h.Write([]byte{byte(a.Port() >> 8), byte(a.Port())})
	// FNV leaves the last bytes in the low bits; mix them through.
	v := h.Sum64()
	v ^= v >> 33
	v *= 0xff51afd7ed558ccd
	v ^= v >> 33
	return v
}
