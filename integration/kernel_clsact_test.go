package integration

import (
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"appliance/internal/lab"
)

// filters returns what is at the ingress of a node's interfaces besides tcx: names of
// filters of ours, and "others" for those of somebody else; behind each interface that
// has a discipline.
func (p *pair) filters(n *lab.Node) string {
	p.t.Helper()
	var words []string
	for _, name := range []string{lab.LAN, lab.SRV} {
		if p.on(n.Host, "tc", "qdisc", "show", "dev", name, "clsact") == "" {
			continue
		}
		words = append(words, name)
		for line := range strings.Lines(p.on(n.Host, "tc", "filter", "show", "dev", name, "ingress")) {
			switch {
			case strings.Contains(line, "applianctl kernel path"):
				words = append(words, "path")
			case strings.Contains(line, "applianctl hand-over"):
				words = append(words, "hand-over")
			case strings.Contains(line, "pref 3 u32") && strings.Contains(line, "flowid"):
				words = append(words, "others")
			}
		}
	}
	return strings.Join(words, " ")
}

func (p *pair) wantFilters(n *lab.Node, when, want string) {
	p.t.Helper()
	got := ""
	defer func() {
		if got != want {
			p.t.Logf("%s has %q; want %q", n.Name, got, want)
		}
	}()
	eventually(p.t, 10*time.Second, when+", filters of "+n.Name, func() bool { got = p.filters(n); return got == want })
}

// Where programs are attached as filters, as they are before Linux 6.6, all goes as with
// tcx: connections outlive their node, planned switches keep what has sockets, and
// nothing is left of a process, however it ends. What others have there stays.
func TestKernelPathByFilters(t *testing.T) {
	t.Parallel()
	need(t, "tc", "iproute2")
	config := replaced(t, kernelConfig, "flows = 200000", "flows = 200000\nattach = \"clsact\"", quickAdverts, slowAdverts)
	p := newKernelPair(t, config)
	p.dual = overlap
	p.on(p.LB01.Host, "tc", "qdisc", "add", "dev", lab.LAN, "clsact")
	p.on(p.LB01.Host, "sh", "-c", "tc filter add dev eth0 ingress pref 3 protocol ip u32 match ip protocol 253 0xff flowid 1:1")
	if out := p.command(p.LB01, "check", "--config", lab.ConfigPath); !strings.Contains(out, "service tcp: would be carried by the kernel path (nat, clsact)") {
		t.Errorf("check: %s", out)
	}
	p.startInKernel()
	p.wantFilters(p.LB01, "at first", "eth0 others path eth1 path")
	p.wantFilters(p.LB02, "at first", "eth0 path eth1 path")
	if n := p.programs(p.LB01); n != 0 {
		t.Errorf("%d programs are attached by tcx", n)
	}
	if out := p.command(p.LB01, "status"); !strings.Contains(out, "by clsact") || p.status(p.LB01).Kernel.Attach != "clsact" {
		t.Errorf("status: %s", out)
	}
	talks, proxied := p.talks(6), []*talk{p.talk(netip.AddrPortFrom(p.VIP, 3307))}
	goOn(t, append(talks, proxied...), "at first")
	if tcp := p.service(p.LB01, "tcp"); tcp.Current != 4 {
		t.Errorf("%+v", tcp)
	}

	// What the proxy has goes on where it is.
	for _, c := range []struct {
		verb        string
		heir, giver *lab.Node
	}{{"failover", p.LB02, p.LB01}, {"failback", p.LB01, p.LB02}} {
		p.copied(c.giver)
		for _, r := range p.move(p.LB01, c.verb, "--drain", "60s") {
			if r.NotLingering != "" {
				t.Fatalf("%s: %s: connections do not go on: %s", c.verb, r.VRRP, r.NotLingering)
			}
		}
		p.waitActive(c.heir)
		if c.verb == "failover" && !strings.Contains(p.filters(p.LB02), "hand-over") {
			t.Errorf("lb02 passes on without a filter: %s", p.filters(p.LB02))
		}
		goOn(t, append(talks, proxied...), "after the "+c.verb)
		k := p.talk(netip.AddrPortFrom(p.VIP, 3307))
		goOn(t, []*talk{k}, "begun on "+c.heir.Name)
		proxied = append(proxied, k)
	}
	for _, k := range proxied {
		k.conn.Close()
	}
	p.nothingLingers()
	p.wantFilters(p.LB01, "after the hand-overs", "eth0 others path eth1 path")
	p.wantFilters(p.LB02, "after the hand-overs", "eth0 path eth1 path")

	// The guard removes what a dead process has left.
	p.copied(p.LB01)
	if err := p.LB01.Kill(); err != nil {
		t.Fatal(err)
	}
	p.waitActive(p.LB02)
	goOn(t, talks, "after a kill")
	p.wantFilters(p.LB01, "after a kill", "eth0 others")
	p.restart(p.LB01)
	p.wantFilters(p.LB01, "after a start", "eth0 others path eth1 path")

	// If it dies as well, the next start does; until then they do nothing.
	guard := p.guardOf(p.LB01) // a backup, without addresses that would outlive it
	if guard == 0 {
		t.Fatal("lb01 has no guard")
	}
	if err := syscall.Kill(guard, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := p.LB01.Kill(); err != nil {
		t.Fatal(err)
	}
	p.wantFilters(p.LB01, "without a guard", "eth0 others path eth1 path")
	p.restart(p.LB01)
	p.wantFilters(p.LB01, "after another start", "eth0 others path eth1 path")
	goOn(t, talks, "in the end")

	for _, n := range []*lab.Node{p.LB01, p.LB02} {
		if err := n.Terminate(p.within(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	p.wantFilters(p.LB01, "after a stop", "eth0 others")
	p.wantFilters(p.LB02, "after a stop", "")
	if left, err := os.ReadDir(p.LB01.Path("/run/appliance")); err == nil {
		for _, f := range left {
			if strings.Contains(f.Name(), "undo") {
				t.Errorf("%s is left", f.Name())
			}
		}
	}
}
