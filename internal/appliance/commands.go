package appliance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"appliance/internal/control"
	"appliance/internal/events"
	"appliance/internal/pool"
	"appliance/vrrp"
)

// backend returns the functions behind the control socket.
func (a *Appliance) backend() control.Backend {
	return control.Backend{
		Status:    a.status,
		Failover:  a.failover,
		Failback:  a.failback,
		Reload:    a.requestReload,
		Reopen:    a.l7.ReopenLogs,
		SetServer: a.setServer,
		Sessions:  a.sessions,
		Cut:       a.cutSessions,
		Events:    a.history.After,
	}
}

// requestReload has the goroutine of Run reload, and waits for the outcome.
func (a *Appliance) requestReload(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case a.reloads <- reloadRequest{by(ctx), done}:
	case <-a.stopping:
		return errors.New("this node is stopping")
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// setServer sets a server's administrative state.
func (a *Appliance) setServer(ctx context.Context, r control.ServerRequest) error {
	if r.State == "reset" {
		return a.resetServers(ctx, r)
	}
	p := a.current.Load().pools[r.Pool]
	if p == nil {
		return &control.Error{Status: http.StatusNotFound, Message: fmt.Sprintf("there is no pool %q", r.Pool)}
	}
	var state pool.Admin
	if err := state.UnmarshalText([]byte(r.State)); err != nil {
		return &control.Error{Status: http.StatusBadRequest, Message: err.Error()}
	}
	if err := p.SetAdmin(r.Server, state); err != nil {
		return &control.Error{Status: http.StatusNotFound, Message: err.Error()}
	}
	a.log.Info().Str("pool", r.Pool).Str("server", r.Server).Str("state", r.State).Msg("server state set by command")
	text := "set to " + r.State + by(ctx)
	if err := a.keepWishes(a.current.Load().pools); err != nil {
		text += ", until the process ends: " + err.Error()
	}
	a.history.Add(events.Command, "server "+r.Pool+"/"+r.Server, text, "state", r.State)
	a.wire.poke()
	return nil
}

// keepWishes keeps what is set of servers for the next process; what keeps it from
// that is logged.
func (a *Appliance) keepWishes(pools map[string]*pool.Pool) error {
	err := a.wishes.keep(pools)
	if err != nil {
		a.log.Error().Err(err).Msg("the states of servers end with this process: they cannot be written down")
	}
	return err
}

// move carries out a command on the named instance, or else on all that fit,
// at the same time.
func (a *Appliance) move(ctx context.Context, r control.MoveRequest, condition string,
	command func(*vrrp.Router, context.Context) (vrrp.Outcome, error), fits func(vrrp.Status) bool) ([]control.MoveResult, error) {
	members, err := a.choose(r.VRRP, condition, fits)
	if err != nil {
		return nil, err
	}
	results := make([]control.MoveResult, len(members))
	var all sync.WaitGroup
	for i, m := range members {
		all.Go(func() { results[i] = a.moveOne(ctx, m, command) })
	}
	all.Wait()
	var errs []error
	for _, r := range results {
		if r.Error != "" {
			errs = append(errs, fmt.Errorf("%s: %s", r.VRRP, r.Error))
		}
	}
	if len(errs) == len(results) {
		return nil, errors.Join(errs...)
	}
	return results, nil // some moved: the caller must hear of each
}

func (a *Appliance) moveOne(ctx context.Context, m *member, command func(*vrrp.Router, context.Context) (vrrp.Outcome, error)) control.MoveResult {
	begun := time.Now()
	outcome, err := command(m.router, ctx)
	r := control.MoveResult{VRRP: m.config.Name, Seconds: time.Since(begun).Seconds()}
	if err != nil {
		r.Error = err.Error()
		return r
	}
	if d := m.traffic.drained.Load(); d != nil {
		r.Connections, r.Lingering, r.NotLingering = d.moved, d.lingering, d.alone
	}
	r.Active, r.ActiveNode = outcome.Active.String(), a.nodeAt(m, m.router.Status().Source, outcome.Active)
	return r
}

// nodeAt returns the name of the node with that address on m's LAN, where this
// one has the address own; empty if the file names none.
func (a *Appliance) nodeAt(m *member, own, address netip.Addr) string {
	if address == own {
		return a.current.Load().node.Name
	}
	for _, p := range m.config.Peers {
		if p.Address == address {
			return p.Name
		}
	}
	// Over IPv6 nodes are known by link-local addresses, which the file has not.
	if address.Is6() && address.IsLinkLocalUnicast() && len(m.config.Peers) == 1 {
		return m.config.Peers[0].Name
	}
	// Its adverts may leave from another one of its addresses.
	for _, s := range a.peers.statuses() {
		if r := counterpart(m, s.Report.Routers); r != nil && r.Source == address.String() {
			return s.Node
		}
	}
	return ""
}

// stateWords says what a router is, and who is active instead.
func (a *Appliance) stateWords(m *member, s vrrp.Status) string {
	words := fmt.Sprintf("%s is %s", m.config.Name, s.State)
	if s.State == vrrp.Active || !s.Active.Address.IsValid() {
		return words
	}
	other := s.Active.Address.String()
	if name := a.nodeAt(m, s.Source, s.Active.Address); name != "" {
		other = name + " (" + other + ")"
	}
	return words + ", " + other + " is active"
}

// choose returns the routers that a command is meant for.
func (a *Appliance) choose(name, condition string, fits func(vrrp.Status) bool) ([]*member, error) {
	var chosen []*member
	var states []string
	for _, m := range a.current.Load().routers {
		s := m.router.Status()
		if m.config.Name == name {
			// The router itself says why if it cannot.
			return []*member{m}, nil
		}
		if name == "" && fits(s) {
			chosen = append(chosen, m)
		}
		states = append(states, a.stateWords(m, s))
	}
	switch {
	case name != "":
		return nil, &control.Error{Status: http.StatusNotFound, Message: fmt.Sprintf("there is no vrrp %q", name)}
	case len(states) == 0:
		return nil, errors.New("the file has no [[vrrp]]")
	case len(chosen) == 0:
		return nil, fmt.Errorf("no virtual router %s: %s", condition, strings.Join(states, "; "))
	}
	return chosen, nil
}
