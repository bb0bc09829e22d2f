package vrrp

import (
	"net/netip"
	"slices"
)

// adopt puts the machine's configuration in force for those who read it from
// other goroutines, after it may have changed.
func (r *Router) adopt() {
	cfg := r.machine.cfg
	r.inForce.Store(&cfg)
}

// Message is a message and where it goes.
type Message struct {
	To      netip.Addr
	Payload []byte
}

// Farewells returns the messages with which the router, as it is configured now,
// would tell the others that it is not active any more: for whoever does that
// in its place.
func (r *Router) Farewells() []Message {
	cfg := r.inForce.Load()
	var all []Message
	for to := range cfg.destinations() {
		all = append(all, Message{To: to, Payload: cfg.appendAdvert(nil, 0, to)})
	}
	return all
}

// judge parses p, and refuses what is not meant for the router of c or comes from
// source, this node's own address.
func (c *Config) judge(p Packet, source netip.Addr) (Advert, Checksum, Refusal) {
	if isForeign(p.Payload, c.VRID) {
		// RFC 9568 section 7.1: the VRID must be configured on the interface.
		return Advert{}, 0, RefusedVRID
	}
	if refusal := c.misdirected(p, source); refusal != Accepted {
		return Advert{}, 0, refusal
	}
	if c.Unicast && c.isIPv6() {
		// keepalived sends these with the hop limit of any packet, 64. Who may
		// send is a list here.
		p.TTL = requiredTTL
	}
	advert, form, refusal := Parse(p, c.Version)
	if refusal == Accepted && p.Source == source {
		refusal = RefusedOwn
	}
	if refusal == Accepted && c.Unicast && !c.isPeer(p.Source) {
		refusal = RefusedStranger
	}
	if refusal == Accepted && c.Version == 2 {
		refusal = c.disagrees(advert)
	}
	return advert, form, refusal
}

// misdirected says why p did not come the way that adverts for the router of c
// come, to the node whose address is source.
func (c *Config) misdirected(p Packet, source netip.Addr) Refusal {
	switch {
	case p.Source.IsValid() && p.Source.Is6() != c.isIPv6():
		return RefusedFamily
	case p.Destination == Group(source) && c.Unicast:
		return RefusedMulticast
	case p.Destination == source && !c.Unicast:
		return RefusedUnicast
	case p.Destination != Group(source) && p.Destination != source:
		return RefusedDestination
	}
	return Accepted
}

// isPeer says whether a is the address of another node.
func (c *Config) isPeer(a netip.Addr) bool {
	return slices.ContainsFunc(c.Peers, func(p Peer) bool { return p.Address == a })
}

// disagrees says what a version 2 advert has that must be the same on all nodes
// and is not (RFC 3768 section 7.1).
func (c *Config) disagrees(a Advert) Refusal {
	switch {
	case a.Authentication.Type != c.Authentication.Type:
		return RefusedAuthenticationType
	case a.Authentication.data() != c.Authentication.data():
		return RefusedPassword
	case a.Interval != c.AdvertInterval:
		return RefusedIntervalMismatch
	}
	return Accepted
}
