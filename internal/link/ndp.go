package link

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/ndp"
	"golang.org/x/sys/unix"
)

// appendUnsolicitedNA appends to b the frame that tells a LAN that the IPv6
// address addr is at mac: a neighbour advertisement to all nodes that overrides
// what they know (RFC 4861 section 7.2.6, RFC 9568 section 6.4.2). router says
// whether this node forwards packets.
func appendUnsolicitedNA(b []byte, mac net.HardwareAddr, addr netip.Addr, router bool) ([]byte, error) {
	nodes := netip.IPv6LinkLocalAllNodes()
	msg, err := ndp.MarshalMessageChecksum(&ndp.NeighborAdvertisement{
		Router:        router,
		Override:      true,
		TargetAddress: addr,
		Options:       []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: mac}},
	}, addr, nodes)
	if err != nil {
		return nil, fmt.Errorf("neighbour advertisement for %s: %w", addr, err)
	}
	b = append(b, groupMAC(nodes)...)
	b = append(b, mac...)
	b = append(b, 0x86, 0xdd)
	b = appendIPv6(b, addr, nodes, unix.IPPROTO_ICMPV6, len(msg))
	return append(b, msg...), nil
}
