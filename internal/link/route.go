package link

import (
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// RouteTo returns the index of the interface by which packets to an address leave
// this machine. It is 0 if there is no route, or if the address is this machine's
// own.
func RouteTo(address netip.Addr) int {
	routes, err := netlink.RouteGet(address.AsSlice())
	if err != nil || len(routes) == 0 || routes[0].Type != unix.RTN_UNICAST {
		return 0
	}
	return routes[0].LinkIndex
}

// Index returns the index of an interface; 0 if there is none of that name.
func Index(name string) int {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0
	}
	return l.Attrs().Index
}
