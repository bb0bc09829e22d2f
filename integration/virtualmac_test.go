package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"appliance/internal/lab"
)

// virtualMAC is the hardware address of the laboratory's virtual router.
const virtualMAC = "00:00:5e:00:01:32"

// capture has tcpdump write down what passes a node's interface on the LAN and
// matches an expression, and returns a function that tells what was.
func (p *pair) capture(h *lab.Host, name string, args ...string) func() string {
	p.t.Helper()
	program := need(p.t, "tcpdump", "tcpdump")
	path := h.Path("/run/" + name + ".tcpdump")
	log, err := os.Create(path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close() // the process has it too
	cmd := h.Command(program, append([]string{"-i", lab.LAN, "-n", "-e", "-l", "--immediate-mode"}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if _, err := h.Start(cmd); err != nil { // it ends with its host
		p.t.Fatal(err)
	}
	const ready = "snapshot length"
	read := func() string {
		text, err := os.ReadFile(path)
		if err != nil {
			p.t.Fatal(err)
		}
		return string(text)
	}
	eventually(p.t, 20*time.Second, "tcpdump listens", func() bool { return strings.Contains(read(), ready) })
	return func() string {
		_, frames, _ := strings.Cut(read(), ready)
		_, frames, _ = strings.Cut(frames, "\n")
		return frames
	}
}

// on runs a command on a host and returns what it wrote.
func (p *pair) on(h *lab.Host, args ...string) string {
	p.t.Helper()
	out, err := h.Output(p.within(20*time.Second), args[0], args[1:]...)
	if err != nil {
		p.t.Fatalf("%s: %s: %v\n%s", h.Name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// traces returns what a virtual MAC address has changed on a node: interfaces, the
// settings of the parent, and the record of both.
func (p *pair) traces(n *lab.Node) string {
	return p.on(n.Host, "sh", "-c", "ip -br link show type macvlan; "+
		"cat /proc/sys/net/ipv4/conf/eth0/arp_ignore /proc/sys/net/ipv4/conf/eth0/arp_announce; ls /run/appliance | grep undo || true")
}

const noTraces = "0\n0"

// waitNoTraces waits until nothing is left of a virtual MAC address on a node.
func (p *pair) waitNoTraces(n *lab.Node) {
	p.t.Helper()
	var left string
	defer func() {
		if p.t.Failed() {
			p.t.Logf("%s has %q", n.Name, left)
		}
	}()
	eventually(p.t, 10*time.Second, "nothing of the virtual MAC address is left on "+n.Name, func() bool {
		left = p.traces(n)
		return left == noTraces
	})
}

// The virtual MAC address moves with the virtual address: clients notice nothing
// but the switch, the node that is not active says nothing by it, and nothing
// stays behind.
func TestVirtualMAC(t *testing.T) {
	t.Parallel()
	p := newPair(t, labConfig(t, "preempt           = false", "preempt           = false\nvirtual_mac       = true"))
	for _, n := range p.Nodes() {
		// The strictest setting of rp_filter, as some distributions have it.
		p.on(n.Host, "sh", "-c", "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $f; done")
	}
	// No frame may pair the virtual address with another MAC address.
	pairing := func(n *lab.Node, name string) func() string {
		return p.capture(n.Host, name, "-Q", "out",
			"arp and arp[14:4] == 0xc0a80f03 and not (arp[8:4] == 0x00005e00 and arp[12:2] == 0x0132 and ether src "+virtualMAC+")")
	}
	wrong := map[string]func() string{"lb01": pairing(p.LB01, "pairing"), "lb02": pairing(p.LB02, "pairing")}
	said := p.capture(p.LB02.Host, "said", "-Q", "out", "ether src "+virtualMAC)
	p.start()
	load := p.load(100, 80, 8080)
	if entry := p.neighbour(p.VIP); entry != virtualMAC {
		t.Errorf("the client knows %s", entry)
	}
	// Traffic of the virtual address makes the node ask for the client.
	p.on(p.LB01.Host, "ip", "neigh", "flush", "dev", lab.LAN)
	p.waitRequests(load, 50)
	if traces := p.traces(p.LB01); !strings.HasPrefix(traces, "vrrp4-50-") || !strings.HasSuffix(traces, "\n1\n2\ncontrol.sock.undo") {
		t.Errorf("the active node has %q", traces)
	}
	if mac := p.status(p.LB02).VRRP[0].VirtualMAC; mac != virtualMAC {
		t.Errorf("status tells the MAC address %q", mac)
	}
	if traces := p.traces(p.LB02); traces != noTraces {
		t.Errorf("the backup has %q", traces)
	}
	if frames := said(); frames != "" {
		t.Errorf("the backup has sent from the virtual MAC address:\n%s", frames)
	}

	// A planned switch: the same entry is right for the other node, and traffic
	// flows.
	began := time.Now()
	if code, out := p.applianctl(p.LB01, "failover"); code != 0 {
		t.Fatalf("failover: %s", out)
	}
	p.waitActive(p.LB02)
	p.waitRequests(load, 100)
	reloadNoFailures(t, load, began)
	if entry := p.neighbour(p.VIP); entry != virtualMAC {
		t.Errorf("after the switch the client knows %s", entry)
	}
	p.waitNoTraces(p.LB01)
	saidByFirst := p.capture(p.LB01.Host, "said", "-Q", "out", "ether src "+virtualMAC)
	p.waitAdverts(p.LB02, 10)
	if frames := saidByFirst(); frames != "" {
		t.Errorf("lb01 has given the address away and goes on with its MAC address:\n%s", frames)
	}

	// A kill: the guard leaves nothing behind.
	killed := time.Now()
	if err := p.LB02.Kill(); err != nil {
		t.Fatal(err)
	}
	w := p.takeOverAfter(killed, p.LB02, p.LB01)
	w.checkKill(p, killed)
	p.waitActive(p.LB01)
	p.waitRequests(load, 50)
	p.waitNoTraces(p.LB02)
	if entry := p.neighbour(p.VIP); entry != virtualMAC {
		t.Errorf("after the kill the client knows %s", entry)
	}
	for name, frames := range wrong {
		if frames := frames(); frames != "" {
			t.Errorf("%s has given the virtual address another MAC address:\n%s", name, frames)
		}
	}

	// A kill together with the guard: the lease ends, and the next start sweeps
	// up.
	p.dual = afterFreeze
	p.killWithGuard(p.LB01)
	if traces := p.traces(p.LB01); traces == noTraces {
		t.Error("nothing is left to sweep up: the test tests nothing")
	}
	load.Stop()
	if err := p.LB02.StartAppliance(); err != nil {
		t.Fatal(err)
	}
	p.waitActive(p.LB02)
	p.startNode(p.LB01)
	p.waitNoTraces(p.LB01)
	// A stop.
	if err := p.LB02.Terminate(p.within(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if traces := p.traces(p.LB02); traces != noTraces {
		t.Errorf("a stop has left %q", traces)
	}
	p.waitActive(p.LB01)
}

// Services listen on virtual addresses of IPv6, whose traffic survives what that
// of IPv4 does.
func TestIPv6Pair(t *testing.T) {
	t.Parallel()
	for _, virtual := range []bool{false, true} {
		t.Run(fmt.Sprintf("virtual_mac = %v", virtual), func(t *testing.T) {
			t.Parallel()
			vip := dialect{ipv6: true}.addresses()[1].Addr()
			p := newPairFor(t, vip, labConfig(t,
				`addresses         = ["192.168.15.3/24"]`, fmt.Sprintf("addresses = [\"fe80::50\", \"fd15::3/64\"]\nvirtual_mac = %v", virtual),
				"192.168.15.3:", "[fd15::3]:"))
			p.start()
			load := p.load(50, 80, 8080)
			killed := time.Now()
			if err := p.LB01.Kill(); err != nil {
				t.Fatal(err)
			}
			w := p.takeOverAfter(killed, p.LB01, p.LB02)
			w.checkKill(p, killed)
			p.waitActive(p.LB02)
			p.waitRequests(load, 50)
			p.startNode(p.LB01)
			began := time.Now()
			if code, out := p.applianctl(p.LB02, "failover"); code != 0 {
				t.Fatalf("failover: %s", out)
			}
			p.waitActive(p.LB01)
			p.alone(p.LB01)
			p.waitRequests(load, 50)
			reloadNoFailures(t, load, began)
		})
	}
}

// A reload turns the virtual MAC address on and off again.
func TestVirtualMACByReload(t *testing.T) {
	t.Parallel()
	plain := labConfig(t)
	virtual := labConfig(t, "preempt           = false", "preempt           = false\nvirtual_mac       = true")
	p := newPair(t, plain)
	p.start()
	load := p.load(50, 80, 8080)
	for _, step := range []struct {
		config      string
		from, to    *lab.Node
		wantVirtual bool
	}{{virtual, p.LB01, p.LB02, true}, {plain, p.LB02, p.LB01, false}} {
		// The one that is not active comes first, then the other gives way to it.
		for _, n := range []*lab.Node{step.to, step.from} {
			if err := n.WriteConfig(step.config); err != nil {
				t.Fatal(err)
			}
			if code, out := p.applianctl(n, "reload"); code != 0 {
				t.Fatalf("reload: %s", out)
			}
		}
		p.waitActive(step.to)
		p.alone(step.to)
		p.waitRequests(load, 50)
		if mac := p.neighbour(p.VIP); (mac == virtualMAC) != step.wantVirtual {
			t.Errorf("virtual_mac = %v: the client knows %s", step.wantVirtual, mac)
		}
		for _, n := range p.Nodes() {
			if !step.wantVirtual || n != step.to {
				p.waitNoTraces(n)
			} else if p.traces(n) == noTraces {
				t.Errorf("virtual_mac = true: nothing of it is on %s", n.Name)
			}
		}
	}
}
