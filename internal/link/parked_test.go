package link

import (
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func newParked(t *testing.T, ifname string, r *Record) *Parked {
	t.Helper()
	p, err := NewParked(ifname, 2*time.Second, r)
	must(t, err)
	return p
}

func park(t *testing.T, p *Parked, addresses ...string) (added bool) {
	t.Helper()
	added, err := p.Park(hosts(addresses...))
	must(t, err)
	return added
}

func hosts(addresses ...string) (list []netip.Addr) {
	for _, a := range addresses {
		list = append(list, netip.MustParseAddr(a))
	}
	return list
}

func raiseLoopback(t *testing.T) netlink.Link {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	return lo
}

// onLo returns the addresses of loopback but for its own.
func onLo(t *testing.T) (list []string) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	addresses, err := netlink.AddrList(lo, netlink.FAMILY_ALL)
	must(t, err)
	for _, a := range addresses {
		if !a.IP.IsLoopback() {
			list = append(list, a.IP.String())
		}
	}
	slices.Sort(list)
	return list
}

func TestParkedAddresses(t *testing.T) {
	privateNamespace(t)
	raiseLoopback(t)
	vethPair(t)
	path := filepath.Join(t.TempDir(), "record")
	r := NewRecord(path)
	p, other := newParked(t, "v0", r), newParked(t, "v0", r)
	// Nobody keeps them from being on the interface as well.
	a, err := NewAddresses("v0", 2*time.Second)
	must(t, err)
	t.Cleanup(a.Close)
	acquire(t, a, vips("10.9.0.50/24"))
	if !park(t, p, "10.9.0.50", "fd09::50") || park(t, p, "10.9.0.50", "fd09::50") {
		t.Error("parked the second time, not the first")
	}
	park(t, other, "10.9.0.51")
	must(t, a.Release(vips("10.9.0.50/24")))
	if got := onLo(t); !slices.Equal(got, []string{"10.9.0.50", "10.9.0.51", "fd09::50"}) || settings(t, "v0") != "1 2" {
		t.Errorf("on loopback: %v; settings %s", got, settings(t, "v0"))
	}
	must(t, p.Close())
	if got := onLo(t); !slices.Equal(got, []string{"10.9.0.51"}) || settings(t, "v0") != "1 2" || !exists(path) {
		t.Errorf("on loopback: %v; settings %s", got, settings(t, "v0"))
	}
	must(t, other.Close())
	if got := onLo(t); len(got) != 0 || settings(t, "v0") != "0 0" || exists(path) {
		t.Errorf("left: %v; settings %s", got, settings(t, "v0"))
	}
}

// Addresses that are parked beside a virtual MAC address leave what that needs.
func TestParkedBesideAVirtualMAC(t *testing.T) {
	privateNamespace(t)
	raiseLoopback(t)
	vethPair(t)
	path := filepath.Join(t.TempDir(), "record")
	r := NewRecord(path)
	p, a := newParked(t, "v0", r), newVirtual(t, 50, false, r)
	acquire(t, a, vips("10.9.0.50/24"))
	park(t, p, "10.9.0.50")
	must(t, a.Release(vips("10.9.0.50/24")))
	if settings(t, "v0") != "1 2" || len(macvlans(t)) != 0 {
		t.Errorf("settings %s, interfaces %v", settings(t, "v0"), macvlans(t))
	}
	acquire(t, a, vips("10.9.0.50/24"))
	must(t, p.Close())
	if settings(t, "v0") != "1 2" || len(onLo(t)) != 0 {
		t.Errorf("settings %s, on loopback %v", settings(t, "v0"), onLo(t))
	}
	must(t, a.Release(vips("10.9.0.50/24")))
	if settings(t, "v0") != "0 0" || exists(path) {
		t.Errorf("settings %s", settings(t, "v0"))
	}
}

func TestParkedAddressesGoAfterACrash(t *testing.T) {
	privateNamespace(t)
	raiseLoopback(t)
	vethPair(t)
	path := filepath.Join(t.TempDir(), "record")
	park(t, newParked(t, "v0", NewRecord(path)), "10.9.0.50", "fd09::50")
	removed, err := Undo(path)
	must(t, err)
	if len(removed) != 2 || len(onLo(t)) != 0 || settings(t, "v0") != "0 0" || exists(path) {
		t.Errorf("removed %v; left %v, settings %s", removed, onLo(t), settings(t, "v0"))
	}
	// Without anybody who undoes, the lease ends.
	park(t, newParked(t, "v0", NewRecord(path)), "10.9.0.50")
	eventually(t, 10*time.Second, "the address is gone", func() bool { return len(onLo(t)) == 0 })
}

// An address that somebody has on loopback for a reason of their own stays, for
// ever.
func TestParkedAddressOfSomebodyElse(t *testing.T) {
	privateNamespace(t)
	lo := raiseLoopback(t)
	vethPair(t)
	theirs, err := netlink.ParseAddr("10.9.0.50/32")
	must(t, err)
	must(t, netlink.AddrAdd(lo, theirs))
	p := newParked(t, "v0", NewRecord(filepath.Join(t.TempDir(), "record")))
	park(t, p, "10.9.0.50", "10.9.0.51")
	must(t, p.Close())
	list, err := netlink.AddrList(lo, netlink.FAMILY_V4)
	must(t, err)
	for _, a := range list {
		if a.IP.Equal(net.IPv4(10, 9, 0, 50)) && a.Flags&unix.IFA_F_PERMANENT != 0 && len(onLo(t)) == 1 {
			return
		}
	}
	t.Errorf("on loopback: %v", list)
}

func TestParkingWithoutTheInterface(t *testing.T) {
	privateNamespace(t)
	raiseLoopback(t)
	p := newParked(t, "v7", NewRecord(filepath.Join(t.TempDir(), "record")))
	if _, err := p.Park(hosts("10.9.0.50")); !IsAbsent(err) {
		t.Errorf("parked: %v", err)
	}
	must(t, p.Close())
}

func TestConnections(t *testing.T) {
	privateNamespace(t)
	raiseLoopback(t)
	for _, address := range []string{"127.0.0.50", "::1"} {
		here := netip.MustParseAddr(address)
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(here, 0)))
		must(t, err)
		defer l.Close()
		want := func(what string, n int) {
			t.Helper()
			// The client of ::1 is at that address as well.
			if here.Is6() {
				n *= 2
			}
			eventually(t, 10*time.Second, what, func() bool { // an acknowledgement may be late
				got, err := Connections([]netip.Addr{here, netip.MustParseAddr("127.0.0.51")})
				must(t, err)
				return got == n
			})
		}
		want("a listener", 0)
		client, err := net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
		must(t, err)
		want("before it is accepted", 1)
		server, err := l.AcceptTCP()
		must(t, err)
		want("established", 1)
		must(t, server.CloseWrite())
		if here.Is4() {
			want("half closed", 1)
		}
		must(t, server.Close())
		if here.Is4() {
			want("closed, and not by the client", 0)
		}
		must(t, client.Close())
		want("closed by both", 0)
	}
}

func TestConnectionsWhoseClientHasYetToSpeak(t *testing.T) {
	privateNamespace(t)
	raiseLoopback(t)
	here := netip.MustParseAddr("127.0.0.50")
	deferred := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		return errors.Join(raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_DEFER_ACCEPT, 60)
		}), err)
	}}
	l, err := deferred.Listen(t.Context(), "tcp", netip.AddrPortFrom(here, 0).String())
	must(t, err)
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	defer client.Close()
	n, err := Connections([]netip.Addr{here})
	must(t, err)
	if n != 1 {
		t.Fatalf("%d connections, want 1", n)
	}
}
