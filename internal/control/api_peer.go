package control

import "time"

// Peer is the link to another node, and what that said of itself last.
type Peer struct {
	Node    string `json:"node"`
	Address string `json:"address"`
	// Link is "connecting", "up", "lost", "died" or "goodbye".
	Link   string    `json:"link"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`
	// Reported is when the node said the rest; absent if it never did.
	Reported *time.Time `json:"reported,omitempty"`
	Version  string     `json:"version,omitempty"`
	// ConfigSHA256 is the hash of its file; SameConfig says that it is this
	// node's.
	ConfigSHA256 string        `json:"config_sha256,omitempty"`
	SameConfig   bool          `json:"same_config"`
	VRRP         []PeerVRRP    `json:"vrrp"`
	Services     []PeerService `json:"services"`
	// Flows is the exchange of flows of the kernel path; absent without one.
	Flows *FlowCopy `json:"flows,omitempty"`
}

// PeerVRRP is one virtual router of another node.
type PeerVRRP struct {
	Name         string      `json:"name"`
	VRID         int         `json:"virtual_router_id"`
	Addresses    []string    `json:"addresses"`
	State        string      `json:"state"`
	Since        time.Time   `json:"since"`
	BasePriority int         `json:"base_priority"`
	Priority     int         `json:"priority"`
	Yielded      bool        `json:"yielded"`
	Draining     bool        `json:"draining"`
	Demotions    []Condition `json:"demotions"`
	Faults       []Condition `json:"faults"`
}

// PeerService is one service of another node.
type PeerService struct {
	Name   string `json:"name"`
	Usable int    `json:"usable_servers"`
	Fault  string `json:"fault,omitempty"`
	// Path is what carries it there if it asks for the kernel path: "kernel" or
	// "proxy".
	Path string `json:"path,omitempty"`
}

// MovedService is what a move did to the connections (layer 4) or requests (layer
// 7) of one service.
type MovedService struct {
	Service string `json:"service"`
	// Ended ended by themselves, Cut were cut.
	Ended int64 `json:"ended"`
	Cut   int64 `json:"cut"`
}
