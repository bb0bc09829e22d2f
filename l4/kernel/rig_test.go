package kernel

import (
	"net"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
)

// The verdicts of the program.
const (
	left     = 0xffffffff // to the stack
	dropped  = 2
	redirect = 7
)

// rig runs the program on frames, without any interface carrying them.
type rig struct {
	t testing.TB
	*network
	path *Path
}

func newRig(t testing.TB, o Options, services ...Service) *rig {
	t.Helper()
	r := &rig{t: t, network: newNetwork(t)}
	r.know()
	r.path = r.open(t, o)
	if err := r.path.Set(services); err != nil {
		t.Fatal(err)
	}
	return r
}

// context is the part of struct __sk_buff that a test run takes.
type context struct {
	_              [9]uint32
	IngressIfindex uint32
	Ifindex        uint32
	_              [33]uint32
	GSOSegs        uint32
	_              [2]uint32
	GSOSize        uint32
	_              [3]uint32
}

// in has a frame come in by an interface.
func (r *rig) in(i *net.Interface, f []byte) (verdict uint32, out []byte) {
	r.t.Helper()
	out = make([]byte, len(f)+64)
	o := ebpf.RunOptions{
		Data: f, DataOut: out,
		Context: context{IngressIfindex: uint32(i.Index), Ifindex: uint32(i.Index)},
	}
	var err error
	r.balancer.do(func() { verdict, err = r.path.objects.Appliance.Run(&o) })
	if err != nil {
		r.t.Fatal(err)
	}
	return verdict, o.DataOut
}

// fromClient returns a frame of p as it comes from the client's side, and
// fromServer from the server's.
func (r *rig) fromClient(p packet) []byte {
	p.toMAC, p.fromMAC = [6]byte(r.toClient.HardwareAddr), [6]byte(r.clientMAC)
	return p.frame()
}

func (r *rig) fromServer(p packet) []byte {
	p.toMAC, p.fromMAC = [6]byte(r.toServer.HardwareAddr), [6]byte(r.serverMAC)
	return p.frame()
}

// client has p come from the client's side and returns what goes out, which must
// be a valid packet.
func (r *rig) client(p packet) packet {
	r.t.Helper()
	return r.carried(r.in(r.toClient, r.fromClient(p)))
}

// server is client for the server's side.
func (r *rig) server(p packet) packet {
	r.t.Helper()
	return r.carried(r.in(r.toServer, r.fromServer(p)))
}

func (r *rig) carried(verdict uint32, out []byte) packet {
	r.t.Helper()
	if verdict != redirect {
		r.t.Fatalf("verdict %#x; want it redirected", verdict)
	}
	p, err := parse(out)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// leftByClient wants p, from the client's side, left to the stack, unchanged.
func (r *rig) leftByClient(what string, p packet) {
	r.t.Helper()
	r.left(what, r.toClient, r.fromClient(p))
}

func (r *rig) left(what string, i *net.Interface, f []byte) {
	r.t.Helper()
	verdict, out := r.in(i, f)
	if verdict != left {
		r.t.Errorf("%s: verdict %#x; want it left to the stack", what, verdict)
	}
	if string(out) != string(f) {
		r.t.Errorf("%s: it was changed", what)
	}
}

// stats returns the counters of the only service.
func (r *rig) stats() ServiceStats {
	r.t.Helper()
	s, err := r.path.Stats()
	if err != nil {
		r.t.Fatal(err)
	}
	return s.Services[0]
}

// flows returns all established flows.
func (r *rig) flows() (flows []Flow) {
	r.t.Helper()
	if err := r.path.Flows(func(f Flow) bool { flows = append(flows, f); return true }); err != nil {
		r.t.Fatal(err)
	}
	return flows
}

// family is the addresses of a test in one family.
type family struct {
	name                   string
	client, vip            netip.AddrPort
	server, second, nobody netip.AddrPort
	router                 netip.Addr
}

var families = []family{
	{
		name:   "IPv4",
		client: netip.MustParseAddrPort("10.0.1.2:40000"), vip: netip.MustParseAddrPort("10.0.1.100:80"),
		server: netip.MustParseAddrPort("10.0.2.2:8080"), second: netip.MustParseAddrPort("10.0.2.3:8080"),
		nobody: netip.MustParseAddrPort("10.0.1.77:40000"), router: netip.MustParseAddr("192.0.2.1"),
	},
	{
		name:   "IPv6",
		client: netip.MustParseAddrPort("[fd01::2]:40000"), vip: netip.MustParseAddrPort("[fd01::100]:80"),
		server: netip.MustParseAddrPort("[fd02::2]:8080"), second: netip.MustParseAddrPort("[fd02::3]:8080"),
		nobody: netip.MustParseAddrPort("[fd01::77]:40000"), router: netip.MustParseAddr("2001:db8::1"),
	},
}

// service returns one of TCP with one server.
func (f family) service() Service {
	return Service{
		Name: "web", Listen: []netip.AddrPort{f.vip}, Protocol: TCP,
		Servers: []Server{{Addr: f.server}},
	}
}

// connect completes the handshake of a connection and returns the address that
// the server sees.
func (r *rig) connect(from, vip, server netip.AddrPort) netip.AddrPort {
	r.t.Helper()
	seen := r.client(packet{proto: TCP, from: from, to: vip, flags: syn, seq: 100})
	if seen.to != server {
		r.t.Fatalf("the SYN went to %s; want %s", seen.to, server)
	}
	r.server(packet{proto: TCP, from: server, to: seen.from, flags: syn | ack, seq: 500, ack: 101})
	r.client(packet{proto: TCP, from: from, to: vip, flags: ack, seq: 101, ack: 501})
	return seen.from
}

// shortest is the length of the shortest frame that a test run takes: one with a
// header of IP.
func (f family) shortest() int {
	if f.vip.Addr().Is6() {
		return 14 + 40
	}
	return 14 + 20
}

// repeat has a frame come in n times. The program must not change it: it is of a flow
// with direct return.
func (r *rig) repeat(i *net.Interface, f []byte, n int) {
	r.t.Helper()
	o := ebpf.RunOptions{Data: f, Repeat: uint32(n), Context: context{IngressIfindex: uint32(i.Index), Ifindex: uint32(i.Index)}}
	var verdict uint32
	var err error
	r.balancer.do(func() { verdict, err = r.path.objects.Appliance.Run(&o) })
	if err != nil || verdict != redirect {
		r.t.Fatalf("verdict %#x, %v", verdict, err)
	}
}
