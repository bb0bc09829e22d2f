package kernel

import (
	"net/netip"
	"testing"
)

func TestServerStates(t *testing.T) {
	t.Parallel()
	f := families[0]
	begin := packet{proto: TCP, from: f.client, to: f.vip, flags: syn}
	data := packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: 501, payload: "data"}
	for _, state := range []State{Drain, Maint, Down} {
		for _, reset := range []bool{false, true} {
			r := newRig(t, Options{}, f.service())
			server := r.connect(f.client, f.vip, f.server)
			s := f.service()
			s.Servers[0].State, s.ResetOnDown = state, reset
			if err := r.path.Set([]Service{s}); err != nil {
				t.Fatal(err)
			}
			another := begin
			another.from = netip.AddrPortFrom(f.client.Addr(), 41000)
			r.leftByClient("a new connection", another)
			if got := r.stats(); got.Fallback.NoServer != 1 {
				t.Errorf("state %d: fallback %+v", state, got.Fallback)
			}
			if state != Down || !reset {
				if got := r.client(data); got.to != f.server {
					t.Errorf("state %d: data goes to %s", state, got.to)
				}
				continue
			}
			r.leftByClient("data for a server that is down", data)
			r.left("data of a server that is down", r.toServer,
				r.fromServer(packet{proto: TCP, from: f.server, to: server, flags: ack, seq: 501, ack: 101}))
			if got := r.stats(); got.Current != 0 {
				t.Errorf("%d connections are left on a server that is down", got.Current)
			}
		}
	}
}

func TestServerThatIsGone(t *testing.T) {
	t.Parallel()
	f := families[0]
	r := newRig(t, Options{}, f.service())
	r.connect(f.client, f.vip, f.server)
	s := f.service()
	s.Servers[0].Addr = f.second
	if err := r.path.Set([]Service{s}); err != nil {
		t.Fatal(err)
	}
	data := packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: 501, payload: "data"}
	if got := r.client(data); got.to != f.server {
		t.Errorf("data of a connection goes to %s; want %s, as before", got.to, f.server)
	}
	r.connect(netip.AddrPortFrom(f.client.Addr(), 41000), f.vip, f.second)
	if got := r.stats(); len(got.Servers) != 2 || got.Servers[0].Addr != f.second || got.Servers[1].Current != 1 {
		t.Errorf("%+v; want the second server and then the first, with a connection", got)
	}
	r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: rst, seq: 105})
	r.path.sweepOnce(tick()+ticks(linger)+2, 0)
	r.path.sweepOnce(tick(), 0)
	if got := r.stats(); len(got.Servers) != 1 {
		t.Errorf("%+v; want the first server forgotten with its last connection", got.Servers)
	}

	// A whole service that is gone lets its connections go on, too.
	if err := r.path.Set(nil); err != nil {
		t.Fatal(err)
	}
	other := packet{proto: TCP, from: netip.AddrPortFrom(f.client.Addr(), 41000), to: f.vip, flags: ack, seq: 101, ack: 501}
	if got := r.client(other); got.to != f.second {
		t.Errorf("data of a connection of a service that is gone goes to %s", got.to)
	}
	r.leftByClient("a connection to a service that is gone", packet{proto: TCP, from: f.client, to: f.vip, flags: syn})
	r.client(packet{proto: TCP, from: other.from, to: f.vip, flags: rst, seq: 101})
	r.path.sweepOnce(tick()+ticks(linger)+2, 0)
	r.path.sweepOnce(tick(), 0)
	if len(r.path.registry.byID) != 0 || len(r.path.registry.servers) != 0 {
		t.Errorf("%d services and %d servers are left", len(r.path.registry.byID), len(r.path.registry.servers))
	}
}

func TestRetransmittedSYNChoosesAnew(t *testing.T) {
	t.Parallel()
	f := families[0]
	r := newRig(t, Options{}, f.service())
	begin := packet{proto: TCP, from: f.client, to: f.vip, flags: syn}
	r.client(begin)
	s := f.service()
	s.Servers[0].State = Down
	s.Servers = append(s.Servers, Server{Addr: f.second, Backup: true})
	if err := r.path.Set([]Service{s}); err != nil {
		t.Fatal(err)
	}
	if got := r.client(begin); got.to != f.second {
		t.Errorf("the SYN goes to %s again; want %s, which is up", got.to, f.second)
	}
	if got := r.stats(); got.Total != 2 {
		t.Errorf("%d flows; want 2", got.Total)
	}
	if r.path.sweepOnce(tick(), 0); r.stats().HalfOpen != 1 {
		t.Errorf("%d are half-open; want 1", r.stats().HalfOpen)
	}
}

func TestBackupWaits(t *testing.T) {
	t.Parallel()
	f := families[0]
	s := f.service()
	s.Servers = append(s.Servers, Server{Addr: f.second, Backup: true})
	r := newRig(t, Options{}, s)
	for i := range uint16(20) {
		r.connect(netip.AddrPortFrom(f.client.Addr(), 41000+i), f.vip, f.server)
	}
}

func TestShares(t *testing.T) {
	t.Parallel()
	f := families[0]
	s := f.service()
	s.Servers = []Server{{Addr: f.server, Weight: 3}, {Addr: f.second}}
	r := newRig(t, Options{}, s)
	got := map[netip.AddrPort]int{}
	for i := range uint16(2000) {
		p := r.client(packet{proto: TCP, from: netip.AddrPortFrom(f.client.Addr(), 2000+i), to: f.vip, flags: syn})
		got[p.to]++
	}
	if n := got[f.server]; n < 1400 || n > 1600 {
		t.Errorf("%v of 2,000; want about 1,500 and 500", got)
	}
	s.ByClient = true
	if err := r.path.Set([]Service{s}); err != nil {
		t.Fatal(err)
	}
	clear(got)
	for i := range uint16(50) {
		got[r.client(packet{proto: TCP, from: netip.AddrPortFrom(f.client.Addr(), 10000+i), to: f.vip, flags: syn}).to]++
	}
	if len(got) != 1 {
		t.Errorf("one client went to %v; want one server", got)
	}
}

func TestNoRoute(t *testing.T) {
	t.Parallel()
	f := families[0]
	begin := packet{proto: TCP, from: f.client, to: f.vip, flags: syn}
	for name, addr := range map[string]string{"nowhere": "198.51.100.1:80", "this node": "10.0.2.1:80"} {
		s := f.service()
		s.Servers[0].Addr = netip.MustParseAddrPort(addr)
		r := newRig(t, Options{}, s)
		r.leftByClient("a connection to "+name, begin)
		if got := r.stats(); got.Fallback.NoRoute != 1 {
			t.Errorf("%s: fallback %+v", name, got.Fallback)
		}
	}
	for name, o := range map[string]Options{
		"nothing known instead": {}, "the loopback interface instead": {Route: func(netip.Addr) int { return 1 }},
		"no interface instead": {Route: func(netip.Addr) int { return 12345 }},
	} {
		r := newRig(t, o, f.service())
		r.forward("0")
		r.leftByClient("a connection without forwarding, and "+name, begin)
	}
}
