package vrrp

import (
	"fmt"
	"iter"
	"net/netip"
	"time"
)

// The bounds of Config.AdvertInterval in version 3: the advert carries it as 12
// bits of centiseconds (RFC 9568 section 5.2.7).
const (
	MinAdvertInterval = 10 * time.Millisecond
	MaxAdvertInterval = 40950 * time.Millisecond
)

// OwnerPriority is the priority of the router that owns the virtual addresses
// (RFC 9568 section 5.2.4).
const OwnerPriority = 255

// MaxPreemptDelay is the longest Config.PreemptDelay.
const MaxPreemptDelay = time.Hour

// maxAdvertInterval2 is the longest interval of version 2, whose adverts carry it
// as 8 bits of seconds (RFC 3768 section 5.3.7).
const maxAdvertInterval2 = 255 * time.Second

// Config describes one virtual router on one interface of this node. It is
// complete: whatever the file leaves out has been filled in.
type Config struct {
	// Name is what people call the instance, unique on the node.
	Name string
	// VRID is the virtual router's identifier, 1 to 255 (Virtual Router
	// Identifier, RFC 9568 section 5.2.3).
	VRID int
	// Interface is the network interface whose LAN the election takes place on.
	Interface string
	// Source is this node's own address on Interface, the source of its
	// adverts and the tie-breaker between equal priorities. A Router learns it
	// when it listens for adverts (Opened), so it may be left out here.
	Source netip.Addr
	// Addresses are the virtual addresses with their prefix lengths, at least
	// one, all of one family. Those of IPv6 begin with a link-local one (RFC 9568
	// section 5.2.9), and are at most 90.
	Addresses []netip.Prefix
	// Own are those of Addresses that are this node's own, which the owner of a
	// virtual router may have (OwnerPriority): they are on the interface whatever
	// this router does, so no command gives them away. Those who acquire and
	// release Addresses must leave them alone.
	Own []netip.Addr
	// Version is the protocol's version: 2, which has no IPv6, or 3.
	Version int
	// Checksum is the form that version 3 sends over IPv4. Both are accepted.
	Checksum Checksum
	// Unicast sends adverts to the addresses of Peers instead of the group, and
	// believes nobody else. Source must be the address that the peers know.
	Unicast bool
	// VirtualMAC says that the virtual addresses have a hardware address of their
	// own, that of the virtual router (RFC 9568 section 7.3). It is for those who
	// open the Transport and the Addresses.
	VirtualMAC bool
	// Authentication is that of version 2.
	Authentication Authentication
	// AdvertInterval is the time between adverts while active
	// (Advertisement_Interval), a multiple of 10 ms between MinAdvertInterval
	// and MaxAdvertInterval; in version 2 whole seconds from 1 to 255.
	AdvertInterval time.Duration
	// Priority is the base priority, 1 to 254, or OwnerPriority.
	Priority int
	// Group is the name of the group of routers that this one moves with, on this
	// node; empty for none. Its members rank the nodes alike: which of them is
	// larger, and whether it preempts, is the same everywhere.
	Group string
	// Preempt says whether this router takes over from an active one merely
	// because its own priority is higher (Preempt_Mode).
	Preempt bool
	// PreemptDelay is how long Preempt waits: from the moment at which this
	// router begins to take part, or first hears a smaller active router. It
	// delays neither a take-over from a dead router nor one from a less healthy
	// one. At most MaxPreemptDelay, and 0 without Preempt.
	PreemptDelay time.Duration
	// Peers are the other nodes of the file with their base priorities. By
	// them a backup tells an active router that is small by configuration from
	// one that is demoted. A sender that is not listed counts as not demoted.
	Peers []Peer
	// Linked says that there is a link to the other nodes, whose news come as
	// PeerReport.
	Linked bool
	// Reach are hosts that all nodes should reach. A backup that hears nobody any
	// more, and no longer reaches one of them, does not take over.
	Reach []netip.Addr
	// Settle is how long an active router must have looked less healthy than
	// this one before that alone makes this one take over. It covers the time
	// by which two nodes may learn of the same dead server at different
	// moments, so that a trouble both see moves nothing.
	Settle time.Duration
	// Drain is how long the connections under way get to end when the virtual
	// addresses are given away by command or by a stop; 0 gives them away at
	// once.
	Drain time.Duration
}

// Peer is another node as the file describes it.
type Peer struct {
	Name     string
	Address  netip.Addr
	Priority int
	// Keepalived says that the node runs keepalived: silent as a backup, and
	// perhaps without preemption.
	Keepalived bool
}

// Validate calls problem once for each mistake in c: key is the field as the
// file spells it, message says what is wrong and what would be right.
func (c Config) Validate(problem func(key, message string)) {
	if c.Name == "" {
		problem("name", "a virtual router needs a name")
	}
	if c.VRID < 1 || c.VRID > 255 {
		problem("virtual_router_id", fmt.Sprintf("virtual router id %d is out of range; 1 to 255 are allowed", c.VRID))
	}
	if c.Version != 2 && c.Version != 3 {
		problem("version", fmt.Sprintf("there is no version %d; 2 and 3 are supported", c.Version))
	}
	c.validateInterval(problem)
	c.Authentication.validate(c.Version, problem)
	if c.Priority < 1 || c.Priority > OwnerPriority {
		problem("priority", fmt.Sprintf("priority %d is out of range; 1 to 255 are allowed", c.Priority))
	}
	switch {
	case c.PreemptDelay != 0 && !c.Preempt:
		problem("preempt_delay", "there is no preemption to delay: preempt is false; leave one of the two out")
	case c.PreemptDelay < 0 || c.PreemptDelay > MaxPreemptDelay:
		problem("preempt_delay", fmt.Sprintf("the delay may be %s at most", "1h"))
	}
	if len(c.Addresses) == 0 {
		problem("addresses", "a virtual router needs an address, such as [\"192.168.15.3/24\"]")
	}
	c.validateAddresses(problem)
	if c.Checksum == ChecksumPlain && (c.Version == 2 || c.isIPv6()) {
		problem("checksum", "there is a choice in version 3 over IPv4 alone; leave it out")
	}
	c.validateUnicast(problem)
	if c.Settle < 0 {
		problem("settle", "the settling time must not be negative")
	}
	if c.Drain < 0 {
		problem("drain", "the draining time must not be negative; 0 gives the addresses away at once")
	}
}

// The largest numbers of addresses in an advert: what the count can say, and what
// an Ethernet frame of 1500 bytes holds.
const (
	maxAddresses4 = 255
	maxAddresses6 = 90
)

// validateAddresses is Validate for the addresses.
func (c Config) validateAddresses(problem func(key, message string)) {
	most := maxAddresses4
	if c.isIPv6() {
		most = maxAddresses6
	}
	if n := len(c.Addresses); n > most {
		problem("addresses", fmt.Sprintf("there are %d addresses; an advert holds at most %d of this family", n, most))
	}
	if c.isIPv6() && c.Version == 2 {
		problem("version", "version 2 has no IPv6; leave it out, or use version = 3")
	}
	seen := make(map[netip.Addr]bool)
	for i, a := range c.Addresses {
		key := fmt.Sprintf("addresses[%d]", i)
		switch {
		case seen[a.Addr()]:
			problem(key, fmt.Sprintf("%s is listed twice", a.Addr()))
		case a.Addr().Is6() != c.isIPv6():
			problem(key, fmt.Sprintf("%s is of another family than %s; give it a [[vrrp]] of its own, which may have the same virtual_router_id",
				a.Addr(), c.Addresses[0].Addr()))
		case i == 0 && c.isIPv6() && !a.Addr().IsLinkLocalUnicast():
			// RFC 9568 section 5.2.9: the first address must be the IPv6
			// link-local address associated with the virtual router.
			problem(key, fmt.Sprintf("the first IPv6 address must be a link-local one that no node has, such as \"fe80::%x/64\"; put it before %s", c.VRID, a.Addr()))
		}
		seen[a.Addr()] = true
	}
}

// validateUnicast is Validate for what unicast needs.
func (c Config) validateUnicast(problem func(key, message string)) {
	if !c.Unicast {
		return
	}
	if c.VirtualMAC {
		problem("virtual_mac", "a virtual MAC address needs adverts to the group, from which the switches learn where it is; leave it out, or unicast")
	}
	for _, p := range c.Peers {
		if p.Address.IsValid() && len(c.Addresses) > 0 && p.Address.Is6() != c.isIPv6() {
			problem("unicast", fmt.Sprintf("adverts are of the family of the virtual addresses, and node %s has the address %s", p.Name, p.Address))
		}
	}
}

// isIPv6 says of which family the virtual addresses and the adverts are.
func (c *Config) isIPv6() bool { return len(c.Addresses) > 0 && c.Addresses[0].Addr().Is6() }

// destinations are where the router of c sends its adverts.
func (c *Config) destinations() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		if !c.Unicast {
			yield(Group(c.Addresses[0].Addr()))
			return
		}
		for _, p := range c.Peers {
			if !yield(p.Address) {
				return
			}
		}
	}
}

// validateInterval is Validate for the interval.
func (c Config) validateInterval(problem func(key, message string)) {
	d := c.AdvertInterval
	switch {
	case c.Version == 2 && (d < time.Second || d > maxAdvertInterval2 || d%time.Second != 0):
		problem("advert_interval", "the interval of version 2 must be whole seconds, 1s to 255s")
	case c.Version != 2 && (d < MinAdvertInterval || d > MaxAdvertInterval || d%centisecond != 0):
		problem("advert_interval", "the interval must be a multiple of 10ms between 10ms and 40.95s")
	}
}

// appendAdvert appends to b the advert with this priority as the router of c
// sends it from its Source to one of its destinations.
func (c *Config) appendAdvert(b []byte, priority int, to netip.Addr) []byte {
	advert := Advert{
		Version:        c.Version,
		VRID:           c.VRID,
		Priority:       priority,
		Interval:       c.AdvertInterval,
		Addresses:      make([]netip.Addr, len(c.Addresses)),
		Authentication: c.Authentication,
	}
	for i, a := range c.Addresses {
		advert.Addresses[i] = a.Addr()
	}
	return advert.Append(b, c.Source, to, c.Checksum)
}
