package config

import (
	"maps"
	"slices"
	"strings"
)

// closest returns the candidate that name is most likely a misspelling of, if
// one is close enough: a third of its letters may differ.
func closest(name string, candidates []string) (string, bool) {
	best, bestDistance := "", 0
	for _, c := range candidates {
		d := distance(strings.ToLower(name), strings.ToLower(c))
		if d <= max(1, len(c)/3) && d < len(c) && (best == "" || d < bestDistance) {
			best, bestDistance = c, d
		}
	}
	return best, best != ""
}

// hint returns the end of a message about a name that is not among the known:
// what it may have meant, or what there is.
func hint[V any](name string, known map[string]V, none string) string {
	names := slices.Sorted(maps.Keys(known))
	if meant, ok := closest(name, names); ok {
		return "; did you mean " + meant + "?"
	}
	if len(names) == 0 {
		return "; " + none
	}
	return "; known: " + strings.Join(names, ", ")
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to get from a to b.
func distance(a, b string) int {
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
