package appliance

import (
	"context"
	"slices"

	"appliance/internal/link"
)

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
	go a.watchLinks(ctx, names, a.links.done)
}

func (a *Appliance) watchLinks(ctx context.Context, names []string, done chan<- struct{}) {
	defer close(done)
	err := link.Watch(ctx, names, func(iface string, _ bool, reason string) { a.wire.link(iface, reason) })
	if err == nil {
		return
	}
	// Blind to its links, the node must not be the one that serves.
	a.log.Error().Err(err).Msg("interfaces cannot be watched; restart the appliance")
	for _, name := range names {
		a.wire.link(name, "cannot be watched: "+err.Error())
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
