package link

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

func TestWatch(t *testing.T) {
	privateNamespace(t)
	v0, v1 := vethPair(t)
	space, err := netns.Get()
	must(t, err)
	defer space.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	reports, ended := make(chan string, 100), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends in the namespace
		if err := netns.Set(space); err != nil {
			ended <- err
			return
		}
		ended <- Watch(ctx, []string{"v0", "later", "v0"}, func(ifname string, up bool, reason string) {
			reports <- fmt.Sprintf("%s %t %s", ifname, up, reason)
		})
	}()
	expect := func(want ...string) {
		t.Helper()
		timeout := time.After(5 * time.Second)
		for _, w := range want {
			select {
			case got := <-reports:
				if got != w {
					t.Fatalf("got %q, want %q", got, w)
				}
			case err := <-ended:
				t.Fatalf("ended: %v", err)
			case <-timeout:
				t.Fatalf("no report %q", w)
			}
		}
	}
	// Each change is waited for before the next one is made.
	expect("later false the interface does not exist", "v0 true ")
	must(t, netlink.LinkSetDown(v1))
	expect("v0 false the interface has no carrier")
	must(t, netlink.LinkSetUp(v1))
	expect("v0 true ")
	must(t, netlink.LinkSetDown(v0))
	expect("v0 false the interface is administratively down")
	must(t, netlink.LinkSetUp(v0))
	expect("v0 true ")
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "later"}}))
	expect("later false the interface is administratively down")
	must(t, netlink.LinkDel(v0))
	expect("v0 false the interface does not exist")
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("%v", err)
	}
}

func TestWatchTellsOfAReplacedInterface(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair(t)
	handle, err := netlink.NewHandle()
	must(t, err)
	defer handle.Close()
	var reports []string
	w := watcher{handle: handle, names: []string{"v0"}, known: make(map[string]linkState),
		report: func(ifname string, up bool, reason string) {
			reports = append(reports, fmt.Sprintf("%s %t %s", ifname, up, reason))
		}}
	must(t, w.look())
	must(t, w.look())
	must(t, netlink.LinkDel(v0))
	vethPair(t)
	must(t, w.look())
	if want := []string{"v0 true ", "v0 false the interface was replaced", "v0 true "}; !slices.Equal(reports, want) {
		t.Errorf("reports %q, want %q", reports, want)
	}
}
