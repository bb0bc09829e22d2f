package link

import (
	"bytes"
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

func vips(addresses ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range addresses {
		out = append(out, netip.MustParsePrefix(a))
	}
	return out
}

func newAddresses(t *testing.T, ifname string) *Addresses {
	t.Helper()
	a, err := NewAddresses(ifname, 2*time.Second)
	must(t, err)
	t.Cleanup(a.Close)
	return a
}

// on returns the addresses of l but for the one it was made with.
func on(t *testing.T, l netlink.Link) []netip.Prefix {
	t.Helper()
	list, err := netlink.AddrList(l, netlink.FAMILY_V4)
	must(t, err)
	var out []netip.Prefix
	for _, a := range list {
		if p, ok := prefixOf(a); ok && p.Addr() != netip.MustParseAddr("10.9.0.1") {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// acquire acquires and returns what was not there.
func acquire(t *testing.T, a *Addresses, addresses []netip.Prefix) []netip.Prefix {
	t.Helper()
	added, err := a.Acquire(addresses)
	must(t, err)
	return added
}

// What somebody else removed is told from what is only renewed.
func TestAcquireTellsWhatWasMissing(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair(t)
	a := newAddresses(t, "v0")
	both := vips("10.9.0.50/24", "10.9.0.51/24")
	if added := acquire(t, a, both); !slices.Equal(added, both) {
		t.Errorf("at first: %s", added)
	}
	if added := acquire(t, a, both); len(added) > 0 {
		t.Errorf("renewed: %s", added)
	}
	must(t, netlink.AddrDel(v0, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 9, 0, 51), Mask: net.CIDRMask(24, 32)}}))
	if added := acquire(t, a, both); !slices.Equal(added, both[1:]) {
		t.Errorf("after one was removed: %s", added)
	}
	if got := on(t, v0); len(got) != 2 {
		t.Errorf("on the interface: %s", got)
	}
}

func TestAcquiredAddressWorksAtOnceAndIsGoneAfterRelease(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair(t)
	a := newAddresses(t, "v0")
	want := vips("10.9.0.50/24", "10.9.0.51/32")
	acquire(t, a, want)
	if got := on(t, v0); !slices.Equal(got, want) {
		t.Fatalf("on the interface: %s", got)
	}
	for _, p := range want {
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.Addr(), 0)))
		if err != nil {
			t.Fatalf("%s does not work: %v", p, err)
		}
		c.Close()
	}
	must(t, a.Release(want))
	if got := on(t, v0); len(got) > 0 {
		t.Errorf("left: %s", got)
	}
	must(t, a.Release(want)) // missing is no error
}

func TestAddressGoesByItselfUnlessRenewed(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair(t)
	a := newAddresses(t, "v0")
	kept, lost := vips("10.9.0.50/24"), vips("10.9.0.51/24")
	acquire(t, a, append(kept, lost...))
	start := time.Now()
	eventually(t, 5*time.Second, "the address goes", func() bool {
		acquire(t, a, kept)
		return slices.Equal(on(t, v0), kept)
	})
	if took := time.Since(start); took < 900*time.Millisecond || took > 3500*time.Millisecond {
		t.Errorf("it went after %s", took)
	}
}

func TestLifetimeIsTheLease(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair(t)
	acquire(t, newAddresses(t, "v0"), vips("10.9.0.50/24"))
	list, err := netlink.AddrList(v0, netlink.FAMILY_V4)
	must(t, err)
	for _, a := range list {
		if a.IP.Equal(net.IPv4(10, 9, 0, 50)) {
			if a.ValidLft < 1 || a.ValidLft > 2 || a.PreferedLft > 2 {
				t.Errorf("valid for %d s, preferred for %d s", a.ValidLft, a.PreferedLft)
			}
			return
		}
	}
	t.Error("no address")
}

func TestSweepTakesOnlyWhatIsListed(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair(t)
	for _, s := range []string{"10.9.0.50/24", "10.9.0.60/24"} {
		a, err := netlink.ParseAddr(s)
		must(t, err)
		must(t, netlink.AddrAdd(v0, a))
	}
	swept, err := newAddresses(t, "v0").Sweep(vips("10.9.0.50/24", "10.9.0.51/24"))
	must(t, err)
	if !slices.Equal(swept, vips("10.9.0.50/24")) || !slices.Equal(on(t, v0), vips("10.9.0.60/24")) {
		t.Errorf("swept %s, left %s", swept, on(t, v0))
	}
}

func TestMissingInterface(t *testing.T) {
	privateNamespace(t)
	a := newAddresses(t, "nowhere")
	if _, err := a.Acquire(vips("10.9.0.50/24")); err == nil {
		t.Error("acquired")
	}
	if err := a.Announce(vips("10.9.0.50/24")); err == nil {
		t.Error("announced")
	}
	must(t, a.Release(vips("10.9.0.50/24")))
	swept, err := a.Sweep(vips("10.9.0.50/24"))
	if len(swept) > 0 || err != nil {
		t.Errorf("swept %s, %v", swept, err)
	}
}

func TestReplacedInterfaceIsFollowed(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair(t)
	a := newAddresses(t, "v0")
	acquire(t, a, vips("10.9.0.50/24"))
	must(t, netlink.LinkDel(v0))
	v0, _ = vethPair(t)
	acquire(t, a, vips("10.9.0.50/24"))
	if got := on(t, v0); len(got) != 1 {
		t.Errorf("on the interface: %s", got)
	}
}

func TestLeaseMustBeSeconds(t *testing.T) {
	for _, d := range []time.Duration{0, 500 * time.Millisecond, 1500 * time.Millisecond} {
		if a, err := NewAddresses("lo", d); err == nil {
			a.Close()
			t.Errorf("%s: no error", d)
		}
	}
}

func TestAnnounceSendsGratuitousARP(t *testing.T) {
	privateNamespace(t)
	v0, v1 := vethPair(t)
	conn, err := packet.Listen(&net.Interface{Index: v1.Attrs().Index}, packet.Raw, unix.ETH_P_ARP, nil)
	must(t, err)
	defer conn.Close()
	must(t, newAddresses(t, "v0").Announce(vips("10.9.0.50/24", "10.9.0.51/24")))
	must(t, conn.SetReadDeadline(time.Now().Add(2*time.Second)))
	buf := make([]byte, 1500)
	for _, want := range []string{"10.9.0.50", "10.9.0.51"} {
		n, _, err := conn.ReadFrom(buf)
		must(t, err)
		expect := appendGratuitousARP(nil, v0.Attrs().HardwareAddr, netip.MustParseAddr(want))
		if !bytes.Equal(buf[:n], expect) {
			t.Errorf("%s: % x", want, buf[:n])
		}
	}
}

func TestAnnounceLeavesNoSocketOpen(t *testing.T) {
	privateNamespace(t)
	vethPair(t)
	a := newAddresses(t, "v0")
	must(t, a.Announce(vips("10.9.0.50/24")))
	before := openFiles(t)
	for range 20 {
		must(t, a.Announce(vips("10.9.0.50/24")))
	}
	if after := openFiles(t); after > before+5 {
		t.Errorf("%d files open, %d before", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}
