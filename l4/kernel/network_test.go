package kernel

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// namespace is a network of a test's own: a thread that left that of the others.
type namespace struct {
	t     testing.TB
	tid   int
	calls chan func()
}

// newNamespace makes a network with nothing but a loopback interface. It lasts
// as long as the test.
func newNamespace(t testing.TB) *namespace {
	t.Helper()
	n := &namespace{t: t, calls: make(chan func())}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		n.tid = unix.Gettid()
		started <- err
		if err != nil {
			return
		}
		for call := range n.calls {
			call()
		}
	}()
	if err := <-started; err != nil {
		missing(t, fmt.Sprintf("a network namespace: %v", err))
	}
	t.Cleanup(func() { close(n.calls) })
	n.ip("link set lo up")
	return n
}

// missing skips a test that this machine cannot run; where tests count, it fails.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("this machine lacks %s", what)
	}
	t.Skipf("this machine lacks %s", what)
}

// do runs f in the namespace.
func (n *namespace) do(f func()) {
	done := make(chan struct{})
	n.calls <- func() { defer close(done); f() }
	<-done
}

// ip runs ip(8) in the namespace.
func (n *namespace) ip(command string) {
	n.t.Helper()
	var out []byte
	var err error
	n.do(func() { out, err = exec.Command("ip", strings.Fields(command)...).CombinedOutput() })
	if err != nil {
		n.t.Fatalf("ip %s: %v: %s", command, err, out)
	}
}

// sysctl sets a kernel setting of the namespace.
func (n *namespace) sysctl(path, value string) {
	n.t.Helper()
	var err error
	n.do(func() { err = os.WriteFile("/proc/sys/"+path, []byte(value), 0) })
	if err != nil {
		n.t.Fatal(err)
	}
}

// iface returns an interface of the namespace.
func (n *namespace) iface(name string) *net.Interface {
	n.t.Helper()
	var i *net.Interface
	var err error
	n.do(func() { i, err = net.InterfaceByName(name) })
	if err != nil {
		n.t.Fatal(err)
	}
	return i
}

// network is a client, a balancer and a server, joined by two cables.
type network struct {
	client, balancer, server *namespace
	// toClient and toServer are the balancer's interfaces.
	toClient, toServer *net.Interface
	// clientMAC and serverMAC are those at the other ends.
	clientMAC, serverMAC net.HardwareAddr
}

// newNetwork makes a network: 10.0.1.0/24 and fd01::/64 between the client (.2)
// and the balancer (.1), which also has the VIPs 10.0.1.100 and fd01::100, and
// 10.0.2.0/24 and fd02::/64 between it (.1) and the server (.2, .3, .4). The
// others' way to everything is the balancer, which forwards.
func newNetwork(t testing.TB) *network {
	t.Helper()
	w := &network{client: newNamespace(t), balancer: newNamespace(t), server: newNamespace(t)}
	for _, n := range []*namespace{w.client, w.balancer, w.server} {
		n.sysctl("net/ipv6/conf/all/accept_dad", "0")
		n.sysctl("net/ipv6/conf/default/accept_dad", "0")
	}
	w.balancer.ip(fmt.Sprintf("link add c0 type veth peer name eth0 netns %d", w.client.tid))
	w.balancer.ip(fmt.Sprintf("link add s0 type veth peer name eth0 netns %d", w.server.tid))
	for _, a := range []string{"10.0.1.1/24 dev c0", "10.0.1.100/32 dev c0", "fd01::1/64 dev c0 nodad", "fd01::100/128 dev c0 nodad"} {
		w.balancer.ip("addr add " + a)
	}
	w.balancer.ip("addr add 10.0.2.1/24 dev s0")
	w.balancer.ip("addr add fd02::1/64 dev s0 nodad")
	w.client.ip("addr add 10.0.1.2/24 dev eth0")
	w.client.ip("addr add fd01::2/64 dev eth0 nodad")
	for _, last := range []string{"2", "3", "4"} {
		w.server.ip("addr add 10.0.2." + last + "/24 dev eth0")
		w.server.ip("addr add fd02::" + last + "/64 dev eth0 nodad")
	}
	w.balancer.ip("link set c0 up")
	w.balancer.ip("link set s0 up")
	for n, via := range map[*namespace]string{w.client: "1", w.server: "2"} {
		n.ip("link set eth0 up")
		n.ip("route add default via 10.0." + via + ".1")
		n.ip("-6 route add default via fd0" + via + "::1")
	}
	w.forward("1")
	w.running("c0")
	w.running("s0")
	w.toClient, w.toServer = w.balancer.iface("c0"), w.balancer.iface("s0")
	w.clientMAC, w.serverMAC = w.client.iface("eth0").HardwareAddr, w.server.iface("eth0").HardwareAddr
	return w
}

// running waits until the balancer's interface sends: until the kernel has seen
// that the other end is up, which takes it a moment, it drops what it is given.
func (w *network) running(name string) {
	w.balancer.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); w.balancer.iface(name).Flags&net.FlagRunning == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.balancer.t.Fatalf("%s does not come up", name)
		}
	}
}

// forward has the balancer forward packets, "1", or not, "0".
func (w *network) forward(on string) {
	w.balancer.sysctl("net/ipv4/conf/all/forwarding", on)
	w.balancer.sysctl("net/ipv6/conf/all/forwarding", on)
}

// know tells the balancer the neighbours, so that no packet has to ask.
func (w *network) know() {
	for _, n := range []struct {
		addr, dev string
		mac       net.HardwareAddr
	}{
		{"10.0.1.2", "c0", w.clientMAC}, {"fd01::2", "c0", w.clientMAC},
		{"10.0.2.2", "s0", w.serverMAC}, {"10.0.2.3", "s0", w.serverMAC}, {"10.0.2.4", "s0", w.serverMAC},
		{"fd02::2", "s0", w.serverMAC}, {"fd02::3", "s0", w.serverMAC}, {"fd02::4", "s0", w.serverMAC},
	} {
		w.balancer.ip(fmt.Sprintf("neigh replace %s lladdr %s dev %s nud permanent", n.addr, n.mac, n.dev))
	}
}

// open opens a path on the balancer for as long as the test lasts.
func (w *network) open(t testing.TB, o Options) *Path {
	t.Helper()
	var p *Path
	var err error
	w.balancer.do(func() { p, err = Open(o) })
	if err != nil {
		missing(t, err.Error())
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return p
}
