package link

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What is listed is whole, though others add and remove addresses meanwhile.
func TestListsWhileOthersChangeThem(t *testing.T) {
	privateNamespace(t)
	v0, _ := vethPair(t)
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	must(t, err)
	defer handle.Close()
	changes, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	must(t, err)
	defer changes.Close()
	address := func(i int) *netlink.Addr {
		a, err := netlink.ParseAddr(fmt.Sprintf("10.77.%d.%d/32", i/250, i%250))
		must(t, err)
		return a
	}
	const addresses = 800
	for i := range addresses { // more than come at a time
		must(t, handle.AddrAdd(v0, address(i)))
	}
	var over atomic.Bool
	var changing sync.WaitGroup
	defer changing.Wait()
	defer over.Store(true)
	last := address(addresses)
	changing.Go(func() {
		for ; !over.Load(); time.Sleep(time.Millisecond) {
			if err := changes.AddrAdd(v0, last); err != nil {
				t.Error(err)
			}
			if err := changes.AddrDel(v0, last); err != nil {
				t.Error(err)
			}
		}
	})
	for range 300 {
		list, err := listAddresses(handle, v0, netlink.FAMILY_V4)
		if err != nil || len(list) < addresses+1 {
			t.Fatalf("%d addresses, %v", len(list), err)
		}
	}
}
