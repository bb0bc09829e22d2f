package vrrp

import "net/netip"

// adopt puts the machine's configuration in force for those who read it from
// other goroutines, after it may have changed.
func (r *Router) adopt() {
	cfg := r.machine.cfg
	r.inForce.Store(&cfg)
}

// Farewell returns the message with which the router, as it is configured now,
// would tell the others that it is not active any more: for whoever does that
// in its place.
func (r *Router) Farewell() []byte {
	cfg := r.inForce.Load()
	return cfg.appendAdvert(nil, 0)
}

// judge parses p, and refuses what is not meant for the router of c or comes from
// source, this node's own address.
func (c *Config) judge(p Packet, source netip.Addr) (Advert, Checksum, Refusal) {
	if isForeign(p.Payload, c.VRID) {
		// RFC 9568 section 7.1: the VRID must be configured on the interface.
		return Advert{}, 0, RefusedVRID
	}
	advert, form, refusal := Parse(p, c.Version)
	if refusal == Accepted && p.Source == source {
		refusal = RefusedOwn
	}
	if refusal == Accepted && c.Version == 2 {
		refusal = c.disagrees(advert)
	}
	return advert, form, refusal
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
