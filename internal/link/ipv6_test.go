package link

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// group6 is where adverts go over IPv6.
var group6 = netip.MustParseAddr("ff02::12")

// vethPair6 is vethPair with fe80::1 and fd09::1/64 on v0, fe80::2 and fd09::2/64 on v1.
func vethPair6(t *testing.T) (v0, v1 netlink.Link) {
	t.Helper()
	v0, v1 = vethPair(t)
	for i, l := range []netlink.Link{v0, v1} {
		for _, text := range []string{"fe80::1/64", "fd09::1/64"} {
			a, err := netlink.ParseAddr(text)
			must(t, err)
			a.IP[15] = byte(i + 1)
			a.Flags = unix.IFA_F_NODAD
			must(t, netlink.AddrAdd(l, a))
		}
	}
	return v0, v1
}

func TestAdvertFrameBytesOverIPv6(t *testing.T) {
	want := "333300000012" + "02000000000b" + "86dd" + "6c000000" + "0004" + "70" + "ff" +
		"fe800000000000000000000000000011" + "ff020000000000000000000000000012" + "01020304"
	if got := hex.EncodeToString(appendAdvert(nil, testMAC, netip.MustParseAddr("fe80::11"), []byte{1, 2, 3, 4})); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestUnsolicitedNABytes(t *testing.T) {
	// Worked out by hand. The message, checksum 0: 8800 + a000 (router, override)
	// + 2001 + 0db8 + 0003 + 0201 + 0200 + 000b. The pseudo-header: 2001 + 0db8 +
	// 0003 + ff02 + 0001 + 0020 + 003a. Together 286e1 -> 86e3 -> ^ 791c.
	want := "333300000001" + "02000000000b" + "86dd" + "6c000000" + "0020" + "3a" + "ff" +
		"20010db8000000000000000000000003" + "ff020000000000000000000000000001" +
		"8800" + "791c" + "a0000000" + "20010db8000000000000000000000003" + "020102000000000b"
	got, err := appendUnsolicitedNA(nil, testMAC, netip.MustParseAddr("2001:db8::3"), true)
	if err != nil || hex.EncodeToString(got) != want {
		t.Errorf("got  %x, %v\nwant %s", got, err, want)
	}
}

func TestParseAdvertRefusalsOverIPv6(t *testing.T) {
	for _, tt := range []struct {
		name  string
		want  error
		spoil func(f []byte) []byte
	}{
		{"whole", nil, func(f []byte) []byte { return f }},
		{"padded", nil, func(f []byte) []byte { return append(f, 0, 0) }},
		{"cut in the header", ErrShort, func(f []byte) []byte { return f[:53] }},
		{"version 4", ErrNotIPv6, func(f []byte) []byte { f[14] = 0x45; return f }},
		{"longer than the frame", ErrTotalLength, func(f []byte) []byte { f[19]++; return f }},
		{"fragment", ErrFragment, func(f []byte) []byte { f[20] = 44; return f }},
		{"hop-by-hop options", ErrExtension, func(f []byte) []byte { f[20] = 0; return f }},
		{"routing header", ErrExtension, func(f []byte) []byte { f[20] = 43; return f }},
		{"authentication header", ErrExtension, func(f []byte) []byte { f[20] = 51; return f }},
		{"TCP", ErrProtocol, func(f []byte) []byte { f[20] = 6; return f }},
	} {
		f := appendAdvert(nil, testMAC, netip.MustParseAddr("fe80::11"), []byte{1, 2, 3, 4})
		if _, err := parseAdvert(tt.spoil(f)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestAdvertsCrossTheWireOverIPv6(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair6(t)
	a, b := listen(t, "v0", "fe80::1"), listen(t, "v1", "fe80::2")
	if a.Source() != netip.MustParseAddr("fe80::1") {
		t.Fatalf("source %s", a.Source())
	}
	spoil := map[string]func(f []byte){
		"another protocol to the node": func(f []byte) { f[20] = 17; copy(f[38:], b.Source().AsSlice()) },
		"to another group":             func(f []byte) { f[53] = 0x13 },
		"to another node":              func(f []byte) { copy(f[38:], netip.MustParseAddr("fe80::3").AsSlice()) },
		"another host's":               func(f []byte) { copy(f, []byte{2, 9, 9, 9, 9, 9}) },
		"another ethertype":            func(f []byte) { f[12], f[13] = 0x08, 0 },
	}
	send := func(f []byte) {
		t.Helper()
		_, err := a.conn.WriteTo(f, &packet.Addr{HardwareAddr: f[:6]})
		must(t, err)
	}
	for name, change := range spoil {
		f := appendAdvert(nil, v0.Attrs().HardwareAddr, a.Source(), []byte(name))
		change(f)
		send(f)
	}
	must(t, a.Send([]byte("an advert"), group6))
	payload, src, dst, ttl, err := receive(t, b)
	if err != nil || string(payload) != "an advert" || src != a.Source() || dst != group6 || ttl != 255 {
		t.Errorf("%q from %s to %s, hop limit %d, %v", payload, src, dst, ttl, err)
	}
	// What hides behind an extension header is refused by name.
	f := appendAdvert(nil, v0.Attrs().HardwareAddr, a.Source(), []byte("hidden"))
	f[20] = unix.IPPROTO_HOPOPTS
	send(f)
	if _, _, _, _, err := receive(t, b); !errors.Is(err, ErrExtension) {
		t.Errorf("%v", err)
	}
	// What comes to the node alone comes through, for the router to refuse.
	f = appendAdvert(nil, v0.Attrs().HardwareAddr, a.Source(), []byte("unicast"))
	copy(f[38:], b.Source().AsSlice())
	send(f)
	if payload, _, dst, _, err := receive(t, b); err != nil || string(payload) != "unicast" || dst != b.Source() {
		t.Errorf("%q to %s, %v", payload, dst, err)
	}
}

func TestListeningJoinsTheGroupOfIPv6(t *testing.T) {
	privateNamespace(t)
	vethPair6(t)
	joined := func() bool {
		groups, err := os.ReadFile("/proc/thread-self/net/igmp6")
		must(t, err)
		return bytes.Contains(groups, []byte("ff020000000000000000000000000012"))
	}
	a, err := OpenAdverts("v0", from("fe80::1"))
	must(t, err)
	if !joined() {
		t.Error("not joined")
	}
	must(t, a.Close())
	if joined() {
		t.Error("joined after Close")
	}
}

func TestUnicastCrossesTheWire(t *testing.T) {
	for _, tt := range []struct{ a, b string }{{"10.9.0.1", "10.9.0.2"}, {"fd09::1", "fd09::2"}, {"fe80::1", "fe80::2"}} {
		t.Run(tt.a, func(t *testing.T) {
			privateNamespace(t)
			vethPair6(t)
			// In one namespace a node's packets to the other would not leave it:
			// the other one is a stranger here.
			v1, err := netlink.LinkByName("v1")
			must(t, err)
			other := netip.MustParseAddr(tt.b)
			list, err := netlink.AddrList(v1, family(other))
			must(t, err)
			unicast := func(ifname, own string) *Adverts {
				options := from(own)
				options.Unicast, options.Source.Only = true, netip.MustParseAddr(own)
				a, err := OpenAdverts(ifname, options)
				must(t, err)
				t.Cleanup(func() { a.Close() })
				return a
			}
			b := unicast("v1", tt.b)
			for _, a := range list {
				must(t, netlink.AddrDel(v1, &a))
			}
			v0, err := netlink.LinkByName("v0")
			must(t, err)
			must(t, netlink.NeighAdd(&netlink.Neigh{LinkIndex: v0.Attrs().Index, State: netlink.NUD_PERMANENT,
				IP: net.IP(other.AsSlice()), HardwareAddr: v1.Attrs().HardwareAddr}))
			a := unicast("v0", tt.a)
			must(t, a.Send([]byte("to you"), other))
			payload, src, dst, ttl, err := receive(t, b)
			if err != nil || string(payload) != "to you" || src.String() != tt.a || dst != other || ttl != 255 {
				t.Errorf("%q from %s to %s, TTL %d, %v", payload, src, dst, ttl, err)
			}
		})
	}
}

func TestUnicastWantsTheNodesAddress(t *testing.T) {
	privateNamespace(t)
	vethPair(t)
	options := from("10.9.0.1")
	options.Unicast, options.Source.Only = true, netip.MustParseAddr("10.9.0.77")
	const want = "adverts on v0: the interface has not the address 10.9.0.77, by which the other nodes know this one"
	if _, err := OpenAdverts("v0", options); err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

// An IPv6 address works at once, begins no connections, goes by itself, and its
// subnet's route is none of its business where the node has an address of its own
// in it.
func TestIPv6AddressIsALease(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair6(t)
	a := newAddresses(t, "v0")
	want := vips("fe80::50/64", "fd09::3/64", "fd10::3/64")
	acquire(t, a, want)
	for _, p := range want[1:] {
		c, err := net.ListenUDP("udp6", net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.Addr(), 0)))
		if err != nil {
			t.Fatalf("%s does not work: %v", p, err)
		}
		c.Close()
	}
	held := func() (held []netip.Prefix) {
		list, err := netlink.AddrList(v0, netlink.FAMILY_V6)
		must(t, err)
		for _, addr := range list {
			if p, ok := prefixOf(addr); ok && slices.Contains(want, p) {
				if addr.PreferedLft != 0 || addr.ValidLft > 2 {
					t.Errorf("%s: preferred for %d s, valid for %d s", p, addr.PreferedLft, addr.ValidLft)
				}
				held = append(held, p)
			}
		}
		return held
	}
	if got := held(); len(got) != 3 {
		t.Fatalf("on the interface: %s", got)
	}
	routes := func() (subnets []string) {
		list, err := netlink.RouteList(v0, netlink.FAMILY_V6)
		must(t, err)
		for _, r := range list {
			subnets = append(subnets, r.Dst.String())
		}
		slices.Sort(subnets)
		return subnets
	}
	// Only the third one has a subnet that is new here.
	if got := routes(); !slices.Equal(got, []string{"fd09::/64", "fd10::/64", "fe80::/64"}) {
		t.Errorf("routes %s", got)
	}
	eventually(t, 6*time.Second, "the addresses go", func() bool { return len(held()) == 0 })
	if got := routes(); !slices.Contains(got, "fd09::/64") || !slices.Contains(got, "fe80::/64") {
		t.Errorf("routes %s afterwards", got)
	}
	acquire(t, a, want)
	if left, err := a.Sweep(want); err != nil || !slices.Equal(left, want) {
		t.Errorf("swept %s, %v", left, err)
	}
	if got := held(); len(got) > 0 {
		t.Errorf("left: %s", got)
	}
}

func TestForwardingIsKnown(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair6(t)
	for _, want := range []bool{false, true} {
		if want {
			must(t, os.WriteFile("/proc/sys/net/ipv6/conf/v0/forwarding", []byte("1"), 0))
		}
		if c, err := readConf(v0.Attrs().Index); err != nil || c.forwarding6 != want {
			t.Errorf("got %v, %v", c.forwarding6, err)
		}
	}
}
