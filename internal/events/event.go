package events

import "time"

// Kind says what sort of thing happened. The kinds are part of the file's format
// and of the API: they are added to, never renamed.
type Kind string

// The kinds.
const (
	Start         Kind = "start"            // of this process
	Stop          Kind = "stop"             // it begins to stop, or has stopped
	Transition    Kind = "transition"       // of a virtual router; details from, to
	Demotion      Kind = "demotion"         // raised or changed; details source, amount
	DemotionEnd   Kind = "demotion_end"     // details source
	Fault         Kind = "fault"            // raised; details source
	FaultEnd      Kind = "fault_end"        // details source
	AddressBack   Kind = "address_restored" // details addresses
	ForeignClaim  Kind = "foreign_claim"    // details address, mac
	Late          Kind = "late"             // the process was held up
	Reload        Kind = "reload"           // details sha256
	ReloadRefused Kind = "reload_refused"
	Host          Kind = "host"        // the host of servers has another address, or none; details host
	Command       Kind = "command"     // by a person, what no other event tells
	ServerDown    Kind = "server_down" // by its check; details address
	ServerUp      Kind = "server_up"   // details address
	PeerLink      Kind = "peer_link"   // the link between the nodes is up, or down
	Lingering     Kind = "lingering"   // connections go on here without the addresses, or no longer; details node, reset
	Alarm         Kind = "alarm"       // something that a person should look at
	AlarmEnd      Kind = "alarm_end"
)

// Event is one thing that happened.
type Event struct {
	// Seq numbers the events of a node, growing also over restarts.
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	Kind Kind      `json:"kind"`
	// Subject is what it happened to, such as "vrrp VI_1" or "node lb01".
	Subject string `json:"subject"`
	// Text says it in words, the cause included.
	Text string `json:"text"`
	// Details hold parts of the text for programs; which ones, depends on Kind.
	Details map[string]string `json:"details,omitempty"`
}

// textLimit bounds Text, in bytes.
const textLimit = 4096

// newEvent returns the event of a call of Add.
func newEvent(kind Kind, subject, text string, details []string) Event {
	e := Event{Time: time.Now().UTC().Truncate(time.Microsecond), Kind: kind, Subject: subject, Text: text}
	if len(e.Text) > textLimit {
		e.Text = e.Text[:textLimit] + " ..."
	}
	for i := 0; i+1 < len(details); i += 2 {
		if e.Details == nil {
			e.Details = make(map[string]string, len(details)/2)
		}
		e.Details[details[i]] = details[i+1]
	}
	return e
}
