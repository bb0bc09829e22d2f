package link

import (
	"encoding/binary"
	"net"
	"net/netip"
)

const (
	ethernetHeader = 14
	ipv4Header     = 20 // without options
	protocolVRRP   = 112
	advertTTL      = 255  // RFC 9568 section 5.1.1.3
	advertTOS      = 0xc0 // internetwork control (RFC 791)
	dontFragment   = 0x4000
	// fragmentBits are the offset and the More Fragments flag.
	fragmentBits = 0x3fff
)

// FrameError says why a received frame was refused.
type FrameError string

// What can be wrong with a frame.
const (
	// ErrShort: the frame ends before its IPv4 header does.
	ErrShort FrameError = "frame_short"
	// ErrNotIPv4: the frame or its header is of another protocol.
	ErrNotIPv4 FrameError = "not_ipv4"
	// ErrHeaderLength: the header says it is shorter than a header is.
	ErrHeaderLength FrameError = "ip_header_length"
	// ErrTotalLength: the packet is longer than the frame or shorter than its
	// header.
	ErrTotalLength FrameError = "ip_total_length"
	// ErrHeaderChecksum: the header was damaged.
	ErrHeaderChecksum FrameError = "ip_checksum"
	// ErrFragment: adverts are never fragmented.
	ErrFragment FrameError = "fragment"
	// ErrProtocol: the packet is not VRRP.
	ErrProtocol FrameError = "ip_protocol"
	// ErrTooLong: the payload does not fit into the caller's buffer.
	ErrTooLong FrameError = "too_long"
)

// Error returns the name in a sentence.
func (e FrameError) Error() string { return "refused frame: " + string(e) }

// Label returns the name alone, for a metric.
func (e FrameError) Label() string { return string(e) }

// advertGroup is where adverts go (RFC 9568 section 5.1.1.2), and its MAC
// address (RFC 1112 section 6.4).
func advertGroup() (netip.Addr, net.HardwareAddr) {
	return netip.AddrFrom4([4]byte{224, 0, 0, 18}), net.HardwareAddr{0x01, 0x00, 0x5e, 0x00, 0x00, 0x12}
}

// appendAdvert appends to b the Ethernet frame that carries msg from src to
// the group.
func appendAdvert(b []byte, mac net.HardwareAddr, src netip.Addr, msg []byte) []byte {
	group, groupMAC := advertGroup()
	b = append(b, groupMAC...)
	b = append(b, mac...)
	b = append(b, 0x08, 0x00)

	start := len(b)
	b = append(b, 4<<4|ipv4Header/4, advertTOS)
	b = binary.BigEndian.AppendUint16(b, uint16(ipv4Header+len(msg)))
	b = append(b, 0, 0) // no identification: the packet is not fragmented (RFC 6864)
	b = binary.BigEndian.AppendUint16(b, dontFragment)
	b = append(b, advertTTL, protocolVRRP, 0, 0)
	b = append(b, src.AsSlice()...)
	b = append(b, group.AsSlice()...)
	header := b[start:]
	binary.BigEndian.PutUint16(header[10:], ^onesSum(header))
	return append(b, msg...)
}

// advert is a received message with what its header said.
type advert struct {
	payload  []byte // a part of the frame
	src, dst netip.Addr
	ttl      uint8
}

// parseAdvert reads an Ethernet frame with a VRRP packet. Its error is a
// FrameError. Options in the header are passed over.
func parseAdvert(frame []byte) (advert, error) {
	if len(frame) < ethernetHeader+ipv4Header {
		return advert{}, ErrShort
	}
	packet := frame[ethernetHeader:]
	if frame[12] != 0x08 || frame[13] != 0x00 || packet[0]>>4 != 4 {
		return advert{}, ErrNotIPv4
	}
	header, total := int(packet[0]&0x0f)*4, int(binary.BigEndian.Uint16(packet[2:]))
	switch {
	case header < ipv4Header:
		return advert{}, ErrHeaderLength
	case len(packet) < header:
		return advert{}, ErrShort
	case total < header || total > len(packet):
		return advert{}, ErrTotalLength
	case onesSum(packet[:header]) != 0xffff:
		return advert{}, ErrHeaderChecksum
	case binary.BigEndian.Uint16(packet[6:])&fragmentBits != 0:
		return advert{}, ErrFragment
	case packet[9] != protocolVRRP:
		return advert{}, ErrProtocol
	}
	return advert{
		// A short frame is padded to Ethernet's least length: what follows the
		// packet is no part of it.
		payload: packet[header:total],
		src:     netip.AddrFrom4([4]byte(packet[12:])),
		dst:     netip.AddrFrom4([4]byte(packet[16:])),
		ttl:     packet[8],
	}, nil
}

// onesSum is the folded one's complement sum of b (RFC 1071), whose length is
// even.
func onesSum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
