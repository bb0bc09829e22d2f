package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"appliance/internal/control"
	"appliance/internal/lab"
)

// The addresses of IPv6 of a kernel pair: the virtual one, and the first server's.
var (
	kernelVIP6    = netip.MustParseAddr("fd15::3")
	kernelServer6 = netip.MustParseAddr("fd16::51")
)

// kernelConfig is an appliance.toml with services of the kernel path. The servers
// answer by way of the node that has 172.16.1.3, or fd16::3.
const kernelConfig = `
[node.lb01]
address  = "192.168.15.11"
priority = 100
[node.lb02]
address  = "192.168.15.12"
priority = 90

[peer]
secret_file = "peer.secret"

[kernel]
flows = 200000

[[vrrp]]
name              = "VI_1"
virtual_router_id = 50
addresses         = ["192.168.15.3/24"]
advert_interval   = "100ms"
preempt           = false
group             = "edge"

[[vrrp]]
name              = "servers"
virtual_router_id = 51
addresses         = ["172.16.1.3/24"]
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

[[vrrp]]
name              = "servers6"
virtual_router_id = 51
addresses         = ["fe80::4", "fd16::3/64"]
interface         = "eth1"
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

[[l4]]
name    = "tcp6"
mode    = "auto"
listen  = ["[fd15::3]:3306"]
servers = ["[fd16::51]:3306"]

[[l4]]
name     = "udp"
mode     = "kernel"
protocol = "udp"
listen   = ["192.168.15.3:7"]
servers  = ["172.16.1.51:7"]

[[l4]]
name    = "seen"
mode    = "kernel"
forward = "dnat"
listen  = ["192.168.15.3:3308"]
servers = ["172.16.1.51:3308"]

[[l4]]
name            = "bounded"
mode            = "auto"
listen          = ["192.168.15.3:3307"]
pool            = "tcp"
max_connections = 100

[pool.web]
servers = ["172.16.1.51:80", "172.16.1.52:80", "172.16.1.53:80"]
check   = { type = "http", interval = "500ms", timeout = "250ms" }

[pool.tcp]
servers = [
    { name = "web1", address = "172.16.1.51:3306" },
    { name = "web2", address = "172.16.1.52:3306" },
    { name = "web3", address = "172.16.1.53:3306" },
]
check   = { type = "tcp", interval = "500ms", timeout = "250ms" }
`

// needKernelPath skips the test where BPF programs cannot be loaded at all: as
// root of a user namespace. Where the tests are to run completely that is a
// failure.
func needKernelPath(t *testing.T) {
	t.Helper()
	users, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	if f := strings.Fields(string(users)); len(f) == 3 && f[0] == "0" && f[1] == "0" {
		return
	}
	const message = "the kernel path needs root: a user namespace may load no BPF program"
	if os.Getenv("CI") == "true" {
		t.Fatal(message)
	}
	t.Skip(message)
}

// newKernelPair builds a pair whose servers answer by way of the active node, with
// IPv6 and a service of datagrams besides.
func newKernelPair(t *testing.T, config string) *pair {
	t.Helper()
	needKernelPath(t)
	p := newPair(t, config)
	for i, s := range p.Servers {
		p.on(s.Host, "ip", "route", "add", "default", "via", "172.16.1.3")
		p.on(s.Host, "ip", "address", "add", fmt.Sprintf("fd16::5%d/64", i+1), "dev", "eth0", "nodad")
		p.on(s.Host, "ip", "-6", "route", "add", "default", "via", "fd16::3")
	}
	p.on(p.Client, "ip", "address", "add", "fd15::64/64", "dev", lab.LAN, "nodad")
	for i, n := range p.Nodes() {
		p.on(n.Host, "ip", "address", "add", fmt.Sprintf("fd15::1%d/64", i+1), "dev", lab.LAN, "nodad")
		p.on(n.Host, "ip", "address", "add", fmt.Sprintf("fd16::1%d/64", i+1), "dev", lab.SRV, "nodad")
	}
	p.echo(netip.AddrPortFrom(kernelServer6, lab.EchoPort), func(net.Conn) string { return "web1" })
	p.echo(netip.AddrPortFrom(p.Servers[0].Address, 3308), func(c net.Conn) string { return c.RemoteAddr().String() })
	p.echoUDP()
	return p
}

// echo has the first server greet with a word and echo.
func (p *pair) echo(at netip.AddrPort, greeting func(net.Conn) string) {
	p.t.Helper()
	l, err := p.Servers[0].Host.Listen(at)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintln(c, greeting(c))
				io.Copy(c, c)
			}()
		}
	}()
}

// echoUDP has the first server send datagrams back.
func (p *pair) echoUDP() {
	p.t.Helper()
	c, err := p.Servers[0].Host.ListenUDP(netip.AddrPortFrom(p.Servers[0].Address, 7))
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

// talk is a connection to the echo of a server, by the virtual address.
type talk struct {
	conn   *net.TCPConn
	read   *bufio.Reader
	server string
}

// talk connects the client with a service.
func (p *pair) talk(to netip.AddrPort) *talk {
	p.t.Helper()
	c, err := p.Client.Dial(p.within(10*time.Second), to)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.greeted(c, to)
}

// talkFrom is talk from a port of the client's choice, by IPv4.
func (p *pair) talkFrom(port int, to netip.AddrPort) *talk {
	p.t.Helper()
	var c net.Conn
	if err := p.Client.Do(func() (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{Port: port}, Timeout: 10 * time.Second}
		c, err = d.Dial("tcp4", to.String())
		return err
	}); err != nil {
		p.t.Fatal(err)
	}
	return p.greeted(c.(*net.TCPConn), to)
}

// greeted waits for the greeting on a connection.
func (p *pair) greeted(c *net.TCPConn, to netip.AddrPort) *talk {
	p.t.Helper()
	var err error
	p.t.Cleanup(func() { c.Close() })
	k := &talk{conn: c, read: bufio.NewReader(c)}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if k.server, err = k.read.ReadString('\n'); err != nil {
		p.t.Fatalf("%v: no greeting: %v", to, err)
	}
	k.server = strings.TrimSpace(k.server)
	return k
}

// talks begins so many connections to the services of TCP, of IPv4 and IPv6.
func (p *pair) talks(n int) []*talk {
	p.t.Helper()
	all := make([]*talk, n)
	for i := range all {
		to := netip.AddrPortFrom(p.VIP, 3306)
		if i%3 == 2 {
			to = netip.AddrPortFrom(kernelVIP6, 3306)
		}
		all[i] = p.talk(to)
	}
	return all
}

// say sends a line and waits for it to come back.
func (k *talk) say(line string) error {
	k.conn.SetDeadline(time.Now().Add(15 * time.Second))
	if _, err := io.WriteString(k.conn, line+"\n"); err != nil {
		return err
	}
	got, err := k.read.ReadString('\n')
	if err == nil && got != line+"\n" {
		err = fmt.Errorf("%q came back as %q", line, got)
	}
	return err
}

// goOn fails the test unless all connections still work.
func goOn(t *testing.T, talks []*talk, when string) {
	t.Helper()
	for i, k := range talks {
		if err := k.say("still there?"); err != nil {
			t.Errorf("%s: connection %d of %d, to %s: %v", when, i, len(talks), k.server, err)
		}
	}
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

// startInKernel starts the pair and waits until both nodes are ready to carry
// everything.
func (p *pair) startInKernel() {
	p.t.Helper()
	p.start()
	p.waitUp("tcp", "web1", "web2", "web3")
	for _, n := range p.Nodes() {
		p.inKernel(n, "tcp", "tcp6", "udp")
		p.copied(n)
	}
}

// copied waits until a node has a full copy of the flows of the other one, and all
// flows of its own are told.
func (p *pair) copied(n *lab.Node) {
	p.t.Helper()
	eventually(p.t, 20*time.Second, n.Name+" has exchanged its flows with the other node", func() bool {
		peers := p.status(n).Peers
		f := peers[0].Flows
		return peers[0].Link == "up" && f != nil && f.Complete && !f.Copying && f.Told && f.Waiting == 0
	})
}

// command runs a verb on a node that must succeed, and returns what it wrote.
func (p *pair) command(n *lab.Node, args ...string) string {
	p.t.Helper()
	code, out := p.applianctl(n, args...)
	if code != 0 {
		p.t.Fatalf("%s: applianctl %s: exit code %d: %s", n.Name, strings.Join(args, " "), code, out)
	}
	return out
}

// programs returns how many BPF programs look at the packets of a node.
func (p *pair) programs(n *lab.Node) int {
	p.t.Helper()
	sum := 0
	for _, name := range []string{lab.LAN, lab.SRV} {
		found, err := n.Programs(name)
		if err != nil {
			p.t.Fatal(err)
		}
		sum += found
	}
	return sum
}

// One service after the other is carried, with the words and figures of the
// proxy, beside a service of HTTP on the same address.
func TestKernelPath(t *testing.T) {
	t.Parallel()
	p := newKernelPair(t, kernelConfig)
	p.startInKernel()
	p.load(20, 80)

	// TCP, by both families, and the counters.
	talks := p.talks(9)
	goOn(t, talks, "at first")
	tcp, tcp6, bounded := p.service(p.LB01, "tcp"), p.service(p.LB01, "tcp6"), p.service(p.LB01, "bounded")
	if tcp.Current != 6 || tcp.Total != 6 || tcp.BytesIn == 0 || tcp.BytesOut == 0 || tcp.Fault != "" {
		t.Errorf("%+v", tcp)
	}
	if k := p.status(p.LB01).Kernel; !k.Loaded || k.FlowLimit != 200000 || k.Reason != "" {
		t.Errorf("%+v", k)
	}
	if tcp6.Path != "kernel" || tcp6.Current != 3 {
		t.Errorf("%+v", tcp6)
	}
	if bounded.Path != "proxy" || !strings.Contains(bounded.PathReason, "max_connections") {
		t.Errorf("%+v", bounded)
	}
	if k := p.talk(netip.AddrPortFrom(p.VIP, 3307)); k.say("by the proxy") != nil {
		t.Error("the service that the proxy carries does not work")
	}

	// A server that sees the client.
	if k := p.talk(netip.AddrPortFrom(p.VIP, 3308)); k.server != k.conn.LocalAddr().String() {
		t.Errorf("with dnat the server sees %s instead of %v", k.server, k.conn.LocalAddr())
	}

	// Datagrams.
	if err := p.Client.Do(func() error {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.VIP, 7)))
		if err != nil {
			return err
		}
		defer c.Close()
		for _, text := range []string{"one", "two", "three"} {
			b := make([]byte, 10)
			c.SetDeadline(time.Now().Add(5 * time.Second))
			c.Write([]byte(text))
			n, err := c.Read(b)
			if err != nil || string(b[:n]) != text {
				return fmt.Errorf("datagram %s: %q, %w", text, b[:n], err)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if udp := p.service(p.LB01, "udp"); udp.Total != 1 || udp.BytesIn != 11 {
		t.Errorf("%+v", udp)
	}

	p.drainInKernel(talks)
	p.cutInKernel()
	p.reloadInKernel()

	// An interface that goes, and comes back as another one of its name.
	if err := p.Remove(p.LB02.Host, lab.LAN); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "lb02 says that it lacks the interface", func() bool {
		s := p.service(p.LB02, "tcp")
		return s.Path == "proxy" && strings.Contains(s.PathReason, "eth0")
	})
	if err := p.Return(p.LB02.Host, lab.LAN); err != nil {
		t.Fatal(err)
	}
	p.inKernel(p.LB02, "tcp")
	eventually(t, 20*time.Second, "the program is attached again", func() bool { return p.programs(p.LB02) == 2 })
	eventually(t, 20*time.Second, "lb02 is a backup again", func() bool { return p.status(p.LB02).VRRP[0].State == "backup" })

	// Nothing of it is left behind, however the process ends.
	if n := p.programs(p.LB01); n < 2 {
		t.Errorf("%d programs look at the packets of lb01", n)
	}
	if err := p.LB01.Kill(); err != nil {
		t.Fatal(err)
	}
	// The guard keeps the program until it has swept.
	eventually(t, 10*time.Second, "the program is gone", func() bool { return p.programs(p.LB01) == 0 })
	p.waitActive(p.LB02)
	if err := p.LB02.Terminate(p.within(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "a stop leaves no program", func() bool { return p.programs(p.LB02) == 0 })
}

// drainInKernel shows that servers come and go for new connections, and keep
// those that they have.
func (p *pair) drainInKernel(talks []*talk) {
	p.t.Helper()
	p.command(p.LB01, "server", "drain", "tcp/web1")
	p.Servers[1].Kill() // and with it its connections
	eventually(p.t, 20*time.Second, "web2 is down", func() bool { return p.server(p.LB01, "tcp", "web2").Health == "down" })
	eventually(p.t, 20*time.Second, "new connections go to web3 alone", func() bool {
		for range 8 {
			to := netip.AddrPortFrom(p.VIP, 3306)
			c, err := p.Client.Dial(p.within(10*time.Second), to)
			if err != nil { // web2 refuses while the path is not told yet
				return false
			}
			k := p.greeted(c, to)
			k.conn.Close()
			if k.server != "web3" {
				return false
			}
		}
		return true
	})
	for i, k := range talks {
		if err := k.say("still there?"); k.server == "web1" && err != nil {
			p.t.Errorf("connection %d to the server that drains: %v", i, err)
		}
	}
	if err := p.Servers[1].Start(); err != nil {
		p.t.Fatal(err)
	}
	p.waitUp("tcp", "web2")
	p.command(p.LB01, "server", "ready", "tcp/web1")
	seen := make(map[string]bool)
	eventually(p.t, 20*time.Second, "all servers get new connections", func() bool {
		k := p.talk(netip.AddrPortFrom(p.VIP, 3306))
		k.conn.Close()
		seen[k.server] = true
		return len(seen) == 3
	})
}

// cutInKernel lists the flows, and cuts one.
func (p *pair) cutInKernel() {
	p.t.Helper()
	k := p.talk(netip.AddrPortFrom(p.VIP, 3306))
	var sessions []control.Session
	if err := json.Unmarshal([]byte(p.command(p.LB01, "show", "sessions", "--json")), &sessions); err != nil {
		p.t.Fatal(err)
	}
	for _, s := range sessions {
		if s.Client != k.conn.LocalAddr().String() {
			continue
		}
		if s.Service != "tcp" || s.State != "kernel" || s.Pool != "tcp" || s.Server != k.server {
			p.t.Errorf("%+v", s)
		}
		if out := p.command(p.LB01, "cut", fmt.Sprint(s.ID)); !strings.Contains(out, "1 connections cut") {
			p.t.Errorf("cut: %s", out)
		}
		if err := k.say("still there?"); err == nil {
			p.t.Error("a connection goes on that was cut")
		}
		return
	}
	p.t.Errorf("no session has the client %v: %+v", k.conn.LocalAddr(), sessions)
}

// reloadInKernel moves a service to the proxy and back; its connections go on.
func (p *pair) reloadInKernel() {
	p.t.Helper()
	before := p.talk(netip.AddrPortFrom(p.VIP, 3306))
	proxied := replaced(p.t, kernelConfig, "name   = \"tcp\"\nmode   = \"kernel\"", "name   = \"tcp\"")
	for _, config := range []string{proxied, kernelConfig} {
		if err := p.LB01.WriteConfig(config); err != nil {
			p.t.Fatal(err)
		}
		p.command(p.LB01, "reload")
		if config == proxied {
			eventually(p.t, 20*time.Second, "the proxy carries the service", func() bool { return p.service(p.LB01, "tcp").Path == "" })
		} else {
			p.inKernel(p.LB01, "tcp")
		}
		after := p.talk(netip.AddrPortFrom(p.VIP, 3306))
		goOn(p.t, []*talk{before, after}, "after a reload")
		before = after
	}
}

// Connections of the kernel path outlive the node that carried them, however it
// goes, also where the nodes have their servers in another order.
func TestKernelPathConnectionsOutliveTheirNode(t *testing.T) {
	t.Parallel()
	for name, oldnew := range map[string][]string{
		"MAC":        {quickAdverts, patientAdverts},
		"virtualMAC": {quickAdverts, patientAdverts, preemptOff, preemptOff + "\nvirtual_mac       = true"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newKernelPair(t, replaced(t, kernelConfig, oldnew...))
			// The same file in another order.
			first, last := `{ name = "web1", address = "172.16.1.51:3306" }`, `{ name = "web3", address = "172.16.1.53:3306" }`
			other := replaced(t, kernelConfig, append([]string{first, "FIRST", last, first, "FIRST", last}, oldnew...)...)
			if err := p.LB02.WriteConfig(other); err != nil {
				t.Fatal(err)
			}
			p.startInKernel()
			p.outlive()
		})
	}
}

// outlive has the connections of a pair outlive one event after the other.
func (p *pair) outlive() {
	p.t.Helper()
	const port = 1234
	talks, short := p.talks(24), p.talkFrom(port, netip.AddrPortFrom(p.VIP, 3306))
	p.copied(p.LB01)

	p.command(p.LB01, "failover")
	p.waitActive(p.LB02)
	goOn(p.t, append(talks, short), "after a planned switch")
	short.conn.SetLinger(0) // its port is free at once
	short.conn.Close()
	talks = append(talks, p.talks(6)...)
	p.copied(p.LB02)
	p.command(p.LB01, "failback")
	p.waitActive(p.LB01)
	goOn(p.t, talks, "after the way back")
	// Another connection from the port of one that ended on the other node.
	talks = append(talks, p.talkFrom(port, netip.AddrPortFrom(p.VIP, 3306)))
	p.copied(p.LB01)

	if err := p.LB01.Kill(); err != nil {
		p.t.Fatal(err)
	}
	p.waitActive(p.LB02)
	goOn(p.t, talks, "after a kill")
	p.restart(p.LB01)
	if err := p.Cut(p.LB02.Host, lab.LAN, lab.Unplugged); err != nil {
		p.t.Fatal(err)
	}
	p.waitActive(p.LB01)
	goOn(p.t, talks, "after a cable was cut")
	if err := p.Heal(p.LB02.Host, lab.LAN); err != nil {
		p.t.Fatal(err)
	}
	p.copied(p.LB02)

	// An upgrade of the active node, and of the other one: each one stops in order
	// and starts again.
	for _, n := range []*lab.Node{p.LB01, p.LB02} {
		if err := n.Terminate(p.within(20 * time.Second)); err != nil {
			p.t.Fatal(err)
		}
		p.waitActive(p.Other(n))
		goOn(p.t, talks, "while "+n.Name+" is upgraded")
		p.restart(n)
		goOn(p.t, talks, "after "+n.Name+" was upgraded")
	}
	for _, n := range p.Nodes() {
		if f := p.status(n).Peers[0].Flows; f.Dropped["unknown"]+f.Dropped["refused"]+f.Dropped["malformed"] > 0 {
			p.t.Errorf("%s: %+v", n.Name, f)
		}
	}
}

// restart starts the appliance of a node again, and waits until it has all flows.
func (p *pair) restart(n *lab.Node) {
	p.t.Helper()
	p.startNode(n)
	p.copied(n)
	p.copied(p.Other(n))
}

// Without the right to load programs everything works by the proxy, and is told.
func TestKernelPathFallsBackToTheProxy(t *testing.T) {
	t.Parallel()
	need(t, "setpriv", "util-linux")
	p := newKernelPair(t, kernelConfig)
	const wrapper = "/run/bin/applianctl"
	p.on(p.LB01.Host, "rm", wrapper)
	if err := p.LB01.WriteFile(wrapper, []byte("#!/bin/sh\nexec setpriv --bounding-set=-bpf,-perfmon,-sys_admin "+os.Getenv(binaryVariable)+" \"$@\"\n")); err != nil {
		t.Fatal(err)
	}
	p.on(p.LB01.Host, "chmod", "+x", wrapper)
	if out := p.command(p.LB01, "check", "--config", lab.ConfigPath); !strings.Contains(out, "service tcp: would be carried by the proxy: the kernel path is not available") {
		t.Errorf("check: %s", out)
	}
	if err := p.LB01.StartAppliance(); err != nil {
		t.Fatal(err)
	}
	p.waitActive(p.LB01)
	p.waitUp("tcp", "web1", "web2", "web3")
	goOn(t, p.talks(6), "by the proxy")
	s := p.status(p.LB01)
	if s.Kernel == nil || s.Kernel.Loaded || !strings.Contains(s.Kernel.Reason, "CAP_BPF") {
		t.Errorf("%+v", s.Kernel)
	}
	for _, name := range []string{"tcp", "tcp6", "udp"} {
		if s := p.service(p.LB01, name); s.Path != "proxy" || !strings.Contains(s.PathReason, "CAP_BPF") {
			t.Errorf("%+v", s)
		}
	}
	if out := p.command(p.LB01, "status"); !strings.Contains(out, "KERNEL PATH: NOT LOADED") {
		t.Errorf("status: %s", out)
	}
	if log := p.LB01.Log(); !strings.Contains(log, "services of the kernel path run on the proxy") {
		t.Errorf("the log does not tell: %s", log)
	}
	if n := p.programs(p.LB01); n != 0 {
		t.Errorf("%d programs are attached", n)
	}
}
