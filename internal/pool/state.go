package pool

import (
	"fmt"
	"time"
)

// HealthState is the verdict of the health checks on a server.
type HealthState uint8

// The verdicts. Only a server that is up is picked.
const (
	Unknown HealthState = iota // not judged yet
	Up
	Down
)

// String returns "unknown", "up" or "down".
func (s HealthState) String() string {
	switch s {
	case Unknown:
		return "unknown"
	case Up:
		return "up"
	case Down:
		return "down"
	}
	return fmt.Sprintf("health(%d)", uint8(s))
}

// Health is what the checks found out about a server.
type Health struct {
	// State is the verdict.
	State HealthState
	// Reason says in words why; it may be empty.
	Reason string
	// Since is when State was reached.
	Since time.Time
}

// Admin is what the administrator wants of a server. In every state the
// connections that a server has go on; only Ready lets it have new ones.
type Admin uint8

// The administrator's wishes.
const (
	Ready Admin = iota // takes connections
	Drain              // is to become empty: no new connections
	Maint              // is out of service: no new connections
)

// String returns "ready", "drain" or "maint".
func (a Admin) String() string {
	switch a {
	case Ready:
		return "ready"
	case Drain:
		return "drain"
	case Maint:
		return "maint"
	}
	return fmt.Sprintf("admin(%d)", uint8(a))
}

// MarshalText returns what String does.
func (a Admin) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads the words that String writes; others are an error.
func (a *Admin) UnmarshalText(text []byte) error {
	for _, known := range []Admin{Ready, Drain, Maint} {
		if string(text) == known.String() {
			*a = known
			return nil
		}
	}
	return fmt.Errorf("unknown admin state %q; known: ready, drain, maint", text)
}
