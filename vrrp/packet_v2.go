package vrrp

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// authLength is how many bytes of authentication data end every message of
// version 2, also one without authentication (RFC 3768 section 5.3.10).
const authLength = 8

// append2 appends the version 2 message (RFC 3768 section 5.1).
func (a Advert) append2(b []byte) []byte {
	start := len(b)
	b = append(b,
		byte(2<<4|typeAdvertisement),
		byte(a.VRID),
		byte(a.Priority),
		byte(len(a.Addresses)),
		byte(a.Authentication.Type),
		byte(a.Interval/time.Second),
		0, 0)
	for _, addr := range a.Addresses {
		b = append(b, addr.AsSlice()...)
	}
	data := a.Authentication.data()
	b = append(b, data[:]...)
	msg := b[start:]
	// RFC 3768 section 5.3.8: over the entire message, starting with the
	// version field; there is no pseudo-header.
	binary.BigEndian.PutUint16(msg[6:], ^fold(onesSum(msg)))
	return b
}

// parse2 reads a version 2 message of at least fixedLength bytes.
func parse2(p Packet) (Advert, Checksum, Refusal) {
	msg := p.Payload
	count := int(msg[3])
	switch {
	case msg[0]&0x0f != typeAdvertisement:
		// RFC 3768 section 5.3.2: a packet with an unknown type must be discarded.
		return Advert{}, 0, RefusedType
	case p.Source.Is6():
		// RFC 3768 has no IPv6.
		return Advert{}, 0, RefusedFamily
	case count == 0:
		return Advert{}, 0, RefusedCount
	case len(msg) != fixedLength+4*count+authLength:
		return Advert{}, 0, RefusedLength
	case fold(onesSum(msg)) != 0xffff:
		// RFC 3768 section 7.1: the receiver must verify the checksum.
		return Advert{}, 0, RefusedChecksum
	case msg[5] == 0:
		return Advert{}, 0, RefusedInterval
	}
	auth, ok := readAuthentication(msg[4], [authLength]byte(msg[len(msg)-authLength:]))
	if !ok {
		return Advert{}, 0, RefusedAuthenticationType
	}
	a := Advert{
		Version: 2, VRID: int(msg[1]), Priority: int(msg[2]),
		Interval: time.Duration(msg[5]) * time.Second, Authentication: auth,
	}
	a.Addresses = readAddresses(msg[fixedLength:], count, 4)
	return a, ChecksumPlain, Accepted
}

// readAddresses reads count addresses of so many bytes from the beginning of b.
func readAddresses(b []byte, count, length int) []netip.Addr {
	addresses := make([]netip.Addr, count)
	for i := range addresses {
		addresses[i], _ = netip.AddrFromSlice(b[length*i : length*(i+1)])
	}
	return addresses
}
