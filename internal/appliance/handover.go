package appliance

import (
	"context"
	"net/netip"
	"time"

	"github.com/rs/zerolog"

	"appliance/vrrp"
)

// The pace at which Hold looks whether connections have ended, and how long it
// stays after the last one: an answer that was written may not have left the
// host yet when the connection that carried it is closed.
const (
	holdPace   = 5 * time.Millisecond
	holdLinger = 20 * time.Millisecond
)

// traffic lets the connections to a router's addresses end before the
// addresses go, so that a planned hand-over breaks none that is short. New
// clients are left unanswered meanwhile: they repeat their SYN after a second
// and reach the new node, instead of being refused by one or reset by the
// other.
type traffic struct {
	parts *Appliance
	vips  func() []netip.Addr
	log   zerolog.Logger
	held  []netip.Addr
}

// Hold holds new connections off and returns when none is under way any more,
// or ctx ends.
func (t *traffic) Hold(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.parts.patience, cancel)()
	t.held = t.vips()
	if err := t.parts.listeners.Hold(t.held, true); err != nil {
		t.log.Warn().Err(err).Msg("new connections could not be held off; some may be reset by the hand-over")
	}
	t.parts.l7.Quiesce(t.held, true)
	if !waitFor(ctx, holdPace, func() bool { return t.underWay() == 0 }) {
		t.log.Warn().Int("connections", t.underWay()).Msg("the drain is over before the connections are")
		return
	}
	waitFor(ctx, holdLinger, func() bool { return t.underWay() == 0 })
}

// Resume lets new connections in again.
func (t *traffic) Resume() {
	if err := t.parts.listeners.Hold(t.held, false); err != nil {
		t.log.Error().Err(err).Msg("listeners stay silent; restart the appliance")
	}
	t.parts.l7.Quiesce(t.held, false)
}

func (t *traffic) underWay() int {
	return t.parts.l4.Active(t.held) + t.parts.l7.Active(t.held)
}

// severing is a router's addresses together with the connections made to them,
// which end before the address goes: afterwards no packet could tell a client,
// and one that only waits for an answer would wait for hours.
type severing struct {
	vrrp.Addresses
	cut func(vips []netip.Addr) int
	log zerolog.Logger
}

// Release resets the connections to addresses and takes those off.
func (s severing) Release(addresses []netip.Prefix) error {
	if n := s.cut(vipsOf(addresses)); n > 0 {
		s.log.Warn().Int("connections", n).Stringers("addresses", stringers(addresses)).
			Msg("cut the connections to addresses that go from this node")
	}
	return s.Addresses.Release(addresses)
}

// waitFor waits for pace and asks, until the answer is yes or ctx ends.
func waitFor(ctx context.Context, pace time.Duration, done func() bool) bool {
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return done()
		case <-ticker.C:
			if done() {
				return true
			}
		}
	}
}
