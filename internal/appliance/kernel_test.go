package appliance

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/config"
	"appliance/internal/control"
	"appliance/internal/fdstore"
	"appliance/internal/ingress"
	"appliance/internal/link"
	"appliance/internal/peer"
	"appliance/internal/pool"
	"appliance/l4/kernel"
	"appliance/vrrp"
)

// program is a kernel path that only remembers what it was told.
type program struct {
	strays int // how often they were taken
	*table
	services   []kernel.Service
	interfaces []kernel.Interface
	sets       int
	attaches   int
	refuse     error
	blind      map[int]error // the interfaces that cannot be looked at
	detached   bool
	setting    func() // called by Set, unless nil
}

func (p *program) Set(s []kernel.Service) error {
	p.sets++
	if p.setting != nil {
		p.setting()
	}
	if p.refuse != nil {
		return p.refuse
	}
	p.services = s
	return nil
}

func (p *program) Attach(i []kernel.Interface) error {
	p.attaches++
	p.interfaces, p.detached = i, false
	problems := make(kernel.AttachError)
	for _, one := range i {
		if err := p.blind[one.Index]; err != nil {
			problems[one.Index] = err
		}
	}
	if len(problems) > 0 {
		return problems
	}
	return nil
}

func (p *program) Detached() bool { return p.detached }

func (p *program) Stats() (kernel.Stats, error) {
	return kernel.Stats{Services: []kernel.ServiceStats{{
		Name: "db", Current: 3, Total: 10, HalfOpen: 1, Broken: 2, TimedOut: 1, Refused: 4, Fallback: kernel.Fallback{NoServer: 5},
		Traffic: kernel.Traffic{BytesToServer: 100, BytesToClient: 200},
		Servers: []kernel.ServerStats{{Addr: netip.MustParseAddrPort("10.0.0.5:1"), Current: 3, Total: 10, HalfOpen: 1, Refused: 4, Traffic: kernel.Traffic{BytesToServer: 100, BytesToClient: 200}}},
	}}}, nil
}

func (p *program) Cut(meant func(kernel.Flow) bool) (n int, err error) {
	var cut []kernel.Flow
	p.Flows(func(f kernel.Flow) bool {
		if meant(f) {
			cut = append(cut, f)
		}
		return true
	})
	p.Remove(cut, nil)
	return len(cut), nil
}

func (p *program) Remains() ([]*os.File, []ingress.Filter, error) { return nil, nil, nil }
func (p *program) Way() ingress.Way                               { return ingress.TCX }
func (p *program) Inherited() int                                 { return 0 }
func (p *program) AddressCame()                                   {}
func (p *program) TakeStrays()                                    { p.strays++ }
func (p *program) LeaveStrays()                                   { p.strays = 0 }

func (p *program) Legacy() (map[string]*os.File, error) {
	null, err := os.Open(os.DevNull)
	return map[string]*os.File{"tcx-1": null}, err
}

func (p *program) Close() error { return nil }

// kernelFile has a service of the kernel path, one that the file keeps off it, and
// a virtual router for both on an interface that is there on every machine.
const kernelFile = `
[node.lb01]
address = "192.0.2.1"
priority = 100
[node.lb02]
address = "192.0.2.2"
priority = 90
[[vrrp]]
name = "VI_1"
virtual_router_id = 7
addresses = ["192.0.2.3/24"]
interface = "lo"
virtual_mac = true
[[l4]]
name = "db"
mode = "kernel"
forward = "dnat"
listen = ["192.0.2.3:1"]
pool = "db"
timeouts = { idle = "5s", half_close = "2s" }
[[l4]]
name = "bounded"
mode = "auto"
max_connections = 3
listen = ["192.0.2.3:2"]
pool = "db"
[[l4]]
name = "plain"
listen = ["192.0.2.3:3"]
pool = "db"
[pool.db]
balance = "source_hash"
on_server_down = "reset"
slow_start = "10s"
servers = [{ name = "a", address = "10.0.0.5:1", weight = 3 }, { name = "b", address = "10.0.0.6:1", backup = true }, { name = "c", address = "db.example:1" }]
check = { type = "tcp" }
`

// kernelSetup is the setup of kernelFile, of which server a is up.
func kernelSetup(t *testing.T) *setup {
	t.Helper()
	file, err := config.Parse("f.toml", []byte(kernelFile))
	if err != nil {
		t.Fatal(err)
	}
	node, err := file.ForNode("lb02")
	if err != nil {
		t.Fatal(err)
	}
	s := &setup{file: file, node: node, pools: make(map[string]*pool.Pool)}
	for name, cfg := range node.Pools {
		cfg.Config.Name = name
		s.pools[name] = pool.New(cfg.Config)
	}
	s.pools["db"].SetHealth("10.0.0.5:1", pool.Health{State: pool.Up})
	m := &member{config: node.VRRP[0].Config, passing: &passing{}, vips: new(atomic.Pointer[[]netip.Addr]), own: new(atomic.Pointer[[]netip.Addr])}
	m.setVIPs(m.config)
	s.routers = []*member{m}
	return s
}

// newTestPath is a kernelPath for s with a program that only remembers.
func newTestPath(s *setup) (*kernelPath, *program) {
	p := &program{table: newTable()}
	k := newKernelPath(zerolog.Nop(), func() *setup { return s }, newFlowLink(zerolog.Nop(), nil, flowSurroundings{
		links: func() []peer.Status { return nil },
	}), func([]*os.File, []ingress.Filter) {})
	k.path = p
	return k, p
}

func TestServicesOfTheKernelPath(t *testing.T) {
	s := kernelSetup(t)
	k, p := newTestPath(s)
	k.look()
	if len(p.services) != 1 {
		t.Fatalf("%+v", p.services)
	}
	db := p.services[0]
	if db.Name != "db" || db.Mode != kernel.DNAT || !db.ByClient || !db.ResetOnDown || db.Protocol != kernel.TCP || db.Interface == 0 ||
		db.Timeouts != (kernel.Timeouts{Idle: 5 * time.Second, HalfClose: 2 * time.Second}) {
		t.Errorf("%+v", db)
	}
	// Server c has no address. Weights have room for the steps of slow_start.
	want := []kernel.Server{
		{Addr: netip.MustParseAddrPort("10.0.0.5:1"), Weight: 30},
		{Addr: netip.MustParseAddrPort("10.0.0.6:1"), Weight: 10, Backup: true, State: kernel.Drain},
	}
	if !slices.Equal(db.Servers, want) {
		t.Errorf("%+v", db.Servers)
	}
	if !k.placed["db"].kernel || k.placed["bounded"].kernel || !strings.Contains(k.placed["bounded"].reason, "max_connections") || len(k.placed) != 2 {
		t.Errorf("%+v", k.placed)
	}
	if k.look(); p.sets != 1 {
		t.Errorf("set %d times", p.sets)
	}

	for _, change := range []struct {
		what string
		do   func()
		want kernel.State
	}{
		{"drain", func() { s.pools["db"].SetAdmin("a", pool.Drain) }, kernel.Drain},
		{"maint", func() { s.pools["db"].SetAdmin("a", pool.Maint) }, kernel.Maint},
		{"ready", func() { s.pools["db"].SetAdmin("a", pool.Ready) }, kernel.Ready},
		{"down", func() { s.pools["db"].SetHealth("10.0.0.5:1", pool.Health{State: pool.Down}) }, kernel.Down},
		{"down and drain", func() { s.pools["db"].SetAdmin("a", pool.Drain) }, kernel.Down},
	} {
		change.do()
		if k.look(); p.services[0].Servers[0].State != change.want {
			t.Errorf("%s: %+v", change.what, p.services[0].Servers[0])
		}
	}
}

func TestShareOfAServerGrowsInSteps(t *testing.T) {
	s := kernelSetup(t)
	server := s.pools["db"].Servers()[0]
	for _, state := range []pool.HealthState{pool.Down, pool.Up} { // from then on it is slow
		s.pools["db"].SetHealth("10.0.0.5:1", pool.Health{State: state})
	}
	for after, want := range map[time.Duration]int{0: 3, 4900 * time.Millisecond: 15, time.Minute: 30} {
		if got := planServer(server, true, time.Now().Add(after)).Weight; got != want {
			t.Errorf("after %v: weight %d, want %d", after, got, want)
		}
	}
}

func TestWhatTheKernelRefusesIsTheProxys(t *testing.T) {
	s := kernelSetup(t)
	k, p := newTestPath(s)
	p.refuse = errors.New("no room")
	k.look()
	if at := k.placed["db"]; at.kernel || at.reason != "no room" {
		t.Errorf("%+v", at)
	}
	p.refuse = nil
	if k.look(); !k.placed["db"].kernel {
		t.Errorf("%+v", k.placed)
	}
	k.path, k.trouble = nil, errors.New("the kernel is too old")
	if k.look(); k.placed["db"].kernel || k.placed["db"].reason != "the kernel is too old" {
		t.Errorf("%+v", k.placed)
	}
	if d := k.view().describe(); d.Loaded || d.Reason != "the kernel is too old" {
		t.Errorf("%+v", d)
	}
}

// A service with an interface that cannot be looked at is the proxy's, the others
// are not.
func TestServiceWithoutOneOfItsInterfacesIsTheProxys(t *testing.T) {
	s := kernelSetup(t)
	// A second service, whose address is on an interface that is not there.
	other := s.node.L4[0]
	other.Name, other.Listen = "other", []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:1")}
	s.node.L4 = append(s.node.L4, other)
	m := *s.routers[0]
	m.vips = new(atomic.Pointer[[]netip.Addr])
	m.vips.Store(&[]netip.Addr{netip.MustParseAddr("192.0.2.9")})
	m.config.Interface = "none"
	s.routers = append(s.routers, &m)
	k, p := newTestPath(s)
	k.look()
	if len(p.services) != 2 || !k.placed["db"].kernel || k.placed["other"].kernel || k.placed["other"].reason != "interface none does not exist" {
		t.Errorf("%+v, %+v", p.services, k.placed)
	}
	if d := k.view().describe(); !d.Loaded || !strings.Contains(d.Reason, "interface none") || len(d.Interfaces) == 0 {
		t.Errorf("%+v", d)
	}

	lo := link.Index("lo")
	p.blind = map[int]error{lo: errors.New("lo carries no Ethernet frames")}
	k.activate(s.routers[0], true)
	k.look()
	if len(p.services) != 1 || p.services[0].Name != "other" || k.placed["db"].kernel || k.placed["db"].reason != "lo carries no Ethernet frames" {
		t.Errorf("%+v, %+v", p.services, k.placed)
	}
	if k.known(kernel.Flow{Protocol: kernel.TCP, Listen: netip.MustParseAddrPort("192.0.2.3:1"), Server: netip.MustParseAddrPort("10.0.0.5:1")}) {
		t.Error("flows of a service that is not carried are taken")
	}
	before := p.attaches
	if k.look(); p.attaches != before+1 {
		t.Error("it is not tried again")
	}
	p.blind = nil
	if k.look(); len(p.services) != 2 || !k.placed["db"].kernel {
		t.Errorf("%+v, %+v", p.services, k.placed)
	}
	before = p.attaches
	if k.look(); p.attaches != before {
		t.Error("it is attached again and again")
	}
	p.detached = true // its interface is another one by now
	if k.look(); p.attaches != before+1 {
		t.Error("what has gone with its interface is not attached again")
	}
}

// order is addresses that write down when they come and go.
type order struct{ said []string }

func (o *order) Acquire(a []netip.Prefix) ([]netip.Prefix, error) {
	o.said = append(o.said, "acquire")
	return a, nil
}

func (o *order) Release([]netip.Prefix) error {
	o.said = append(o.said, "release")
	return nil
}

func (o *order) Announce([]netip.Prefix) error { return nil }

func (o *order) activate(_ *member, active bool) {
	if active {
		o.said = append(o.said, "active")
	} else {
		o.said = append(o.said, "not active")
	}
}

func TestFramesAreLookedAtLongerThanAddressesAreThere(t *testing.T) {
	o := &order{}
	c := carried{Addresses: o, path: o}
	first, second := netip.MustParsePrefix("192.0.2.3/24"), netip.MustParsePrefix("192.0.2.4/24")
	c.Acquire([]netip.Prefix{first, second})
	c.Release([]netip.Prefix{second})
	c.Release([]netip.Prefix{first})
	if got := strings.Join(o.said, ", "); got != "active, acquire, release, active, release, not active" {
		t.Error(got)
	}
}

func TestVirtualMACAddressIsLookedAtWhileActive(t *testing.T) {
	s := kernelSetup(t)
	k, p := newTestPath(s)
	k.look()
	macs := func() int {
		n := 0
		for _, i := range p.interfaces {
			n += len(i.VirtualMACs)
		}
		return n
	}
	if len(p.interfaces) == 0 || macs() != 0 || k.holds(netip.MustParseAddr("192.0.2.3")) {
		t.Errorf("%+v", p.interfaces)
	}
	k.activate(s.routers[0], true)
	if macs() != 1 || !k.holds(netip.MustParseAddr("192.0.2.3")) || k.holds(netip.MustParseAddr("192.0.2.4")) {
		t.Errorf("%+v", p.interfaces)
	}
	k.activate(s.routers[0], false)
	if macs() != 0 || k.holds(netip.MustParseAddr("192.0.2.3")) {
		t.Errorf("%+v", p.interfaces)
	}
}

// A table of many servers takes the kernel a moment, and so does each service.
func TestBecomingActiveDoesNotWaitForServices(t *testing.T) {
	s := kernelSetup(t)
	k, p := newTestPath(s)
	begun, end := make(chan struct{}), make(chan struct{})
	p.setting = func() { close(begun); <-end }
	looked := make(chan struct{})
	go func() { defer close(looked); k.look() }()
	<-begun
	active := make(chan struct{})
	go func() { defer close(active); k.activate(s.routers[0], true) }()
	select {
	case <-active:
	case <-time.After(10 * time.Second):
		close(end)
		t.Fatal("a router waits for the kernel path to have its services")
	}
	k.view()
	k.count()
	close(end)
	<-looked
	<-active
}

func TestNodesHavePortsOfTheirOwn(t *testing.T) {
	s := kernelSetup(t)
	second := ports(s)
	s.node.Name = "lb01"
	if first := ports(s); first != [2]uint16{20000, 39999} || second != [2]uint16{40000, 59999} {
		t.Errorf("%v and %v", first, second)
	}
}

func TestCountersOfTheKernelPath(t *testing.T) {
	s := kernelSetup(t)
	k, p := newTestPath(s)
	k.look()
	v := k.view()
	described := func(name string) control.Service {
		return control.Service{Name: name, Current: 1, Total: 1, Errors: make(map[string]uint64)}
	}
	one := described("db")
	v.addTo(&one)
	if one.Path != "kernel" || one.Current != 5 || one.Total != 11 || one.BytesIn != 100 || one.BytesOut != 200 ||
		one.Errors["broken"] != 2 || one.Errors["timed_out"] != 1 || one.Fallback["no_server"] != 5 {
		t.Errorf("%+v", one)
	}
	plain := described("plain")
	if v.addTo(&plain); plain.Path != "" || plain.Current != 1 {
		t.Errorf("%+v", plain)
	}
	f := testFlow(9)
	f.Listen, f.Server = netip.MustParseAddrPort("192.0.2.3:1"), netip.MustParseAddrPort("10.0.0.5:1")
	p.Install([]kernel.Flow{f, testFlow(10)})
	found := k.sessions()
	if len(found) != 2 || found[1].Service != "db" || found[1].Pool != "db" || found[1].Server != "a" || found[1].ID == found[0].ID || found[1].ID>>52 != 1 {
		t.Errorf("%+v", found)
	}
	if n := k.cut(func(s control.Session) bool { return s.ID == found[1].ID }); n != 1 || p.clients() != 1 {
		t.Errorf("%d were cut, %d are left", n, p.clients())
	}
}

var (
	_ packets        = (*program)(nil)
	_ vrrp.Addresses = (*order)(nil)
)

// A machine without the interface would have the proxy carry the service.
func TestPlacesLookAtTheInterface(t *testing.T) {
	s := kernelSetup(t)
	for iface, want := range map[string]string{"lo": "lo", "none": "interface none"} {
		s.node.VRRP[0].Interface = iface
		if err := unfit(s.node, s.node.L4[0]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", iface, err)
		}
	}
	s.node.VRRP = nil
	if err := unfit(s.node, s.node.L4[0]); err != nil {
		t.Error(err)
	}
}

// What belongs to no flow is another connection's of the other node where that one
// lives and gets it.
func TestStraysAreTakenUnlessTheAddressComesInPeace(t *testing.T) {
	s := kernelSetup(t)
	k, p := newTestPath(s)
	k.look()
	m := s.routers[0]
	k.activate(m, true)
	if p.strays != 1 {
		t.Error("no strays are taken after a death")
	}
	k.activate(m, false)
	m.passing.running.Store(&passage{}) // of what comes here late
	k.activate(m, true)
	if p.strays != 2 {
		t.Error("no strays are taken though nobody gets them")
	}
	k.activate(m, false)
	m.passing.running.Store(&passage{comes: true})
	if k.activate(m, true); p.strays != 0 {
		t.Error("strays are taken from a node that lives")
	}
	m.passing.running.Store(nil)
	if k.alone(m); p.strays != 1 {
		t.Error("no strays are taken though nobody gets them any more")
	}
	k.activate(m, false)
	if k.alone(m); p.strays != 1 {
		t.Error("strays are taken by a node that has no address")
	}

	// Of two routers that come in peace one is alone before the other one.
	two := *m
	two.passing = &passing{}
	two.passing.running.Store(&passage{comes: true})
	k.activate(&two, true)
	m.passing.running.Store(nil)
	if k.activate(m, true); p.strays != 0 {
		t.Error("strays are taken, and may be of the router whose connections go on elsewhere")
	}
	if k.alone(m); p.strays != 0 {
		t.Error("strays are taken, and may be of the router whose connections go on elsewhere")
	}
	two.passing.running.Store(nil)
	if k.alone(&two); p.strays != 1 {
		t.Error("no strays are taken though nobody gets them any more")
	}
}

// What an earlier process has left ends with the first Set and Attach, also where
// nothing is to be carried and no interface to be looked at.
func TestWhatIsLeftEndsWithoutServices(t *testing.T) {
	s := kernelSetup(t)
	s.node.Pools["db"] = config.Pool{Config: pool.Config{Balance: pool.LeastConn}}
	k, p := newTestPath(s)
	k.look()
	if p.sets != 1 || p.attaches != 1 || len(p.services) > 0 || len(p.interfaces) > 0 {
		t.Errorf("set %d times to %v, attached %d times to %v", p.sets, p.services, p.attaches, p.interfaces)
	}
	if k.look(); p.sets != 1 || p.attaches != 1 {
		t.Errorf("set %d times, attached %d times", p.sets, p.attaches)
	}
}

// What an earlier process has left is kept until this one has it.
func TestWhatIsLeftIsKeptUntilItIsTakenOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	k, p := newTestPath(kernelSetup(t))
	k.store, _ = fdstore.Open()
	const soon = 50 * time.Millisecond
	told := func(within time.Duration) string {
		manager.SetReadDeadline(time.Now().Add(within))
		b := make([]byte, 100)
		n, _ := manager.Read(b)
		return string(b[:n])
	}
	p.setting = func() {
		if text := told(soon); text != "" {
			t.Errorf("before the take-over the store is told %q", text)
		}
	}
	k.look()
	if text := told(10 * time.Second); !strings.Contains(text, "FDSTORE=1") {
		t.Errorf("after it, %q", text)
	}
	if k.look(); told(soon) != "" {
		t.Error("it is told again")
	}
}

// The connections of a service stay on this node when it goes to one whose kernel
// path does not carry it.
func TestStrandedServices(t *testing.T) {
	s := kernelSetup(t)
	k, _ := newTestPath(s)
	k.look()
	vips, at := []netip.Addr{netip.MustParseAddr("192.0.2.3")}, netip.MustParseAddrPort("192.0.2.3:1")
	if got := k.stranded(vips, nil); got != nil {
		t.Errorf("with dnat the answers go to the other node, and yet: %v", got)
	}
	k.services[0].Mode = kernel.NAT
	if got := k.stranded(vips, nil); !slices.Equal(got, []string{"db"}) || k.flowsOf(got) != 3 {
		t.Errorf("%v", got)
	}
	if got := k.stranded(vips, []netip.AddrPort{at}); got != nil {
		t.Errorf("the other node carries it, and yet: %v", got)
	}
	if got := k.stranded([]netip.Addr{netip.MustParseAddr("192.0.2.4")}, nil); got != nil || k.flowsOf(got) != 0 {
		t.Errorf("its address does not move, and yet: %v", got)
	}
	k.services[0].Protocol = kernel.UDP
	if got := k.stranded(vips, nil); got != nil {
		t.Errorf("datagrams begin a flow of their own, and yet: %v", got)
	}
}
