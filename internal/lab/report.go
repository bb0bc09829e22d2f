package lab

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Report is what became of the requests that began in a stretch of time, From
// included and To not. Requests in stretches that follow each other are counted
// in one of them each.
type Report struct {
	From, To   time.Time
	Requests   int
	Kinds      map[OutcomeKind]int
	Servers    map[string]int // answers of each server with status 200
	FirstError error          // of the earliest request that failed
	// Gap is the longest time without a success in the stretch, whenever the
	// request that succeeded began, and GapFrom when it began. The ends of the
	// stretch count as successes.
	Gap     time.Duration
	GapFrom time.Time
}

// sum sums up the outcomes, ordered by their starts, in a stretch of time.
func sum(outcomes []Outcome, from, to time.Time) Report {
	r := Report{From: from, To: to, Kinds: make(map[OutcomeKind]int), Servers: make(map[string]int)}
	successes := []time.Time{from, to}
	for _, o := range outcomes {
		if o.Kind == OK && o.End.After(from) && o.End.Before(to) {
			successes = append(successes, o.End)
		}
		if o.Start.Before(from) || !o.Start.Before(to) {
			continue
		}
		r.Requests++
		r.Kinds[o.Kind]++
		switch {
		case o.Kind == OK:
			r.Servers[o.Server]++
		case r.FirstError == nil:
			r.FirstError = o.Err
		}
	}
	slices.SortFunc(successes, time.Time.Compare)
	for i, t := range successes[1:] {
		if d := t.Sub(successes[i]); d > r.Gap {
			r.Gap, r.GapFrom = d, successes[i]
		}
	}
	return r
}

// Failures returns how many requests did not end well.
func (r Report) Failures() int { return r.Requests - r.Kinds[OK] }

// Rate returns the successful requests per second.
func (r Report) Rate() float64 { return float64(r.Kinds[OK]) / r.To.Sub(r.From).Seconds() }

// String tells the failures by their kind, such as "3 refused, 1 reset", or
// "no failures".
func (r Report) String() string {
	var parts []string
	for _, k := range []OutcomeKind{Status, Refused, Reset, TimedOut, Failed} {
		if n := r.Kinds[k]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, k))
		}
	}
	if parts == nil {
		return "no failures"
	}
	return strings.Join(parts, ", ")
}

// ServerNames returns the servers that answered, sorted.
func (r Report) ServerNames() []string {
	names := make([]string, 0, len(r.Servers))
	for n := range r.Servers {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
