package kernel

import (
	"net/netip"
	"testing"
)

func eachFamily(t *testing.T, test func(*testing.T, family)) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			test(t, f)
		})
	}
}

func TestConnection(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, f family) {
		r := newRig(t, Options{}, f.service())
		got := r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: syn, seq: 100, ttl: 30})
		fromVIP := netip.AddrPortFrom(f.vip.Addr(), f.client.Port())
		if got.from != fromVIP || got.to != f.server || got.ttl != 29 || got.flags != syn || got.seq != 100 {
			t.Fatalf("the SYN came out as %+v", got)
		}
		if s := r.stats(); s.Current != 0 || s.Total != 1 {
			t.Errorf("after the SYN: current %d, total %d; want 0, 1", s.Current, s.Total)
		}
		got = r.server(packet{proto: TCP, from: f.server, to: fromVIP, flags: syn | ack, seq: 500, ack: 101})
		if got.from != f.vip || got.to != f.client || got.ttl != 63 {
			t.Fatalf("the answer came out as %+v", got)
		}
		r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: 501})
		if s := r.stats(); s.Current != 1 || s.Total != 1 || s.Servers[0].Current != 1 {
			t.Errorf("after the handshake: %+v", s)
		}

		// Established packets bear the next hop's address already.
		got = r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: 501, payload: "hello"})
		if got.payload != "hello" || got.toMAC != [6]byte(r.serverMAC) || got.fromMAC != [6]byte(r.toServer.HardwareAddr) {
			t.Errorf("data came out as %+v", got)
		}
		r.server(packet{proto: TCP, from: f.server, to: fromVIP, flags: ack, seq: 501, ack: 106, payload: "odd"})
		got = r.server(packet{proto: TCP, from: f.server, to: fromVIP, flags: ack, seq: 504, ack: 106, payload: "goodbye"})
		if got.payload != "goodbye" || got.toMAC != [6]byte(r.clientMAC) || got.fromMAC != [6]byte(r.toClient.HardwareAddr) {
			t.Errorf("data came back as %+v", got)
		}
		want := Traffic{PacketsToServer: 3, PacketsToClient: 3, BytesToServer: 5, BytesToClient: 10}
		if s := r.stats(); s.Traffic != want {
			t.Errorf("traffic %+v; want %+v", s.Traffic, want)
		}

		r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: fin | ack, seq: 106, ack: 511})
		if flows := r.flows(); len(flows) != 1 || !flows[0].ClientEnded || flows[0].ServerEnded {
			t.Errorf("after the client's end: %+v", flows)
		}
		r.server(packet{proto: TCP, from: f.server, to: fromVIP, flags: fin | ack, seq: 511, ack: 107})
		r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 107, ack: 512})
		if s := r.stats(); s.Current != 0 || s.Broken != 0 || len(r.flows()) != 0 {
			t.Errorf("after both ends: %+v", s)
		}

		// The same ports again are a new connection.
		r.connect(f.client, f.vip, f.server)
		if s := r.stats(); s.Current != 1 || s.Total != 2 {
			t.Errorf("after a second connection: %+v", s)
		}
	})
}

func TestWhatIsNoConnectionIsLeft(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, f family) {
		r := newRig(t, Options{}, f.service())
		toVIP := packet{proto: TCP, from: f.client, to: f.vip}
		for what, flags := range map[string]byte{
			"an acknowledgement without a flow": ack, "a reset without a flow": rst, "SYN and FIN": syn | fin,
			"SYN and RST": syn | rst, "no flags": 0, "all flags": 0xff, "an answer to nothing": syn | ack,
		} {
			p := toVIP
			p.flags = flags
			r.leftByClient(what, p)
		}
		other := toVIP
		other.flags, other.to = syn, netip.AddrPortFrom(f.vip.Addr(), 81)
		r.leftByClient("a SYN to another port", other)
		other = toVIP
		other.flags, other.proto = 0, UDP
		r.leftByClient("a datagram to a service of TCP", other)
		last := toVIP
		last.flags, last.ttl = syn, 1
		r.leftByClient("a SYN whose TTL is over", last)
		reply := packet{proto: TCP, from: f.server, to: netip.AddrPortFrom(f.vip.Addr(), 40000), flags: syn | ack}
		r.left("a reply without a flow", r.toServer, r.fromServer(reply))
		if s := r.stats(); s.Total != 0 {
			t.Errorf("%d flows began", s.Total)
		}
		foreign := toVIP
		foreign.flags = syn
		frame := r.fromClient(foreign)
		frame[5] ^= 1
		r.left("a frame to another machine", r.toClient, frame)
	})
}

func TestHandshakeNeedsTheServersNumber(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, f family) {
		r := newRig(t, Options{}, f.service())
		seen := r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: syn, seq: 100})
		r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: 501})
		if s := r.stats(); s.Current != 0 {
			t.Error("an acknowledgement of nothing established a flow")
		}
		r.server(packet{proto: TCP, from: f.server, to: seen.from, flags: syn | ack, seq: 500, ack: 101})
		for _, wrong := range []uint32{0, 500, 501 + 1<<16, 501 + 1<<31} {
			r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: wrong})
			if s := r.stats(); s.Current != 0 {
				t.Errorf("acknowledging %d instead of 501 established a flow", wrong)
			}
		}
		r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: 501})
		if s := r.stats(); s.Current != 1 {
			t.Error("the right number did not establish the flow")
		}
	})
}

func TestReset(t *testing.T) {
	t.Parallel()
	f := families[0]
	r := newRig(t, Options{}, f.service())
	seen := r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: syn, seq: 100})
	r.server(packet{proto: TCP, from: f.server, to: seen.from, flags: rst | ack, ack: 101})
	if s := r.stats(); s.Refused != 1 || s.Current != 0 || s.Broken != 0 {
		t.Errorf("after a refusal: %+v", s)
	}
	server := r.connect(f.client, f.vip, f.server)
	r.server(packet{proto: TCP, from: f.server, to: server, flags: rst, seq: 501})
	if s := r.stats(); s.Broken != 1 || s.Current != 0 {
		t.Errorf("after a reset: %+v", s)
	}
	// Packets of the other side that were under way do not bring it back.
	r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: 501, payload: "late"})
	if s := r.stats(); s.Current != 0 {
		t.Errorf("a late packet brought a connection back: %+v", s)
	}
	// But who has sent a reset sends nothing else: that one was forged.
	r.server(packet{proto: TCP, from: f.server, to: server, flags: ack, seq: 501, ack: 101, payload: "I am alive"})
	if s := r.stats(); s.Current != 1 {
		t.Errorf("a forged reset ended a connection: %+v", s)
	}
}

func TestPortsThatAreTaken(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, f family) {
		r := newRig(t, Options{Ports: [2]uint16{20000, 20000}}, f.service())
		r.know()
		second := netip.AddrPortFrom(f.nobody.Addr(), f.client.Port())
		third := netip.AddrPortFrom(f.nobody.Addr().Next(), f.client.Port())
		if a := r.connect(f.client, f.vip, f.server); a.Port() != f.client.Port() {
			t.Errorf("the first client is %s to the server; want its own port", a)
		}
		seen := r.client(packet{proto: TCP, from: second, to: f.vip, flags: syn})
		if seen.from.Port() != 20000 {
			t.Errorf("the second client is %s to the server; want port 20000", seen.from)
		}
		got := r.server(packet{proto: TCP, from: f.server, to: seen.from, flags: syn | ack})
		if got.to != second {
			t.Errorf("the answer goes to %s; want %s", got.to, second)
		}
		r.leftByClient("a client without a port", packet{proto: TCP, from: third, to: f.vip, flags: syn})
		if s := r.stats(); s.Fallback.NoPort != 1 {
			t.Errorf("fallback %+v; want one for want of a port", s.Fallback)
		}
	})
}

func TestNoRoom(t *testing.T) {
	t.Parallel()
	f := families[0]
	r := newRig(t, Options{Flows: 2, HalfOpen: 10}, f.service())
	for i := range uint16(2) {
		r.connect(netip.AddrPortFrom(f.client.Addr(), 40000+i), f.vip, f.server)
	}
	r.leftByClient("a flow too many", packet{proto: TCP, from: netip.AddrPortFrom(f.client.Addr(), 40002), to: f.vip, flags: syn})
	if s := r.stats(); s.Fallback.Full != 1 || s.Current != 2 {
		t.Errorf("%+v; want two flows and one too many", s)
	}
	r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: 501})
}

func TestFloodOfSYNs(t *testing.T) {
	t.Parallel()
	f := families[0]
	r := newRig(t, Options{Flows: 1000, HalfOpen: 50}, f.service())
	r.connect(f.client, f.vip, f.server)
	for i := range uint16(200) {
		r.in(r.toClient, r.fromClient(packet{proto: TCP, from: netip.AddrPortFrom(f.nobody.Addr(), 1000+i), to: f.vip, flags: syn}))
	}
	if s := r.stats(); s.Fallback.HalfOpen != 150 || s.Current != 1 || s.Total != 51 {
		t.Errorf("%+v; want 50 half-open flows, 150 left to the stack, and the one before", s)
	}
	r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: 501})
	// They do not stay.
	r.path.sweepOnce(tick()+ticks(handshake)+2, 0)
	if s := r.stats(); s.Current != 1 || s.HalfOpen != 0 {
		t.Errorf("%+v; want the half-open flows gone", s)
	}
	r.connect(netip.AddrPortFrom(f.client.Addr(), 41000), f.vip, f.server)
}

func TestSourcesThatCannotBe(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, f family) {
		r := newRig(t, Options{}, f.service())
		sources := []string{"0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255"}
		if f.vip.Addr().Is6() {
			sources = []string{"::", "::1", "ff02::1", "::ffff:10.0.1.2"}
		}
		for _, a := range append(sources, f.vip.Addr().String()) {
			from := netip.AddrPortFrom(netip.MustParseAddr(a), 40000)
			r.leftByClient("a SYN from "+a, packet{proto: TCP, from: from, to: f.vip, flags: syn})
		}
		if s := r.stats(); s.Total != 0 {
			t.Errorf("%d flows began", s.Total)
		}
	})
}

// TestServerAsClient has a server connect to the service that it is a server of.
func TestServerAsClient(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, f family) {
		r := newRig(t, Options{}, f.service())
		self := netip.AddrPortFrom(f.server.Addr(), 40000)
		in := packet{proto: TCP, from: self, to: f.vip, flags: syn, seq: 100}
		seen := r.server(in)
		if seen.to != f.server || seen.from.Addr() != f.vip.Addr() {
			t.Fatalf("the SYN is %s to %s", seen.from, seen.to)
		}
		if got := r.server(packet{proto: TCP, from: f.server, to: seen.from, flags: syn | ack, seq: 500, ack: 101}); got.to != self || got.from != f.vip {
			t.Errorf("the answer is %s to %s", got.from, got.to)
		}
		// With the port of the server itself, both directions would be one.
		in.from = f.server
		in.to = f.vip
		if verdict, _ := r.in(r.toServer, r.fromServer(in)); verdict != redirect {
			t.Errorf("verdict %#x", verdict)
		}
	})
}
