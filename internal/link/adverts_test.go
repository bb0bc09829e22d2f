package link

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
)

func listen(t *testing.T, ifname, source string) *Adverts {
	t.Helper()
	a, err := ListenAdverts(ifname, netip.MustParseAddr(source))
	must(t, err)
	t.Cleanup(func() { a.Close() })
	return a
}

// receive is Receive with a bound on the time.
func receive(t *testing.T, a *Adverts) (payload []byte, src, dst netip.Addr, ttl uint8, err error) {
	t.Helper()
	must(t, a.conn.SetReadDeadline(time.Now().Add(2*time.Second)))
	buf := make([]byte, 1500)
	n, src, dst, ttl, err := a.Receive(buf)
	return buf[:n], src, dst, ttl, err
}

func TestAdvertsCrossTheWire(t *testing.T) {
	privateNamespace(t)
	vethPair(t)
	a, b := listen(t, "v0", "10.9.0.1"), listen(t, "v1", "10.9.0.2")
	msg := []byte("an advert")
	must(t, a.Send(msg))
	payload, src, dst, ttl, err := receive(t, b)
	must(t, err)
	if !bytes.Equal(payload, msg) || src.String() != "10.9.0.1" || dst.String() != "224.0.0.18" || ttl != 255 {
		t.Errorf("%q from %s to %s, TTL %d", payload, src, dst, ttl)
	}
	// Nobody hears himself: the first thing a receives is what b sends.
	must(t, b.Send([]byte("an answer")))
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

	must(t, a.Send([]byte("the advert")))
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
	must(t, a.Send([]byte("whole")))
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
	a, err := ListenAdverts("v0", netip.MustParseAddr("10.9.0.1"))
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
	a, err := ListenAdverts("v0", netip.MustParseAddr("10.9.0.1"))
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
	for _, tt := range []struct{ ifname, source string }{
		{"nowhere", "10.9.0.1"}, {"tun0", "10.9.0.1"}, {"lo", "fe80::1"},
	} {
		if a, err := ListenAdverts(tt.ifname, netip.MustParseAddr(tt.source)); err == nil {
			a.Close()
			t.Errorf("%v: no error", tt)
		}
	}
}
