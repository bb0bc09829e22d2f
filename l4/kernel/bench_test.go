package kernel

import (
	"net/netip"
	"testing"
	"time"
)

// crowdOfFlows returns n flows to the service of IPv4.
func crowdOfFlows(n int) []Flow {
	f := families[0]
	flows := make([]Flow, n)
	for i := range flows {
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 16), byte(i >> 8)}), uint16(1024+i&0xff))
		server := f.server
		if i&1 == 1 {
			server = f.second
		}
		// The port towards a server is another one for each client.
		server = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 2, byte(2 + i>>15)}), server.Port())
		flows[i] = Flow{Protocol: TCP, Client: client, Listen: f.vip, Server: server, Port: uint16(1024 + i&0x7fff)}
	}
	return flows
}

func openForBenchmark(b *testing.B) *Path {
	b.Helper()
	p, err := Open(Options{})
	if err != nil {
		b.Skip(err)
	}
	b.Cleanup(func() { p.Close() })
	if err := p.Set([]Service{families[0].service()}); err != nil {
		b.Fatal(err)
	}
	return p
}

// BenchmarkInstall takes over flows of the other node.
func BenchmarkInstall(b *testing.B) {
	p := openForBenchmark(b)
	flows := crowdOfFlows(100_000)
	for b.Loop() {
		if n := p.Install(flows); n > 0 {
			b.Fatalf("%d refused", n)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(flows)), "ns/flow")
}

// BenchmarkSweep looks at 100,000 flows, as is done every SweepInterval.
func BenchmarkSweep(b *testing.B) {
	p := openForBenchmark(b)
	flows := crowdOfFlows(100_000)
	if n := p.Install(flows); n > 0 {
		b.Fatalf("%d refused", n)
	}
	for b.Loop() {
		p.sweepOnce(tick(), 0)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(flows)), "ns/flow")
}

// BenchmarkMaglev makes the table of 100 servers anew, as when one fails.
func BenchmarkMaglev(b *testing.B) {
	c := crowd(100)
	for b.Loop() {
		maglev(c)
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(time.Millisecond), "ms")
}

// BenchmarkPacket has the program look at a packet of a flow: with direct return, for
// there the packet is the same afterwards, and comes in again.
func BenchmarkPacket(b *testing.B) {
	f := families[0]
	s := f.service()
	s.Mode = Direct
	s.Servers[0].Addr = netip.AddrPortFrom(f.server.Addr(), f.vip.Port())
	r := newRig(b, Options{}, s)
	r.client(packet{proto: TCP, from: f.client, to: f.vip, flags: syn, seq: 100})
	data := packet{proto: TCP, from: f.client, to: f.vip, flags: ack, seq: 101, ack: 501, payload: "data"}
	r.client(data)
	b.ResetTimer()
	r.repeat(r.toClient, r.fromClient(data), b.N)
}
