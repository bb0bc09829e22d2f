package peer

import "time"

// State is what is known of another node by the link to it.
type State uint8

const (
	// Connecting: there has been no link since this node started.
	Connecting State = iota
	// Up: the node is heard.
	Up
	// Lost: the node has fallen silent. Whether it is the node, its host or the
	// network, nobody can tell.
	Lost
	// Died: the link broke without a goodbye and the node's host refuses a new
	// one: the host lives, and no process listens there any more.
	Died
	// Goodbye: the node has stopped, and said so.
	Goodbye
)

// String returns the state as users read it.
func (s State) String() string {
	switch s {
	case Connecting:
		return "connecting"
	case Up:
		return "up"
	case Lost:
		return "lost"
	case Died:
		return "died"
	case Goodbye:
		return "goodbye"
	}
	return "unknown"
}

// Status is one link at one moment.
type Status struct {
	// Node is the other node, Address where it is dialed.
	Node    string
	Address string
	State   State
	// Since is when the state was entered, Reason why.
	Since  time.Time
	Reason string
	// Report is what the node said last, Reported when; zero if it never did.
	Report   Report
	Reported time.Time

	instance string // of the node when the link was up last
}

// The times of a link.
const (
	// MinHeartbeat and MaxHeartbeat bound Config.Heartbeat.
	MinHeartbeat = 50 * time.Millisecond
	MaxHeartbeat = 10 * time.Second
	// lostBeats heartbeats that did not come make a link lost, but no less than
	// lostMin: a busy machine is no dead one.
	lostBeats = 4
	lostMin   = 500 * time.Millisecond
)

// lostAfter is how long a node that beats at this pace may be silent.
func lostAfter(pace time.Duration) time.Duration { return max(lostBeats*pace, lostMin) }
