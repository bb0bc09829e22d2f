package integration

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"appliance/internal/lab"
)

// A service that only one of the nodes carries in the kernel. Its connections go on
// through a switch and the way back, whichever of the two carries them.
func TestConnectionsOfAMixedPairGoOn(t *testing.T) {
	t.Parallel()
	// No pause of a busy machine makes the nodes take each other for dead.
	steady := replaced(t, kernelConfig, quickAdverts, slowAdverts)
	p := newKernelPair(t, steady)
	p.dual = overlap
	proxied := replaced(t, steady, "name   = \"tcp\"\nmode   = \"kernel\"", "name   = \"tcp\"", "mode    = \"auto\"\n", "")
	if err := p.LB02.WriteConfig(proxied); err != nil {
		t.Fatal(err)
	}
	p.start()
	p.waitUp("tcp", "web1", "web2", "web3")
	p.inKernel(p.LB01, "tcp", "tcp6", "udp")
	p.inKernel(p.LB02, "udp")
	for _, n := range p.Nodes() {
		p.copied(n)
		p.waitPeerRouters(n)
	}
	eventually(t, 20*time.Second, "lb01 says that lb02 has the service on the proxy", func() bool {
		return strings.Contains(p.command(p.LB01, "status"), "tcp on lb02: carried by the proxy, here by the kernel path")
	})
	talks := p.talks(9)
	for _, c := range []struct {
		verb string
		heir *lab.Node
		want int // connections that go on where they are
	}{{"failover", p.LB02, 9}, {"failback", p.LB01, 2}} {
		lingers := 0
		for _, r := range p.move(p.LB01, c.verb, "--drain", "60s") {
			if r.NotLingering != "" {
				t.Fatalf("%s: %s: connections do not go on: %s", c.verb, r.VRRP, r.NotLingering)
			}
			lingers += r.Lingering.Connections
		}
		if lingers < c.want {
			t.Errorf("%s: %d connections go on, want %d at least", c.verb, lingers, c.want)
		}
		p.waitActive(c.heir)
		goOn(t, talks, "after the "+c.verb)
		if c.verb == "failover" {
			more := []*talk{p.talk(netip.AddrPortFrom(p.VIP, 3306)), p.talk(netip.AddrPortFrom(kernelVIP6, 3306))}
			goOn(t, more, "begun on the other node")
			talks = append(talks, more...)
		}
	}
	p.waitAdverts(p.LB01, 2)
	goOn(t, talks, "a while after the way back")
	for _, k := range talks {
		k.conn.Close()
	}
	p.nothingLingers()
}
