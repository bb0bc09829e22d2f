package vrrp

import (
	"encoding/binary"
	"fmt"
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

// Group returns the group that adverts are sent to by addresses of source's
// family: 224.0.0.18 (RFC 9568 section 5.1.1.2) or ff02::12 (section 5.1.2.2).
func Group(source netip.Addr) netip.Addr {
	if source.Is4() {
		return netip.AddrFrom4([4]byte{224, 0, 0, 18})
	}
	return netip.AddrFrom16([16]byte{0xff, 0x02, 15: 0x12})
}

// Checksum is the form of a message's checksum.
type Checksum uint8

const (
	// ChecksumPseudo covers the pseudo-header of source, destination,
	// protocol and length too. Over IPv6 it is the only one (RFC 9568 section
	// 5.2.8). keepalived and FRR send it over IPv4 as well, and keepalived
	// accepts no other.
	ChecksumPseudo Checksum = iota
	// ChecksumPlain covers the message alone, as RFC 9568 section 5.2.8 says
	// for IPv4.
	ChecksumPlain
)

// String returns the form as the file spells it; it is the metric label too.
func (c Checksum) String() string {
	if c == ChecksumPlain {
		return "message"
	}
	return "pseudo_header"
}

// UnmarshalText reads the form as the file spells it.
func (c *Checksum) UnmarshalText(text []byte) error {
	switch string(text) {
	case "pseudo_header":
		*c = ChecksumPseudo
	case "message":
		*c = ChecksumPlain
	default:
		return fmt.Errorf(`%q is not a form of the checksum; "pseudo_header" and "message" are`, text)
	}
	return nil
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
// ChecksumPlain alone and IPv6 ChecksumPseudo alone; they take no notice of form.
// It encodes a's fields as they are: keeping them in range is the caller's part.
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
	if form == ChecksumPseudo || src.Is6() {
		sum = pseudoSum(src, dst, len(msg))
	}
	binary.BigEndian.PutUint16(msg[6:], ^fold(sum+onesSum(msg)))
	return b
}

// Parse reads a received message of the given version, 2 or 3; one of another
// version is refused whatever else it is. The addresses in it are of the family
// of p.Source. It returns Accepted, or why the message is refused; the other
// results hold only when it is accepted. The checks that need to know the
// receiving router are left to it: whom the packet is for, who may have sent it,
// and what must be configured alike.
// The Advert keeps nothing of p.Payload.
func Parse(p Packet, version int) (Advert, Checksum, Refusal) {
	none := func(r Refusal) (Advert, Checksum, Refusal) { return Advert{}, 0, r }
	switch {
	case !p.Source.IsValid() || p.Source.IsMulticast() || p.Source.IsUnspecified():
		return none(RefusedSource)
	case p.TTL != requiredTTL:
		// RFC 9568 section 5.1.1.3: a packet whose TTL is not 255 must be
		// discarded. Section 5.1.2.3 says so of the Hop Limit.
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

// parse3 reads a version 3 message of at least fixedLength bytes.
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
	case len(msg) != fixedLength+addressLength(p.Source)*count:
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
	a.Addresses = readAddresses(msg[fixedLength:], count, addressLength(p.Source))
	return a, form, Accepted
}

// addressLength is the number of bytes of an address of a's family.
func addressLength(a netip.Addr) int { return a.BitLen() / 8 }

// checksumForm says in which form the checksum of p is right, if in any that
// its family has.
func checksumForm(p Packet) (Checksum, bool) {
	sum := onesSum(p.Payload)
	if fold(sum+pseudoSum(p.Source, p.Destination, len(p.Payload))) == 0xffff {
		return ChecksumPseudo, true
	}
	return ChecksumPlain, p.Source.Is4() && fold(sum) == 0xffff
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

// pseudoSum is the sum of the pseudo-header (RFC 768, RFC 8200 section 8.1): both
// addresses, the protocol and the length.
func pseudoSum(src, dst netip.Addr, length int) uint32 {
	return onesSum(src.AsSlice()) + onesSum(dst.AsSlice()) + Protocol + uint32(length)
}

// onesSum adds b up as 16-bit words, the last one padded (RFC 1071). A message
// is at most 4088 bytes, so 32 bits hold the sum.
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
