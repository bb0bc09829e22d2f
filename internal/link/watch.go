package link

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// errSubscription is why Watch subscribes again.
var errSubscription = errors.New("the netlink subscription ended")

// Watch reports whether each of the interfaces names exists, is up and has a
// carrier: the present state at once, then every change, until ctx ends. report
// runs on the goroutine of Watch; reason says in words why an interface is not
// up and is empty if it is. An interface that was replaced by another of its
// name is reported down and up again, because sockets bound to the old one are
// dead. The error is nil when ctx ended, else why nothing can be watched.
func Watch(ctx context.Context, names []string, report func(ifname string, up bool, reason string)) error {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("watch interfaces: open netlink: %w", err)
	}
	defer handle.Close()
	w := watcher{handle: handle, names: slices.Compact(slices.Sorted(slices.Values(names))), report: report, known: make(map[string]linkState)}
	for {
		err := w.run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		// The kernel drops a subscriber that is too slow. Nothing is lost: the
		// next one begins with a look at everything.
		if !errors.Is(err, errSubscription) {
			return fmt.Errorf("watch interfaces: %w", err)
		}
	}
}

// linkState is what is known of one interface.
type linkState struct {
	index  int // 0 when it does not exist
	reason string
}

// watcher belongs to the goroutine of Watch.
type watcher struct {
	handle *netlink.Handle
	names  []string
	report func(ifname string, up bool, reason string)
	known  map[string]linkState
}

// run watches with one subscription until that or ctx ends.
func (w *watcher) run(ctx context.Context) error {
	// The goroutine that netlink starts ends by closing updates.
	updates, done := make(chan netlink.LinkUpdate), make(chan struct{})
	if err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{
		ErrorCallback: func(error) {}, // it closes updates as well, and that is what counts
	}); err != nil {
		return err
	}
	defer func() {
		close(done)
		for range updates {
		}
	}()
	// Only now, so that no change falls between the look and the subscription.
	if err := w.look(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-updates:
			if !ok {
				return errSubscription
			}
			// An update is a hint to look: its own content is older than that.
			if err := w.look(); err != nil {
				return err
			}
		}
	}
}

// look reports what has changed.
func (w *watcher) look() error {
	for _, name := range w.names {
		state, err := w.state(name)
		if err != nil {
			return err
		}
		old, seen := w.known[name]
		if seen && old == state {
			continue
		}
		w.known[name] = state
		if seen && old.reason == "" && state.reason == "" {
			w.report(name, false, errReplaced.Error())
		}
		w.report(name, state.reason == "", state.reason)
	}
	return nil
}

// state asks the kernel.
func (w *watcher) state(name string) (linkState, error) {
	l, err := findLink(w.handle, name)
	if errors.Is(err, errMissing) {
		return linkState{reason: err.Error()}, nil
	} else if err != nil {
		return linkState{}, fmt.Errorf("interface %s: %w", name, err)
	}
	attrs := l.Attrs()
	s := linkState{index: attrs.Index}
	switch {
	case attrs.RawFlags&unix.IFF_UP == 0:
		s.reason = errDown.Error()
	case attrs.RawFlags&unix.IFF_LOWER_UP == 0:
		s.reason = errNoCarrier.Error()
	}
	return s, nil
}
