package link

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// WatchRemovals calls gone for every address that is taken off an interface,
// whoever does it, until ctx ends. It begins with the zero address, which says that
// any may have gone unseen, and says so again where the kernel could not keep pace.
// gone runs on the goroutine of WatchRemovals. The error is nil when ctx ended, else
// why nothing can be watched.
func WatchRemovals(ctx context.Context, gone func(netip.Addr)) error {
	for {
		err := watchRemovals(ctx, gone)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watch addresses: %w", err)
		}
	}
}

// watchRemovals watches with one subscription until that or ctx ends. The kernel
// ends the one of a subscriber that is too slow.
func watchRemovals(ctx context.Context, gone func(netip.Addr)) error {
	// The goroutine that netlink starts ends by closing updates.
	updates, done := make(chan netlink.AddrUpdate), make(chan struct{})
	if err := netlink.AddrSubscribeWithOptions(updates, done, netlink.AddrSubscribeOptions{
		ErrorCallback: func(error) {}, // it closes updates as well, and that is what counts
	}); err != nil {
		return err
	}
	defer func() {
		close(done)
		for range updates {
		}
	}()
	gone(netip.Addr{})
	for {
		select {
		case <-ctx.Done():
			return nil
		case u, ok := <-updates:
			if !ok {
				return nil
			}
			if address, valid := netip.AddrFromSlice(u.LinkAddress.IP); valid && !u.NewAddr {
				gone(address.Unmap())
			}
		}
	}
}
