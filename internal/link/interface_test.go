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

func TestSourceChoice(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair(t)
	own, err := netlink.ParseAddr("10.9.0.1/24")
	must(t, err)
	must(t, netlink.AddrDel(v0, own))
	// The virtual address is the primary one of its subnet.
	for _, s := range []string{"10.8.0.1/24", "10.9.0.50/24", "10.9.0.1/24", "10.7.0.1/24"} {
		a, err := netlink.ParseAddr(s)
		must(t, err)
		must(t, netlink.AddrAdd(v0, a))
	}
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "empty"}}))
	handle, err := netlink.NewHandle()
	must(t, err)
	defer handle.Close()
	vip := netip.MustParseAddr("10.9.0.50")
	for _, tt := range []struct {
		ifname string
		prefer []string
		near   string
		want   string // empty: none
	}{
		{"v0", nil, "10.9.0.50", "10.9.0.1"},
		{"v0", []string{"10.7.0.1"}, "10.9.0.50", "10.7.0.1"},
		{"v0", []string{"192.0.2.1", "10.8.0.1", "10.7.0.1"}, "10.9.0.50", "10.8.0.1"},
		{"v0", []string{"10.9.0.50"}, "10.9.0.50", "10.9.0.1"},
		{"v0", nil, "192.0.2.50", "10.8.0.1"},
		{"empty", nil, "10.9.0.50", ""},
	} {
		l, err := findLink(handle, tt.ifname)
		must(t, err)
		choice := SourceChoice{Near: netip.MustParseAddr(tt.near), Virtual: func(a netip.Addr) bool { return a == vip }}
		for _, p := range tt.prefer {
			choice.Prefer = append(choice.Prefer, netip.MustParseAddr(p))
		}
		got, err := choice.among(handle, l)
		if tt.want == "" {
			if err == nil || err.Error() != "the interface has no IPv4 address of its own" {
				t.Errorf("%v: %s, %v", tt, got, err)
			}
		} else if err != nil || got.String() != tt.want {
			t.Errorf("%v: %s, %v", tt, got, err)
		}
	}
}
