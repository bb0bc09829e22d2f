package link

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestInterfaceFor(t *testing.T) {
	privateNamespace(t)
	v0, v1 := vethPair(t) // both in 10.9.0.0/24
	add := func(l netlink.Link, s string) {
		a, err := netlink.ParseAddr(s)
		must(t, err)
		must(t, netlink.AddrAdd(l, a))
	}
	add(v0, "10.10.0.1/24")
	add(v1, "10.11.0.1/24")
	add(v1, "10.10.0.3/32") // a virtual address that a crash left
	for prefix, want := range map[string]string{"10.10.0.3/24": "v0", "10.11.0.3/32": "v1"} {
		if got, err := InterfaceFor(netip.MustParsePrefix(prefix)); got != want || err != nil {
			t.Errorf("%s: %q, %v", prefix, got, err)
		}
	}
	for prefix, want := range map[string]string{"10.9.0.3/24": "name the interface", "10.99.0.3/24": "no interface"} {
		if got, err := InterfaceFor(netip.MustParsePrefix(prefix)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v", prefix, got, err)
		}
	}
}

func TestSourceAddressIsThePrimaryOne(t *testing.T) {
	privateNamespace(t)
	vethPair(t)
	must(t, newAddresses(t, "v0").Acquire(vips("10.9.0.50/24")))
	if got, err := SourceAddress("v0"); err != nil || got.String() != "10.9.0.1" {
		t.Errorf("%s, %v", got, err)
	}
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "empty"}}))
	for _, name := range []string{"empty", "nowhere"} {
		if got, err := SourceAddress(name); err == nil {
			t.Errorf("%s: %s", name, got)
		}
	}
}
