package listen

import "net/netip"

// Matches reports whether local, the local address of a connection or listener,
// is one of vips; every address is one of nil. IPv4 addresses match however
// they are written; a link-local address without a zone matches that of any
// zone.
func Matches(vips []netip.Addr, local netip.Addr) bool {
	if vips == nil {
		return true
	}
	for _, vip := range vips {
		if sameHost(vip, local) {
			return true
		}
	}
	return false
}

func sameHost(a, b netip.Addr) bool {
	a, b = a.Unmap(), b.Unmap()
	if a.Zone() == "" || b.Zone() == "" {
		return a.WithZone("") == b.WithZone("")
	}
	return a == b
}
