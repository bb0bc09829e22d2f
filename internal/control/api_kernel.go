package control

import "time"

// Kernel is the kernel path of the node.
type Kernel struct {
	// Loaded says that the program is in the kernel; Reason is why it is not, or
	// what of it is not in force.
	Loaded bool   `json:"loaded"`
	Reason string `json:"reason,omitempty"`
	// Attach is how it is attached: "tcx", or "clsact" on kernels that do not have that.
	Attach string `json:"attach,omitempty"`
	// Interfaces are those whose packets it sees.
	Interfaces []string `json:"interfaces"`
	// Flows is how many there are, as of a few seconds ago, half-open ones and
	// those of the other node among them; FlowLimit is how many fit.
	Flows     int64 `json:"flows"`
	FlowLimit int64 `json:"flow_limit"`
	// HalfOpen wait for the end of their handshake; HalfOpenLimit is how many may.
	HalfOpen      int64 `json:"half_open"`
	HalfOpenLimit int64 `json:"half_open_limit"`
	// Installed are those of the other node.
	Installed int64 `json:"installed"`
	// ChangesLost is how many changes of flows the other node was not told at once.
	ChangesLost int64 `json:"changes_lost"`
	// Strays are connections of which the other node had not told, taken from the
	// middle after an address had come here; Early is how many segments of servers were
	// dropped meanwhile that belonged to no flow yet.
	Strays int64 `json:"strays"`
	Early  int64 `json:"early"`
	// Left counts packets to services that were left to the stack, by what they
	// are.
	Left map[string]int64 `json:"left"`
}

// FlowCopy is the exchange of flows of the kernel path with another node.
type FlowCopy struct {
	// Complete says that the other node has told all its flows here, Completed when
	// it did the latest time, and Copying that it is doing so now.
	Complete  bool       `json:"complete"`
	Completed *time.Time `json:"completed,omitempty"`
	Copying   bool       `json:"copying"`
	// Told says that the other node has all flows of this one.
	Told bool `json:"told"`
	// Sent are changes that the other node has put in force, Waiting those that it
	// has not yet; LagSeconds is how long the oldest of them has been waiting,
	// LastLagSeconds how long the latest others did, MaxLagSeconds the longest.
	Sent           uint64  `json:"sent"`
	Waiting        int     `json:"waiting"`
	LagSeconds     float64 `json:"lag_seconds"`
	LastLagSeconds float64 `json:"last_lag_seconds"`
	MaxLagSeconds  float64 `json:"max_lag_seconds"`
	// Heard are flows that the other node has told, Ended those of which it told
	// the end.
	Heard uint64 `json:"heard"`
	Ended uint64 `json:"ended"`
	// Dropped counts what was not taken, by reason.
	Dropped map[string]uint64 `json:"dropped"`
}
