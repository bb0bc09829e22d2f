package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// packet is one of TCP or UDP in an Ethernet frame.
type packet struct {
	toMAC, fromMAC [6]byte
	from, to       netip.AddrPort
	proto          Protocol
	ttl            byte
	flags          byte
	seq, ack       uint32
	payload        string
	noChecksum     bool // UDP
}

// The flags of TCP.
const (
	fin = 0x01
	syn = 0x02
	rst = 0x04
	ack = 0x10
)

// ipHeader returns a header for length bytes behind it.
func ipHeader(from, to netip.Addr, proto, ttl byte, length int) []byte {
	if from.Is6() {
		h := make([]byte, 40)
		h[0] = 0x60
		binary.BigEndian.PutUint16(h[4:], uint16(length))
		h[6], h[7] = proto, ttl
		copy(h[8:], from.AsSlice())
		copy(h[24:], to.AsSlice())
		return h
	}
	h := make([]byte, 20)
	h[0] = 0x45
	binary.BigEndian.PutUint16(h[2:], uint16(20+length))
	binary.BigEndian.PutUint16(h[4:], 0x1234)
	h[6] = 0x40 // don't fragment
	h[8], h[9] = ttl, proto
	copy(h[12:], from.AsSlice())
	copy(h[16:], to.AsSlice())
	binary.BigEndian.PutUint16(h[10:], onesSum(0, h))
	return h
}

// onesSum returns the checksum of b (RFC 1071), begun with start.
func onesSum(start uint32, b []byte) uint16 {
	sum := start
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i]) << 8
		if i+1 < len(b) {
			sum += uint32(b[i+1])
		}
	}
	return ^uint16(fold(sum))
}

// pseudo returns the sum of the pseudo header.
func pseudo(from, to netip.Addr, proto byte, length int) uint32 {
	sum := uint32(proto) + uint32(length)
	for _, a := range []netip.Addr{from, to} {
		sum += uint32(^onesSum(0, a.AsSlice()))
	}
	return sum
}

// ip returns the IP packet.
func (p packet) ip() []byte {
	ttl := p.ttl
	if ttl == 0 {
		ttl = 64
	}
	var l4 []byte
	at := 16
	if p.proto == TCP {
		l4 = make([]byte, 20)
		binary.BigEndian.PutUint32(l4[4:], p.seq)
		binary.BigEndian.PutUint32(l4[8:], p.ack)
		l4[12] = 5 << 4
		l4[13] = p.flags
		binary.BigEndian.PutUint16(l4[14:], 65535)
	} else {
		l4 = make([]byte, 8)
		binary.BigEndian.PutUint16(l4[4:], uint16(8+len(p.payload)))
		at = 6
	}
	binary.BigEndian.PutUint16(l4[0:], p.from.Port())
	binary.BigEndian.PutUint16(l4[2:], p.to.Port())
	l4 = append(l4, p.payload...)
	if !p.noChecksum {
		binary.BigEndian.PutUint16(l4[at:], onesSum(pseudo(p.from.Addr(), p.to.Addr(), byte(p.proto), len(l4)), l4))
	}
	return append(ipHeader(p.from.Addr(), p.to.Addr(), byte(p.proto), ttl, len(l4)), l4...)
}

// frame returns the Ethernet frame.
func (p packet) frame() []byte { return frame(p.toMAC, p.fromMAC, p.ip()) }

// frame returns an IP packet as an Ethernet frame.
func frame(to, from [6]byte, ip []byte) []byte {
	f := append(append(make([]byte, 0, 14+len(ip)), to[:]...), from[:]...)
	if ip[0]>>4 == 6 {
		return append(append(f, 0x86, 0xdd), ip...)
	}
	return append(append(f, 8, 0), ip...)
}

// parse reads a frame of TCP or UDP and verifies its checksums.
func parse(f []byte) (p packet, err error) {
	p.toMAC, p.fromMAC = [6]byte(f[:6]), [6]byte(f[6:12])
	ip := f[14:]
	var from, to netip.Addr
	var l4 []byte
	if binary.BigEndian.Uint16(f[12:]) == 0x86dd {
		from, to = netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
		p.proto, p.ttl, l4 = Protocol(ip[6]), ip[7], ip[40:]
	} else {
		if s := onesSum(0, ip[:20]); s != 0 {
			return p, fmt.Errorf("the checksum of IP is off by %#x", s)
		}
		from, to = netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
		p.proto, p.ttl, l4 = Protocol(ip[9]), ip[8], ip[20:]
	}
	p.from = netip.AddrPortFrom(from, binary.BigEndian.Uint16(l4))
	p.to = netip.AddrPortFrom(to, binary.BigEndian.Uint16(l4[2:]))
	if p.proto == TCP {
		p.seq, p.ack, p.flags = binary.BigEndian.Uint32(l4[4:]), binary.BigEndian.Uint32(l4[8:]), l4[13]
		p.payload = string(l4[20:])
	} else {
		p.payload = string(l4[8:])
		if l4[6] == 0 && l4[7] == 0 {
			p.noChecksum = true
			return p, nil
		}
	}
	if s := onesSum(pseudo(from, to, byte(p.proto), len(l4)), l4); s != 0 {
		return p, fmt.Errorf("the checksum of %s is off by %#x", p.proto, s)
	}
	return p, nil
}
