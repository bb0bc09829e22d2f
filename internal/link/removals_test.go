package link

import (
	"context"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

func TestWatchRemovals(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair(t)
	space, err := netns.Get()
	must(t, err)
	defer space.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	gone, ended := make(chan netip.Addr, 100), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends in the namespace
		if err := netns.Set(space); err != nil {
			ended <- err
			return
		}
		ended <- WatchRemovals(ctx, func(a netip.Addr) { gone <- a })
	}()
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-gone:
			if got.String() != want {
				t.Fatalf("%s is gone, want %s", got, want)
			}
		case err := <-ended:
			t.Fatalf("ended: %v", err)
		case <-time.After(5 * time.Second):
			t.Fatalf("nobody saw %s go", want)
		}
	}
	expect("invalid IP") // the beginning
	a := newAddresses(t, "v0")
	acquire(t, a, vips("10.9.0.50/24"))
	acquire(t, a, vips("10.9.0.50/24")) // a renewal removes nothing
	v6, err := netlink.ParseAddr("fd00::50/64")
	must(t, err)
	must(t, netlink.AddrAdd(v0, v6))
	must(t, netlink.AddrDel(v0, v6))
	expect("fd00::50")
	must(t, a.Release(vips("10.9.0.50/24")))
	expect("10.9.0.50")
	acquire(t, a, vips("10.9.0.51/24"))
	expect("10.9.0.51") // its lease ends
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
