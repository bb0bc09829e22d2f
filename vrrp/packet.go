package vrrp

import (
	"encoding/binary"
	"net/netip"
	"time"
)

const (
	// Protocol is VRRP's number in the IP header (RFC 9568 section 5.1.1.4).
	Protocol = 112

	typeAdvertisement = 1   // RFC 9568 section 5.2.2: the only type
	fixedLength       = 8   // the message up to the addresses
	requiredTTL       = 255 // RFC 9568 section 5.1.1.3
	maxCentiseconds   = 1<<12 - 1
	centisecond       = 10 * time.Millisecond
)

// Group returns the group that adverts over IPv4 are sent to,
// 224.0.0.18 (RFC 9568 section 5.1.1.2).
func Group() netip.Addr { return netip.AddrFrom4([4]byte{224, 0, 0, 18}) }

// Checksum is the form of a message's checksum.
type Checksum uint8

const (
	// ChecksumPseudo covers the pseudo-header of source, destination,
	// protocol and length too. keepalived and FRR send this form over IPv4 and
	// keepalived accepts no other.
	ChecksumPseudo Checksum = iota
	// ChecksumPlain covers the message alone, as RFC 9568 section 5.2.8 says
	// for IPv4.
	ChecksumPlain
)

// String returns the metric label.
func (c Checksum) String() string {
	if c == ChecksumPlain {
		return "message"
	}
	return "pseudo_header"
}

// Advert is an ADVERTISEMENT (RFC 9568 section 5.2, RFC 3768 section 5.1).
type Advert struct {
	// Version is 2 or 3.
	Version int
	// VRID is the virtual router, 1 to 255.
	VRID int
	// Priority is 1 to 255, or 0 when the sender stops being active.
	Priority int
	// Interval is Max Advertise Interval: how often the sender sends, a
	// multiple of 10 ms from 10 ms to 40.95 s, in version 2 whole seconds from
	// 1 to 255.
	Interval time.Duration
	// Addresses are the virtual addresses, 1 to 255 of them.
	Addresses []netip.Addr
	// Authentication is that of version 2.
	Authentication Authentication
}

// Packet is a received message with what its IP header said.
type Packet struct {
	Payload             []byte
	Source, Destination netip.Addr
	TTL                 uint8
}

// Append appends the message to b, with a checksum of the given form for an IP
// packet from src to dst, and returns the longer slice. Version 2 knows
// ChecksumPlain alone and takes no notice of form. It encodes a's fields as they
// are: keeping them in range is the caller's part.
func (a Advert) Append(b []byte, src, dst netip.Addr, form Checksum) []byte {
	if a.Version == 2 {
		return a.append2(b)
	}
	start := len(b)
	b = append(b,
		byte(a.Version<<4|typeAdvertisement),
		byte(a.VRID),
		byte(a.Priority),
		byte(len(a.Addresses)))
	// RFC 9568 section 5.2.6: the reserved bits must be zero when sent and are
	// ignored when received.
	b = binary.BigEndian.AppendUint16(b, uint16(a.Interval/centisecond)&maxCentiseconds)
	b = append(b, 0, 0)
	for _, addr := range a.Addresses {
		b = append(b, addr.AsSlice()...)
	}
	msg := b[start:]
	var sum uint32
	if form == ChecksumPseudo {
		sum = pseudoSum(src, dst, len(msg))
	}
	binary.BigEndian.PutUint16(msg[6:], ^fold(sum+onesSum(msg)))
	return b
}

// Parse reads a received message of the given version, 2 or 3; one of another
// version is refused whatever else it is. It returns Accepted, or why the message is
// refused; the other results hold only when it is accepted. The checks that
// need to know the receiving router are left to it: RefusedVRID, RefusedOwn and
// what follows that.
// The Advert keeps nothing of p.Payload.
func Parse(p Packet, version int) (Advert, Checksum, Refusal) {
	none := func(r Refusal) (Advert, Checksum, Refusal) { return Advert{}, 0, r }
	switch {
	case !p.Source.Is4() || p.Source.IsMulticast() || p.Source.IsUnspecified():
		return none(RefusedSource)
	case p.Destination != Group():
		return none(RefusedDestination)
	case p.TTL != requiredTTL:
		// RFC 9568 section 5.1.1.3: a packet whose TTL is not 255 must be
		// discarded.
		return none(RefusedTTL)
	case len(p.Payload) < fixedLength:
		return none(RefusedShort)
	case int(p.Payload[0]>>4) != version:
		return none(RefusedVersion)
	}
	// The version decides what the rest of the message looks like.
	if version == 2 {
		return parse2(p)
	}
	return parse3(p)
}

// parse3 reads a version 3 message over IPv4 of at least fixedLength bytes.
func parse3(p Packet) (Advert, Checksum, Refusal) {
	msg := p.Payload
	count := int(msg[3])
	interval := time.Duration(binary.BigEndian.Uint16(msg[4:])&maxCentiseconds) * centisecond
	switch {
	case msg[0]&0x0f != typeAdvertisement:
		// RFC 9568 section 5.2.2: a packet with an unknown type must be discarded.
		return Advert{}, 0, RefusedType
	case count == 0:
		// An advert that says nothing about any address.
		return Advert{}, 0, RefusedCount
	case len(msg) != fixedLength+4*count:
		return Advert{}, 0, RefusedLength
	}
	form, ok := checksumForm(p)
	if !ok {
		// RFC 9568 section 7.1: the receiver must verify the checksum.
		return Advert{}, 0, RefusedChecksum
	}
	if interval == 0 {
		return Advert{}, 0, RefusedInterval
	}
	a := Advert{Version: 3, VRID: int(msg[1]), Priority: int(msg[2]), Interval: interval}
	a.Addresses = readAddresses(msg[fixedLength:], count)
	return a, form, Accepted
}

// checksumForm says in which form the checksum of p is right, if in any.
func checksumForm(p Packet) (Checksum, bool) {
	sum := onesSum(p.Payload)
	if fold(sum+pseudoSum(p.Source, p.Destination, len(p.Payload))) == 0xffff {
		return ChecksumPseudo, true
	}
	return ChecksumPlain, fold(sum) == 0xffff
}

// isForeign says whether a message is of another virtual router than vrid. The
// identifier is at the same place in versions 2 and 3, so one that shares the
// LAN is known for what it is, whatever it speaks.
func isForeign(msg []byte, vrid int) bool {
	if len(msg) < 2 {
		return false
	}
	version := msg[0] >> 4
	return (version == 2 || version == 3) && int(msg[1]) != vrid
}

// pseudoSum is the sum of the pseudo-header (RFC 768): both addresses, the
// protocol and the length.
func pseudoSum(src, dst netip.Addr, length int) uint32 {
	return onesSum(src.AsSlice()) + onesSum(dst.AsSlice()) + Protocol + uint32(length)
}

// onesSum adds b up as 16-bit words, the last one padded (RFC 1071). A message
// is at most 1036 bytes, so 32 bits hold the sum.
func onesSum(b []byte) uint32 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

// fold brings a sum down to 16 bits with the carries added back in.
func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
