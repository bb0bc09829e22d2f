package kernel

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// TestFlowOnTheOtherNode begins a connection on one path and carries it on with
// another one, whose list of servers is another.
func TestFlowOnTheOtherNode(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, f family) {
		for _, mode := range []Mode{NAT, DNAT, Direct} {
			s := f.service()
			s.Mode = mode
			if mode == Direct {
				s.Servers[0].Addr = netip.AddrPortFrom(f.server.Addr(), f.vip.Port())
			}
			first := newRig(t, Options{}, s)
			begin := packet{proto: TCP, from: f.client, to: f.vip, flags: syn, seq: 100}
			data := packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: 501, payload: "data"}
			seen := first.client(begin)
			answer := packet{proto: TCP, from: s.Servers[0].Addr, to: seen.from, flags: syn | ack, seq: 500, ack: 101}
			if mode == Direct {
				first.client(data)
			} else {
				first.server(answer)
			}
			want := first.client(data)
			want = first.client(data)
			flows := first.flows()
			if len(flows) != 1 {
				t.Fatalf("%s: %d flows; want 1", mode, len(flows))
			}

			s.Servers = []Server{{Addr: netip.AddrPortFrom(f.second.Addr(), s.Servers[0].Addr.Port())}}
			second := newRig(t, Options{}, s)
			if n := second.path.Install(flows); n != 0 {
				t.Fatalf("%s: %d refused", mode, n)
			}
			if again := second.flows(); !slices.Equal(again, flows) {
				t.Errorf("%s: %+v became %+v", mode, flows, again)
			}
			if got := second.stats(); got.Current != 0 {
				t.Errorf("%s: an installed flow counts as one that is carried here: %+v", mode, got)
			}
			answer.flags, answer.payload = ack, "more"
			if mode != Direct {
				// The server's next packet comes first.
				if got := second.server(answer); got.from != f.vip || got.to != f.client {
					t.Errorf("%s: the answer is %s to %s", mode, got.from, got.to)
				}
			}
			got := second.client(data)
			if got.from != want.from || got.to != want.to || got.payload != want.payload {
				t.Errorf("%s: data is %s to %s; want %s to %s", mode, got.from, got.to, want.from, want.to)
			}
			if got := second.stats(); got.Current != 1 {
				t.Errorf("%s: a flow that came here is not counted: %+v", mode, got)
			}
			second.path.Remove(flows, here)
			if len(second.flows()) != 1 {
				t.Errorf("%s: a flow that came here is removed by the other node", mode)
			}
			// The way back: the first node has it as its own, and takes it as the
			// other's again only when that had a packet later.
			if n := first.path.Install(second.flows()); n != 0 {
				t.Errorf("%s: %d refused", mode, n)
			}
			if got := first.stats(); got.Current != 1 {
				t.Errorf("%s: what the other node says later of a flow replaced it: %+v", mode, got)
			}
		}
	})
}

func TestRemoveInstalled(t *testing.T) {
	t.Parallel()
	f := families[0]
	r := newRig(t, Options{}, f.service())
	flow := Flow{Protocol: TCP, Client: f.client, Listen: f.vip, Server: f.server, Port: 40000, Idle: 10 * time.Second}
	if n := r.path.Install([]Flow{flow, flow}); n != 0 {
		t.Fatalf("%d refused", n)
	}
	if flows := r.flows(); len(flows) != 1 || flows[0].Idle < 9*time.Second {
		t.Errorf("%+v; want the flow, idle for 10 s", flows)
	}
	flow.Idle, flow.ServerEnded = 0, true
	if n := r.path.Install([]Flow{flow}); n != 0 {
		t.Fatalf("%d refused", n)
	}
	if flows := r.flows(); len(flows) != 1 || flows[0].Idle > 2*time.Second || !flows[0].ServerEnded {
		t.Errorf("%+v; want the flow as it has become", flows)
	}
	// The other node had another connection with the same port.
	flow.Port = 30000
	if n := r.path.Install([]Flow{flow}); n != 0 {
		t.Fatalf("%d refused", n)
	}
	r.left("an answer to the connection before", r.toServer,
		r.fromServer(packet{proto: TCP, from: f.server, to: netip.AddrPortFrom(f.vip.Addr(), 40000), flags: ack}))
	r.path.Remove([]Flow{{Protocol: TCP, Client: f.client, Listen: f.vip}}, here)
	if n := len(r.flows()); n != 0 {
		t.Errorf("%d flows are left", n)
	}
	n := 0
	if err := r.path.each(func(*programKey, *programFlow) bool { n++; return true }); err != nil || n != 0 {
		t.Errorf("%d entries are left; %v", n, err)
	}
}

func TestInstallRefuses(t *testing.T) {
	t.Parallel()
	f, six := families[0], families[1]
	r := newRig(t, Options{Flows: 2}, f.service())
	good := Flow{Protocol: TCP, Client: f.client, Listen: f.vip, Server: f.server, Port: 40000}
	bad := map[string]func(*Flow){
		"an unknown service":     func(f *Flow) { f.Protocol = UDP },
		"no client":              func(f *Flow) { f.Client = netip.AddrPort{} },
		"a client of IPv6":       func(f *Flow) { f.Client = six.client },
		"a client that is none":  func(f *Flow) { f.Client = netip.MustParseAddrPort("0.0.0.0:1") },
		"a server of IPv6":       func(f *Flow) { f.Server = six.server },
		"a server without port":  func(f *Flow) { f.Server = netip.AddrPortFrom(f.Server.Addr(), 0) },
		"a mapped address":       func(f *Flow) { f.Client = netip.MustParseAddrPort("[::ffff:10.0.1.2]:1") },
		"no port":                func(f *Flow) { f.Port = 0 },
		"another port with DNAT": func(f *Flow) { f.Mode, f.Port = DNAT, 1 },
		"a server that listens elsewhere, with direct return": func(f *Flow) { f.Mode = Direct },
		"an unknown mode": func(f *Flow) { f.Mode = 7 },
	}
	for what, change := range bad {
		flow := good
		change(&flow)
		if n := r.path.Install([]Flow{flow}); n != 1 {
			t.Errorf("%s is not refused", what)
		}
	}
	absurd := good
	absurd.Idle = 1 << 62
	if n := r.path.Install([]Flow{good, absurd}); n != 0 {
		t.Errorf("%d refused; want none", n)
	}
	other := good
	other.Client = netip.AddrPortFrom(f.nobody.Addr(), 1)
	if n := r.path.Install([]Flow{other}); n != 1 {
		t.Error("a second client of the same port to the server is not refused")
	}
	other.Port = 1
	third := other
	third.Client, third.Port = netip.AddrPortFrom(f.nobody.Addr(), 2), 2
	if n := r.path.Install([]Flow{other, third}); n != 1 {
		t.Errorf("%d refused; want the third, for which there is no room", n)
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	f := families[0]
	r := newRig(t, Options{}, f.service())
	told := make(chan Change, 100)
	r.path.OnChanges(func(changes []Change) {
		for _, c := range changes {
			told <- c
		}
	})
	next := func(kind ChangeKind) Flow {
		t.Helper()
		select {
		case c := <-told:
			if c.Kind != kind {
				t.Errorf("told %d; want %d", c.Kind, kind)
			}
			return c.Flow
		case <-time.After(10 * time.Second):
			t.Fatalf("not told %d", kind)
			return Flow{}
		}
	}
	seen := r.connect(f.client, f.vip, f.server)
	want := Flow{Protocol: TCP, Client: f.client, Listen: f.vip, Server: f.server, Port: f.client.Port()}
	if got := next(Established); got != want {
		t.Errorf("%+v; want %+v", got, want)
	}
	r.path.reports.deliver(r.path.sweepOnce(tick(), ticks(RefreshInterval)))
	next(Refreshed)
	r.path.reports.deliver(r.path.sweepOnce(tick()+ticks(RefreshInterval), ticks(RefreshInterval)))
	r.server(packet{proto: TCP, from: f.server, to: seen, flags: fin | ack, seq: 501, ack: 101})
	if got := next(Refreshed); !got.ServerEnded || got.ClientEnded {
		t.Errorf("%+v; want the server's end", got)
	}
	r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: fin | ack, seq: 101, ack: 502})
	if got := next(Ended); got.Server != f.server || !got.ServerEnded || !got.ClientEnded {
		t.Errorf("%+v; want both ends", got)
	}

	// What the other node had ends untold; what ends by itself is told.
	r.path.Install([]Flow{{Protocol: TCP, Client: f.nobody, Listen: f.vip, Server: f.server, Port: 1}})
	r.connect(f.client, f.vip, f.server)
	next(Established)
	r.path.reports.deliver(r.path.sweepOnce(tick()+ticks(time.Hour)+2, 0))
	if got := next(Ended); got.Client != f.client {
		t.Errorf("%+v; want the flow of %s", got, f.client)
	}
	if s := r.stats(); s.TimedOut != 1 || s.Current != 0 {
		t.Errorf("%+v; want one timed out", s)
	}
	r.path.OnChanges(nil)
	r.connect(f.client, f.vip, f.server)
	time.Sleep(3 * reportPause)
	if len(told) != 0 {
		t.Errorf("told %+v after the end", <-told)
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	f := families[0]
	s := f.service()
	s.Timeouts = Timeouts{Idle: 2 * time.Minute, HalfClose: 30 * time.Second}
	r := newRig(t, Options{}, s)
	r.connect(f.client, f.vip, f.server)
	other := netip.AddrPortFrom(f.client.Addr(), 41000)
	r.connect(other, f.vip, f.server)
	r.client(packet{proto: TCP, from: other, to: f.vip, flags: fin | ack, seq: 101, ack: 501})
	now := tick()
	for _, c := range []struct {
		after time.Duration
		left  int
	}{{25 * time.Second, 2}, {35 * time.Second, 1}, {110 * time.Second, 1}, {130 * time.Second, 0}} {
		r.path.sweepOnce(now+ticks(c.after), 0)
		if n := len(r.flows()); n != c.left {
			t.Errorf("after %s: %d flows; want %d", c.after, n, c.left)
		}
	}
	// A flow lives as long as either direction is used.
	seen := r.connect(f.client, f.vip, f.server)
	k := flowKey(TCP, f.server, seen)
	var back programFlow
	if err := r.path.objects.Flows.Lookup(&k, &back); err != nil {
		t.Fatal(err)
	}
	back.Seen += ticks(2 * time.Minute)
	if err := r.path.objects.Flows.Put(&k, &back); err != nil {
		t.Fatal(err)
	}
	later := tick() + ticks(2*time.Minute+10*time.Second)
	told := r.path.sweepOnce(later, ticks(RefreshInterval))
	if len(r.flows()) != 1 {
		t.Error("a flow that only the server uses timed out")
	}
	if len(told) != 1 || told[0].Kind != Refreshed || told[0].Flow.Idle > 15*time.Second {
		t.Errorf("told %+v; want the flow, idle for 10 s", told)
	}
}
