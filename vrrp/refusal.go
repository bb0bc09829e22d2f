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
	// RefusedSource: the sender's address is no IPv4 unicast address.
	RefusedSource
	// RefusedDestination: the message was not sent to 224.0.0.18.
	RefusedDestination
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
	case RefusedAuthenticationType:
		return "authentication_type"
	case RefusedPassword:
		return "authentication_password"
	case RefusedIntervalMismatch:
		return "interval_mismatch"
	}
	return "unknown"
}
