package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"appliance/internal/control"
	"appliance/internal/lab"
)

// kernelConfig is an appliance.toml with services of the kernel path: the servers
// answer by way of the node that has 172.16.1.3.
const kernelConfig = `
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
name              = "VI_2"
virtual_router_id = 51
addresses         = ["172.16.1.3/24"]
advert_interval   = "100ms"
preempt           = false
group             = "edge"

[[l7]]
name   = "web"
listen = ["192.168.15.3:80"]
pool   = "web"

[[l4]]
name   = "tcp"
mode   = "kernel"
listen = ["192.168.15.3:3306"]
pool   = "tcp"

[pool.web]
servers = ["172.16.1.51:80", "172.16.1.52:80", "172.16.1.53:80"]
check   = { type = "http", interval = "500ms", timeout = "250ms" }

[pool.tcp]
servers = [{ name = "web1", address = "172.16.1.51:3306" }, { name = "web2", address = "172.16.1.52:3306" }, { name = "web3", address = "172.16.1.53:3306" }]
check   = { type = "tcp", interval = "500ms", timeout = "250ms" }
`

// newKernelPair builds a pair whose servers answer by way of the active node.
func newKernelPair(t *testing.T, config string) *pair {
	t.Helper()
	p := newPair(t, config)
	for _, s := range p.Servers {
		p.on(s.Host, "ip", "route", "add", "default", "via", "172.16.1.3")
	}
	return p
}

// talk is a connection to the echo of a server, by the virtual address.
type talk struct {
	t      *testing.T
	conn   *net.TCPConn
	read   *bufio.Reader
	server string
}

// talkTo connects the client.
func (p *pair) talk(port uint16) *talk {
	p.t.Helper()
	c, err := p.Client.Dial(p.within(10*time.Second), p.targets(port)[0])
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	k := &talk{t: p.t, conn: c, read: bufio.NewReader(c)}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if k.server, err = k.read.ReadString('\n'); err != nil {
		p.t.Fatalf("no greeting: %v", err)
	}
	k.server = strings.TrimSpace(k.server)
	return k
}

// say sends a line and waits for it to come back.
func (k *talk) say(line string) error {
	k.conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(k.conn, line+"\n"); err != nil {
		return err
	}
	_, err := k.read.ReadString('\n')
	return err
}

// service returns a node's view of a service.
func (p *pair) service(n *lab.Node, name string) control.Service {
	p.t.Helper()
	for _, s := range p.status(n).Services {
		if s.Name == name {
			return s
		}
	}
	p.t.Fatalf("%s has no service %s", n.Name, name)
	return control.Service{}
}

// inKernel waits until the kernel path of a node carries services.
func (p *pair) inKernel(n *lab.Node, names ...string) {
	p.t.Helper()
	for _, name := range names {
		eventually(p.t, 20*time.Second, fmt.Sprintf("%s is carried by the kernel path of %s", name, n.Name), func() bool {
			return p.service(n, name).Path == "kernel"
		})
	}
}

// copied waits until a node has a full copy of the flows of the other one, and all
// flows of its own are told.
func (p *pair) copied(n *lab.Node) {
	p.t.Helper()
	eventually(p.t, 20*time.Second, n.Name+" has exchanged its flows with the other node", func() bool {
		peers := p.status(n).Peers
		return len(peers) == 1 && peers[0].Flows != nil && peers[0].Flows.Complete && peers[0].Flows.Told && peers[0].Flows.Waiting == 0
	})
}

// talks begins so many connections to a port.
func (p *pair) talks(n int, port uint16) []*talk {
	p.t.Helper()
	all := make([]*talk, n)
	for i := range all {
		all[i] = p.talk(port)
	}
	return all
}

// goOn fails the test unless all connections still work.
func goOn(t *testing.T, talks []*talk, when string) {
	t.Helper()
	for i, k := range talks {
		if err := k.say("still there?"); err != nil {
			t.Errorf("%s: connection %d to %s: %v", when, i, k.server, err)
		}
	}
}

// Connections of the kernel path outlive the node that carried them, however it
// goes.
func TestKernelPathConnectionsOutliveTheirNode(t *testing.T) {
	p := newKernelPair(t, kernelConfig)
	p.start()
	for _, n := range p.Nodes() {
		p.inKernel(n, "tcp")
		p.copied(n)
	}
	talks := p.talks(30, 3306)
	p.copied(p.LB01)

	if code, out := p.applianctl(p.LB01, "failover"); code != 0 {
		t.Fatalf("failover: %s", out)
	}
	p.waitActive(p.LB02)
	goOn(t, talks, "after a planned switch")
	talks = append(talks, p.talks(5, 3306)...)
	p.copied(p.LB02)
	if code, out := p.applianctl(p.LB01, "failback"); code != 0 {
		t.Fatalf("failback: %s", out)
	}
	p.waitActive(p.LB01)
	goOn(t, talks, "after the way back")
	p.copied(p.LB01)

	if err := p.LB01.Kill(); err != nil {
		t.Fatal(err)
	}
	p.waitActive(p.LB02)
	goOn(t, talks, "after a kill")
	if err := p.LB01.StartAppliance(); err != nil {
		t.Fatal(err)
	}
	if err := p.WaitReady(p.within(20*time.Second), p.LB01); err != nil {
		t.Fatal(err)
	}
	p.copied(p.LB01)
	p.copied(p.LB02)
	if err := p.Cut(p.LB02.Host, lab.LAN, lab.Unplugged); err != nil {
		t.Fatal(err)
	}
	p.waitActive(p.LB01)
	goOn(t, talks, "after a cable was cut")
	if t.Failed() {
		for _, n := range p.Nodes() {
			_, out := p.applianctl(n, "status")
			t.Log(out)
		}
	}
}
