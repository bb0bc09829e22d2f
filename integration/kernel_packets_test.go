package integration

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"
)

// kernelPacketsConfig is an appliance.toml with services of all kinds on an
// address with a virtual MAC address.
const kernelPacketsConfig = `
[node.lb01]
address  = "192.168.15.11"
priority = 100
[node.lb02]
address  = "192.168.15.12"
priority = 90

[[vrrp]]
name              = "VI_1"
virtual_router_id = 50
addresses         = ["192.168.15.3/24"]
advert_interval   = "1s" # no flood makes the nodes take each other for dead
virtual_mac       = true

[[l7]]
name    = "web"
listen  = ["192.168.15.3:80"]
servers = ["172.16.1.51:80", "172.16.1.52:80"]

[[l4]]
name    = "tcp"
mode    = "kernel"
listen  = ["192.168.15.3:3306"]
servers = ["172.16.1.51:3306", "172.16.1.52:3306"]

[[l4]]
name     = "datagrams"
protocol = "udp"
mode     = "kernel"
listen   = ["192.168.15.3:5353"]
servers  = ["172.16.1.51:5353", "172.16.1.52:5353"]
`

// TestKernelPathPackets looks at what goes by the kernel path and what goes by it
// not, on an address that has services of all kinds.
func TestKernelPathPackets(t *testing.T) {
	t.Parallel()
	needKernelPath(t)
	p := newPair(t, kernelPacketsConfig)
	for _, s := range p.Servers {
		p.on(s.Host, "ip", "route", "add", "192.168.15.0/24", "via", "172.16.1.11")
	}
	tcp := netip.AddrPortFrom(p.VIP, 3306)
	talks := func(n int) []*talk {
		all := make([]*talk, n)
		for i := range all {
			all[i] = p.talk(tcp)
		}
		return all
	}
	p.echoDatagrams(5353)
	// No frame may pair the virtual address with another MAC address.
	wrong := p.capture(p.LB01.Host, "pairing", "-Q", "out",
		"arp and arp[14:4] == 0xc0a80f03 and not (arp[8:4] == 0x00005e00 and arp[12:2] == 0x0132 and ether src "+virtualMAC+")")
	p.start()
	p.inKernel(p.LB01, "tcp", "datagrams")

	t.Run("TCP, UDP and HTTP on one address", func(t *testing.T) {
		talk := p.talk(tcp)
		if err := talk.say("hello"); err != nil {
			t.Fatal(err)
		}
		if s := p.service(p.LB01, "tcp"); s.Current < 1 || s.BytesIn < 6 || s.BytesOut < 6 {
			t.Errorf("the kernel path has not carried it: %+v", s)
		}
		before := p.service(p.LB01, "datagrams").Total
		if got := p.ask(5353, "what?"); got != "what?" {
			t.Errorf("the answer is %q", got)
		}
		if s := p.service(p.LB01, "datagrams"); s.Total != before+1 || s.BytesIn != 5 || s.BytesOut != 5 {
			t.Errorf("the kernel path has not carried it: %+v", s)
		}
		l := p.load(50, 80)
		p.waitRequests(l, 20)
	})

	t.Run("a flood of SYNs", func(t *testing.T) {
		before := talks(5)
		sent := p.flood(t, tcp, 100_000)
		s := p.service(p.LB01, "tcp")
		if s.Fallback["half_open"] == 0 {
			t.Errorf("%d SYNs without an end, and the bound on half-open connections was not reached: %+v", sent, s)
		}
		goOn(t, before, "after the flood")
		eventually(t, 30*time.Second, "half-open connections end", func() bool {
			k := p.status(p.LB01).Kernel
			return k.HalfOpen < k.HalfOpenLimit/2
		})
		total := p.service(p.LB01, "tcp").Fallback["half_open"]
		goOn(t, talks(1), "later")
		if s := p.service(p.LB01, "tcp"); s.Fallback["half_open"] != total {
			t.Errorf("long after the flood a connection is left to the proxy: %+v", s)
		}
	})
	if frames := wrong(); frames != "" {
		t.Errorf("wrong pairings:\n%s", frames)
	}
}

// echoDatagrams has all servers send datagrams back.
func (p *pair) echoDatagrams(port uint16) {
	p.t.Helper()
	for _, s := range p.Servers {
		var c net.PacketConn
		err := s.Host.Do(func() (err error) {
			c, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", port))
			return err
		})
		if err != nil {
			p.t.Fatal(err)
		}
		p.t.Cleanup(func() { c.Close() })
		go func() {
			b := make([]byte, 2048)
			for {
				n, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = c.WriteTo(b[:n], from)
			}
		}()
	}
}

// ask sends a datagram to the virtual address and returns the answer.
func (p *pair) ask(port uint16, question string) string {
	p.t.Helper()
	var c net.Conn
	err := p.Client.Do(func() (err error) {
		c, err = net.Dial("udp4", p.targets(port)[0].String())
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 2048)
	n := 0
	eventually(p.t, 10*time.Second, "a datagram is answered", func() bool {
		if _, err := c.Write([]byte(question)); err != nil {
			return false
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		n, err = c.Read(b)
		return err == nil
	})
	return string(b[:n])
}

// flood sends so many SYNs from clients that are not there, and wants new
// connections meanwhile.
func (p *pair) flood(t *testing.T, to netip.AddrPort, frames int) (sent int) {
	t.Helper()
	s := p.newForgedSender()
	mac := net.HardwareAddr{0, 0, 0x5e, 0, 1, 50}
	random := rand.New(rand.NewPCG(1, 2))
	for sent < frames {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, 15, byte(128 + random.IntN(100))}), uint16(1024+random.IntN(60000)))
		s.send(synFrame(mac, net.HardwareAddr{0x02, 0, 192, 168, 15, 99}, from, to, random.Uint32()))
		if sent++; sent%20_000 == 0 {
			began := time.Now()
			goOn(t, []*talk{p.talk(to)}, "in the flood")
			t.Logf("after %d SYNs: a connection and a line took %s", sent, time.Since(began).Round(time.Millisecond))
		}
	}
	return sent
}

// synFrame returns the first packet of a connection.
func synFrame(toMAC, fromMAC net.HardwareAddr, from, to netip.AddrPort, seq uint32) []byte {
	f := make([]byte, 14+20+20)
	copy(f, toMAC)
	copy(f[6:], fromMAC)
	binary.BigEndian.PutUint16(f[12:], 0x0800)
	ip, tcp := f[14:34], f[34:]
	ip[0], ip[8], ip[9] = 0x45, 64, 6
	binary.BigEndian.PutUint16(ip[2:], 40)
	source, target := from.Addr().As4(), to.Addr().As4()
	copy(ip[12:], source[:])
	copy(ip[16:], target[:])
	binary.BigEndian.PutUint16(ip[10:], internetChecksum(0, ip))
	binary.BigEndian.PutUint16(tcp[0:], from.Port())
	binary.BigEndian.PutUint16(tcp[2:], to.Port())
	binary.BigEndian.PutUint32(tcp[4:], seq)
	tcp[12], tcp[13] = 5<<4, 2
	binary.BigEndian.PutUint16(tcp[14:], 65535)
	pseudo := uint32(6 + 20)
	for _, a := range [][4]byte{source, target} {
		pseudo += uint32(a[0])<<8 + uint32(a[1]) + uint32(a[2])<<8 + uint32(a[3])
	}
	binary.BigEndian.PutUint16(tcp[16:], internetChecksum(pseudo, tcp))
	return f
}

// internetChecksum returns the checksum of RFC 1071 of bytes of an even number.
func internetChecksum(sum uint32, b []byte) uint16 {
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum&0xffff + sum>>16
	return ^uint16(sum&0xffff + sum>>16)
}
