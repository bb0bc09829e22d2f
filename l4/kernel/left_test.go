package kernel

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
)

func (r *rig) leftCounts() Left {
	r.t.Helper()
	s, err := r.path.Stats()
	if err != nil {
		r.t.Fatal(err)
	}
	return s.Left
}

func TestWhatIsNotUnderstoodIsLeft(t *testing.T) {
	t.Parallel()
	f := families[0]
	r := newRig(t, Options{}, f.service())
	r.connect(f.client, f.vip, f.server)
	whole := func() []byte {
		return r.fromClient(packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: 501, payload: "some data"})
	}
	for _, c := range []struct {
		what   string
		change func([]byte) []byte
		want   Left
	}{
		{"a first fragment", func(b []byte) []byte { b[20] = 0x20; return b }, Left{Fragments: 1}},
		{"a later fragment", func(b []byte) []byte { b[20], b[21] = 0, 9; return b }, Left{Fragments: 1}},
		{"IP options", func(b []byte) []byte { b[14] = 0x46; return b }, Left{Options: 1}},
		{"a header of IP that is too short", func(b []byte) []byte { b[14] = 0x44; return b }, Left{Malformed: 1}},
		{"version 5", func(b []byte) []byte { b[14] = 0x55; return b }, Left{Malformed: 1}},
		{"a length beyond the frame", func(b []byte) []byte { b[17] = 200; return b }, Left{Malformed: 1}},
		{"a length below the header", func(b []byte) []byte { b[17] = 19; return b }, Left{Malformed: 1}},
		{"a length without a header of TCP", func(b []byte) []byte { b[17] = 39; return b }, Left{Malformed: 1}},
		{"a header of TCP that is too short", func(b []byte) []byte { b[46] = 4 << 4; return b }, Left{Malformed: 1}},
		{"a header of TCP beyond the packet", func(b []byte) []byte { b[46] = 15 << 4; return b }, Left{Malformed: 1}},
		{"a protocol that is none of ours", func(b []byte) []byte { b[23] = 47; return b }, Left{}},
		{"ARP", func(b []byte) []byte { b[12], b[13] = 8, 6; return b }, Left{}},
		{"IPv6 that is IPv4", func(b []byte) []byte { b[12], b[13] = 0x86, 0xdd; return b }, Left{}},
	} {
		before := r.leftCounts()
		r.left(c.what, r.toClient, c.change(whole()))
		after := r.leftCounts()
		if got := (Left{after.Fragments - before.Fragments, after.Options - before.Options, after.Malformed - before.Malformed}); got != c.want {
			t.Errorf("%s: counted %+v; want %+v", c.what, got, c.want)
		}
	}

	f = families[1]
	if err := r.path.Set([]Service{f.service()}); err != nil {
		t.Fatal(err)
	}
	r.connect(f.client, f.vip, f.server)
	for _, c := range []struct {
		what string
		next byte
		want Left
	}{
		{"hop-by-hop options", 0, Left{Options: 1}}, {"a routing header", 43, Left{Options: 1}},
		{"a fragment of IPv6", 44, Left{Fragments: 1}}, {"destination options", 60, Left{Options: 1}},
		{"no next header", 59, Left{}},
	} {
		b := r.fromClient(packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: 501})
		b[20] = c.next
		before := r.leftCounts()
		r.left(c.what, r.toClient, b)
		after := r.leftCounts()
		if got := (Left{after.Fragments - before.Fragments, after.Options - before.Options, after.Malformed - before.Malformed}); got != c.want {
			t.Errorf("%s: counted %+v; want %+v", c.what, got, c.want)
		}
	}
}

// TestPacketsCutShort cuts packets at every length. Those of a flow are left to
// the stack when their own header says that there is more.
func TestPacketsCutShort(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, f family) {
		for _, proto := range []Protocol{TCP, UDP} {
			s := f.service()
			s.Protocol = proto
			r := newRig(t, Options{}, s)
			whole := r.fromClient(packet{proto: proto, from: f.client, to: f.vip, flags: syn, payload: "some data"})
			if verdict, _ := r.in(r.toClient, whole); verdict != redirect {
				t.Fatalf("verdict %#x", verdict)
			}
			for n := f.shortest(); n < len(whole); n++ {
				r.left("a packet that is cut short", r.toClient, whole[:n])
			}
		}
	})
}

// TestPacketsOfAnyKind changes packets of a flow at random. Whatever comes, the
// verdict is one of ours, and the flow goes on.
func TestPacketsOfAnyKind(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, f family) {
		r := newRig(t, Options{}, f.service())
		r.connect(f.client, f.vip, f.server)
		random := rand.New(rand.NewPCG(1, 2))
		data := packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: 501, payload: "some data"}
		for range 5000 {
			b := r.fromClient(data)
			for range 1 + random.IntN(4) {
				b[14+random.IntN(len(b)-14)] = byte(random.Uint32())
			}
			b = b[:f.shortest()+random.IntN(len(b)-f.shortest()+1)]
			for _, i := range []*net.Interface{r.toClient, r.toServer} {
				switch verdict, _ := r.in(i, b); verdict {
				case left, dropped, redirect:
				default:
					t.Fatalf("verdict %#x for %x", verdict, b)
				}
			}
		}
		if got := r.client(data); got.to != f.server {
			t.Errorf("after all that, data goes to %s", got.to)
		}
	})
}

// TestMappedAddresses has packets of IPv6 name addresses of IPv4, as no packet may: in the
// tables of the program they are the same.
func TestMappedAddresses(t *testing.T) {
	t.Parallel()
	f, f6 := families[0], families[1]
	r := newRig(t, Options{}, f.service())
	r.connect(f.client, f.vip, f.server)
	mapped := func(a netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
	}
	for what, p := range map[string]packet{
		"to a service":   {from: f6.client, to: mapped(f.vip), flags: syn},
		"from a client":  {from: mapped(f.client), to: f6.vip, flags: syn},
		"of a flow":      {from: mapped(f.client), to: mapped(f.vip), flags: ack, seq: 101, ack: 501},
		"from a server":  {from: mapped(f.server), to: mapped(f.vip), flags: ack, seq: 501, ack: 101},
		"to an unknown ": {from: f6.client, to: mapped(f.nobody), flags: syn},
	} {
		p.proto = TCP
		r.leftByClient(what, p)
	}
	if s := r.stats(); s.Current != 1 || s.HalfOpen != 0 || s.Total != 1 {
		t.Errorf("%+v", s)
	}
}

func TestVirtualMAC(t *testing.T) {
	t.Parallel()
	f := families[0]
	r := newRig(t, Options{}, f.service())
	mac := net.HardwareAddr{0, 0, 0x5e, 0, 1, 50}
	b := r.fromClient(packet{proto: TCP, from: f.client, to: f.vip, flags: syn})
	copy(b, mac)
	r.left("a frame to a virtual MAC that is not ours", r.toClient, b)
	attach := func(macs ...net.HardwareAddr) {
		var err error
		r.balancer.do(func() { err = r.path.Attach([]Interface{{Index: r.toClient.Index, VirtualMACs: macs}}) })
		if err != nil {
			t.Fatal(err)
		}
	}
	attach(mac)
	if verdict, _ := r.in(r.toClient, b); verdict != redirect {
		t.Errorf("a frame to our virtual MAC: verdict %#x", verdict)
	}
	r.left("the same at another interface", r.toServer, b)
	attach()
	r.left("a frame to a virtual MAC that is not ours any more", r.toClient, b)
}
