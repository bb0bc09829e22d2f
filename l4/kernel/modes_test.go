package kernel

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestDNAT(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, f family) {
		s := f.service()
		s.Mode = DNAT
		r := newRig(t, Options{}, s)
		if seen := r.connect(f.client, f.vip, f.server); seen != f.client {
			t.Errorf("the server sees %s; want the client, %s", seen, f.client)
		}
		got := r.server(packet{proto: TCP, from: f.server, to: f.client, flags: ack, seq: 501, ack: 101})
		if got.from != f.vip || got.to != f.client {
			t.Errorf("the answer is %s to %s", got.from, got.to)
		}
		if s := r.stats(); s.Current != 1 {
			t.Errorf("%+v; want one connection", s)
		}
	})
}

func TestDirectReturn(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, f family) {
		s := f.service()
		s.Mode = Direct
		s.Servers[0].Addr = netip.AddrPortFrom(f.server.Addr(), f.vip.Port())
		r := newRig(t, Options{}, s)
		begin := r.fromClient(packet{proto: TCP, from: f.client, to: f.vip, flags: syn})
		verdict, out := r.in(r.toClient, begin)
		if verdict != redirect || !bytes.Equal(out[14:], begin[14:]) {
			t.Fatalf("verdict %#x; want the packet sent on as it is", verdict)
		}
		data := r.fromClient(packet{proto: TCP, from: f.client, to: f.vip, flags: ack, payload: "data"})
		r.in(r.toClient, data)
		verdict, out = r.in(r.toClient, data)
		if verdict != redirect || !bytes.Equal(out[14:], data[14:]) || !bytes.Equal(out[:6], r.serverMAC) {
			t.Errorf("verdict %#x, to %x; want the packet sent on as it is, to %s", verdict, out[:6], r.serverMAC)
		}
		if s := r.stats(); s.Current != 1 {
			t.Errorf("%+v; want one connection", s)
		}
		r.in(r.toClient, r.fromClient(packet{proto: TCP, from: f.client, to: f.vip, flags: rst}))
		if s := r.stats(); s.Current != 0 {
			t.Errorf("%+v; want none", s)
		}
	})
}

func TestDatagrams(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, f family) {
		s := f.service()
		s.Protocol, s.Responses = UDP, 2
		r := newRig(t, Options{}, s)
		ask := packet{proto: UDP, from: f.client, to: f.vip, payload: "what?"}
		got := r.client(ask)
		if got.to != f.server || got.payload != "what?" {
			t.Fatalf("the datagram came out as %+v", got)
		}
		r.client(ask)
		if s := r.stats(); s.Current != 0 || s.Total != 1 {
			t.Errorf("before the answer: %+v", s)
		}
		answer := packet{proto: UDP, from: f.server, to: got.from, payload: "this"}
		if got := r.server(answer); got.from != f.vip || got.to != f.client || got.payload != "this" {
			t.Errorf("the answer came out as %+v", got)
		}
		if s := r.stats(); s.Current != 1 || s.BytesToServer != 10 || s.BytesToClient != 4 {
			t.Errorf("after the answer: %+v", s)
		}
		r.server(answer)
		if s := r.stats(); s.Current != 0 {
			t.Errorf("after two answers: %+v", s)
		}
		if r.client(ask); r.stats().Total != 2 {
			t.Errorf("the next datagram began no flow")
		}
		s.Servers[0].State = Down
		s.Servers = append(s.Servers, Server{Addr: f.second})
		if err := r.path.Set([]Service{s}); err != nil {
			t.Fatal(err)
		}
		if got := r.client(ask); got.to != f.second {
			t.Errorf("with the server down, the datagram went to %s", got.to)
		}
		if f.vip.Addr().Is4() {
			ask.from, ask.noChecksum = netip.AddrPortFrom(f.client.Addr(), 50000), true
			if got := r.client(ask); !got.noChecksum {
				t.Error("a datagram without a checksum got one, which is wrong")
			}
		}
	})
}

// icmp returns an error about quoted, an IP packet.
func icmp(from, to netip.Addr, typ, code byte, mtu uint32, quoted []byte) []byte {
	message := icmpError(typ, code, mtu, quoted)
	proto := byte(1)
	var start uint32
	if from.Is6() {
		proto = 58
		start = pseudo(from, to, proto, len(message))
	}
	binary.BigEndian.PutUint16(message[2:], onesSum(start, message))
	return append(ipHeader(from, to, proto, 64, len(message)), message...)
}

// icmpParts returns who an error is from and to, and the quoted addresses,
// after it has verified the checksums.
func icmpParts(t *testing.T, ip []byte) (from, to netip.Addr, quotedFrom, quotedTo netip.AddrPort) {
	t.Helper()
	read := func(ip []byte) (from, to netip.Addr, rest []byte) {
		if ip[0]>>4 == 6 {
			return netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40])), ip[40:]
		}
		if s := onesSum(0, ip[:20]); s != 0 {
			t.Errorf("a checksum of IP is off by %#x", s)
		}
		return netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20])), ip[20:]
	}
	from, to, message := read(ip)
	var start uint32
	if from.Is6() {
		start = pseudo(from, to, 58, len(message))
	}
	if s := onesSum(start, message); s != 0 {
		t.Errorf("the checksum of ICMP is off by %#x", s)
	}
	qf, qt, ports := read(message[8:])
	return from, to, netip.AddrPortFrom(qf, binary.BigEndian.Uint16(ports)), netip.AddrPortFrom(qt, binary.BigEndian.Uint16(ports[2:]))
}

func TestErrorsOfICMP(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, f family) {
		r := newRig(t, Options{}, f.service())
		seen := r.connect(f.client, f.vip, f.server)
		tooBig, code := byte(3), byte(4)
		if f.vip.Addr().Is6() {
			tooBig, code = 2, 0
		}
		quote := func(p packet) []byte {
			ip := p.ip()
			if p.from.Addr().Is6() {
				return ip[:48]
			}
			return ip[:28]
		}

		// A router behind the balancer about a packet to the server.
		about := quote(packet{proto: TCP, from: seen, to: f.server, flags: ack, seq: 101})
		verdict, out := r.in(r.toServer, frame([6]byte(r.toServer.HardwareAddr), [6]byte(r.serverMAC), icmp(f.router, f.vip.Addr(), tooBig, code, 1280, about)))
		if verdict != redirect {
			t.Fatalf("verdict %#x; want the error sent to the client", verdict)
		}
		from, to, quotedFrom, quotedTo := icmpParts(t, out[14:])
		if from != f.vip.Addr() || to != f.client.Addr() || quotedFrom != f.client || quotedTo != f.vip {
			t.Errorf("to the client: %s to %s about %s to %s", from, to, quotedFrom, quotedTo)
		}

		// A router before it about a packet to the client.
		about = quote(packet{proto: TCP, from: f.vip, to: f.client, flags: ack, seq: 501})
		verdict, out = r.in(r.toClient, frame([6]byte(r.toClient.HardwareAddr), [6]byte(r.clientMAC), icmp(f.router, f.vip.Addr(), tooBig, code, 1280, about)))
		if verdict != redirect {
			t.Fatalf("verdict %#x; want the error sent to the server", verdict)
		}
		from, to, quotedFrom, quotedTo = icmpParts(t, out[14:])
		if from != f.vip.Addr() || to != f.server.Addr() || quotedFrom != f.server || quotedTo != seen {
			t.Errorf("to the server: %s to %s about %s to %s", from, to, quotedFrom, quotedTo)
		}

		// About what is no flow, what is no error, and what is cut short.
		about = quote(packet{proto: TCP, from: seen, to: f.second, flags: ack, seq: 101})
		toMAC, fromMAC := [6]byte(r.toServer.HardwareAddr), [6]byte(r.serverMAC)
		r.left("an error about no flow", r.toServer, frame(toMAC, fromMAC, icmp(f.router, f.vip.Addr(), tooBig, code, 1280, about)))
		about = quote(packet{proto: TCP, from: seen, to: f.server, flags: ack, seq: 101})
		r.left("an echo", r.toServer, frame(toMAC, fromMAC, icmp(f.router, f.vip.Addr(), 128, 0, 0, about)))
		r.left("an error to somebody else", r.toServer, frame(toMAC, fromMAC, icmp(f.router, f.nobody.Addr(), tooBig, code, 1280, about)))
		whole := frame(toMAC, fromMAC, icmp(f.router, f.vip.Addr(), tooBig, code, 1280, about))
		for n := f.shortest(); n < len(whole); n++ {
			r.left("an error that is cut short", r.toServer, whole[:n])
		}
	})
}

func TestTooFarAndTooBig(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, f family) {
		r := newRig(t, Options{}, f.service())
		r.connect(f.client, f.vip, f.server)
		// The complaint reaches the client.
		var conn net.PacketConn
		var err error
		r.network.client.do(func() {
			if f.vip.Addr().Is6() {
				conn, err = net.ListenPacket("ip6:ipv6-icmp", "::")
			} else {
				conn, err = net.ListenPacket("ip4:icmp", "0.0.0.0")
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		heard := func(types ...byte) {
			t.Helper()
			b := make([]byte, 1500)
			if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			for {
				n, from, err := conn.ReadFrom(b)
				if err != nil {
					t.Fatal(err)
				}
				if n < 8 || b[0] != types[0] {
					continue // neighbours, of IPv6
				}
				if b[1] != types[1] || from.String() != f.vip.Addr().String() {
					t.Errorf("type %d, code %d from %s; want %d, %d from %s", b[0], b[1], from, types[0], types[1], f.vip.Addr())
				}
				if mtu := binary.BigEndian.Uint32(b[4:]); types[0] != 11 && b[0] < 4 && b[0] != types[2] && mtu != 1400 && mtu != 0 {
					t.Errorf("MTU %d; want 1400", mtu)
				}
				return
			}
		}
		data := packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: 501, ttl: 1}
		if verdict, _ := r.in(r.toClient, r.fromClient(data)); verdict != dropped {
			t.Errorf("TTL 1: verdict %#x; want it dropped", verdict)
		}
		exceeded, big := []byte{11, 0, 0}, []byte{3, 4, 0}
		if f.vip.Addr().Is6() {
			exceeded, big = []byte{3, 0, 3}, []byte{2, 0, 0}
		}
		heard(exceeded...)

		r.balancer.ip("link set s0 mtu 1400")
		waitForTick()
		data.ttl, data.payload = 64, string(make([]byte, 1400))
		if verdict, _ := r.in(r.toClient, r.fromClient(data)); verdict != dropped {
			t.Errorf("1,400 bytes and headers for an MTU of 1400: verdict %#x; want it dropped", verdict)
		}
		heard(big...)
		if s := r.stats(); s.Dropped != 2 {
			t.Errorf("%d dropped; want 2", s.Dropped)
		}
		data.payload = string(make([]byte, 1300))
		r.client(data)
	})
}
