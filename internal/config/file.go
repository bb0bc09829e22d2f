package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"appliance/health"
	"appliance/internal/pool"
	"appliance/l4"
	"appliance/l7"
	"appliance/vrrp"
)

// File is the content of one configuration file. It holds what all nodes have
// in common; ForNode turns it into what one of them runs.
type File struct {
	// Path is the file's name as it was given to Load or Parse.
	Path string `toml:"-"`
	// Hash is the SHA-256 of the file's bytes in hexadecimal, by which one can
	// tell whether two nodes run the same file.
	Hash string `toml:"-"`

	// Nodes are the tables [node.NAME].
	Nodes map[string]NodeEntry `toml:"node"`
	// Admin is the table [admin].
	Admin Admin `toml:"admin"`
	// Handover is the table [handover].
	Handover Handover `toml:"handover"`
	// VRRP are the tables [[vrrp]].
	VRRP []VRRPEntry `toml:"vrrp"`
	// L4 and L7 are the tables [[l4]] and [[l7]].
	L4 []L4Service `toml:"l4"`
	L7 []L7Service `toml:"l7"`
	// Pools are the tables [pool.NAME].
	Pools map[string]Pool `toml:"pool"`

	// Peer is the table [peer]; nil without it.
	Peer *Peer `toml:"peer"`
	// Kernel is the table [kernel].
	Kernel Kernel `toml:"kernel"`
}

func (f *File) setDefaults() {
	f.Admin.setDefaults()
	f.Handover.setDefaults()
}

// NodeEntry describes one node.
type NodeEntry struct {
	// Address is where the other nodes reach this one; required.
	Address netip.Addr `toml:"address"`
	// Priority is the base priority, 1 to 254 or that of the owner, 255, in every
	// virtual router that does not give its own; 0 when it is left out.
	Priority int `toml:"priority"`
	// Keepalived says that keepalived runs on this node, not the appliance.
	Keepalived bool `toml:"keepalived"`
}

// Admin says where a running appliance takes orders.
type Admin struct {
	// Socket is the path of the unix socket; default
	// /run/appliance/control.sock.
	Socket string `toml:"socket"`
	// Events is the path of the file that keeps the event history; default
	// /var/lib/appliance/events.jsonl. When it is empty the history ends with the
	// process.
	Events string `toml:"events,zero"`
	// Listen is where metrics, /healthz and the part of the API that changes
	// nothing are shown by HTTP; none: nowhere.
	Listen netip.AddrPort `toml:"listen"`
	// Allow are the networks, besides the host itself, that are shown them;
	// required if Listen is not on loopback.
	Allow []netip.Prefix `toml:"allow"`
}

// DefaultSocket is where an appliance takes orders when its file does not say.
const DefaultSocket = "/run/appliance/control.sock"

// DefaultEvents is where the event history is kept when the file does not say.
const DefaultEvents = "/var/lib/appliance/events.jsonl"

func (a *Admin) setDefaults() { a.Socket, a.Events = DefaultSocket, DefaultEvents }

// Kernel says how the kernel path is loaded.
type Kernel struct {
	// Flows is how many connections it has room for, 1024 to MaxFlows; 0 for its
	// default, 262,144.
	Flows int `toml:"flows"`
	// Attach is how its program, and that of planned switches, come to see packets: one of the Attach constants,
	// default AttachAuto.
	Attach string `toml:"attach"`
}

// The values of Kernel.Attach.
const (
	AttachAuto   = "auto"   // by tcx if the kernel can, else by clsact
	AttachTCX    = "tcx"    // before all filters of clsact
	AttachClsact = "clsact" // after filters of clsact that have a smaller preference
)

// The bounds of Kernel.Flows.
const (
	MinFlows = 1 << 10
	MaxFlows = 1 << 22
)

// Handover says how the virtual addresses are given away in peace.
type Handover struct {
	// Drain is how long connections get to end when the virtual addresses are
	// given away by a command or a stop, while new ones are held back; default
	// 1 s, 0 to give them away at once.
	Drain time.Duration `toml:"drain,zero"`
}

func (h *Handover) setDefaults() { h.Drain = time.Second }

// VRRPEntry describes one virtual router for all nodes.
type VRRPEntry struct {
	// Name is unique among the virtual routers; required.
	Name string `toml:"name"`
	// VRID is the virtual router's identifier, 1 to 255, unique on its
	// interface; required.
	VRID int `toml:"virtual_router_id,zero"`
	// Addresses are the virtual addresses with the length of their networks'
	// prefixes, at least one, all of one family. A bare address is a network of
	// its own, but for a link-local one of IPv6, whose prefix has 64 bits. The
	// first one of IPv6 is link-local.
	Addresses []netip.Prefix `toml:"addresses"`
	// Interface is the network interface; when empty it is the one whose subnet
	// holds the first address that is not link-local, which only the running
	// system can tell.
	Interface string `toml:"interface"`
	// Version is the protocol's version, 2 or 3; default 3.
	Version int `toml:"version,zero"`
	// Authentication is that of version 2; default none.
	Authentication vrrp.Authentication `toml:"authentication"`
	// Checksum is the form of version 3 over IPv4 that is sent; default with the
	// pseudo-header.
	Checksum vrrp.Checksum `toml:"checksum,zero"`
	// Unicast sends adverts to the addresses of the other nodes instead of the
	// group; default false.
	Unicast bool `toml:"unicast,zero"`
	// VirtualMAC gives the virtual addresses the hardware address of the virtual
	// router instead of the interface's; default false.
	VirtualMAC bool `toml:"virtual_mac,zero"`
	// AdvertInterval is the time between two adverts; default 1 s.
	AdvertInterval time.Duration `toml:"advert_interval,zero"`
	// Preempt says whether a node takes over merely because its priority is
	// higher; default true.
	Preempt bool `toml:"preempt"`
	// PreemptDelay is how long a node waits before it does that; default 0.
	PreemptDelay time.Duration `toml:"preempt_delay,zero"`
	// Group is the name of the virtual routers that this one moves with; default
	// none.
	Group string `toml:"group"`
	// Priority overrides the nodes' own priorities.
	Priority Priority `toml:"priority"`
	// Track names what lowers the priority.
	Track []TrackEntry `toml:"track"`
}

func (v *VRRPEntry) setDefaults() {
	v.Version = 3
	v.AdvertInterval = time.Second
	v.Preempt = true
}

// Priority holds the base priorities that a virtual router gives itself: one
// for all nodes, or some by the node's name.
type Priority struct {
	All    int            // 1 to 255; 0 when not given
	ByNode map[string]int // 1 to 255
}

// decodeTree reads an integer for all nodes or a table of integers by node.
func (p *Priority) decodeTree(r *report, path string, v any) {
	switch v := v.(type) {
	case int64:
		p.All = decodePriority(r, path, v)
	case map[string]any:
		p.ByNode = make(map[string]int, len(v))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			p.ByNode[name] = decodePriority(r, join(path, name), v[name])
		}
	default:
		r.unreadable(path, "want an integer, or a table such as { lb01 = 100, lb02 = 90 }, got %s", typeName(v))
	}
}

func decodePriority(r *report, path string, v any) int {
	n, ok := v.(int64)
	switch {
	case !ok:
		r.unreadable(path, "want an integer, got %s", typeName(v))
	case n < 1 || n > vrrp.OwnerPriority:
		r.unreadable(path, "%s", priorityRange(int(n)))
	}
	return int(n)
}

func priorityRange(n int) string {
	return fmt.Sprintf("priority %d is out of range; 1 to 254 are allowed, and 255 for the owner of the addresses", n)
}

// TrackEntry names one thing whose failure lowers a virtual router's priority.
type TrackEntry struct {
	// Service is the name of an l4 or l7 service, which counts as failed while
	// it has no usable server.
	Service string `toml:"service"`
	// Interface, instead of Service, is the name of a network interface, which
	// counts as failed while it is down.
	Interface string `toml:"interface"`
	// Reach, instead of both, is the address of a host that is never one of the
	// pair, a gateway for example, which counts as failed while it answers no ICMP
	// echo request.
	Reach netip.Addr `toml:"reach"`
	// Weight is what is taken off the priority meanwhile, 1 to 253. Without it
	// a service or a host weighs what defaultWeight says, and an interface is a
	// fault: the node takes no part in the election at all.
	Weight int `toml:"weight"`
}

// L4Service is an l4 service as the file has it.
type L4Service struct {
	l4.Config
	// Check judges the service's own servers; nil takes them to be up.
	Check *health.Config `toml:"check"`
}

// L7Service is an l7 service as the file has it.
type L7Service struct {
	l7.Config
	// Check judges the service's own servers; nil takes them to be up.
	Check *health.Config `toml:"check"`
}

// Pool is a pool with the check that judges its servers.
type Pool struct {
	pool.Config
	// Transport says how services of l7 speak to the servers.
	l7.Transport
	// Check is nil for a pool whose servers are taken to be up.
	Check *health.Config `toml:"check"`
}
