package link

import (
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// privateNamespace moves the test into a network namespace of its own. The
// thread stays locked to the test's goroutine and ends with it, and with the
// thread the namespace. Where that is not permitted the test is skipped, but in
// CI it fails.
func privateNamespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no network namespace of its own: %v", err)
		}
		t.Skipf("no network namespace of its own: %v", err)
	}
}

// vethPair makes a pair of interfaces that are up, with the address
// 10.9.0.1/24 on v0 and 10.9.0.2/24 on v1.
func vethPair(t *testing.T) (v0, v1 netlink.Link) {
	t.Helper()
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "v0"}, PeerName: "v1"}
	must(t, netlink.LinkAdd(pair))
	for name, address := range map[string]string{"v0": "10.9.0.1/24", "v1": "10.9.0.2/24"} {
		l, err := netlink.LinkByName(name)
		must(t, err)
		a, err := netlink.ParseAddr(address)
		must(t, err)
		must(t, netlink.AddrAdd(l, a))
		must(t, netlink.LinkSetUp(l))
	}
	v0, err := netlink.LinkByName("v0")
	must(t, err)
	v1, err = netlink.LinkByName("v1")
	must(t, err)
	return v0, v1
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually asks until is says yes, for at most d.
func eventually(t *testing.T, d time.Duration, what string, is func() bool) {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(d); !is(); <-ticker.C {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, d)
		}
	}
}
