package link

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
)

// group4 is where adverts go over IPv4.
var group4 = netip.MustParseAddr("224.0.0.18")

// from chooses a source.
func from(source string) AdvertOptions {
	a := netip.MustParseAddr(source)
	return AdvertOptions{Source: SourceChoice{Prefer: []netip.Addr{a}, Near: a, Virtual: func(netip.Addr) bool { return false }}}
}

func listen(t *testing.T, ifname, source string) *Adverts {
	t.Helper()
	a, err := OpenAdverts(ifname, from(source))
	must(t, err)
	t.Cleanup(func() { a.Close() })
	return a
}

// receive is Receive with a bound on the time.
func receive(t *testing.T, a *Adverts) (payload []byte, src, dst netip.Addr, ttl uint8, err error) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		var n int
		n, src, dst, ttl, err = a.Receive(buf)
		payload = buf[:n]
	}()
	select {
	case <-done:
	case <-time.After(3 * time.Second):
		t.Fatal("nothing received")
	}
	return payload, src, dst, ttl, err
}

func TestAdvertsCrossTheWire(t *testing.T) {
	privateNamespace(t)
	vethPair(t)
	a, b := listen(t, "v0", "10.9.0.1"), listen(t, "v1", "10.9.0.2")
	msg := []byte("an advert")
	must(t, a.Send(msg, group4))
	payload, src, dst, ttl, err := receive(t, b)
	must(t, err)
	if !bytes.Equal(payload, msg) || src.String() != "10.9.0.1" || dst.String() != "224.0.0.18" || ttl != 255 {
		t.Errorf("%q from %s to %s, TTL %d", payload, src, dst, ttl)
	}
	// Nobody hears himself: the first thing a receives is what b sends.
	must(t, b.Send([]byte("an answer"), group4))
	if payload, _, _, _, err = receive(t, a); err != nil || string(payload) != "an answer" {
		t.Errorf("%q, %v", payload, err)
	}
}

func TestFilterLetsOnlyAdvertsThrough(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair(t)
	a, b := listen(t, "v0", "10.9.0.1"), listen(t, "v1", "10.9.0.2")
	spoil := map[string]func(f []byte){
		"another protocol":  func(f []byte) { f[23] = 17 },
		"another group":     func(f []byte) { f[33] = 0x13 },
		"another host's":    func(f []byte) { copy(f, []byte{2, 9, 9, 9, 9, 9}) },
		"another ethertype": func(f []byte) { f[12], f[13] = 0x86, 0xdd },
	}
	for name, change := range spoil {
		f := appendAdvert(nil, v0.Attrs().HardwareAddr, netip.MustParseAddr("10.9.0.1"), []byte(name))
		change(f)
		repairIP(f)
		_, err := a.conn.WriteTo(f, &packet.Addr{HardwareAddr: f[:6]})
		must(t, err)
	}
	vlan := appendAdvert(nil, v0.Attrs().HardwareAddr, netip.MustParseAddr("10.9.0.1"), []byte("another VLAN"))
	vlan = append(vlan[:12:12], append([]byte{0x81, 0, 0, 7}, vlan[12:]...)...)
	_, err := a.conn.WriteTo(vlan, &packet.Addr{HardwareAddr: vlan[:6]})
	must(t, err)

	must(t, a.Send([]byte("the advert"), group4))
	payload, _, _, _, err := receive(t, b)
	if err != nil || string(payload) != "the advert" {
		t.Errorf("%q came through, %v", payload, err)
	}
}

func TestMalformedHeaderIsANamedError(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair(t)
	a, b := listen(t, "v0", "10.9.0.1"), listen(t, "v1", "10.9.0.2")
	f := appendAdvert(nil, v0.Attrs().HardwareAddr, netip.MustParseAddr("10.9.0.1"), []byte("first fragment"))
	f[20] = 0x20
	repairIP(f)
	_, err := a.conn.WriteTo(f, &packet.Addr{HardwareAddr: f[:6]})
	must(t, err)
	if _, _, _, _, err := receive(t, b); !errors.Is(err, ErrFragment) {
		t.Errorf("%v", err)
	}
	// The next one is received.
	must(t, a.Send([]byte("whole"), group4))
	if payload, _, _, _, err := receive(t, b); err != nil || string(payload) != "whole" {
		t.Errorf("%q, %v", payload, err)
	}
}

func TestListeningJoinsTheGroup(t *testing.T) {
	privateNamespace(t)
	vethPair(t)
	joined := func() bool {
		groups, err := os.ReadFile("/proc/thread-self/net/igmp")
		must(t, err)
		return bytes.Contains(groups, []byte("120000E0")) // in the byte order of the wire
	}
	if joined() {
		t.Fatal("joined before")
	}
	a, err := OpenAdverts("v0", from("10.9.0.1"))
	must(t, err)
	if !joined() {
		t.Error("not joined")
	}
	must(t, a.Close())
	if joined() {
		t.Error("joined after Close")
	}
}

func TestCloseEndsReceive(t *testing.T) {
	privateNamespace(t)
	vethPair(t)
	a, err := OpenAdverts("v0", from("10.9.0.1"))
	must(t, err)
	result := make(chan error)
	go func() {
		_, _, _, _, err := a.Receive(make([]byte, 100))
		result <- err
	}()
	must(t, a.Close())
	if err := <-result; !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func TestListenAdvertsErrors(t *testing.T) {
	privateNamespace(t)
	must(t, netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tun0"}, Mode: netlink.TUNTAP_MODE_TUN}))
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "down"}}))
	before := openFiles(t)
	for _, tt := range []struct{ ifname, source, want string }{
		{"nowhere", "10.9.0.1", "adverts on nowhere: the interface does not exist"},
		{"tun0", "10.9.0.1", "adverts on tun0: the interface is not an Ethernet"},
		{"lo", "127.0.0.1", "adverts on lo: the interface is not an Ethernet"},
		{"down", "10.9.0.1", "adverts on down: the interface is administratively down"},
	} {
		a, err := OpenAdverts(tt.ifname, from(tt.source))
		if err == nil {
			a.Close()
		}
		if err == nil || err.Error() != tt.want {
			t.Errorf("%v: %v", tt, err)
		}
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d files open, %d before", after, before)
	}
}

// What happens to the interface ends the use of an Adverts, and a new one works.
func TestAdvertsEndWithTheirInterface(t *testing.T) {
	for name, tt := range map[string]struct {
		happens func(t *testing.T, v0 netlink.Link)
		want    string
		heal    func(t *testing.T, v0 netlink.Link)
	}{
		"replaced": {func(t *testing.T, v0 netlink.Link) {
			must(t, netlink.LinkDel(v0))
			vethPair(t)
		}, "", nil},
		"gone": {func(t *testing.T, v0 netlink.Link) { must(t, netlink.LinkDel(v0)) }, "",
			func(t *testing.T, _ netlink.Link) { vethPair(t) }},
		"down": {func(t *testing.T, v0 netlink.Link) { must(t, netlink.LinkSetDown(v0)) }, "",
			func(t *testing.T, v0 netlink.Link) { must(t, netlink.LinkSetUp(v0)) }},
		"another name": {func(t *testing.T, v0 netlink.Link) {
			must(t, netlink.LinkSetName(v0, "old"))
		}, "the interface does not exist", func(t *testing.T, v0 netlink.Link) { must(t, netlink.LinkSetName(v0, "v0")) }},
		"another MAC address": {func(t *testing.T, v0 netlink.Link) {
			must(t, netlink.LinkSetHardwareAddr(v0, testMAC))
		}, "the MAC address is " + testMAC.String() + " now", nil},
	} {
		t.Run(name, func(t *testing.T) {
			privateNamespace(t)
			v0, _ := vethPair(t)
			a := listen(t, "v0", "10.9.0.1")
			tt.happens(t, v0)
			if _, _, _, _, err := receive(t, a); err == nil || errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%v", err)
			}
			if tt.heal != nil {
				tt.heal(t, v0)
			}
			again, b := listen(t, "v0", "10.9.0.1"), listen(t, "v1", "10.9.0.2")
			must(t, again.Send([]byte("from the new one"), group4))
			if payload, _, _, _, err := receive(t, b); err != nil || string(payload) != "from the new one" {
				t.Errorf("%q, %v", payload, err)
			}
			must(t, b.Send([]byte("to the new one"), group4))
			if payload, _, _, _, err := receive(t, again); err != nil || string(payload) != "to the new one" {
				t.Errorf("%q, %v", payload, err)
			}
		})
	}
}

func TestAdvertsFollowTheNodesAddress(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair(t)
	vip := netip.MustParseAddr("10.9.0.50")
	acquire(t, newAddresses(t, "v0"), vips("10.9.0.50/24"))
	a, err := OpenAdverts("v0", AdvertOptions{Source: SourceChoice{Near: vip, Virtual: func(a netip.Addr) bool { return a == vip }}})
	must(t, err)
	t.Cleanup(func() { a.Close() })
	own, err := netlink.ParseAddr("10.9.0.1/24")
	must(t, err)
	// The own address goes, the virtual one stays: nothing to follow.
	must(t, netlink.AddrDel(v0, own))
	acquire(t, newAddresses(t, "v0"), vips("10.9.0.50/24"))
	if err := a.check(); err != nil {
		t.Errorf("without an address of its own: %v", err)
	}
	// It comes back, behind the virtual one.
	must(t, netlink.AddrAdd(v0, own))
	if err := a.check(); err != nil || a.Source().String() != "10.9.0.1" {
		t.Errorf("%s, %v", a.Source(), err)
	}
	other, err := netlink.ParseAddr("10.9.0.7/24")
	must(t, err)
	must(t, netlink.AddrAdd(v0, other))
	if err := a.check(); err != nil {
		t.Errorf("with one address more: %v", err)
	}
	must(t, netlink.AddrDel(v0, own))
	if _, _, _, _, err := receive(t, a); err == nil || !strings.Contains(err.Error(), "this node's address is 10.9.0.7 now, not 10.9.0.1") {
		t.Errorf("%v", err)
	}
}

func TestAdvertsKnowWhatIsUnread(t *testing.T) {
	privateNamespace(t)
	vethPair(t)
	a, b := listen(t, "v0", "10.9.0.1"), listen(t, "v1", "10.9.0.2")
	if b.Unread() {
		t.Error("something is unread before anything was sent")
	}
	must(t, a.Send([]byte("an advert"), group4))
	deadline := time.Now().Add(3 * time.Second)
	for !b.Unread() {
		if time.Now().After(deadline) {
			t.Fatal("what was sent is not unread")
		}
		time.Sleep(time.Millisecond)
	}
	_, _, _, _, err := receive(t, b)
	must(t, err)
	if b.Unread() {
		t.Error("what was read is unread")
	}
}
