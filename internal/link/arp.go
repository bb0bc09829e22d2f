package link

import (
	"net"
	"net/netip"
)

// appendGratuitousARP appends to b the frame that tells a LAN that addr is at
// mac: a broadcast ARP request whose sender and target protocol addresses are
// addr (RFC 5944 section 4.6), with the broadcast address as target hardware
// address.
func appendGratuitousARP(b []byte, mac net.HardwareAddr, addr netip.Addr) []byte {
	broadcast := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	b = append(b, broadcast...)
	b = append(b, mac...)
	b = append(b, 0x08, 0x06)
	b = append(b,
		0, 1, // hardware: Ethernet
		0x08, 0, // protocol: IPv4
		6, 4, // their address lengths
		0, 1) // request
	b = append(b, mac...)
	b = append(b, addr.AsSlice()...)
	b = append(b, broadcast...)
	return append(b, addr.AsSlice()...)
}
