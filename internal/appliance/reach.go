package appliance

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"appliance/health"
	"appliance/internal/config"
	"appliance/internal/endpoint"
)

// reachAgain is the time between two echo requests to a host that is asked in a
// hurry. On the LAN an answer takes less than a millisecond.
const reachAgain = 80 * time.Millisecond

// reached returns the check of the host that t names.
func reached(t config.Track) health.Target { return hostCheck(t.Reach) }

func hostCheck(host netip.Addr) health.Target {
	return config.ReachCheck().For(endpoint.IP(netip.AddrPortFrom(host, 0)))
}

// unanswering asks hosts whether they are there, and returns those that have not
// answered when ctx ends. Where this node cannot ask, nobody is missing.
func unanswering(ctx context.Context, hosts []netip.Addr) []netip.Addr {
	answered := make([]bool, len(hosts))
	var all sync.WaitGroup
	for i, host := range hosts {
		all.Go(func() { answered[i] = answers(ctx, hostCheck(host)) })
	}
	all.Wait()
	var missing []netip.Addr
	for i, host := range hosts {
		if !answered[i] {
			missing = append(missing, host)
		}
	}
	return slices.Clip(missing)
}

// answers asks a host until it answers or ctx ends.
func answers(ctx context.Context, target health.Target) bool {
	for ctx.Err() == nil {
		once, cancel := context.WithTimeout(ctx, reachAgain)
		state := health.Once(once, target)
		if state == health.Down {
			<-once.Done() // it may have failed at once, for want of a way
		}
		cancel()
		if state != health.Down {
			return true
		}
	}
	return false
}
