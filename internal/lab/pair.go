package lab

import (
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"appliance/internal/peer"
)

// DefaultConfig is the appliance.toml of a pair that is not given another: the
// services "web" (HTTP, port 80) and "tcp" (port 3306) on the virtual address
// 192.168.15.3, each with three servers.
//
//go:embed appliance.toml
var DefaultConfig string

// The interfaces of a host and the LANs they are plugged into.
const (
	LAN = "eth0" // of the nodes and the client: 192.168.15.0/24
	SRV = "eth1" // of the nodes: 172.16.1.0/24; the servers' is eth0
)

// DefaultVIP is the virtual address of DefaultConfig.
var DefaultVIP = netip.MustParseAddr("192.168.15.3")

// PairOptions describe a pair. The zero value of a field means its default.
type PairOptions struct {
	// Config is the text of appliance.toml; default DefaultConfig.
	Config string
	// Args are further arguments of `applianctl run`.
	Args []string
	// Binary is the applianctl to run; default: this program.
	Binary string
	// Servers is how many servers there are, at most 99; default 3. They are up
	// from the beginning.
	Servers int
	// OneArm has the servers on the LAN, 192.168.15.51 and following, and nothing on
	// the servers' network.
	OneArm bool
	// VIP is the address that the monitor watches; default DefaultVIP. With one of
	// IPv6 the LAN has the addresses of fd15::/64 as well: lb01 ::b, lb02 ::c,
	// the client ::64.
	VIP netip.Addr
}

// Pair is two nodes with all that belongs to them. It is made by NewPair, and
// nothing of it is left after Close. Pairs do not know of each other: a program
// may have several at the same time, all with the same names and addresses.
//
// The methods of a Pair are for one goroutine at a time.
type Pair struct {
	LB01, LB02 *Node
	Client     *Host
	Servers    []*Server
	// Monitor watches who answers for the virtual address, Capture the adverts
	// and gratuitous ARPs, both on the LAN.
	Monitor *Monitor
	Capture *Capture
	// VIP is the address that Monitor watches.
	VIP netip.Addr

	secret string           // of the peer link
	sw     *Host            // its network holds the bridges and the cables' near ends
	hosts  []*Host          // all but sw
	cables map[string]cable // by the names of their ports
	onLAN  map[int]string   // the hosts on the LAN by their ports' indices
}

// The bridges and their hardware addresses.
const (
	bridgeLAN = "lan"
	bridgeSRV = "srv"
)

var (
	macLAN = net.HardwareAddr{0x02, 'l', 'a', 'n', 0, 1}
	macSRV = net.HardwareAddr{0x02, 's', 'r', 'v', 0, 1}
)

// NewPair builds a pair in the sandbox: the hosts, their network, the nodes'
// files, the servers. The appliances are not started yet. The caller closes it.
func NewPair(o PairOptions) (*Pair, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	p := &Pair{VIP: o.VIP, secret: peer.NewSecret(), cables: make(map[string]cable), onLAN: make(map[int]string)}
	if err := p.build(o); err != nil {
		return nil, errors.Join(fmt.Errorf("building the pair: %w", err), p.Close())
	}
	return p, nil
}

func (o *PairOptions) complete() error {
	if o.Config == "" {
		o.Config = DefaultConfig
	}
	if o.Servers == 0 {
		o.Servers = 3
	}
	if o.Servers < 0 || o.Servers > 99 {
		return fmt.Errorf("%d servers are too many; up to 99 have addresses", o.Servers)
	}
	if !o.VIP.IsValid() {
		o.VIP = DefaultVIP
	}
	if o.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("finding applianctl: %w", err)
		}
		o.Binary = self
	}
	return nil
}

func (p *Pair) build(o PairOptions) (err error) {
	if p.sw, err = NewHost("switch", ""); err != nil {
		return err
	}
	if err := p.sw.Network.AddBridge(bridgeLAN, macLAN); err != nil {
		return err
	}
	if err := p.sw.Network.AddBridge(bridgeSRV, macSRV); err != nil {
		return err
	}
	if p.LB01, err = p.addNode("lb01", 11, o); err != nil {
		return err
	}
	if p.LB02, err = p.addNode("lb02", 12, o); err != nil {
		return err
	}
	if p.Client, err = p.addHost("client", o.Binary); err != nil {
		return err
	}
	if err := p.addCable(p.Client, "eth0", bridgeLAN, 100); err != nil {
		return err
	}
	for i := range o.Servers {
		if err := p.addServer(i+1, o.OneArm); err != nil {
			return err
		}
	}
	if p.Capture, err = newCapture(p.sw, p.onLAN); err != nil {
		return err
	}
	p.Monitor, err = newMonitor(p.sw, bridgeLAN, macLAN, p.onLAN, p.VIP)
	return err
}

func (p *Pair) addHost(name, binary string) (*Host, error) {
	h, err := NewHost(name, binary)
	if err != nil {
		return nil, err
	}
	p.hosts = append(p.hosts, h)
	return h, nil
}

func (p *Pair) addNode(name string, number byte, o PairOptions) (*Node, error) {
	h, err := p.addHost(name, o.Binary)
	if err != nil {
		return nil, err
	}
	if err := h.WriteFile(SecretPath, []byte(p.secret)); err != nil {
		return nil, err
	}
	n := &Node{Host: h, args: o.Args}
	if err := p.addCable(h, LAN, bridgeLAN, number); err != nil {
		return nil, err
	}
	if err := p.addCable(h, SRV, bridgeSRV, number); err != nil {
		return nil, err
	}
	return n, n.WriteConfig(o.Config)
}

func (p *Pair) addServer(number int, onLAN bool) error {
	h, err := p.addHost(fmt.Sprintf("web%d", number), "")
	if err != nil {
		return err
	}
	last := byte(50 + number)
	bridge, address := bridgeSRV, netip.AddrFrom4([4]byte{172, 16, 1, last})
	if onLAN {
		bridge, address = bridgeLAN, netip.AddrFrom4([4]byte{192, 168, 15, last})
	}
	if err := p.addCable(h, "eth0", bridge, last); err != nil {
		return err
	}
	s := newServer(h, address)
	p.Servers = append(p.Servers, s)
	return s.Start()
}

// Nodes returns both nodes.
func (p *Pair) Nodes() []*Node { return []*Node{p.LB01, p.LB02} }

// Host returns the host of a name: lb01, lb02, client, web1, ...
func (p *Pair) Host(name string) (*Host, error) {
	var names []string
	for _, h := range p.hosts {
		if h.Name == name {
			return h, nil
		}
		names = append(names, h.Name)
	}
	return nil, fmt.Errorf("there is no host %q; there are %s", name, strings.Join(names, ", "))
}

// Start starts the appliances of both nodes; see Node.StartAppliance.
func (p *Pair) Start() error {
	for _, n := range p.Nodes() {
		if err := n.StartAppliance(); err != nil {
			return err
		}
	}
	return nil
}

// Other returns the node that n is not.
func (p *Pair) Other(n *Node) *Node {
	if n == p.LB01 {
		return p.LB02
	}
	return p.LB01
}

// Close kills the appliances and removes everything. It must be called once.
func (p *Pair) Close() error {
	err := p.stopWatching()
	for _, s := range p.Servers {
		s.Kill()
	}
	for _, h := range p.hosts {
		h.Close()
	}
	if p.sw != nil {
		p.sw.Close()
	}
	return err
}

// stopWatching closes the monitor and the capture.
func (p *Pair) stopWatching() (err error) {
	if p.Monitor != nil {
		err = errors.Join(err, p.Monitor.Close())
	}
	if p.Capture != nil {
		err = errors.Join(err, p.Capture.Close())
	}
	p.Monitor, p.Capture = nil, nil
	return err
}
