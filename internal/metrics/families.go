package metrics

import "github.com/prometheus/client_golang/prometheus"

// family is all metrics of one name.
type family struct {
	name string
	desc *prometheus.Desc
	kind prometheus.ValueType
}

// families are all there are, in the order in which they are made below.
var families []*family

func gauge(name, help string, labels ...string) *family {
	return add(name, help, prometheus.GaugeValue, labels)
}

// counter makes a family of numbers that only grow, since the start of the
// process.
func counter(name, help string, labels ...string) *family {
	return add(name+"_total", help, prometheus.CounterValue, labels)
}

func add(name, help string, kind prometheus.ValueType, labels []string) *family {
	name = "applianctl_" + name
	f := &family{name, prometheus.NewDesc(name, help, labels, nil), kind}
	families = append(families, f)
	return f
}

var (
	info          = gauge("info", "Which node this is, and its software.", "node", "version")
	ready         = gauge("ready", "Whether listeners are bound and the first round of checks is done.")
	started       = gauge("start_time_seconds", "When the process started, in seconds of Unix time.")
	configInfo    = gauge("config_info", "The hash of the configuration file in force.", "sha256")
	configLoaded  = gauge("config_loaded_time_seconds", "When the configuration in force was read, in seconds of Unix time.")
	configRefused = gauge("config_reload_refused", "Whether the latest reload was refused.")
	eventsFailing = gauge("events_failing", "Whether the event history cannot be written.")
)

var (
	vrrpState    = gauge("vrrp_state", "1 for the state that the virtual router is in.", "vrrp", "state")
	vrrpSince    = gauge("vrrp_state_since_time_seconds", "Since when it is in that state, in seconds of Unix time.", "vrrp")
	vrrpPriority = gauge("vrrp_priority", "The effective priority: base less demotions.", "vrrp")
	vrrpBase     = gauge("vrrp_base_priority", "The configured priority.", "vrrp")
	vrrpYielded  = gauge("vrrp_yielded", "Whether a failover has given the address away, by command.", "vrrp")
	vrrpDraining = gauge("vrrp_draining", "Whether connections get to end before the address goes.", "vrrp")
	vrrpDemotion = gauge("vrrp_demotion", "What a source takes off the priority now.", "vrrp", "source")
	vrrpFault    = gauge("vrrp_fault", "1 for each source that keeps the virtual router out of the election.", "vrrp", "source")
	vrrpAlarm    = gauge("vrrp_alarm", "1 for each thing that is wrong and of which the election makes the best.", "vrrp", "source")
	vrrpTimed    = counter("vrrp_timed_adverts", "Adverts that a timer was set for.", "vrrp")
	vrrpLateness = gauge("vrrp_advert_lateness_seconds", "How late adverts left at most, since the start: that portion of them; 1 is all.", "vrrp", "portion")

	vrrpRefused       = counter("vrrp_refused_adverts", "Packets that were refused, by reason.", "vrrp", "reason")
	vrrpChecksum      = counter("vrrp_checksums", "Adverts of version 3 over IPv4 by the form of their checksum.", "vrrp", "form")
	vrrpReceiveErrors = counter("vrrp_receive_errors", "Packets that are no VRRP message, by reason.", "vrrp", "reason")
	vrrpOther         = counter("vrrp_other_events", "Counters of the virtual router that have no metric of their own.", "vrrp", "name")
)

// vrrpCounters are those counters of a virtual router, by their names in the
// status, that are metrics of their own.
var vrrpCounters = map[string]*family{
	"adverts_sent":       counter("vrrp_adverts_sent", "Adverts sent.", "vrrp"),
	"packets_received":   counter("vrrp_packets_received", "Packets received.", "vrrp"),
	"send_errors":        counter("vrrp_send_errors", "Adverts that could not be sent.", "vrrp"),
	"address_errors":     counter("vrrp_address_errors", "Addresses that could not be put or taken off.", "vrrp"),
	"address_mismatches": counter("vrrp_address_mismatches", "Adverts with other addresses than these.", "vrrp"),
	"transitions":        counter("vrrp_transitions", "Changes of state.", "vrrp"),
	"late":               counter("vrrp_late", "How often the process had been held up and listened before it went on.", "vrrp"),
	"addresses_restored": counter("vrrp_addresses_restored", "Addresses that somebody had removed, put back.", "vrrp"),
	"foreign_claims":     counter("vrrp_foreign_claims", "Frames in which another station claimed an address of this node.", "vrrp"),
}

var (
	peerUp         = gauge("peer_up", "Whether the link to the other node is up.", "peer")
	peerSince      = gauge("peer_state_since_time_seconds", "Since when it is, or is not, in seconds of Unix time.", "peer")
	peerReported   = gauge("peer_reported_time_seconds", "When the other node told of itself last, in seconds of Unix time.", "peer")
	peerSameConfig = gauge("peer_same_config", "Whether the other node runs the same file.", "peer")
	flowsComplete  = gauge("peer_flows_complete", "Whether the other node has told all its flows of the kernel path.", "peer")
	flowsWaiting   = gauge("peer_flow_changes_waiting", "Changes of flows that the other node has not put in force.", "peer")
	flowsLag       = gauge("peer_flow_lag_seconds", "For how long the oldest of them has been waiting.", "peer")
	flowsSent      = counter("peer_flow_changes_sent", "Changes of flows that the other node has put in force.", "peer")
	flowsHeard     = counter("peer_flows_heard", "Flows that the other node has told.", "peer")
	flowsDropped   = counter("peer_flows_dropped", "What was told of flows and not taken, by reason.", "peer", "reason")
)

var (
	serviceUsable = gauge("service_usable_servers", "Servers that take connections of the service now.", "service")
	serviceFault  = gauge("service_fault", "Whether the service cannot accept connections.", "service")

	l4Open        = gauge("l4_open_connections", "Connections, or sessions of datagrams, under way.", "service")
	l4Connections = counter("l4_connections", "Connections, or sessions of datagrams.", "service")
	l4NoServer    = counter("l4_no_server", "Connections refused for want of a server.", "service")
	l4Received    = counter("l4_received_bytes", "Payload from clients.", "service")
	l4Sent        = counter("l4_sent_bytes", "Payload to clients.", "service")
	l4Errors      = counter("l4_errors", "Connections that did not end well, by kind.", "service", "kind")
	l4Kernel      = gauge("l4_kernel_path", "Whether the kernel carries a service that asks for it.", "service")
	l4Fallback    = counter("l4_fallback", "Connections that the kernel path left to the proxy, by reason.", "service", "reason")

	l7Open      = gauge("l7_connections", "Connections of clients that are open.", "service")
	l7UnderWay  = gauge("l7_requests_under_way", "Requests and upgraded connections under way.", "service")
	l7Requests  = counter("l7_requests", "Requests.", "service")
	l7Responses = counter("l7_responses", "Answers by the class of their status.", "service", "class")
	l7NoServer  = counter("l7_no_server", "Requests refused for want of a server.", "service")
	l7Received  = counter("l7_received_bytes", "Bodies, and what upgraded connections carried, from clients.", "service")
	l7Sent      = counter("l7_sent_bytes", "The same to clients.", "service")
	l7Errors    = counter("l7_errors", "Requests that were refused or not answered whole, and what has not become one, by kind.", "service", "kind")
)

// certificateEnd is of what clients are shown.
var certificateEnd = gauge("certificate_not_after_time_seconds", "Until when a certificate is valid, in seconds of Unix time.", "service", "path")

var (
	poolUsable  = gauge("pool_usable_servers", "Servers of the pool that take connections now.", "pool")
	poolWaiting = gauge("pool_waiting", "Connections that wait for a server that is not full.", "pool")

	serverHealth        = gauge("server_health", "1 for what the check says of the server: up, down or unknown.", "pool", "server", "state")
	serverAdmin         = gauge("server_admin", "1 for the state that was set by command: ready, drain or maint.", "pool", "server", "state")
	serverEjected       = gauge("server_ejected", "Whether the server is passed over because its connections failed.", "pool", "server")
	serverWeight        = gauge("server_weight", "Its weight.", "pool", "server")
	serverOpen          = gauge("server_open_connections", "Connections or requests that it has now.", "pool", "server")
	serverTotal         = counter("server_connections", "Connections or requests that it was picked for.", "pool", "server")
	serverConnectErrors = counter("server_connect_errors", "Those that it did not accept.", "pool", "server")
	serverConnect       = gauge("server_connect_seconds", "How long the latest connect took; 0 before one.", "pool", "server")
	serverSent          = counter("server_sent_bytes", "Payload to the server.", "pool", "server")
	serverReceived      = counter("server_received_bytes", "Payload from the server.", "pool", "server")
	checkSeconds        = gauge("check_seconds", "How long the latest check took; 0 without one.", "pool", "server")
	checks              = counter("checks", "Checks, by result: passed or failed.", "pool", "server", "result")
	checkWarning        = gauge("check_warning", "Whether the latest check warns of something, such as a certificate that expires soon.", "pool", "server")
)

var (
	kernelLoaded        = gauge("kernel_loaded", "Whether the program of the kernel path is in the kernel.")
	kernelFlows         = gauge("kernel_flows", "Flows of the kernel path.")
	kernelFlowLimit     = gauge("kernel_flow_limit", "How many fit.")
	kernelHalfOpen      = gauge("kernel_half_open_flows", "Flows that wait for the end of their handshake.")
	kernelHalfOpenLimit = gauge("kernel_half_open_flow_limit", "How many may.")
	kernelInstalled     = gauge("kernel_installed_flows", "Flows of the other node.")
	kernelChangesLost   = counter("kernel_flow_changes_lost", "Changes of flows that the other node was not told at once.")
	kernelLeft          = counter("kernel_left_packets", "Packets that were left to the stack, by what they are.", "kind")

	accessLogLines   = counter("access_log_lines", "Lines of an access log that were written.", "path")
	accessLogDropped = counter("access_log_dropped_lines", "Lines of an access log that could not be written.", "path")
	accessLogFailing = gauge("access_log_failing", "Whether an access log cannot be written now.", "path")
)
