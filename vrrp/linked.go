package vrrp

import (
	"context"
	"net/netip"
	"time"
)

// PeerLink is how a Router speaks to the other nodes.
type PeerLink interface {
	// Ask has a node report at once; it must not block.
	Ask(node string)
	// Offer asks a node to take over, and returns when it has announced the
	// addresses, or with why it has not. ctx bounds that.
	Offer(ctx context.Context, node, reason string) error
	// AskYield asks a node to give its addresses to this one, and does not wait
	// for what comes of it.
	AskYield(node string)
}

// Report tells the router of another node, by the link to it.
func (r *Router) Report(p PeerReport) { r.post(p) }

// TakeOver makes a backup active because node gives the addresses to it for a
// reason in words, and returns when they are announced. ErrRefused is in the
// error if this router is no backup. When ctx ends first, the addresses are left
// to node again.
func (r *Router) TakeOver(ctx context.Context, node, reason string) (Outcome, error) {
	var id uint64
	given := make(chan struct{})
	o, err := r.command(ctx, func(n uint64) Event {
		if ctx.Err() != nil {
			return TakeOver{ID: n} // nobody waits: it is refused
		}
		id = n
		close(given)
		return TakeOver{ID: n, Node: node, Reason: reason}
	})
	if ctx.Err() != nil {
		select {
		case <-given:
			r.post(Withdrawn{ID: id})
		default: // the router has not heard of it yet
		}
	}
	return o, err
}

// offer carries an Offer out.
func (r *Router) offer(a Offer) {
	if r.hooks.Peer == nil {
		r.asides.Go(func() { r.post(Offered{ID: a.ID, Err: ErrStopped}) })
		return
	}
	// Whoever learns of the offer must not see an older Status.
	r.publish()
	r.asides.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), OfferTime)
		defer cancel()
		r.post(Offered{ID: a.ID, Err: r.hooks.Peer.Offer(ctx, a.Node, a.Reason)})
	})
}

// reportAlarm tells of an alarm.
func (r *Router) reportAlarm(a Alarm) {
	r.tell(a)
	if a.Reason == "" {
		r.log.Info().Str("alarm", a.Name).Msg("the alarm is over")
		return
	}
	n, ok := r.logged.allow(time.Now(), "alarm "+a.Name)
	if ok {
		r.log.Warn().Str("alarm", a.Name).Str("reason", a.Reason).Int("not_logged", n).Msg("alarm")
	}
}

// headline is what others want to know of at once.
type headline struct {
	state                 State
	source                netip.Addr
	base, effective       int
	yielded, draining     bool
	demotions, faultCount int
}

func (s *Status) headline() headline {
	return headline{s.State, s.Source, s.Base, s.Effective, s.Yielded, s.Draining, len(s.Demotions), len(s.Faults)}
}
