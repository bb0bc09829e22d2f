package appliance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"appliance/health"
	"appliance/internal/config"
	"appliance/internal/endpoint"
	"appliance/internal/pool"
	"appliance/vrrp"
)

// scribe remembers what a router would have been told.
type scribe struct {
	demotions map[string]int
	faults    map[string]string
	calls     int
}

func newScribe() *scribe {
	return &scribe{demotions: map[string]int{}, faults: map[string]string{vrrp.StartupFault: "not ready"}}
}

func (s *scribe) SetDemotion(source string, n int, _ string) {
	s.calls++
	s.demotions[source] = n
	if n == 0 {
		delete(s.demotions, source)
	}
}

func (s *scribe) SetFault(source, reason string) {
	s.calls++
	s.faults[source] = reason
	if reason == "" {
		delete(s.faults, source)
	}
}

const (
	db1 = "172.16.1.51:3306"
	db2 = "172.16.1.52:3306"
)

// bench is a wire with one router, one pool of two servers and a service.
type bench struct {
	t      *testing.T
	wire   *wire
	pool   *pool.Pool
	router *scribe
	found  sync.Map // of health.Target: what the checks have found out
	track  []config.Track
}

// onBench runs f with a bench, on virtual time.
func onBench(t *testing.T, f func(b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{
			t: t,
			pool: pool.New(pool.Config{Name: "mysql", Checked: true, Servers: []pool.ServerConfig{
				{Name: "db1", Address: db1}, {Name: "db2", Address: db2},
			}}),
			router: newScribe(),
			track:  []config.Track{{Service: "mysql", Weight: 30}, {Interface: "eth1"}, {Interface: "eth2", Weight: 5}},
		}
		b.wire = newWire(zerolog.Nop(), b.results)
		ctx, cancel := context.WithCancel(t.Context())
		go b.wire.run(ctx)
		defer func() {
			cancel()
			<-b.wire.done
		}()
		b.rewire()
		b.wire.link("eth0", "")
		f(b)
	})
}

func (b *bench) rewire() {
	b.wire.rewire(&plan{
		routers: []wiredRouter{{
			judged: b.router, iface: "eth0", track: b.track,
			addresses: []netip.Addr{netip.MustParseAddr("192.168.15.3")},
		}},
		services: map[string][]*pool.Pool{"mysql": {b.pool}},
		judges: map[health.Target][]subject{
			target(db1): {{b.pool, b.pool.Servers()[0].ID()}},
			target(db2): {{b.pool, b.pool.Servers()[1].ID()}},
		},
	})
}

func target(address string) health.Target {
	return health.Target{Address: endpoint.IP(netip.MustParseAddrPort(address))}
}

func (b *bench) results() map[health.Target]health.Result {
	all := make(map[health.Target]health.Result)
	b.found.Range(func(k, v any) bool {
		all[k.(health.Target)] = v.(health.Result)
		return true
	})
	return all
}

func (b *bench) verdict(address string, state health.State) {
	b.found.Store(target(address), health.Result{State: state, Reason: "test", Checked: time.Now()})
	b.wire.poke()
}

// want fails the test unless these are the conditions in force.
func (b *bench) want(demotions map[string]int, faults ...string) {
	b.t.Helper()
	synctest.Wait()
	if !maps.Equal(b.router.demotions, demotions) {
		b.t.Errorf("demotions %v, want %v", b.router.demotions, demotions)
	}
	have := maps.Clone(b.router.faults)
	for _, f := range faults {
		if _, ok := have[f]; !ok {
			b.t.Errorf("no fault %q", f)
		}
		delete(have, f)
	}
	if len(have) > 0 {
		b.t.Errorf("faults %v too many", have)
	}
}

func TestNoPromotionBeforeEveryServerIsJudged(t *testing.T) {
	onBench(t, func(b *bench) {
		b.want(map[string]int{"service mysql": 30}, vrrp.StartupFault)
		b.verdict(db1, health.Up)
		b.want(nil, vrrp.StartupFault)
		b.verdict(db2, health.Down)
		b.want(nil)
		if !b.wire.known.Load().ready {
			t.Error("not ready after the first round")
		}
	})
}

// A node that cannot check a server at all must not wait for ever.
func TestOneTryOfACheckIsEnough(t *testing.T) {
	onBench(t, func(b *bench) {
		b.verdict(db1, health.Up)
		b.verdict(db2, health.Unknown)
		b.want(nil)
	})
}

func TestNoPromotionBeforeTheLinkIsKnown(t *testing.T) {
	onBench(t, func(b *bench) {
		b.verdict(db1, health.Up)
		b.verdict(db2, health.Up)
		b.want(nil)
		late := newScribe()
		b.wire.rewire(&plan{routers: []wiredRouter{{judged: late, iface: "eth9"}}})
		synctest.Wait()
		if _, held := late.faults[vrrp.StartupFault]; !held {
			t.Error("a router was started on an interface nobody has looked at")
		}
		b.wire.link("eth9", "")
		synctest.Wait()
		if len(late.faults) > 0 {
			t.Errorf("faults %v after the link was found up", late.faults)
		}
	})
}

func TestServiceWithoutServerDemotes(t *testing.T) {
	onBench(t, func(b *bench) {
		b.verdict(db1, health.Up)
		b.verdict(db2, health.Up)
		b.want(nil)
		b.verdict(db1, health.Down)
		b.want(nil)
		b.verdict(db2, health.Down)
		b.want(map[string]int{"service mysql": 30})
		b.verdict(db1, health.Up)
		b.want(nil)
	})
}

func TestAdministratorCanEmptyAService(t *testing.T) {
	onBench(t, func(b *bench) {
		b.verdict(db1, health.Up)
		b.verdict(db2, health.Down)
		if err := b.pool.SetAdmin("db1", pool.Maint); err != nil {
			t.Fatal(err)
		}
		b.wire.poke()
		b.want(map[string]int{"service mysql": 30})
	})
}

func TestOwnInterfaceIsAFault(t *testing.T) {
	onBench(t, func(b *bench) {
		b.verdict(db1, health.Up)
		b.verdict(db2, health.Up)
		b.wire.link("eth0", "no carrier")
		b.want(nil, "interface eth0")
		b.wire.link("eth0", "")
		b.want(nil)
	})
}

func TestTrackedInterfaceFaultsOrDemotes(t *testing.T) {
	onBench(t, func(b *bench) {
		b.verdict(db1, health.Up)
		b.verdict(db2, health.Up)
		b.wire.link("eth1", "no carrier")
		b.wire.link("eth2", "no carrier")
		b.want(map[string]int{"interface eth2": 5}, "interface eth1")
		// With a weight the same interface demotes instead: the fault goes.
		b.track = []config.Track{{Interface: "eth1", Weight: 7}}
		b.rewire()
		b.want(map[string]int{"interface eth1": 7})
		b.track = nil
		b.rewire()
		b.want(nil)
	})
}

func TestListenerThatCannotAcceptIsAFaultOfItsRouter(t *testing.T) {
	broken := errors.New("too many open files")
	for address, concerns := range map[string]bool{
		"192.168.15.3:443": true, "0.0.0.0:443": true, "[::]:443": true, "192.168.15.4:443": false,
	} {
		t.Run(address, func(t *testing.T) {
			onBench(t, func(b *bench) {
				b.verdict(db1, health.Up)
				b.verdict(db2, health.Up)
				at := netip.MustParseAddrPort(address)
				b.wire.tcp(at, broken)
				if concerns {
					b.want(nil, "listener "+address)
				} else {
					b.want(nil)
				}
				synctest.Wait()
				if got := b.wire.known.Load().fault([]netip.AddrPort{at}, false); got != broken.Error() {
					t.Errorf("status says %q", got)
				}
				// That the same address can take datagrams is another matter.
				b.wire.udp(at, nil)
				if concerns {
					b.want(nil, "listener "+address)
					b.wire.udp(at, broken)
					b.want(nil, "listener "+address, "listener "+address+"/udp")
					b.wire.udp(at, nil)
				}
				b.wire.tcp(at, nil)
				b.want(nil)
			})
		})
	}
}

func TestNothingIsToldTwice(t *testing.T) {
	onBench(t, func(b *bench) {
		b.verdict(db1, health.Down)
		b.verdict(db2, health.Down)
		b.want(map[string]int{"service mysql": 30})
		before := b.router.calls
		for i := range 100 {
			b.verdict(fmt.Sprintf("172.16.1.%d:1", i+1), health.Up)
			b.wire.poke()
			b.rewire()
		}
		synctest.Wait()
		if b.router.calls != before {
			t.Errorf("%d calls for nothing new", b.router.calls-before)
		}
	})
}

func TestAHostThatIsNotReachedDemotes(t *testing.T) {
	onBench(t, func(b *bench) {
		gateway := config.Track{Reach: netip.MustParseAddr("192.168.15.1"), Weight: 11}
		b.track = []config.Track{gateway}
		b.rewire()
		b.verdict(db1, health.Up)
		b.verdict(db2, health.Up)
		b.want(nil)
		judge := func(state health.State) {
			b.found.Store(reached(gateway), health.Result{State: state, Reason: "timeout", Checked: time.Now()})
			b.wire.poke()
		}
		judge(health.Down)
		b.want(map[string]int{"reach 192.168.15.1": 11})
		judge(health.Unknown) // nobody can tell
		b.want(nil)
		judge(health.Down)
		judge(health.Up)
		b.want(nil)
	})
}

// Names with one address may be asked for different certificates there: what one of
// them has found does not hold for the other.
func TestServersAtOneAddressAreJudgedEach(t *testing.T) {
	p := pool.New(pool.Config{Name: "p", Checked: true, Servers: []pool.ServerConfig{{Name: "a", Address: db1}, {Name: "b", Address: db1}}})
	results, judges := make(map[health.Target]health.Result), make(map[health.Target][]subject)
	for i, state := range []health.State{health.Up, health.Down} {
		asked := target(db1)
		asked.Check.ServerName = p.Servers()[i].Label()
		results[asked], judges[asked] = health.Result{State: state}, []subject{{p, p.Servers()[i].ID()}}
	}
	state := wireState{wire: newWire(zerolog.Nop(), func() map[health.Target]health.Result { return results }), plan: &plan{judges: judges}}
	for range 20 { // in no particular order
		state.judge()
		if a, b := p.Servers()[0].Stats().Health.State, p.Servers()[1].Stats().Health.State; a != pool.Up || b != pool.Down {
			t.Fatalf("a is %v and b is %v, want up and down", a, b)
		}
	}
}

func TestTheFirstCheckOfAHostIsWaitedFor(t *testing.T) {
	track := config.Track{Reach: netip.MustParseAddr("192.168.15.1"), Weight: 11}
	s := &setup{node: &config.Node{VRRP: []config.VRRPNode{{Track: []config.Track{track, {Interface: "eth1"}}}}},
		judges: make(map[health.Target][]subject)}
	s.addReached()
	state := wireState{wire: newWire(zerolog.Nop(), func() map[health.Target]health.Result { return nil }), plan: &plan{judges: s.judges}}
	if got := state.unjudged(); got != "the first check of 192.168.15.1" {
		t.Error(got)
	}
}
