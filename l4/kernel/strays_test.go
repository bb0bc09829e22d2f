package kernel

import (
	"net"
	"net/netip"
	"testing"
)

// TestStrays has segments of connections come to a node that knows nothing of them,
// before and after their address has come there.
func TestStrays(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, f family) {
		r := newRig(t, Options{}, f.service())
		data := packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: 501, payload: "data"}
		asServer := netip.AddrPortFrom(f.vip.Addr(), f.client.Port())
		answer := packet{proto: TCP, from: f.server, to: asServer, flags: ack, seq: 501, ack: 105, payload: "answer"}
		r.leftByClient("a client's segment", data)
		r.left("a server's segment", r.toServer, r.fromServer(answer))

		r.path.TakeStrays()
		if verdict, _ := r.in(r.toServer, r.fromServer(answer)); verdict != dropped {
			t.Errorf("a server's segment: verdict %#x; want it dropped", verdict)
		}
		greeting := answer
		greeting.flags = syn | ack
		if verdict, _ := r.in(r.toServer, r.fromServer(greeting)); verdict != dropped {
			t.Errorf("a server's SYN-ACK: verdict %#x; want it dropped", verdict)
		}
		for what, p := range map[string]packet{
			"a server's reset":      {proto: TCP, from: f.server, to: asServer, flags: rst | ack},
			"another host's":        {proto: TCP, from: f.second, to: asServer, flags: ack},
			"to another address":    {proto: TCP, from: f.server, to: netip.AddrPortFrom(f.router, 40000), flags: ack},
			"another port's":        {proto: TCP, from: netip.AddrPortFrom(f.server.Addr(), 9), to: asServer, flags: ack},
			"a segment without ACK": {proto: TCP, from: f.server, to: asServer, flags: fin},
		} {
			r.left(what, r.toServer, r.fromServer(p))
		}
		for what, flags := range map[string]byte{"a client's reset": rst, "a reset that acknowledges": rst | ack, "a SYN-ACK": syn | ack, "nothing": 0, "a FIN alone": fin} {
			p := data
			p.flags = flags
			r.leftByClient(what, p)
		}

		seen := r.client(data)
		if seen.to != f.server || seen.from != asServer || seen.payload != data.payload {
			t.Fatalf("it went from %s to %s with %q", seen.from, seen.to, seen.payload)
		}
		if s := r.stats(); s.Strays != 1 || s.Total != 1 || s.Current != 0 {
			t.Errorf("%+v; want one stray, not established yet", s)
		}
		back := r.server(answer)
		if back.from != f.vip || back.to != f.client || back.payload != answer.payload {
			t.Fatalf("the answer went from %s to %s with %q", back.from, back.to, back.payload)
		}
		if s := r.stats(); s.Current != 1 {
			t.Errorf("%+v; want it established by the answer", s)
		}
		if flows := r.flows(); len(flows) != 1 || flows[0].Client != f.client || flows[0].Server != f.server || flows[0].Port != f.client.Port() {
			t.Errorf("%+v", flows)
		}

		// A server that does not know the connection ends it.
		data.from = netip.AddrPortFrom(f.client.Addr(), 41000)
		seen = r.client(data)
		r.server(packet{proto: TCP, from: f.server, to: seen.from, flags: rst, seq: 501})
		if s := r.stats(); s.Refused != 1 || s.Current != 1 || s.Strays != 2 {
			t.Errorf("%+v; want one refused", s)
		}

		// What is cut does not come back.
		if n, err := r.path.Cut(func(Flow) bool { return true }); n != 1 || err != nil {
			t.Errorf("%d cut, %v", n, err)
		}
		data.from = f.client
		r.leftByClient("a segment of a connection that was cut", data)
		r.left("its server's segment", r.toServer, r.fromServer(answer))
	})
}

// TestStraysAreBounded floods a node with segments of connections that there are not.
func TestStraysAreBounded(t *testing.T) {
	t.Parallel()
	f := families[0]
	r := newRig(t, Options{Flows: 1000, HalfOpen: 50}, f.service())
	r.path.TakeStrays()
	for i := range uint16(200) {
		r.in(r.toClient, r.fromClient(packet{proto: TCP, from: netip.AddrPortFrom(f.nobody.Addr(), 1000+i), to: f.vip, flags: ack}))
	}
	if s := r.stats(); s.Fallback.HalfOpen != 150 || s.Strays != 50 {
		t.Errorf("%+v; want 50 half-open flows", s)
	}
	r.path.sweepOnce(tick()+ticks(handshake)+2, 0)
	if s := r.stats(); s.HalfOpen != 0 || s.Current != 0 {
		t.Errorf("%+v; want them gone", s)
	}
}

// TestStraysThatHaveSockets leaves to the stack what it has a socket for: connections
// of the proxy.
func TestStraysThatHaveSockets(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, f family) {
		w := newNetwork(t)
		var l net.Listener
		var err error
		w.balancer.do(func() { l, err = net.Listen("tcp", f.vip.String()) })
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		proxied := make(chan net.Conn, 1)
		go func() {
			if c, err := l.Accept(); err == nil {
				proxied <- c
			}
		}()
		c := w.dial(t, f.vip) // while the program is not there
		defer (<-proxied).Close()
		p := w.open(t, Options{})
		if err := p.Set([]Service{f.service()}); err != nil {
			t.Fatal(err)
		}
		p.TakeStrays()
		r := &rig{t: t, network: w, path: p}
		r.know()
		from := c.LocalAddr().(*net.TCPAddr).AddrPort()
		r.leftByClient("a segment of the proxy's connection", packet{proto: TCP, from: from, to: f.vip, flags: ack, seq: 1, ack: 1})
		r.client(packet{proto: TCP, from: netip.AddrPortFrom(from.Addr(), from.Port()^1), to: f.vip, flags: ack, seq: 1, ack: 1})
	})
}

// TestForgedStrays has somebody who cannot hear the server's answers begin a stray, with a
// segment that no server answers, for its checksum is wrong, and a connection after it.
func TestForgedStrays(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, f family) {
		r := newRig(t, Options{}, f.service())
		r.path.TakeStrays()
		stray := r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: 501})
		r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: syn, seq: 700})
		r.server(packet{proto: TCP, from: f.server, to: stray.from, flags: syn | ack, seq: 9000, ack: 701})
		r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 701, ack: 500000})
		if s := r.stats(); s.Current != 0 {
			t.Errorf("%+v; want it half-open until the client has acknowledged the server's SYN", s)
		}
		r.server(packet{proto: TCP, from: f.server, to: stray.from, flags: ack, seq: 9001, ack: 701})
		if s := r.stats(); s.Current != 0 {
			t.Errorf("%+v; want it half-open until the client has acknowledged the server's SYN", s)
		}
		r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 701, ack: 9001})
		if s := r.stats(); s.Current != 1 {
			t.Errorf("%+v; want it established", s)
		}
	})
}
