package appliance

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/events"
	"appliance/internal/flowsync"
	"appliance/internal/peer"
	"appliance/l4/kernel"
)

// table is a kernel path that only remembers flows.
type table struct {
	mu      sync.Mutex
	flows   map[netip.AddrPort]kernel.Flow // by client
	changes func([]kernel.Change)
	room    int // for installed flows; 0 for any number
}

func newTable() *table { return &table{flows: make(map[netip.AddrPort]kernel.Flow)} }

func (t *table) Flows(f func(kernel.Flow) bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, flow := range t.flows {
		if !f(flow) {
			break
		}
	}
	return nil
}

func (t *table) OnChanges(f func([]kernel.Change)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changes = f
}

func (t *table) Install(flows []kernel.Flow) (refused int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range flows {
		if t.room > 0 && len(t.flows) >= t.room {
			refused++
			continue
		}
		t.flows[f.Client] = f
	}
	return refused
}

func (t *table) Remove(flows []kernel.Flow, _ func(netip.Addr) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range flows {
		delete(t.flows, f.Client)
	}
}

// happen has something happen to flows, as the program tells of it.
func (t *table) happen(kind kernel.ChangeKind, flows ...kernel.Flow) {
	t.mu.Lock()
	var changes []kernel.Change
	for _, f := range flows {
		if kind == kernel.Ended {
			delete(t.flows, f.Client)
		} else {
			t.flows[f.Client] = f
		}
		changes = append(changes, kernel.Change{Kind: kind, Flow: f})
	}
	tell := t.changes
	t.mu.Unlock()
	if tell != nil {
		tell(changes)
	}
}

func (t *table) clients() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.flows)
}

// testFlow is a flow of a client that has this port.
func testFlow(port uint16) kernel.Flow {
	return kernel.Flow{
		Protocol: kernel.TCP, Client: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), port),
		Listen: netip.MustParseAddrPort("192.0.2.3:443"), Server: netip.MustParseAddrPort("10.0.0.5:443"), Port: port,
	}
}

// site is a node with a flowLink.
type site struct {
	*flowLink
	table  *table
	log    *strings.Builder
	active bool
	state  peer.Status
	other  *site
}

// newSites makes two nodes, of which the first is active. Their links are up.
func newSites(t *testing.T) (a, b *site) {
	t.Helper()
	site1 := func(name, other string) *site {
		s := &site{table: newTable(), log: new(strings.Builder), state: peer.Status{Node: other, State: peer.Up, Since: time.Now()}}
		s.flowLink = newFlowLink(zerolog.New(s.log), events.Open("", zerolog.Nop()), flowSurroundings{
			send:   func(node string, body []byte) error { s.other.arrived(name, body); return nil },
			links:  func() []peer.Status { return []peer.Status{s.state} },
			ours:   func(netip.Addr) bool { return s.active },
			theirs: func(string, netip.Addr) bool { return s.other.active && !s.active },
			known:  func(f kernel.Flow) bool { return f.Server.Addr() == netip.MustParseAddr("10.0.0.5") },
		})
		t.Cleanup(func() { s.close(s.table) })
		return s
	}
	a, b = site1("lb01", "lb02"), site1("lb02", "lb01")
	a.active, a.other, b.other = true, b, a
	return a, b
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if !waitFor(ctx, time.Millisecond, is) {
		t.Fatalf("%s: not in time", what)
	}
}

func TestFlowsReachTheOtherNode(t *testing.T) {
	a, b := newSites(t)
	for i := range 3000 {
		a.table.flows[testFlow(uint16(i)).Client] = testFlow(uint16(i))
	}
	stranger := testFlow(5000)
	stranger.Server = netip.MustParseAddrPort("10.0.0.9:443")
	a.table.flows[stranger.Client] = stranger
	// What b has of an earlier time has ended meanwhile.
	b.table.flows[testFlow(6000).Client] = testFlow(6000)
	a.carry(a.table)
	b.carry(b.table)
	await(t, "the full copy", func() bool { return b.statuses()["lb01"].Complete && a.statuses()["lb02"].Complete })
	await(t, "3000 flows at the other node", func() bool { return b.table.clients() == 3000 })
	if s := b.statuses()["lb01"]; s.Unknown != 1 || s.Heard != 3001 {
		t.Errorf("%+v", s)
	}
	if s := a.statuses()["lb02"]; s.Heard != 0 {
		t.Errorf("the node that is not active tells flows: %+v", s)
	}

	a.table.happen(kernel.Established, testFlow(7000))
	a.table.happen(kernel.Ended, testFlow(1), testFlow(2))
	await(t, "the changes", func() bool { return b.table.clients() == 2999 && a.statuses()["lb02"].Waiting == 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if a.settle(ctx); ctx.Err() != nil {
		t.Error("does not settle")
	}

	b.table.mu.Lock()
	b.table.room = 1
	b.table.mu.Unlock()
	a.table.happen(kernel.Established, testFlow(7001))
	await(t, "a flow that has no room", func() bool { return b.statuses()["lb01"].Refused == 1 })
	if b.took("VI_1"); !strings.Contains(b.log.String(), "not all flows of node lb01 found a place here") {
		t.Errorf("log: %s", b.log)
	}
}

func TestWithoutAFullCopyTakingOverIsToldOf(t *testing.T) {
	a, b := newSites(t)
	b.took("VI_1")
	if !strings.Contains(b.log.String(), "node lb01 has never told all its flows here") {
		t.Errorf("log: %s", b.log)
	}
	a.carry(a.table)
	b.carry(b.table)
	await(t, "the full copy", func() bool { return b.statuses()["lb01"].Complete })
	b.log.Reset()
	b.took("VI_1")
	b.state.State, b.state.Since = peer.Died, time.Now()
	b.took("VI_1")
	if b.log.Len() > 0 {
		t.Errorf("log: %s", b.log)
	}
	b.state.Since = time.Now().Add(-time.Minute)
	b.took("VI_1")
	if !strings.Contains(b.log.String(), "there has been no link to node lb01 for 1m0s") {
		t.Errorf("log: %s", b.log)
	}
}

// Whatever comes from the other node changes nothing but counters.
func TestGarbageFromTheOtherNode(t *testing.T) {
	a, b := newSites(t)
	a.carry(a.table)
	b.arrived("lb01", []byte("before there is a kernel path"))
	b.linkChanged("lb01", true)
	b.carry(b.table)
	await(t, "the full copy", func() bool { return b.statuses()["lb01"].Complete })
	for _, body := range [][]byte{nil, {1}, []byte("garbage"), make([]byte, 1000)} {
		b.arrived("lb01", body)
	}
	await(t, "the garbage is counted", func() bool { return b.statuses()["lb01"].Malformed == 4 })
	b.linkChanged("lb01", false)
	b.linkChanged("lb01", true)
	a.table.happen(kernel.Established, testFlow(1))
	await(t, "flows go on", func() bool { return b.table.clients() == 1 })
	if b.statuses()["lb01"].Malformed != 4 {
		t.Errorf("%+v", b.statuses())
	}
}

func TestFlowsAreTheSameInBothWords(t *testing.T) {
	f := testFlow(9)
	f.Mode, f.ClientEnded, f.ServerEnded, f.Idle = kernel.Direct, true, true, 7*time.Second
	if got := inward(outward(f)); got != f {
		t.Errorf("%+v became %+v", f, got)
	}
	ended := testFlow(10)
	all := told([]kernel.Change{
		{Kind: kernel.Established, Flow: f}, {Kind: kernel.Refreshed, Flow: f}, {Kind: kernel.Ended, Flow: ended},
		{Kind: kernel.Ended, Flow: f}, // it has timed out
	})
	if !slices.Equal(all, []flowsync.Change{{Flow: outward(f)}, {Flow: outward(f)}, {Flow: outward(ended), Gone: true}}) {
		t.Errorf("%+v", all)
	}
}
