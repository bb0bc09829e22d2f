package link

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Missing returns those of addresses that are not on the interface, whatever
// their prefixes there. A missing interface is an error.
func (a *Addresses) Missing(addresses []netip.Addr) ([]netip.Addr, error) {
	l, err := a.holder()
	if err != nil {
		return nil, err
	}
	list, err := listAddresses(a.handle, l, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", a.name, err)
	}
	present := make(map[netip.Addr]bool, len(list))
	for _, addr := range list {
		if p, ok := prefixOf(addr); ok {
			present[p.Addr()] = true
		}
	}
	var missing []netip.Addr
	for _, addr := range addresses {
		if !present[addr] {
			missing = append(missing, addr)
		}
	}
	return missing, nil
}
