package kernel

import (
	"encoding/binary"
	"net/netip"
)

// words returns an address as the program has it: in the order of the network,
// IPv4 mapped into IPv6.
func words(a netip.Addr) (w [4]uint32) {
	b := a.As16()
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

// address is the reverse of words.
func address(w [4]uint32) netip.Addr {
	var b [16]byte
	for i := range w {
		binary.NativeEndian.PutUint32(b[4*i:], w[i])
	}
	return netip.AddrFrom16(b).Unmap()
}

// port turns a port from the order of the host into that of the network, and
// back.
func port(p uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], p)
	return binary.NativeEndian.Uint16(b[:])
}

// addrPort returns what the program has as words and a port.
func addrPort(w [4]uint32, p uint16) netip.AddrPort {
	return netip.AddrPortFrom(address(w), port(p))
}

// flowKey returns the key of what goes from one address to the other.
func flowKey(proto Protocol, from, to netip.AddrPort) programKey {
	return programKey{
		Saddr: words(from.Addr()), Sport: port(from.Port()),
		Daddr: words(to.Addr()), Dport: port(to.Port()),
		Proto: uint8(proto),
	}
}

// otherKey returns the key of the other direction of the flow that k and f are.
func otherKey(k *programKey, f *programFlow) programKey {
	return programKey{
		Saddr: f.Daddr, Sport: f.Dport,
		Daddr: f.Saddr, Dport: f.Sport,
		Proto: k.Proto,
	}
}

// sum16 adds the 16-bit words of an address.
func sum16(w [4]uint32) (sum uint32) {
	for _, v := range w {
		sum += v&0xffff + v>>16
	}
	return sum
}

// fold makes a sum of 16-bit words one such word (RFC 1071).
func fold(sum uint32) uint32 {
	sum = sum&0xffff + sum>>16
	return sum&0xffff + sum>>16
}

// addrDiff returns what the new addresses of f change in a checksum.
func addrDiff(k *programKey, f *programFlow) uint32 {
	old := fold(sum16(k.Saddr) + sum16(k.Daddr))
	return fold(^old&0xffff + fold(sum16(f.Saddr)+sum16(f.Daddr)))
}

// portDiff returns what the new ports of f change in a checksum.
func portDiff(k *programKey, f *programFlow) uint32 {
	if k.Sport == f.Sport && k.Dport == f.Dport {
		return 0
	}
	return uint32(^k.Sport) + uint32(^k.Dport) + uint32(f.Sport) + uint32(f.Dport)
}
