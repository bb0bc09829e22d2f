package kernel

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// crowd returns n candidates.
func crowd(n int) []candidate {
	c := make([]candidate, n)
	for i := range c {
		c[i] = candidate{netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80), 1, uint32(i + 1)}
	}
	return c
}

// shares returns how many places of a table each has.
func shares(table []uint32) map[uint32]int {
	s := make(map[uint32]int)
	for _, id := range table {
		s[id]++
	}
	return s
}

func TestMaglevIsTheSameInAnyOrder(t *testing.T) {
	t.Parallel()
	c := crowd(20)
	want := maglev(c)
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(c), func(i, j int) { c[i], c[j] = c[j], c[i] })
	if !slices.Equal(maglev(c), want) {
		t.Error("another order gives another table")
	}
}

func TestMaglevShares(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 3, 10, 100, 1000} {
		s := shares(maglev(crowd(n)))
		for id := range n {
			if got, fair := s[uint32(id+1)], tableSize/n; got < fair || got > fair+1 {
				t.Errorf("%d servers: number %d has %d places; want %d or %d", n, id, got, fair, fair+1)
			}
		}
		if s[0] != 0 {
			t.Errorf("%d servers: %d places are empty", n, s[0])
		}
	}
	if maglev(nil) != nil {
		t.Error("no servers have a table")
	}
}

func TestMaglevWeights(t *testing.T) {
	t.Parallel()
	for _, weights := range [][]int{{1, 2}, {1, 2, 3}, {100, 1, 1}, {256, 255, 1}, {MaxWeight, 1}, {7, 7, 7, 14}} {
		c := crowd(len(weights))
		sum := 0
		for i, w := range weights {
			c[i].weight = w
			sum += w
		}
		s := shares(maglev(c))
		for i, w := range weights {
			if got, want := s[uint32(i+1)], float64(tableSize)*float64(w)/float64(sum); float64(got) < want-2 || float64(got) > want+2 {
				t.Errorf("weights %v: number %d has %d places; want %.0f", weights, i, got, want)
			}
		}
	}
}

func TestMaglevMovesFew(t *testing.T) {
	t.Parallel()
	for _, n := range []int{5, 20, 100} {
		c := crowd(n)
		before, after := maglev(c), maglev(c[1:])
		moved := 0
		for i := range before {
			if before[i] != 1 && before[i] != after[i] {
				moved++
			}
		}
		if share := float64(moved) / tableSize; share > 0.05 {
			t.Errorf("without one of %d servers, %.1f %% of the places moved between others", n, share*100)
		}
	}
}

// TestMaglevStays holds the table still: both nodes of a pair must have the same
// one while one of them is upgraded.
func TestMaglevStays(t *testing.T) {
	t.Parallel()
	table := maglev(crowd(7))
	if got, want := fmt.Sprint(table[:12]), "[2 5 5 7 5 5 4 4 1 2 6 3]"; got != want {
		t.Errorf("the table begins %s; it used to begin %s", got, want)
	}
}
