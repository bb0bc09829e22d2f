package lab

import (
	"net"
	"net/netip"
	"os"

	"appliance/internal/link"
)

// portName names the near end of a host's cable, on the switch.
func portName(host, ifname string) string { return host + "." + ifname }

// cable is one that lies, or lay, in the laboratory.
type cable struct {
	bridge string
	last   byte // of the far end's address
	index  int  // of the port
}

// addCable joins a host to a bridge: the interface is up and has its address, of
// which last is the last byte; on the LAN one of IPv6 too where that is watched.
func (p *Pair) addCable(h *Host, ifname, bridge string, last byte) error {
	port := portName(h.Name, ifname)
	if err := p.lay(h, ifname, cable{bridge: bridge, last: last}); err != nil {
		return err
	}
	index, err := p.sw.Network.Index(port)
	if err != nil {
		return err
	}
	p.cables[port] = cable{bridge, last, index}
	if bridge == bridgeLAN {
		p.onLAN[index] = h.Name
	}
	return nil
}

// lay lays a cable for the interface of a host.
func (p *Pair) lay(h *Host, ifname string, c cable) error {
	last := c.last
	prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, 15, last}), 24)
	mac := net.HardwareAddr{0x02, 0, 192, 168, 15, last}
	if c.bridge == bridgeSRV {
		prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, 1, last}), 24)
		mac = net.HardwareAddr{0x02, 0, 172, 16, 1, last}
	}
	far := link.FarEnd{Namespace: h.namespace, Name: ifname, MAC: mac}
	if err := p.sw.Network.AddCable(portName(h.Name, ifname), c.index, c.bridge, far); err != nil {
		return err
	}
	if err := h.Network.SetUp(ifname, true); err != nil {
		return err
	}
	if err := h.Network.AddAddress(ifname, prefix); err != nil {
		return err
	}
	if c.bridge == bridgeLAN && p.VIP.Is6() {
		return h.Network.AddAddress(ifname, netip.PrefixFrom(lanIPv6(last), 64))
	}
	return nil
}

// lanIPv6 is the IPv6 address of the host on the LAN whose IPv4 address ends
// with last.
func lanIPv6(last byte) netip.Addr { return netip.AddrFrom16([16]byte{0xfd, 0x15, 15: last}) }

// Cut is a way to cut a cable.
type Cut int

// The ways to cut a cable.
const (
	Unplugged Cut = iota // the host loses its carrier
	Silent               // the carrier stays, and nothing passes any more
)

// Cut cuts the cable of a host's interface.
func (p *Pair) Cut(h *Host, ifname string, how Cut) error {
	port := portName(h.Name, ifname)
	if how == Silent {
		return p.sw.Network.Unplug(port)
	}
	return p.sw.Network.SetUp(port, false)
}

// Heal repairs the cable of a host's interface, however it was cut.
func (p *Pair) Heal(h *Host, ifname string) error {
	port := portName(h.Name, ifname)
	if err := p.sw.Network.Plug(port, p.cables[port].bridge); err != nil {
		return err
	}
	return p.sw.Network.SetUp(port, true)
}

// Remove deletes the interface of a host, as if the card had been pulled out.
func (p *Pair) Remove(h *Host, ifname string) error { return h.Network.Delete(ifname) }

// Return gives a host the interface back that Remove deleted: another one of the
// same name and addresses.
func (p *Pair) Return(h *Host, ifname string) error {
	return p.lay(h, ifname, p.cables[portName(h.Name, ifname)])
}

// Part parts the nodes from each other on the LAN, while the client reaches
// both; with on false they meet again. Where hosts are named it is those that it
// parts.
func (p *Pair) Part(on bool, hosts ...*Host) error {
	if len(hosts) == 0 {
		hosts = []*Host{p.LB01.Host, p.LB02.Host}
	}
	for _, h := range hosts {
		if err := p.sw.Network.Isolate(portName(h.Name, LAN), on); err != nil {
			return err
		}
	}
	return nil
}

// Deafen keeps multicast away from a node on the LAN, the adverts of the other
// one above all, while what it sends itself arrives and all else passes; with on
// false it hears again.
func (p *Pair) Deafen(n *Node, on bool) error {
	flood := []byte("1")
	if on {
		flood = []byte("0")
	}
	return p.sw.Do(func() error {
		return os.WriteFile("/sys/class/net/"+portName(n.Name, LAN)+"/brport/multicast_flood", flood, 0)
	})
}
