package config

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"appliance/health"
	"appliance/l4"
	"appliance/l7"
	"appliance/vrrp"
)

// Node is the configuration of one node, in the types of those who carry it
// out. It shares memory with its File and must not be changed.
type Node struct {
	// Name is the node's name.
	Name string
	// Address is where the other nodes reach this one; invalid in a file
	// without nodes.
	Address netip.Addr
	// VRRP are the virtual routers in the order of the file.
	VRRP []VRRPNode
	// L4 and L7 are the services in the order of the file.
	L4 []l4.Config
	L7 []l7.Config
	// OnProxy says of each l4 service with mode "auto" what in the file keeps it
	// off the kernel path, by its name; a service that is not in it may go there.
	OnProxy map[string][]string
	// Pools are all pools by name, those of services with servers of their own
	// among them.
	Pools map[string]Pool
	// Admin, Handover and Kernel are as in the file, defaults filled in.
	Admin    Admin
	Handover Handover
	Kernel   Kernel
	// Peer is the link to the other nodes; nil if there is none.
	Peer *PeerNode
}

// VRRPNode is a virtual router as one node runs it. Of its Config, Source is
// left empty unless the file says it, as it does in unicast, and so is Interface where the file does
// not name one: it is the one whose subnet holds the first address.
type VRRPNode struct {
	vrrp.Config
	// Track is what lowers the router's priority.
	Track []Track
}

// Track is one thing whose failure lowers a virtual router's priority. One of
// Service, Interface and Reach is set.
type Track struct {
	// Service is the name of an l4 or l7 service, which fails while it has no
	// usable server.
	Service string
	// Interface is the name of a network interface, which fails while it is
	// down.
	Interface string
	// Reach is the address of a host, which fails while ReachCheck says so.
	Reach netip.Addr
	// Weight is what the failure takes off the priority, 1 to 253. It is 0 only
	// for an interface whose failure is a fault of the router.
	Weight int
}

// ReachCheck returns the check of the hosts that are tracked by Reach.
func ReachCheck() health.Config {
	return health.Config{
		Type: health.ICMP, Interval: time.Second, FastInterval: 250 * time.Millisecond, Timeout: 250 * time.Millisecond,
	}
}

// NodeNames returns the names of all nodes of the file in alphabetical order.
func (f *File) NodeNames() []string { return slices.Sorted(maps.Keys(f.Nodes)) }

// ForNode returns the configuration of the node of this name, or of the node
// that is called like this host if name is empty: by the host's full name, or
// by its first label. In a file without nodes every name will do. It must not be
// called on a file that Parse or Load did not return.
func (f *File) ForNode(name string) (*Node, error) {
	name, err := f.nodeName(name)
	if err != nil {
		return nil, err
	}
	if f.Nodes[name].Keepalived {
		return nil, fmt.Errorf("%s says that keepalived runs on node %s; where the appliance runs there instead, take node.%s.keepalived out",
			f.Path, name, name)
	}
	n := &Node{
		Name:     name,
		Address:  f.Nodes[name].Address,
		Pools:    make(map[string]Pool),
		OnProxy:  make(map[string][]string),
		Admin:    f.Admin,
		Handover: f.Handover,
		Kernel:   f.Kernel,
		Peer:     f.peerNode(name),
	}
	maps.Copy(n.Pools, f.Pools)
	for _, s := range f.services() {
		if len(s.servers) > 0 {
			n.Pools[s.name] = s.ownPool()
		}
	}
	for name, p := range n.Pools {
		p.Checked = p.Check != nil
		p.inherit()
		n.Pools[name] = p
	}
	for i, s := range f.L4 {
		n.L4 = append(n.L4, s.Config)
		if s.Mode == l4.ModeAuto {
			for _, o := range f.kernelObstacles(i) {
				n.OnProxy[s.Name] = append(n.OnProxy[s.Name], o.at+": "+o.reason)
			}
		}
	}
	for _, s := range f.L7 {
		n.L7 = append(n.L7, s.Config)
	}
	for _, v := range f.VRRP {
		router := VRRPNode{Config: f.router(v, name), Track: f.tracks(v)}
		router.Settle = f.settle(router.Track, n.Pools)
		for _, t := range router.Track {
			if t.Reach.IsValid() {
				router.Reach = append(router.Reach, t.Reach)
			}
		}
		n.VRRP = append(n.VRRP, router)
	}
	return n, nil
}

// nodeName returns the name of the node that is meant by name or by its
// absence.
func (f *File) nodeName(name string) (string, error) {
	candidates := []string{name}
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return "", fmt.Errorf("asking for the host name: %w; say which node this is with --node", err)
		}
		first, _, _ := strings.Cut(host, ".")
		candidates = []string{host, first}
	}
	if len(f.Nodes) == 0 {
		return candidates[0], nil
	}
	for _, c := range candidates {
		if _, ok := f.Nodes[c]; ok {
			return c, nil
		}
	}
	known := strings.Join(f.NodeNames(), ", ")
	if name == "" {
		return "", fmt.Errorf("%s has no node called like this host, %s; its nodes: %s; say which one this is with --node",
			f.Path, candidates[0], known)
	}
	return "", fmt.Errorf("%s has no node %s; its nodes: %s; choose one with --node", f.Path, name, known)
}

// router returns the virtual router as a node runs it, except for Settle.
func (f *File) router(v VRRPEntry, node string) vrrp.Config {
	c := vrrp.Config{
		Name:           v.Name,
		VRID:           v.VRID,
		Interface:      v.Interface,
		Addresses:      slices.Clone(v.Addresses),
		Version:        v.Version,
		Authentication: v.Authentication,
		Checksum:       v.Checksum,
		Unicast:        v.Unicast,
		VirtualMAC:     v.VirtualMAC,
		AdvertInterval: v.AdvertInterval,
		Priority:       f.basePriority(v, node),
		Group:          v.Group,
		Preempt:        v.Preempt,
		PreemptDelay:   v.PreemptDelay,
		Drain:          f.Handover.Drain,
		Linked:         f.linked(node),
	}
	if own := f.Nodes[node].Address; f.owns(v, node, own) {
		c.Own = []netip.Addr{own}
	}
	if v.Unicast {
		c.Source = f.Nodes[node].Address
	}
	for _, name := range f.NodeNames() {
		if name != node {
			c.Peers = append(c.Peers, vrrp.Peer{
				Name: name, Address: f.Nodes[name].Address, Priority: f.basePriority(v, name),
				Keepalived: f.Nodes[name].Keepalived,
			})
		}
	}
	return c
}

// settle returns by how much later than another node this one may learn that a
// tracked service has lost its last server, or that a host is gone: what the
// slowest check allows.
func (f *File) settle(tracks []Track, pools map[string]Pool) time.Duration {
	var slowest time.Duration
	if slices.ContainsFunc(tracks, func(t Track) bool { return t.Reach.IsValid() }) {
		slowest = ReachCheck().Skew()
	}
	for _, s := range f.services() {
		if !slices.ContainsFunc(tracks, func(t Track) bool { return t.Service == s.name }) {
			continue
		}
		for _, name := range s.pools {
			if check := pools[name].Check; check != nil {
				slowest = max(slowest, check.Skew())
			}
		}
	}
	return slowest
}
