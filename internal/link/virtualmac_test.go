package link

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func newVirtual(t *testing.T, vrid int, ipv6 bool, r *Record) *Addresses {
	t.Helper()
	a, err := NewVirtualAddresses("v0", 2*time.Second, vrid, ipv6, r)
	must(t, err)
	t.Cleanup(a.Close)
	return a
}

// settings reads a parent's arp_ignore and arp_announce.
func settings(t *testing.T, ifname string) string {
	t.Helper()
	var all []string
	for _, name := range []string{"arp_ignore", "arp_announce"} {
		text, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + ifname + "/" + name)
		must(t, err)
		all = append(all, strings.TrimSpace(string(text)))
	}
	return strings.Join(all, " ")
}

// macvlans returns the names of the interfaces made.
func macvlans(t *testing.T) (names []string) {
	t.Helper()
	links, err := netlink.LinkList()
	must(t, err)
	for _, l := range links {
		if isVirtual(l) {
			names = append(names, l.Attrs().Name)
		}
	}
	return names
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestVirtualMACs(t *testing.T) {
	for want, got := range map[string]string{
		"00:00:5e:00:01:32": VirtualMAC(50, false).String(),
		"00:00:5e:00:02:ff": VirtualMAC(255, true).String(),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if name := (&virtual{vrid: 255, ipv6: true}).nameOn(36*36*36*36*36 - 1); len(name) > 15 {
		t.Errorf("%s is too long", name)
	}
}

func TestVirtualMACIsThereWithItsAddresses(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair(t)
	path := filepath.Join(t.TempDir(), "record")
	r := NewRecord(path)
	a, b := newVirtual(t, 50, false, r), newVirtual(t, 51, false, r)
	first, second := vips("10.9.0.50/24"), vips("10.9.0.51/24")
	if added := acquire(t, a, first); len(added) != 1 {
		t.Errorf("added %s", added)
	}
	acquire(t, b, second)
	if added := acquire(t, a, first); len(added) != 0 {
		t.Errorf("renewed, and added %s", added)
	}
	l, err := netlink.LinkByName("vrrp4-50-" + indexName(v0))
	must(t, err)
	if l.Attrs().HardwareAddr.String() != "00:00:5e:00:01:32" || l.Attrs().RawFlags&unix.IFF_UP == 0 {
		t.Errorf("%+v", l.Attrs())
	}
	if got := settings(t, "v0"); got != "1 2" {
		t.Errorf("the parent's settings are %s", got)
	}
	if got := settings(t, l.Attrs().Name); got != "1 2" {
		t.Errorf("its own settings are %s", got)
	}
	// The way to the LAN stays the parent's.
	routes, err := netlink.RouteList(l, netlink.FAMILY_V4)
	must(t, err)
	if len(routes) > 0 {
		t.Errorf("routes by it: %v", routes)
	}
	list, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	must(t, err)
	if len(list) != 1 || !list[0].IP.Equal(net.IPv4(10, 9, 0, 50)) || list[0].ValidLft > 2 {
		t.Errorf("addresses %v", list)
	}
	if missing, err := a.Missing([]netip.Addr{first[0].Addr()}); err != nil || len(missing) > 0 {
		t.Errorf("missing %s, %v", missing, err)
	}
	must(t, a.Release(first))
	if names := macvlans(t); len(names) != 1 || settings(t, "v0") != "1 2" || !exists(path) {
		t.Errorf("after the first: %s, settings %s", names, settings(t, "v0"))
	}
	must(t, b.Release(second))
	if names := macvlans(t); len(names) != 0 || settings(t, "v0") != "0 0" || exists(path) {
		t.Errorf("after the last: %s, settings %s", names, settings(t, "v0"))
	}
	must(t, b.Release(second)) // missing is no error
}

func indexName(l netlink.Link) string {
	return strings.TrimPrefix((&virtual{vrid: 50}).nameOn(l.Attrs().Index), "vrrp4-50-")
}

func TestVirtualMACOfIPv6(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair6(t)
	r := NewRecord(filepath.Join(t.TempDir(), "record"))
	a := newVirtual(t, 50, true, r)
	want := vips("fe80::50/64", "fd09::3/64")
	acquire(t, a, want)
	l, err := netlink.LinkByName("vrrp6-50-" + indexName(v0))
	must(t, err)
	list, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	must(t, err)
	if len(list) != 2 || l.Attrs().HardwareAddr.String() != "00:00:5e:00:02:32" {
		t.Errorf("%s has %v", l.Attrs().HardwareAddr, list)
	}
	if got := settings(t, "v0"); got != "0 0" {
		t.Errorf("settings of IPv4 are %s", got)
	}
	must(t, a.Release(want[:1]))
	if names := macvlans(t); len(names) != 1 {
		t.Errorf("one address is left, and these interfaces: %s", names)
	}
	must(t, a.Release(want[1:]))
	if names := macvlans(t); len(names) != 0 {
		t.Errorf("left: %s", names)
	}
}

func TestUndoAfterACrash(t *testing.T) {
	privateNamespace(t)
	vethPair(t)
	path := filepath.Join(t.TempDir(), "record")
	must(t, os.WriteFile("/proc/sys/net/ipv4/conf/v0/arp_announce", []byte("1"), 0))
	r := NewRecord(path)
	acquire(t, newVirtual(t, 50, false, r), vips("10.9.0.50/24"))
	acquire(t, newVirtual(t, 51, false, r), vips("10.9.0.51/24"))
	if got := settings(t, "v0"); got != "1 2" {
		t.Errorf("settings are %s", got)
	}
	removed, err := Undo(path)
	must(t, err)
	if len(removed) != 2 || len(macvlans(t)) != 0 || settings(t, "v0") != "0 1" || exists(path) {
		t.Errorf("removed %s; left %s, settings %s", removed, macvlans(t), settings(t, "v0"))
	}
	if removed, err := Undo(path); err != nil || len(removed) != 0 {
		t.Errorf("once more: %s, %v", removed, err)
	}
}

// What somebody else has changed meanwhile is theirs, and so is an interface
// that was quiet before.
func TestUndoLeavesWhatOthersHaveChanged(t *testing.T) {
	privateNamespace(t)
	vethPair(t)
	path := filepath.Join(t.TempDir(), "record")
	must(t, os.WriteFile("/proc/sys/net/ipv4/conf/v0/arp_ignore", []byte("2"), 0))
	a := newVirtual(t, 50, false, NewRecord(path))
	acquire(t, a, vips("10.9.0.50/24"))
	if got := settings(t, "v0"); got != "2 2" {
		t.Errorf("settings are %s", got)
	}
	must(t, os.WriteFile("/proc/sys/net/ipv4/conf/v0/arp_announce", []byte("1"), 0))
	must(t, a.Release(vips("10.9.0.50/24")))
	if got := settings(t, "v0"); got != "2 1" {
		t.Errorf("settings are %s afterwards", got)
	}
}

// An interface whose record was lost goes with the first sweep, and never counts
// as one of the LAN.
func TestVirtualMACIsNoInterfaceOfTheLAN(t *testing.T) {
	privateNamespace(t)
	_, v1 := vethPair(t)
	list, err := netlink.AddrList(v1, netlink.FAMILY_V4)
	must(t, err)
	must(t, netlink.AddrDel(v1, &list[0]))
	path := filepath.Join(t.TempDir(), "record")
	acquire(t, newVirtual(t, 50, false, NewRecord(path)), vips("10.9.0.50/24"))
	if name, err := InterfaceFor(netip.MustParsePrefix("10.9.0.51/24")); err != nil || name != "v0" {
		t.Errorf("%s, %v", name, err)
	}
	must(t, os.Remove(path))
	if _, err := newVirtual(t, 50, false, NewRecord(path)).Sweep(vips("10.9.0.50/24")); err != nil {
		t.Error(err)
	}
	if names := macvlans(t); len(names) > 0 {
		t.Errorf("left: %s", names)
	}
}

// A parent that was replaced gets a new interface, and is made quiet anew.
func TestVirtualMACFollowsItsParent(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair(t)
	path := filepath.Join(t.TempDir(), "record")
	a := newVirtual(t, 50, false, NewRecord(path))
	want := vips("10.9.0.50/24")
	acquire(t, a, want)
	must(t, netlink.LinkDel(v0))
	if _, err := a.Acquire(want); err == nil {
		t.Error("acquired on an interface that is gone")
	}
	vethPair(t)
	if added := acquire(t, a, want); len(added) != 1 || settings(t, "v0") != "1 2" {
		t.Errorf("added %s, settings %s", added, settings(t, "v0"))
	}
	must(t, a.Release(want))
	if settings(t, "v0") != "0 0" || len(macvlans(t)) != 0 || exists(path) {
		t.Errorf("left %s, settings %s", macvlans(t), settings(t, "v0"))
	}
}
