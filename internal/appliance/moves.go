package appliance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"appliance/internal/control"
	"appliance/internal/peer"
	"appliance/vrrp"
)

// maxDrain is the longest drain of a command: new clients wait for its end.
const maxDrain = 5 * time.Minute

// failover gives away the addresses of the named instance, or of all that are
// active here. What is active on the other node is left to that one, where there
// is a link to it.
func (a *Appliance) failover(ctx context.Context, r control.MoveRequest) ([]control.MoveResult, error) {
	if node := a.activeElsewhere(r.VRRP); node != "" {
		return a.forward(ctx, node, moveCall{MoveRequest: r})
	}
	return a.give(ctx, moveCall{MoveRequest: r, By: control.Caller(ctx)})
}

// give gives away what is active here; back to another node only what that one
// has yielded.
func (a *Appliance) give(ctx context.Context, c moveCall) ([]control.MoveResult, error) {
	move := vrrp.Move{By: c.By, Reason: c.Reason, Back: c.Back, Force: c.Force}
	if c.Drain != "" {
		d, err := time.ParseDuration(c.Drain)
		if err != nil || d < 0 || d > maxDrain {
			return nil, &control.Error{Status: http.StatusBadRequest, Message: fmt.Sprintf("%q is no time to drain, which is 0s to 5m", c.Drain)}
		}
		move.Drain = &d
	}
	return a.move(ctx, c.MoveRequest, "is active here", func(router *vrrp.Router, ctx context.Context) (vrrp.Outcome, error) {
		return router.Failover(ctx, move)
	}, func(s vrrp.Status) bool {
		// What goes back is what came from there, not what was here all along.
		return s.State == vrrp.Active && (!c.Back || a.otherYielded(s.Name))
	})
}

// failback takes back the addresses of the named instance, or of all that
// yielded, here or on the other node. Where there is a link, the active node
// gives them as in a failover.
func (a *Appliance) failback(ctx context.Context, r control.MoveRequest) ([]control.MoveResult, error) {
	back, yielded := moveCall{MoveRequest: r, Back: true}, false
	for _, m := range a.current.Load().routers {
		if !m.router.Status().Yielded || r.VRRP != "" && r.VRRP != m.config.Name {
			continue
		}
		yielded = true
		if node := a.activeElsewhere(m.config.Name); node != "" {
			return a.forward(ctx, node, back)
		}
	}
	if !yielded && a.otherYielded(r.VRRP) {
		back.By = control.Caller(ctx)
		return a.give(ctx, back)
	}
	if r.Drain != "" || r.Force {
		return nil, errors.New("without a peer link failback takes the addresses at once: it knows neither drain nor force")
	}
	return a.move(ctx, r, "has yielded", func(router *vrrp.Router, ctx context.Context) (vrrp.Outcome, error) {
		return router.Failback(ctx, control.Caller(ctx))
	}, func(s vrrp.Status) bool { return s.Yielded })
}

// activeElsewhere returns the node that says by the link that it is active in the
// named instance, or in any if name is empty, provided that this node is not.
func (a *Appliance) activeElsewhere(name string) (node string) {
	for _, m := range a.current.Load().routers {
		if name != "" && m.config.Name != name {
			continue
		}
		if m.router.Status().State == vrrp.Active {
			return ""
		}
		for _, s := range a.peers.statuses() {
			r := counterpart(m, s.Report.Routers)
			if node == "" && s.State == peer.Up && r != nil && r.State == vrrp.Active.String() {
				node = s.Node
			}
		}
	}
	return node
}

// otherYielded says whether another node has given the named instance, or any if
// name is empty, to this one.
func (a *Appliance) otherYielded(name string) bool {
	for _, m := range a.current.Load().routers {
		if m.router.Status().State != vrrp.Active || name != "" && m.config.Name != name {
			continue
		}
		for _, s := range a.peers.statuses() {
			if r := counterpart(m, s.Report.Routers); s.State == peer.Up && r != nil && r.Yielded {
				return true
			}
		}
	}
	return false
}

// forward has another node carry a move out.
func (a *Appliance) forward(ctx context.Context, node string, c moveCall) ([]control.MoveResult, error) {
	c.By = strings.TrimSpace(control.Caller(ctx) + " on " + a.current.Load().node.Name)
	var results []control.MoveResult
	err := a.peers.call(ctx, node, verbMove, c, &results)
	return results, err
}
