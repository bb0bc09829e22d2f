package link

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	ethernetHeader = 14
	ipv4Header     = 20 // without options
	ipv6Header     = 40 // without extension headers
	protocolVRRP   = 112
	advertTTL      = 255  // RFC 9568 sections 5.1.1.3 and 5.1.2.3
	advertTOS      = 0xc0 // internetwork control (RFC 791)
	dontFragment   = 0x4000
	// fragmentBits are the offset and the More Fragments flag.
	fragmentBits = 0x3fff
)

// FrameError says why a received frame was refused.
type FrameError string

// What can be wrong with a frame.
const (
	// ErrShort: the frame ends before its IP header does.
	ErrShort FrameError = "frame_short"
	// ErrNotIP: the frame is of another protocol.
	ErrNotIP FrameError = "not_ip"
	// ErrNotIPv4: the header is not of IPv4, as the frame says.
	ErrNotIPv4 FrameError = "not_ipv4"
	// ErrNotIPv6: the header is not of IPv6, as the frame says.
	ErrNotIPv6 FrameError = "not_ipv6"
	// ErrHeaderLength: the header says it is shorter than a header is.
	ErrHeaderLength FrameError = "ip_header_length"
	// ErrTotalLength: the packet is longer than the frame or shorter than its
	// header.
	ErrTotalLength FrameError = "ip_total_length"
	// ErrHeaderChecksum: the header was damaged.
	ErrHeaderChecksum FrameError = "ip_checksum"
	// ErrFragment: adverts are never fragmented.
	ErrFragment FrameError = "fragment"
	// ErrExtension: an IPv6 extension header is in front of the message. No
	// router sends one.
	ErrExtension FrameError = "extension_header"
	// ErrProtocol: the packet is not VRRP.
	ErrProtocol FrameError = "ip_protocol"
	// ErrTooLong: the payload does not fit into the caller's buffer.
	ErrTooLong FrameError = "too_long"
)

// Error returns the name in a sentence.
func (e FrameError) Error() string { return "refused frame: " + string(e) }

// Label returns the name alone, for a metric.
func (e FrameError) Label() string { return string(e) }

// advertGroup is where adverts go by addresses of source's family (RFC 9568
// sections 5.1.1.2 and 5.1.2.2).
func advertGroup(source netip.Addr) netip.Addr {
	if source.Is4() {
		return netip.AddrFrom4([4]byte{224, 0, 0, 18})
	}
	return netip.AddrFrom16([16]byte{0xff, 0x02, 15: 0x12})
}

// groupMAC is the MAC address of a group (RFC 1112 section 6.4, RFC 2464 section
// 7).
func groupMAC(group netip.Addr) net.HardwareAddr {
	b := group.AsSlice()
	if group.Is4() {
		return net.HardwareAddr{0x01, 0x00, 0x5e, b[1] & 0x7f, b[2], b[3]}
	}
	return net.HardwareAddr{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// appendAdvert appends to b the Ethernet frame that carries msg from src to
// the group.
func appendAdvert(b []byte, mac net.HardwareAddr, src netip.Addr, msg []byte) []byte {
	group := advertGroup(src)
	b = append(b, groupMAC(group)...)
	b = append(b, mac...)
	if src.Is6() {
		b = append(b, 0x86, 0xdd)
		b = appendIPv6(b, src, group, protocolVRRP, len(msg))
		return append(b, msg...)
	}
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

// appendIPv6 appends a header for length bytes of a protocol whose packets a
// router must not have forwarded: adverts and neighbour discovery.
func appendIPv6(b []byte, src, dst netip.Addr, protocol uint8, length int) []byte {
	b = binary.BigEndian.AppendUint32(b, 6<<28|advertTOS<<20)
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	b = append(b, protocol, advertTTL)
	b = append(b, src.AsSlice()...)
	return append(b, dst.AsSlice()...)
}

// advert is a received message with what its header said.
type advert struct {
	payload  []byte // a part of the frame
	src, dst netip.Addr
	ttl      uint8
}

// parseAdvert reads an Ethernet frame with a VRRP packet. Its error is a
// FrameError. A short frame is padded to Ethernet's least length: what follows
// the packet is no part of it.
func parseAdvert(frame []byte) (advert, error) {
	if len(frame) < ethernetHeader {
		return advert{}, ErrShort
	}
	switch packet := frame[ethernetHeader:]; binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		return parseIPv4(packet)
	case unix.ETH_P_IPV6:
		return parseIPv6(packet)
	}
	return advert{}, ErrNotIP
}

// parseIPv4 passes over options in the header.
func parseIPv4(packet []byte) (advert, error) {
	if len(packet) < ipv4Header {
		return advert{}, ErrShort
	}
	header, total := int(packet[0]&0x0f)*4, int(binary.BigEndian.Uint16(packet[2:]))
	switch {
	case packet[0]>>4 != 4:
		return advert{}, ErrNotIPv4
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
		payload: packet[header:total],
		src:     netip.AddrFrom4([4]byte(packet[12:])),
		dst:     netip.AddrFrom4([4]byte(packet[16:])),
		ttl:     packet[8],
	}, nil
}

// parseIPv6 refuses extension headers: no router sends them, and what stands
// behind them is not worth the code that would read them.
func parseIPv6(packet []byte) (advert, error) {
	if len(packet) < ipv6Header {
		return advert{}, ErrShort
	}
	end := ipv6Header + int(binary.BigEndian.Uint16(packet[4:]))
	switch next := packet[6]; {
	case packet[0]>>4 != 6:
		return advert{}, ErrNotIPv6
	case end > len(packet):
		return advert{}, ErrTotalLength
	case next == unix.IPPROTO_FRAGMENT:
		return advert{}, ErrFragment
	case next == unix.IPPROTO_HOPOPTS || next == unix.IPPROTO_ROUTING || next == unix.IPPROTO_DSTOPTS ||
		next == unix.IPPROTO_AH || next == unix.IPPROTO_ESP:
		return advert{}, ErrExtension
	case next != protocolVRRP:
		return advert{}, ErrProtocol
	}
	return advert{
		payload: packet[ipv6Header:end],
		src:     netip.AddrFrom16([16]byte(packet[8:])),
		dst:     netip.AddrFrom16([16]byte(packet[24:])),
		ttl:     packet[7],
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
