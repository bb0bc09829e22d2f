package vrrp

// Refusal says why a received message was not accepted. Its String is the
// metric label and the field of the log line. RFC 9568 section 7.1 lists the
// checks.
type Refusal uint8

// The refusals, in the order in which they are looked for.
const (
	// Accepted: nothing is wrong.
	Accepted Refusal = iota
	// RefusedVRID: an advert of another virtual router on the same LAN, which is
	// no trouble.
	RefusedVRID
	// RefusedFamily: a packet of IPv6 for a router of IPv4 or the reverse, or an
	// advert of version 2 over IPv6, which has none.
	RefusedFamily
	// RefusedMulticast: sent to the group, while this router and its nodes speak
	// unicast.
	RefusedMulticast
	// RefusedUnicast: sent to this node alone, while this router speaks to the
	// group.
	RefusedUnicast
	// RefusedDestination: sent neither to the group nor to this node.
	RefusedDestination
	// RefusedSource: the sender's address is no unicast address.
	RefusedSource
	// RefusedTTL: the time to live is not 255, so a router forwarded it.
	RefusedTTL
	// RefusedShort: fewer bytes than the fixed part of the message.
	RefusedShort
	// RefusedVersion: another version than this router's.
	RefusedVersion
	// RefusedType: not an ADVERTISEMENT.
	RefusedType
	// RefusedCount: the message lists no address.
	RefusedCount
	// RefusedLength: longer or shorter than its count of addresses says.
	RefusedLength
	// RefusedChecksum: wrong in every form that the version knows.
	RefusedChecksum
	// RefusedInterval: an interval of 0 would make a backup take over at once.
	RefusedInterval
	// RefusedOwn: our own address is the sender; an echo, or a second host
	// that uses the address.
	RefusedOwn
	// RefusedStranger: in unicast, the sender is none of the configured nodes.
	RefusedStranger
	// RefusedAuthenticationType: another type of authentication than this
	// router's (version 2).
	RefusedAuthenticationType
	// RefusedPassword: another password than this router's (version 2).
	RefusedPassword
	// RefusedIntervalMismatch: another interval than this router's (version 2).
	RefusedIntervalMismatch

	refusals // how many there are
)

// String returns the label: lower case words joined by underscores.
func (r Refusal) String() string {
	switch r {
	case Accepted:
		return "accepted"
	case RefusedFamily:
		return "family"
	case RefusedMulticast:
		return "multicast"
	case RefusedUnicast:
		return "unicast"
	case RefusedSource:
		return "source"
	case RefusedDestination:
		return "destination"
	case RefusedTTL:
		return "ttl"
	case RefusedShort:
		return "short"
	case RefusedVersion:
		return "version"
	case RefusedType:
		return "type"
	case RefusedCount:
		return "no_addresses"
	case RefusedLength:
		return "length"
	case RefusedChecksum:
		return "checksum"
	case RefusedInterval:
		return "interval"
	case RefusedVRID:
		return "vrid"
	case RefusedOwn:
		return "own_advert"
	case RefusedStranger:
		return "stranger"
	case RefusedAuthenticationType:
		return "authentication_type"
	case RefusedPassword:
		return "authentication_password"
	case RefusedIntervalMismatch:
		return "interval_mismatch"
	}
	return "unknown"
}
