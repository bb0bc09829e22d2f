package health

import "time"

// State is what is known about a server.
type State int

// The states of a server. Unknown lasts until the first check that could judge
// has ended.
const (
	Unknown State = iota
	Up
	Down
)

// String returns "unknown", "up" or "down".
func (s State) String() string {
	switch s {
	case Up:
		return "up"
	case Down:
		return "down"
	default:
		return "unknown"
	}
}

// verdict turns the outcomes of checks into a state. It is pure: time comes
// in as an argument. newVerdict makes one.
type verdict struct {
	rise, fall int // outcomes in a row that turn the state; at least 1

	state   State
	since   time.Time // of the state; zero while Unknown
	against int       // outcomes in a row that speak against the state
}

// newVerdict returns the verdict before the first check of a server, at now.
func newVerdict(check Config, now time.Time) verdict {
	v := verdict{rise: check.EffectiveRise(), fall: check.EffectiveFall()}
	if v.state = check.Initial.state(); v.state != Unknown {
		v.since = now
	}
	return v
}

// turning reports whether the last outcome spoke against a state that holds.
func (v *verdict) turning() bool { return v.against > 0 }

// Observe takes the outcome of one check and reports whether it changed the
// state. The first outcome decides at once: a server that is fine should not
// wait for its rise, and one that is dead should never be used.
func (v *verdict) Observe(now time.Time, passed bool) bool {
	heard := Down
	if passed {
		heard = Up
	}
	if heard == v.state {
		v.against = 0
		return false
	}
	v.against++
	if v.against < v.patience() {
		return false
	}
	v.state, v.since, v.against = heard, now, 0
	return true
}

// patience returns how many outcomes against the state turn it.
func (v *verdict) patience() int {
	switch v.state {
	case Up:
		return v.fall
	case Down:
		return v.rise
	default:
		return 1
	}
}
