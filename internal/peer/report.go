package peer

import "time"

// Report is what a node tells the other ones of itself. Fields may be added: a
// node ignores those that it does not know.
type Report struct {
	// Version is the software's, ConfigSHA256 the hash of the file in force.
	Version      string    `json:"version"`
	ConfigSHA256 string    `json:"config_sha256"`
	Routers      []Router  `json:"routers"`
	Services     []Service `json:"services"`
}

// Router is one virtual router of the sender.
type Router struct {
	Name string `json:"name"`
	VRID int    `json:"virtual_router_id"`
	// Source is the address that adverts leave from; empty when there is none.
	Source    string   `json:"source,omitempty"`
	Addresses []string `json:"addresses"`
	// State is "active", "backup" or "fault".
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// Base is the configured priority, Effective what is left of it.
	Base      int  `json:"base_priority"`
	Effective int  `json:"priority"`
	Yielded   bool `json:"yielded,omitempty"`
	Draining  bool `json:"draining,omitempty"`
	// Lingering is how many connections go on there without the addresses.
	Lingering int         `json:"lingering,omitempty"`
	Demotions []Condition `json:"demotions,omitempty"`
	Faults    []Condition `json:"faults,omitempty"`
}

// Condition is a demotion or a fault in force.
type Condition struct {
	Source string    `json:"source"`
	Amount int       `json:"amount,omitempty"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// Service is one service of the sender.
type Service struct {
	Name   string `json:"name"`
	Usable int    `json:"usable_servers"`
	Fault  string `json:"fault,omitempty"`
	// Path is what carries it if it asks for the kernel path: "kernel" or "proxy".
	Path string `json:"path,omitempty"`
}
