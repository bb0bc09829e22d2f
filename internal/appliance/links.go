package appliance

import (
	"context"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/link"
)

// watchPause is the time between a failure to watch interfaces and the next
// attempt.
const watchPause = time.Second

// links watches the interfaces that the current configuration depends on. It
// belongs to the goroutine of Run.
type links struct {
	names []string // sorted
	stop  context.CancelFunc
	done  chan struct{}
}

// watch makes names the interfaces that are watched; none ends the watching.
func (a *Appliance) watch(names []string) {
	slices.Sort(names)
	names = slices.Compact(names)
	if slices.Equal(names, a.links.names) {
		return
	}
	if a.links.stop != nil {
		a.links.stop()
		<-a.links.done
	}
	a.links = links{names: names}
	if len(names) == 0 {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	a.links.stop, a.links.done = stop, make(chan struct{})
	go func(done chan<- struct{}) {
		defer close(done)
		keepWatching(ctx, a.log, link.Watch, names, a.wire.link)
	}(a.links.done)
}

// watchLinks is link.Watch.
type watchLinks func(ctx context.Context, names []string, report func(iface string, up bool, reason string)) error

// keepWatching tells report why each interface cannot be used, or an empty
// reason, at once and with every change, until ctx ends. While nothing can be
// watched no interface can be used: blind to its links, the node must not be the
// one that serves.
func keepWatching(ctx context.Context, log zerolog.Logger, watch watchLinks, names []string, report func(iface, down string)) {
	said := ""
	for {
		// It begins with the present state of each, which ends the fault below.
		err := watch(ctx, names, func(iface string, _ bool, reason string) {
			report(iface, reason)
			said = ""
		})
		if err == nil {
			return
		}
		why := "cannot be watched: " + err.Error()
		if why != said {
			log.Error().Err(err).Strs("interfaces", names).Msg("interfaces cannot be watched; trying again every second")
			said = why
		}
		for _, name := range names {
			report(name, why)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(watchPause):
		}
	}
}

// interfaces returns the names of all interfaces that the setup depends on.
func (s *setup) interfaces() []string {
	var names []string
	for i, m := range s.routers {
		names = append(names, m.config.Interface)
		for _, t := range s.node.VRRP[i].Track {
			if t.Interface != "" {
				names = append(names, t.Interface)
			}
		}
	}
	return names
}
