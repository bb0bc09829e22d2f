package integration

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"appliance/internal/lab"
)

// oneArmConfig is an appliance.toml for a client, nodes and servers on one network.
// The kernel path carries TCP and UDP, IPv4 and IPv6, by NAT to the first two servers
// and with direct return to the last two.
const oneArmConfig = `
[node.lb01]
address  = "192.168.15.11"
priority = 100
[node.lb02]
address  = "192.168.15.12"
priority = 90

[peer]
secret_file = "peer.secret"

[[vrrp]]
name              = "VI_1"
virtual_router_id = 50
addresses         = ["192.168.15.3/24"]
advert_interval   = "100ms"
preempt           = false
group             = "edge"

[[vrrp]]
name              = "VI_6"
virtual_router_id = 50
addresses         = ["fe80::3", "fd15::3/64"]
interface         = "eth0"
advert_interval   = "100ms"
preempt           = false
group             = "edge"

[[l4]]
name    = "nat"
mode    = "kernel"
listen  = ["192.168.15.3:3306"]
servers = ["192.168.15.51:3306", "192.168.15.52:3306"]

[[l4]]
name    = "nat6"
mode    = "kernel"
listen  = ["[fd15::3]:3306"]
servers = ["[fd15::51]:3306", "[fd15::52]:3306"]

[[l4]]
name     = "nat-udp"
mode     = "kernel"
protocol = "udp"
listen   = ["192.168.15.3:7"]
servers  = ["192.168.15.51:7", "192.168.15.52:7"]

[[l4]]
name     = "nat-udp6"
mode     = "kernel"
protocol = "udp"
listen   = ["[fd15::3]:7"]
servers  = ["[fd15::51]:7", "[fd15::52]:7"]

[[l4]]
name    = "direct"
mode    = "kernel"
forward = "direct"
listen  = ["192.168.15.3:3310"]
servers = ["192.168.15.53:3310", "192.168.15.54:3310"]

[[l4]]
name    = "direct6"
mode    = "kernel"
forward = "direct"
listen  = ["[fd15::3]:3310"]
servers = ["[fd15::53]:3310", "[fd15::54]:3310"]

[[l4]]
name     = "direct-udp"
mode     = "kernel"
forward  = "direct"
protocol = "udp"
listen   = ["192.168.15.3:11"]
servers  = ["192.168.15.53:11", "192.168.15.54:11"]

[[l4]]
name     = "direct-udp6"
mode     = "kernel"
forward  = "direct"
protocol = "udp"
listen   = ["[fd15::3]:11"]
servers  = ["[fd15::53]:11", "[fd15::54]:11"]
`

// One network for all: what is carried by NAT, and what servers answer directly,
// outlives the node that carried it, with and without a virtual MAC address.
func TestKernelPathOnOneNetwork(t *testing.T) {
	t.Parallel()
	for name, oldnew := range map[string][]string{
		"MAC":        nil,
		"virtualMAC": {preemptOff, preemptOff + "\nvirtual_mac = true"},
	} {
		t.Run(name, func(t *testing.T) {
			needKernelPath(t)
			p := newPairOf(t, lab.PairOptions{
				Config: replaced(t, oneArmConfig, append([]string{quickAdverts, slowAdverts}, oldnew...)...), Binary: os.Getenv(binaryVariable), Servers: 4, OneArm: true,
			})
			p.serveDirectly()
			p.start()
			names := []string{"nat", "nat6", "nat-udp", "nat-udp6", "direct", "direct6", "direct-udp", "direct-udp6"}
			for _, n := range p.Nodes() {
				p.inKernel(n, names...)
				p.copied(n)
				p.waitPeerRouters(n)
			}
			p.goesOnOnOneNetwork(names)
		})
	}
}

// serveDirectly has the servers listen, and gives the last two what they need for
// direct return.
func (p *pair) serveDirectly() {
	p.t.Helper()
	vips := []netip.Addr{p.VIP, kernelVIP6}
	p.on(p.Client, "ip", "address", "add", "fd15::64/64", "dev", lab.LAN, "nodad")
	for i, n := range p.Nodes() {
		p.on(n.Host, "ip", "address", "add", fmt.Sprintf("fd15::1%d/64", i+1), "dev", lab.LAN, "nodad")
	}
	for i, s := range p.Servers {
		own6 := netip.MustParseAddr(fmt.Sprintf("fd15::5%d", i+1))
		p.on(s.Host, "ip", "address", "add", own6.String()+"/64", "dev", "eth0", "nodad")
		listens, datagrams := []netip.AddrPort{netip.AddrPortFrom(own6, lab.EchoPort)}, []netip.AddrPort{netip.AddrPortFrom(s.Address, 7), netip.AddrPortFrom(own6, 7)}
		if i >= 2 {
			// The addresses are the server's, and it does not say so to the network.
			p.on(s.Host, "sh", "-c", fmt.Sprintf("echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore; echo 2 > /proc/sys/net/ipv4/conf/all/arp_announce; "+
				"ip address add %s/32 dev lo; ip address add %s/128 dev lo nodad", vips[0], vips[1]))
			listens, datagrams = nil, nil
			for _, a := range append(vips, s.Address, own6) {
				listens = append(listens, netip.AddrPortFrom(a, 3310))
			}
			for _, a := range vips {
				datagrams = append(datagrams, netip.AddrPortFrom(a, 11))
			}
		}
		for _, at := range listens {
			l, err := s.Host.Listen(at)
			if err != nil {
				p.t.Fatal(err)
			}
			p.t.Cleanup(func() { l.Close() })
			word := s.Name()
			if slices.Contains(vips, at.Addr()) {
				word += " directly" // the packets have the client's destination still
			}
			go greet(l, word)
		}
		for _, at := range datagrams {
			p.echoDatagramsAt(s.Host, at)
		}
	}
}

// greet greets who connects with a word, and echoes, until l is closed.
func greet(l net.Listener, word string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			if _, err := io.WriteString(c, word+"\n"); err == nil {
				io.Copy(c, c)
			}
		}()
	}
}

// echoDatagramsAt has a host echo datagrams until the test ends.
func (p *pair) echoDatagramsAt(h *lab.Host, at netip.AddrPort) {
	p.t.Helper()
	c, err := h.ListenUDP(at)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	go func() {
		var b [2048]byte
		for {
			n, from, err := c.ReadFromUDPAddrPort(b[:])
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort(b[:n], from)
		}
	}()
}

// goesOnOnOneNetwork has connections, and clients of UDP, outlive one event after
// the other.
func (p *pair) goesOnOnOneNetwork(services []string) {
	p.t.Helper()
	var talks []*talk
	var asking []net.Conn
	both := []netip.Addr{p.VIP, kernelVIP6}
	begin := func() {
		p.t.Helper()
		for _, vip := range both {
			for range 3 {
				for port, want := range map[uint16][]string{3306: {"web1", "web2"}, 3310: {"web3 directly", "web4 directly"}} {
					k := p.talk(netip.AddrPortFrom(vip, port))
					if k.server != want[0] && k.server != want[1] {
						p.t.Fatalf("%s port %d: the server says %q", vip, port, k.server)
					}
					talks = append(talks, k)
				}
			}
			for _, port := range []uint16{7, 11} {
				var c net.Conn
				if err := p.Client.Do(func() (err error) {
					c, err = net.Dial("udp", netip.AddrPortFrom(vip, port).String())
					return err
				}); err != nil {
					p.t.Fatal(err)
				}
				p.t.Cleanup(func() { c.Close() })
				asking = append(asking, c)
			}
		}
	}
	goesOn := func(when string) {
		p.t.Helper()
		goOn(p.t, talks, when)
		for _, c := range asking {
			answered(p.t, c, when)
		}
	}

	begin()
	goesOn("at first")
	for _, name := range services {
		if s := p.service(p.LB01, name); s.Total == 0 || s.Path != "kernel" {
			p.t.Errorf("%+v", s)
		}
	}
	p.copied(p.LB01)
	p.command(p.LB01, "failover")
	p.waitActive(p.LB02)
	goesOn("after a planned switch")
	begin() // on lb02
	p.copied(p.LB02)
	p.command(p.LB01, "failback")
	p.waitActive(p.LB01)
	goesOn("after the way back")
	p.copied(p.LB01)
	if err := p.LB01.Kill(); err != nil {
		p.t.Fatal(err)
	}
	p.waitActive(p.LB02)
	goesOn("after a kill")
	begin()
	goesOn("on the node that is left")
}

// answered sends a datagram and wants it back. One that is lost while an address
// moves is sent again.
func answered(t *testing.T, c net.Conn, text string) {
	t.Helper()
	b := make([]byte, 2048)
	eventually(t, 10*time.Second, fmt.Sprintf("%s: the answer of %v", text, c.RemoteAddr()), func() bool {
		c.SetDeadline(time.Now().Add(500 * time.Millisecond))
		if _, err := c.Write([]byte(text)); err != nil {
			return false
		}
		n, err := c.Read(b)
		return err == nil && bytes.Equal(b[:n], []byte(text))
	})
}
