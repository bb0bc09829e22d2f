package control

import "time"

// Status is the answer to GET /v1/status: one node at one moment.
type Status struct {
	Node    string    `json:"node"`
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Config  Config    `json:"config"`
	// Ready is false until the listeners are bound and the first round of
	// checks is done; until then the node takes part in no election.
	Ready bool   `json:"ready"`
	VRRP  []VRRP `json:"vrrp"`
	// Peers are the links to the other nodes; empty without [peer].
	Peers    []Peer    `json:"peers"`
	Services []Service `json:"services"`
	Pools    []Pool    `json:"pools"`
	// Kernel is the kernel path; absent while no service asks for it.
	Kernel *Kernel `json:"kernel,omitempty"`
	Events Events  `json:"events"`
	// AccessLogs are the files of all access logs.
	AccessLogs []AccessLog `json:"access_logs"`
}

// AccessLog is a file that requests are logged in.
type AccessLog struct {
	// Path is the file, or "stdout".
	Path string `json:"path"`
	// Lines have been written since it was opened first; Dropped ones could not
	// be, because the disk was full or slow.
	Lines   uint64 `json:"lines"`
	Dropped uint64 `json:"dropped"`
	// Error is why the file cannot be written now; empty when it can.
	Error string `json:"error,omitempty"`
}

// Events says where the event history is kept.
type Events struct {
	// Path is the file; empty when the history is in memory alone.
	Path string `json:"path"`
	// Error is why the file cannot be written now; empty when it can.
	Error string `json:"error,omitempty"`
}

// Config says which configuration is in force.
type Config struct {
	Path string `json:"path"`
	// SHA256 is the hash of the file's bytes in hex; equal on both nodes when
	// they run the same file.
	SHA256 string    `json:"sha256"`
	Loaded time.Time `json:"loaded"`
	// Error is why the latest reload was refused; empty when it was not.
	Error string `json:"error,omitempty"`
}

// VRRP is one virtual router of the node.
type VRRP struct {
	Name      string `json:"name"`
	VRID      int    `json:"virtual_router_id"`
	Interface string `json:"interface"`
	// State is "active", "backup" or "fault".
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// Reason is the cause of the latest change of state in words.
	Reason       string   `json:"reason"`
	Addresses    []string `json:"addresses"`
	BasePriority int      `json:"base_priority"`
	// Priority is the effective priority: base less the demotions in force.
	Priority int `json:"priority"`
	// VirtualMAC is the hardware address that the addresses have on whichever node
	// is active; absent where they have that of the interface.
	VirtualMAC string `json:"virtual_mac,omitempty"`
	// Group is the group of virtual routers that this one moves with.
	Group string `json:"group,omitempty"`
	// Waiting is why this node does not take over though it hears no active
	// router; absent while that is not so.
	Waiting string `json:"waiting,omitempty"`
	// Yielded is true after a manual failover away from this node.
	Yielded bool `json:"yielded"`
	// Draining is true while connections get to end before the addresses go.
	Draining bool `json:"draining"`
	// Lingering are the connections that go on here though the addresses have moved
	// to another node; PassingOn those on another node whose packets this one passes
	// on, now that it has the addresses. Both are absent while there are none.
	Lingering *Lingering `json:"lingering,omitempty"`
	PassingOn *Lingering `json:"passing_on,omitempty"`
	// Alarms are what is wrong and of which the election makes the best.
	Alarms []Condition `json:"alarms"`
	// ActiveRouter is the router heard as active last; absent while that is
	// this node, or nobody has been heard.
	ActiveRouter *Router     `json:"active_router,omitempty"`
	Demotions    []Condition `json:"demotions"`
	Faults       []Condition `json:"faults"`
	// ForeignClaims are stations that said that one of the addresses is their
	// own while this node had it; as many as are remembered.
	ForeignClaims []ForeignClaim `json:"foreign_claims"`
	// RefusedAdvert is the latest advert that was refused in the last minute; absent
	// if there was none.
	RefusedAdvert *RefusedAdvert `json:"refused_advert,omitempty"`
	// AdvertLateness is by how much this node's adverts left after they were
	// due, since the process started.
	AdvertLateness Lateness          `json:"advert_lateness"`
	Counters       map[string]uint64 `json:"counters"`
}

// RefusedAdvert says whose advert was refused, why, and when.
type RefusedAdvert struct {
	Source string `json:"source"`
	// Refusal is its name, Reason says it in words.
	Refusal string    `json:"refusal"`
	Reason  string    `json:"reason"`
	At      time.Time `json:"at"`
}

// Lateness sums up how late something was done that was due at a time.
type Lateness struct {
	// Count is how often it was done.
	Count uint64 `json:"count"`
	// P50Seconds and P999Seconds are what half, and 999 of 1000, did not exceed;
	// at most an eighth too long. MaxSeconds is exact. All are 0 while Count is.
	P50Seconds  float64 `json:"p50_seconds"`
	P999Seconds float64 `json:"p999_seconds"`
	MaxSeconds  float64 `json:"max_seconds"`
}

// Router is another router of the same virtual router.
type Router struct {
	Address  string    `json:"address"`
	Priority int       `json:"priority"`
	Heard    time.Time `json:"heard"`
}

// Condition is a demotion or a fault in force.
type Condition struct {
	// Source names what raised it, such as "service mysql".
	Source string `json:"source"`
	// Amount is what a demotion takes from the priority; 0 for a fault.
	Amount int       `json:"amount,omitempty"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// ForeignClaim is another station's claim to a virtual address of this node.
type ForeignClaim struct {
	Address string    `json:"address"`
	MAC     string    `json:"mac"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
	// Count is how many frames claimed it.
	Count uint64 `json:"count"`
}

// Service is one [[l4]] or [[l7]] service. Counters count since the start of
// the process.
type Service struct {
	Name string `json:"name"`
	// Layer is 4 or 7.
	Layer int `json:"layer"`
	// Path is what carries a service that asks for the kernel path, "kernel" or
	// "proxy", and PathReason why it is the proxy; absent for other services.
	Path       string   `json:"path,omitempty"`
	PathReason string   `json:"path_reason,omitempty"`
	Listen     []string `json:"listen"`
	Pools      []string `json:"pools"`
	// Usable is how many servers of the service's pools take new connections.
	Usable int `json:"usable_servers"`
	// Fault says why the service cannot accept connections; empty when it can.
	Fault string `json:"fault,omitempty"`
	// Current is the number of connections (layer 4) or requests (layer 7)
	// under way; Total how many there have been.
	Current int64  `json:"current"`
	Total   uint64 `json:"total"`
	// Rate is how many connections were accepted in the last second; layer 4
	// only.
	Rate int64 `json:"rate,omitempty"`
	// Connections is the number of connections of clients; layer 7 only.
	Connections int64 `json:"connections,omitempty"`
	// Errors counts connections that did not end well, by kind.
	Errors map[string]uint64 `json:"errors,omitempty"`
	// NoServer counts connections or requests refused for want of a server.
	NoServer uint64 `json:"no_server"`
	// BytesIn came from clients, BytesOut went to them.
	BytesIn  uint64 `json:"bytes_in"`
	BytesOut uint64 `json:"bytes_out"`
	// Fallback counts connections that the kernel path left to the proxy, by
	// reason.
	Fallback map[string]int64 `json:"fallback,omitempty"`
	// Responses counts answers by class, "2xx" for example; layer 7 only.
	Responses map[string]uint64 `json:"responses,omitempty"`
	// Certificates are those that clients are shown; layer 7 only.
	Certificates []Certificate `json:"certificates,omitempty"`
}

// Certificate is one that clients of a service are shown.
type Certificate struct {
	Path     string    `json:"path"`
	Hosts    []string  `json:"hosts"`
	NotAfter time.Time `json:"not_after"`
}

// Pool is one pool of servers.
type Pool struct {
	Name    string `json:"name"`
	Balance string `json:"balance"`
	Usable  int    `json:"usable_servers"`
	// Waiting is how many connections wait for a server that is not full.
	Waiting int      `json:"waiting"`
	Servers []Server `json:"servers"`
}

// Server is one server of a pool.
type Server struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Weight  int    `json:"weight"`
	Backup  bool   `json:"backup"`
	// Health is "up", "down" or "unknown"; a server without a check is "up".
	Health string    `json:"health"`
	Since  time.Time `json:"since"`
	// Check is the latest check's result in words; empty without a check.
	Check string `json:"check,omitempty"`
	// CheckWarning is what the latest check found besides, such as a
	// certificate that expires soon.
	CheckWarning string `json:"check_warning,omitempty"`
	// ChecksPassed and ChecksFailed count the checks of the server.
	ChecksPassed uint64 `json:"checks_passed,omitempty"`
	ChecksFailed uint64 `json:"checks_failed,omitempty"`
	// EjectedUntil is when a server comes back that was ejected because its
	// connections failed; absent while it is not. Ejections counts how often
	// that has happened lately.
	EjectedUntil *time.Time `json:"ejected_until,omitempty"`
	Ejections    int        `json:"ejections,omitempty"`
	// LatencySeconds is how long the latest check took.
	LatencySeconds float64 `json:"latency_seconds,omitempty"`
	// Admin is "ready", "drain" or "maint".
	Admin         string `json:"admin"`
	Current       int64  `json:"current"`
	Total         uint64 `json:"total"`
	ConnectErrors uint64 `json:"connect_errors"`
	// Rate is how many connections or requests were picked for it in the last
	// second.
	Rate int64 `json:"rate,omitempty"`
	// Errors counts what went wrong, by kind: those of connects, and "broken".
	Errors map[string]uint64 `json:"errors"`
	// ConnectError says why the latest of those failed, at ConnectErrorAt; absent
	// if none has.
	ConnectError   string     `json:"connect_error,omitempty"`
	ConnectErrorAt *time.Time `json:"connect_error_at,omitempty"`
	// ConnectSeconds is how long the latest connect took; absent before one
	// succeeded. TLS is included.
	ConnectSeconds float64 `json:"connect_seconds,omitempty"`
	// MaxConnections bounds Current; absent for no bound.
	MaxConnections int `json:"max_connections,omitempty"`
	// BytesIn went to the server for clients, BytesOut came from it.
	BytesIn  uint64 `json:"bytes_in"`
	BytesOut uint64 `json:"bytes_out"`
}

// MoveRequest asks for a failover or a failback.
type MoveRequest struct {
	// VRRP names one instance; empty means all that the command fits.
	VRRP string `json:"vrrp,omitempty"`
	// Force moves it also where the other node is absent or less healthy.
	Force bool `json:"force,omitempty"`
	// Drain is how long connections get to end, such as "30s"; empty means what
	// the file says.
	Drain string `json:"drain,omitempty"`
}

// MoveResult is what a failover or failback did to one instance.
type MoveResult struct {
	VRRP string `json:"vrrp"`
	// Error is why this instance did not move; empty when it did. Only a result
	// among others has one: when none moved, the whole answer is a refusal.
	Error string `json:"error,omitempty"`
	// Active is the address of the router that is active now.
	Active string `json:"active,omitempty"`
	// ActiveNode is its name, where the configuration tells.
	ActiveNode string `json:"active_node,omitempty"`
	// Seconds is how long the move took.
	Seconds float64 `json:"seconds"`
	// Connections says what became of those that were under way; absent where
	// there were none, or nothing waited for them.
	Connections []MovedService `json:"connections,omitempty"`
	// Lingering says that connections go on on the node that had the addresses
	// before, and how many; NotLingering why they do not, so that they were waited
	// for and cut. Without a time to drain both are absent.
	Lingering    *Lingering `json:"lingering,omitempty"`
	NotLingering string     `json:"not_lingering,omitempty"`
}

// Lingering says that connections to virtual addresses go on on the node that had
// the addresses before, until they end.
type Lingering struct {
	// Node is the other node of the two in what a node says of itself: the one that
	// has the addresses, or the one that has the connections. In what a move did it
	// is the latter.
	Node string `json:"node"`
	// Connections is how many there are.
	Connections int `json:"connections"`
	// SecondsLeft is after what time those that are left then are reset.
	SecondsLeft float64 `json:"seconds_left"`
}

// ServerRequest sets a server's administrative state.
type ServerRequest struct {
	Pool   string `json:"pool"`
	Server string `json:"server"`
	// State is "ready", "drain" or "maint"; "reset" takes back what was set
	// before, of all servers if Pool and Server are empty.
	State string `json:"state"`
}

// Session is one connection of a service of layer 4.
type Session struct {
	ID      uint64 `json:"id"`
	Service string `json:"service"`
	// State is "reading" before it is known where the connection goes,
	// "waiting" for a server that is not full, "connecting", "relaying", or
	// "settling" while the client has yet to acknowledge the last bytes. It is
	// "kernel" for a flow of the kernel path, of which IdleSeconds is known instead
	// of Seconds and bytes.
	State string `json:"state"`
	// Client is who connected, or whom a PROXY header named; Peer is the proxy
	// then, and absent otherwise.
	Client  string  `json:"client"`
	Peer    string  `json:"peer,omitempty"`
	Address string  `json:"address"`
	Pool    string  `json:"pool,omitempty"`
	Server  string  `json:"server,omitempty"`
	Seconds float64 `json:"seconds"`
	// IdleSeconds is how long ago the latest packet passed.
	IdleSeconds float64 `json:"idle_seconds,omitempty"`
	// BytesIn came from the client, BytesOut went to it.
	BytesIn  uint64 `json:"bytes_in"`
	BytesOut uint64 `json:"bytes_out"`
}

// CutRequest asks for an end of sessions: the one with ID, or all of Service, or
// all of Pool and Server; those that fit everything that is given.
type CutRequest struct {
	ID      uint64 `json:"id,omitempty"`
	Service string `json:"service,omitempty"`
	Pool    string `json:"pool,omitempty"`
	Server  string `json:"server,omitempty"`
}

// CutResult says how many sessions were cut.
type CutResult struct {
	Cut int `json:"cut"`
}
