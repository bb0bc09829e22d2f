package appliance

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"appliance/internal/link"
)

// watchAgain is the time between the end of a watch, because its interface went
// for example, and the next attempt.
const watchAgain = 250 * time.Millisecond

// watchRemovals has the routers look after their addresses whenever somebody
// takes one off an interface, until ctx ends.
func (a *Appliance) watchRemovals(ctx context.Context) {
	a.again(ctx, "removals of addresses", func() error { return link.WatchRemovals(ctx, a.removed) })
}

// removed tells the routers that address has gone from an interface: by their own
// doing, which they know, or by somebody else's. The zero address may be any.
func (a *Appliance) removed(address netip.Addr) {
	for _, m := range a.current.Load().routers {
		if !address.IsValid() || slices.Contains(*m.vips.Load(), address) {
			m.router.Recheck()
		}
	}
}

// watchClaims tells m's router which other stations claim its addresses, until
// ctx ends.
func (a *Appliance) watchClaims(ctx context.Context, m *member) {
	a.again(ctx, "claims to the addresses of vrrp "+m.config.Name, func() error {
		watching, end := context.WithCancel(ctx)
		var waiting sync.WaitGroup
		defer waiting.Wait()
		defer end()
		waiting.Go(func() {
			select {
			case <-m.moved:
				end()
			case <-watching.Done():
			}
		})
		// The virtual MAC address is nobody else's, whichever node has it now.
		own := []net.HardwareAddr{virtualMAC(m.config)}
		return link.WatchClaims(watching, m.config.Interface, *m.vips.Load(), own, func(c link.Claim) {
			m.router.Claimed(c.Address, c.MAC.String(), c.Count)
		})
	})
}

// again has what watched until ctx ends. A failure is logged once; the links are
// watched for their own sake, so nobody needs to hear here that one is gone.
func (a *Appliance) again(ctx context.Context, what string, watch func() error) {
	said := ""
	for ctx.Err() == nil {
		err := watch()
		if err == nil {
			continue // ctx has ended, or there is something else to watch
		}
		if !link.IsAbsent(err) && err.Error() != said {
			said = err.Error()
			a.log.Warn().Err(err).Msgf("cannot watch %s; trying again", what)
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchAgain):
		}
	}
}
