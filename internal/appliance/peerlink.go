package appliance

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"appliance/internal/config"
	"appliance/internal/control"
	"appliance/internal/events"
	"appliance/internal/peer"
	"appliance/vrrp"
)

// peerLink is this node's link to the others: it passes what they say on to the
// routers, and what those want to the others.
type peerLink struct {
	parts *Appliance
	// instance is another one for each life of the process.
	instance string
	mesh     atomic.Pointer[peer.Mesh] // nil while there is no link

	// Of the goroutine of Run:
	cfg   peer.Config // of mesh
	stop  context.CancelCauseFunc
	ended chan struct{}

	// mu orders what the routers are told.
	mu     sync.Mutex
	hashes map[string]string // by node, the file that was told to be another one

	asides sync.WaitGroup // calls that nobody waits for but end
}

var _ peer.Handler = (*peerLink)(nil)

func newPeerLink(a *Appliance) *peerLink {
	return &peerLink{parts: a, instance: rand.Text(), hashes: make(map[string]string)}
}

// stage returns the link that a configuration wants, nil for none.
func (l *peerLink) stage(node *config.PeerNode) (*peer.Mesh, peer.Config, error) {
	if node == nil || len(node.Peers) == 0 {
		return nil, peer.Config{}, nil
	}
	cfg := node.Config
	var err error
	if cfg.Secret, err = peer.ReadSecret(node.SecretFile); err != nil {
		return nil, cfg, fmt.Errorf("peer link: %w", err)
	}
	cfg.Instance = l.instance
	m, err := peer.New(cfg, l.report, l, l.parts.log)
	if err != nil {
		return nil, cfg, fmt.Errorf("peer link: %w", err)
	}
	m.OnBulk(l.parts.flows.arrived)
	return m, cfg, nil
}

// commit puts a link in force, unless it is the one that runs. The other nodes
// are told that this one will be back in a moment.
func (l *peerLink) commit(m *peer.Mesh, cfg peer.Config) {
	if m != nil && l.mesh.Load() != nil && reflect.DeepEqual(cfg, l.cfg) {
		return
	}
	l.end(errors.New("a reload has changed the peer link"))
	if m == nil {
		return
	}
	ctx, stop := context.WithCancelCause(context.Background())
	l.cfg, l.stop, l.ended = cfg, stop, make(chan struct{})
	l.mesh.Store(m)
	go func(ended chan<- struct{}) {
		defer close(ended)
		m.Run(ctx)
	}(l.ended)
}

// end ends the link for a cause; peer.ErrGoodbye tells the other nodes that this
// one has stopped.
func (l *peerLink) end(cause error) {
	if l.stop == nil {
		return
	}
	l.stop(cause)
	<-l.ended // which ends the calls
	l.mesh.Store(nil)
	l.asides.Wait()
	// Whatever it said must not be believed any longer.
	l.mu.Lock()
	defer l.mu.Unlock()
	for node := range l.cfg.Peers {
		l.tellLink(node, peer.Connecting, cause.Error())
		l.parts.flows.linkChanged(node, false)
	}
	l.stop = nil
}

// brief tells every router how the links stand, for those that are new, and looks
// whether the file that is in force now is the other nodes'.
func (l *peerLink) brief() {
	m := l.mesh.Load()
	if m == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range m.Status() {
		switch {
		case s.State == peer.Up && s.Reported.After(s.Since):
			l.tellReport(s.Node, s.Report)
			l.compareFiles(s.Node, s.Report.ConfigSHA256)
		case s.State != peer.Connecting:
			l.tellLink(s.Node, s.State, s.Reason)
		}
	}
}

// LinkChanged passes on what became of the link to a node.
func (l *peerLink) LinkChanged(node string, s peer.State, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parts.history.Add(events.PeerLink, "node "+node, fmt.Sprintf("peer link %s: %s", s, reason), "state", s.String())
	l.tellLink(node, s, reason)
	l.parts.flows.linkChanged(node, s == peer.Up)
}

func (l *peerLink) tellLink(node string, s peer.State, reason string) {
	for _, m := range l.parts.current.Load().routers {
		m.router.Report(vrrp.PeerReport{Node: node, Link: linkStates[s], Reason: reason})
	}
}

var linkStates = map[peer.State]vrrp.LinkState{
	peer.Connecting: vrrp.LinkNone,
	peer.Up:         vrrp.LinkUp,
	peer.Lost:       vrrp.LinkLost,
	peer.Died:       vrrp.LinkDied,
	peer.Goodbye:    vrrp.LinkGoodbye,
}

// Reported passes on what a node says of itself.
func (l *peerLink) Reported(node string, r peer.Report) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tellReport(node, r)
	l.compareFiles(node, r.ConfigSHA256)
}

func (l *peerLink) tellReport(node string, r peer.Report) {
	for _, m := range l.parts.current.Load().routers {
		p := vrrp.PeerReport{Node: node, Link: vrrp.LinkUp}
		if theirs := counterpart(m, r.Routers); theirs != nil {
			p = described(node, theirs)
		}
		m.router.Report(p)
	}
}

// compareFiles tells once when the other node runs another file.
func (l *peerLink) compareFiles(node, hash string) {
	ours := l.parts.current.Load().file
	if ours == nil {
		return
	}
	differs := hash != ours.Hash
	switch was := l.hashes[node]; {
	case differs && was != hash:
		l.hashes[node] = hash
		l.parts.log.Warn().Str("peer", node).Str("theirs", hash).Str("ours", ours.Hash).
			Msg("the other node runs another configuration file")
		l.parts.history.Add(events.Alarm, "node "+node, fmt.Sprintf("runs another configuration file: sha256 %.12s, here %.12s", hash, ours.Hash))
	case !differs && was != "":
		delete(l.hashes, node)
		l.parts.history.Add(events.AlarmEnd, "node "+node, "runs the same configuration file")
	}
}

// counterpart returns the other node's router for the same virtual addresses:
// the one of the same name, or else one that shares an address.
func counterpart(m *member, theirs []peer.Router) *peer.Router {
	for i := range theirs {
		if theirs[i].Name == m.config.Name {
			return &theirs[i]
		}
	}
	for i := range theirs {
		for _, text := range theirs[i].Addresses {
			p, err := netip.ParsePrefix(text)
			if err == nil && slices.Contains(vipsOf(m.config.Addresses), p.Addr()) {
				return &theirs[i]
			}
		}
	}
	return nil
}

// described is a router of another node in the words of the election.
func described(node string, r *peer.Router) vrrp.PeerReport {
	p := vrrp.PeerReport{Node: node, Link: vrrp.LinkUp, Known: true, Effective: r.Effective}
	switch r.State {
	case vrrp.Active.String():
		p.State = vrrp.Active
	case vrrp.Backup.String():
		p.State = vrrp.Backup
	}
	p.Source, _ = netip.ParseAddr(r.Source) // none is told while it does not listen
	var why []string
	for _, f := range r.Faults {
		why = append(why, "fault "+f.Source+": "+f.Reason)
	}
	for _, d := range r.Demotions {
		p.Demoted += d.Amount
		why = append(why, d.Source+": "+d.Reason)
	}
	p.Why = strings.Join(why, "; ")
	return p
}

// report is what this node says of itself.
func (l *peerLink) report() peer.Report {
	a := l.parts
	current, known := a.current.Load(), a.wire.known.Load()
	r := peer.Report{Version: a.options.Version}
	if current.file == nil {
		return r
	}
	r.ConfigSHA256 = current.file.Hash
	for _, m := range current.routers {
		router := reportRouter(m.router.Status(), time.Now())
		if d := m.lingering.describe(); d != nil {
			router.Lingering = d.Connections
		}
		r.Routers = append(r.Routers, router)
	}
	for _, s := range a.describeServices(current, known, &kernelView{placed: a.kernel.placements()}) {
		if len(s.Pools) == 0 && s.Fault == "" {
			continue // it only redirects
		}
		r.Services = append(r.Services, peer.Service{Name: s.Name, Usable: s.Usable, Fault: s.Fault, Path: s.Path})
	}
	return r
}

func reportRouter(s vrrp.Status, now time.Time) peer.Router {
	r := peer.Router{
		Name: s.Name, VRID: s.VRID, Addresses: texts(s.Addresses), State: s.State.String(), Since: s.Since,
		Base: s.Base, Effective: s.Effective, Yielded: s.Yielded, Draining: s.Draining,
	}
	if s.Source.IsValid() {
		r.Source = s.Source.WithZone("").String()
	}
	for _, d := range s.Demotions {
		r.Demotions = append(r.Demotions, peer.Condition{Source: d.Source, Amount: d.N, Reason: d.Reason, Since: d.Since})
	}
	for _, f := range s.Faults {
		r.Faults = append(r.Faults, peer.Condition{Source: f.Source, Reason: f.Reason, Since: f.Since})
	}
	// The link must not vouch for an election that stands still: its addresses
	// have gone by now.
	if by := now.Sub(s.Published); s.State == vrrp.Active && by > vrrp.Lease {
		r.State = vrrp.Fault.String()
		r.Faults = append(r.Faults, peer.Condition{Source: "stalled", Reason: "the election has stood still for longer than the lease of the addresses", Since: s.Published})
	}
	return r
}

// poke has the others told what is new.
func (l *peerLink) poke() {
	if m := l.mesh.Load(); m != nil {
		m.Poke()
	}
}

// The verbs of calls between nodes.
const (
	verbTakeOver = "take_over"
	verbMove     = "move"
	verbPass     = "pass"
	verbPassed   = "passed"
)

// takeOverCall offers the addresses of a virtual router.
type takeOverCall struct {
	VRRP      string   `json:"vrrp"`
	Addresses []string `json:"addresses"`
	Reason    string   `json:"reason"`
}

// moveCall asks for a failover or a failback of what is active at the receiver.
type moveCall struct {
	control.MoveRequest
	By     string `json:"by,omitempty"`
	Back   bool   `json:"back,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Called carries out what another node asks for.
func (l *peerLink) Called(ctx context.Context, node, verb string, body json.RawMessage) (any, error) {
	switch verb {
	case verbTakeOver:
		var c takeOverCall
		if err := json.Unmarshal(body, &c); err != nil {
			return nil, err
		}
		m := l.counterpartOf(c.VRRP, c.Addresses)
		if m == nil {
			return nil, fmt.Errorf("this node has no vrrp %s", c.VRRP)
		}
		_, err := m.router.TakeOver(ctx, node, c.Reason)
		return struct{}{}, err
	case verbPass:
		var c passCall
		if err := json.Unmarshal(body, &c); err != nil {
			return nil, err
		}
		m := l.counterpartOf(c.VRRP, c.Addresses)
		if m == nil {
			return nil, fmt.Errorf("this node has no vrrp %s", c.VRRP)
		}
		reply, err := m.passing.begin(node, true, c)
		if ctx.Err() != nil {
			m.passing.end(passedCall{ID: c.ID}) // nobody waits for it any more
		}
		return reply, err
	case verbPassed:
		var c passedCall
		if err := json.Unmarshal(body, &c); err != nil {
			return nil, err
		}
		for _, m := range l.parts.current.Load().routers {
			m.passing.end(c)
		}
		return struct{}{}, nil
	case verbMove:
		var c moveCall
		if err := json.Unmarshal(body, &c); err != nil {
			return nil, err
		}
		return l.parts.give(ctx, c)
	}
	return nil, fmt.Errorf("this node, of version %s, does not know the call %q", l.parts.options.Version, verb)
}

// counterpartOf returns this node's router for the virtual addresses of another
// node's router, nil if there is none.
func (l *peerLink) counterpartOf(name string, addresses []string) *member {
	for _, m := range l.parts.current.Load().routers {
		if counterpart(m, []peer.Router{{Name: name, Addresses: addresses}}) != nil {
			return m
		}
	}
	return nil
}

// link is how one router speaks to the other nodes.
type routerLink struct {
	*peerLink
	member *member
}

var _ vrrp.PeerLink = routerLink{}

// Ask has a node report.
func (r routerLink) Ask(node string) {
	if m := r.mesh.Load(); m != nil {
		m.Ask(node)
	}
}

// Offer asks a node to take over.
func (r routerLink) Offer(ctx context.Context, node, reason string) error {
	cfg := r.member.router.Status()
	return r.call(ctx, node, verbTakeOver, takeOverCall{VRRP: cfg.Name, Addresses: texts(cfg.Addresses), Reason: reason}, nil)
}

// yieldTime bounds the wait for an answer that is only logged.
const yieldTime = time.Minute

// AskYield asks a node to give its addresses to this one.
func (r routerLink) AskYield(node string) {
	r.asides.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), yieldTime)
		defer cancel()
		name, own := r.member.config.Name, r.parts.current.Load().node.Name
		c := moveCall{MoveRequest: control.MoveRequest{VRRP: name}, Back: true, Reason: own + " is healthier"}
		if err := r.call(ctx, node, verbMove, c, nil); err != nil {
			r.parts.log.Warn().Err(err).Str("vrrp", name).Str("peer", node).Msg("the less healthy node does not yield")
		}
	})
}

// call has a node carry out a verb.
func (l *peerLink) call(ctx context.Context, node, verb string, in, out any) error {
	m := l.mesh.Load()
	if m == nil {
		return fmt.Errorf("%w to %s", peer.ErrNoLink, node)
	}
	err := m.Call(ctx, node, verb, in, out)
	switch refused, ok := errors.AsType[*peer.RemoteError](err); {
	case ok:
		return fmt.Errorf("%s refuses: %s", node, strings.TrimPrefix(refused.Message, vrrp.ErrRefused.Error()+": "))
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s did not answer in time", node)
	}
	return err
}

// send has bytes sent to a node in bulk.
func (l *peerLink) send(node string, body []byte) error {
	m := l.mesh.Load()
	if m == nil {
		return peer.ErrNoLink
	}
	return m.Send(node, body)
}

// statuses returns the links; none without a mesh.
func (l *peerLink) statuses() []peer.Status {
	if m := l.mesh.Load(); m != nil {
		return m.Status()
	}
	return nil
}
