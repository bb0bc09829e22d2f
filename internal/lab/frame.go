package lab

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
)

// broadcastMAC is the Ethernet address of everybody.
var broadcastMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

const (
	etherHeader = 14 // bytes: destination, source, type
	arpLength   = 28 // bytes of an ARP packet for Ethernet and IPv4

	etherTypeARP  = 0x0806
	etherTypeIPv4 = 0x0800
	etherTypeIPv6 = 0x86dd

	arpRequest = 1
	arpReply   = 2

	protocolICMPv6 = 58
	protocolVRRP   = 112
)

// arp is an ARP packet for Ethernet and IPv4 (RFC 826).
type arp struct {
	operation uint16
	senderMAC net.HardwareAddr
	sender    netip.Addr
	targetMAC net.HardwareAddr
	target    netip.Addr
}

// parseARP reads the ARP packet of an Ethernet frame, with ok false if there is
// none or it is not for Ethernet and IPv4. The result shares the frame's bytes.
func parseARP(frame []byte) (a arp, ok bool) {
	if len(frame) < etherHeader+arpLength || binary.BigEndian.Uint16(frame[12:]) != etherTypeARP {
		return arp{}, false
	}
	p := frame[etherHeader : etherHeader+arpLength]
	// Hardware type 1, protocol type IPv4, addresses of 6 and 4 bytes.
	if binary.BigEndian.Uint64(p)>>16 != 0x0001_0800_0604 {
		return arp{}, false
	}
	return arp{
		operation: binary.BigEndian.Uint16(p[6:]),
		senderMAC: p[8:14],
		sender:    netip.AddrFrom4([4]byte(p[14:18])),
		targetMAC: p[18:24],
		target:    netip.AddrFrom4([4]byte(p[24:28])),
	}, true
}

// appendTo appends the packet in an Ethernet frame from one station to another.
func (a arp) appendTo(frame []byte, from, to net.HardwareAddr) []byte {
	frame = append(frame, to...)
	frame = append(frame, from...)
	frame = binary.BigEndian.AppendUint16(frame, etherTypeARP)
	frame = append(frame, 0, 1, 8, 0, 6, 4)
	frame = binary.BigEndian.AppendUint16(frame, a.operation)
	frame = append(frame, a.senderMAC...)
	frame = append(frame, a.sender.AsSlice()...)
	frame = append(frame, a.targetMAC...)
	return append(frame, a.target.AsSlice()...)
}

// gratuitous reports whether the packet tells an address to everybody: sender
// and target are the same (RFC 5227 section 3).
func (a arp) gratuitous() bool { return a.sender == a.target && !a.sender.IsUnspecified() }

// advert is what a capture wants of a VRRP advert (RFC 9568 section 5.2).
type advert struct {
	source   netip.Addr
	version  int
	vrid     int
	priority int
}

// parseAdvert reads the VRRP advert of an Ethernet frame, with ok false if
// there is none. It does not verify it.
func parseAdvert(frame []byte) (a advert, ok bool) {
	source, protocol, payload, ok := parseIP(frame)
	if !ok || protocol != protocolVRRP || len(payload) < 8 || payload[0]&0xf != 1 {
		return advert{}, false
	}
	return advert{
		source:   source,
		version:  int(payload[0] >> 4),
		vrid:     int(payload[1]),
		priority: int(payload[2]),
	}, true
}

// parseNA reads the target of a neighbour advertisement (RFC 4861 section 4.4). An
// unsolicited one is what IPv6 has for a gratuitous ARP, a solicited one for a
// reply.
func parseNA(frame []byte) (target netip.Addr, solicited, ok bool) {
	_, protocol, payload, ok := parseIP(frame)
	if !ok || protocol != protocolICMPv6 || len(payload) < 24 || payload[0] != 136 {
		return netip.Addr{}, false, false
	}
	return netip.AddrFrom16([16]byte(payload[8:24])), payload[4]&0x40 != 0, true
}

// solicitor is the address that neighbour solicitations come from.
var solicitor = netip.MustParseAddr("fe80::6d6f:6e69")

// appendSolicitation appends a frame of a station that asks everybody for target
// (RFC 4861 section 4.3), and wants to be answered at mac.
func appendSolicitation(frame []byte, from, mac net.HardwareAddr, target netip.Addr) []byte {
	everybody := netip.IPv6LinkLocalAllNodes()
	message := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...)
	message = append(append(message, 1, 1), mac...) // option: the source's hardware address
	pseudo := slices.Concat(solicitor.AsSlice(), everybody.AsSlice(), []byte{0, 0, 0, byte(len(message)), 0, 0, 0, protocolICMPv6}, message)
	var sum uint32
	for ; len(pseudo) > 1; pseudo = pseudo[2:] {
		sum += uint32(binary.BigEndian.Uint16(pseudo))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(message[2:], ^uint16(sum>>16+sum))

	frame = append(frame, 0x33, 0x33, 0, 0, 0, 1)
	frame = append(frame, from...)
	frame = binary.BigEndian.AppendUint16(frame, etherTypeIPv6)
	frame = append(frame, 6<<4, 0, 0, 0, 0, byte(len(message)), protocolICMPv6, 255)
	frame = append(frame, solicitor.AsSlice()...)
	frame = append(frame, everybody.AsSlice()...)
	return append(frame, message...)
}

// parseIP reads the source, the protocol and the payload of an Ethernet frame
// with an IP packet without IPv6 extension headers.
func parseIP(frame []byte) (source netip.Addr, protocol int, payload []byte, ok bool) {
	if len(frame) < etherHeader {
		return netip.Addr{}, 0, nil, false
	}
	p := frame[etherHeader:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case etherTypeIPv4:
		if len(p) < 20 {
			return netip.Addr{}, 0, nil, false
		}
		header, total := int(p[0]&0xf)*4, int(binary.BigEndian.Uint16(p[2:]))
		if header < 20 || total < header || len(p) < total {
			return netip.Addr{}, 0, nil, false
		}
		return netip.AddrFrom4([4]byte(p[12:16])), int(p[9]), p[header:total], true
	case etherTypeIPv6:
		if len(p) < 40 || len(p)-40 < int(binary.BigEndian.Uint16(p[4:])) {
			return netip.Addr{}, 0, nil, false
		}
		end := 40 + int(binary.BigEndian.Uint16(p[4:]))
		return netip.AddrFrom16([16]byte(p[8:24])), int(p[6]), p[40:end], true
	}
	return netip.Addr{}, 0, nil, false
}
