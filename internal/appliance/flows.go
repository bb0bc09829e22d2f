package appliance

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/events"
	"appliance/internal/flowsync"
	"appliance/internal/peer"
	"appliance/l4/kernel"
)

const (
	// flowRoom is how many events wait for the goroutine of a flowLink. What comes
	// from the link and finds no room is lost, and sent again by the other node.
	flowRoom = 256
	// listed is how many flows a machine gets at a time that wants all.
	listed = 4 * flowsync.Batch
	// staleAfter is how long ago the other node may have been heard for its flows
	// to be taken for those that are under way.
	staleAfter = 10 * time.Second
)

// flowTable is where flows are: the kernel path.
type flowTable interface {
	Flows(func(kernel.Flow) bool) error
	OnChanges(func([]kernel.Change))
	Install([]kernel.Flow) (refused int)
	Remove(ended []kernel.Flow, here func(vip netip.Addr) bool)
}

// flowSurroundings is what a flowLink asks others.
type flowSurroundings struct {
	// send sends to a node, links tells of all.
	send  func(node string, body []byte) error
	links func() []peer.Status
	// ours reports whether this node is active for a virtual address, theirs
	// whether another one alone is.
	ours   func(vip netip.Addr) bool
	theirs func(node string, vip netip.Addr) bool
	// known reports whether a flow's service has its server here.
	known func(kernel.Flow) bool
}

// flowLink tells the other nodes which flows this one carries, and puts theirs
// into the kernel. One goroutine, run, owns the machines, from carry until close;
// without it what the others send is lost.
type flowLink struct {
	flowSurroundings
	log     zerolog.Logger
	history *events.Log
	mailbox chan any // linkChange, arrival or []flowsync.Change
	status  atomic.Pointer[map[string]flowStatus]

	mu   sync.Mutex // guards what follows
	stop context.CancelFunc
	over <-chan struct{} // closed when run takes no more; nil before carry
	done chan struct{}
}

// flowStatus is what is known of the exchange with one node.
type flowStatus struct {
	flowsync.Status
	// Refused are flows that found no place in the kernel, Unknown those to servers
	// that this node does not have.
	Refused, Unknown uint64
	// RefusedAt is when the latest one found no place.
	RefusedAt time.Time
}

// linkChange says whether there is a link to a node now.
type linkChange struct {
	node string
	up   bool
}

// arrival is what a node has sent.
type arrival struct {
	node string
	body []byte
}

func newFlowLink(log zerolog.Logger, history *events.Log, s flowSurroundings) *flowLink {
	l := &flowLink{flowSurroundings: s, log: log, history: history, mailbox: make(chan any, flowRoom)}
	l.status.Store(&map[string]flowStatus{})
	return l
}

// carry begins to tell of the flows in table.
func (l *flowLink) carry(table flowTable) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, stop := context.WithCancel(context.Background())
	l.stop, l.over, l.done = stop, ctx.Done(), make(chan struct{})
	go l.run(ctx, table)
	table.OnChanges(func(changes []kernel.Change) { l.post(told(changes)) })
}

// close ends that.
func (l *flowLink) close(table flowTable) {
	l.mu.Lock()
	stop, done := l.stop, l.done
	l.mu.Unlock()
	if stop != nil {
		stop() // first: a change that waits for the goroutine waits no longer
		table.OnChanges(nil)
		<-done
	}
}

// post gives the goroutine an event, and waits for room.
func (l *flowLink) post(event any) {
	l.mu.Lock()
	over := l.over
	l.mu.Unlock()
	if over == nil {
		return
	}
	select {
	case l.mailbox <- event:
	case <-over:
	}
}

// linkChanged says whether there is a link to a node now.
func (l *flowLink) linkChanged(node string, up bool) { l.post(linkChange{node, up}) }

// arrived takes what a node has sent.
func (l *flowLink) arrived(node string, body []byte) {
	l.mu.Lock()
	running := l.over != nil
	l.mu.Unlock()
	if !running {
		return
	}
	select {
	case l.mailbox <- arrival{node, body}:
	default:
	}
}

// statuses returns what is known of the exchange with each node.
func (l *flowLink) statuses() map[string]flowStatus { return *l.status.Load() }

// settle waits until the other nodes have all that has happened, or ctx ends.
func (l *flowLink) settle(ctx context.Context) {
	waitFor(ctx, holdPace, func() bool {
		for _, s := range l.statuses() {
			if s.Waiting > 0 {
				return false
			}
		}
		return true
	})
}

// took warns if this node has become active in a router without knowing the flows
// that the other node carried.
func (l *flowLink) took(router string) {
	links, known := l.links(), l.statuses()
	if len(links) == 0 {
		return // there is no other node to know of
	}
	why := ""
	for _, s := range links {
		switch copied := known[s.Node]; {
		case !copied.Complete:
			why = fmt.Sprintf("node %s has never told all its flows here", s.Node)
		case time.Since(copied.RefusedAt) < kernel.RefreshInterval:
			why = fmt.Sprintf("not all flows of node %s found a place here; kernel.flows says how many do", s.Node)
		case s.State != peer.Up && time.Since(s.Since) > staleAfter:
			why = fmt.Sprintf("there has been no link to node %s for %s", s.Node, time.Since(s.Since).Round(time.Second))
		default:
			return
		}
	}
	l.log.Warn().Str("vrrp", router).Str("reason", why).Msg("active without a full copy of the flows: connections that the other node carried in the kernel may be lost")
	l.history.Add(events.Alarm, "vrrp "+router, "active without a full copy of the flows: "+why)
}

// run owns the machines until ctx ends.
func (l *flowLink) run(ctx context.Context, table flowTable) {
	defer close(l.done)
	r := flowRun{flowLink: l, table: table, nodes: make(map[string]*flowNode)}
	for _, s := range l.links() {
		if s.State == peer.Up {
			r.step(r.node(s.Node), flowsync.LinkUp{})
		}
	}
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		r.publish()
		if next := r.next(); !next.IsZero() {
			due.Reset(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return
		case <-due.C:
			for _, n := range r.nodes {
				r.step(n, flowsync.Tick{})
			}
		case event := <-l.mailbox:
			r.take(event)
		}
	}
}

// flowRun is what run owns.
type flowRun struct {
	*flowLink
	table flowTable
	nodes map[string]*flowNode
}

// flowNode is the exchange with one node.
type flowNode struct {
	name             string
	machine          *flowsync.Machine
	unread           []flowsync.Flow // of a full copy that is under way
	refused, unknown uint64
	refusedAt        time.Time
}

func (r *flowRun) node(name string) *flowNode {
	n := r.nodes[name]
	if n == nil {
		n = &flowNode{name: name, machine: flowsync.New(number)}
		r.nodes[name] = n
	}
	return n
}

// number returns one that nobody can know before.
func number() uint64 {
	var b [8]byte
	crand.Read(b[:])
	return binary.NativeEndian.Uint64(b[:])
}

func (r *flowRun) next() (next time.Time) {
	for _, n := range r.nodes {
		if t := n.machine.Next(); !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	return next
}

func (r *flowRun) publish() {
	now, all := time.Now(), make(map[string]flowStatus, len(r.nodes))
	for name, n := range r.nodes {
		all[name] = flowStatus{Status: n.machine.Status(now), Refused: n.refused, RefusedAt: n.refusedAt, Unknown: n.unknown}
	}
	r.status.Store(&all)
}

func (r *flowRun) take(event any) {
	switch event := event.(type) {
	case linkChange:
		if event.up {
			r.step(r.node(event.node), flowsync.LinkUp{})
		} else {
			r.step(r.node(event.node), flowsync.LinkDown{})
		}
	case arrival:
		r.step(r.node(event.node), flowsync.Received{Body: event.body})
	case []flowsync.Change:
		for _, n := range r.nodes {
			r.step(n, flowsync.Changed{Changes: event})
		}
	}
}

// step gives a machine an event and does what it wants done.
func (r *flowRun) step(n *flowNode, event flowsync.Event) {
	for _, action := range n.machine.Step(time.Now(), event) {
		switch action := action.(type) {
		case flowsync.Send:
			// What cannot be sent now is sent again when no answer comes.
			if err := r.send(n.name, action.Body); err != nil {
				r.log.Debug().Err(err).Str("peer", n.name).Msg("flows could not be sent")
			}
		case flowsync.Apply:
			r.apply(n, action.Changes)
		case flowsync.Forget:
			r.forget(n, action.Except)
		case flowsync.List:
			if action.Restart {
				n.unread = r.list()
			}
			some := n.unread[:min(listed, len(n.unread))]
			n.unread = n.unread[len(some):]
			r.step(n, flowsync.Listed{Flows: some, End: len(n.unread) == 0})
		}
	}
}

// list returns the flows of the virtual addresses for which this node is active:
// of others another node knows better.
func (r *flowRun) list() []flowsync.Flow {
	var all []flowsync.Flow
	ours := make(map[netip.Addr]bool)
	err := r.table.Flows(func(f kernel.Flow) bool {
		vip := f.Listen.Addr()
		is, asked := ours[vip]
		if !asked {
			is = r.ours(vip)
			ours[vip] = is
		}
		if is {
			all = append(all, outward(f))
		}
		return true
	})
	if err != nil {
		r.log.Error().Err(err).Msg("flows cannot be read: the other node will not know all of them")
	}
	return all
}

// apply puts the changes of a node into the kernel, in their order.
func (r *flowRun) apply(n *flowNode, changes []flowsync.Change) {
	var flows []kernel.Flow
	gone := false
	flush := func() {
		switch {
		case len(flows) == 0:
		case gone:
			r.table.Remove(flows, r.ours)
		default:
			if refused := r.table.Install(flows); refused > 0 {
				n.refused, n.refusedAt = n.refused+uint64(refused), time.Now()
			}
		}
		flows = flows[:0]
	}
	for _, c := range changes {
		if c.Gone != gone {
			flush()
			gone = c.Gone
		}
		f := inward(c.Flow)
		if !gone && !r.known(f) {
			n.unknown++
			continue
		}
		flows = append(flows, f)
	}
	flush()
}

// forget removes the flows of a node that it has not told.
func (r *flowRun) forget(n *flowNode, except map[flowsync.Key]struct{}) {
	var gone []kernel.Flow
	theirs := make(map[netip.Addr]bool)
	err := r.table.Flows(func(f kernel.Flow) bool {
		vip := f.Listen.Addr()
		is, asked := theirs[vip]
		if !asked {
			is = r.theirs(n.name, vip)
			theirs[vip] = is
		}
		if _, told := except[outward(f).Key]; is && !told {
			gone = append(gone, f)
		}
		return true
	})
	if err != nil {
		r.log.Error().Err(err).Msg("flows cannot be read: some that have ended stay until they time out")
	}
	if len(gone) > 0 {
		r.table.Remove(gone, r.ours)
	}
}
