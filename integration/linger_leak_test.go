package integration

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"appliance/internal/lab"
)

// leakSwitches is how often the addresses go there and back.
const leakSwitches = 15

// holdings returns how many of each kind a node's process has: descriptors, by what
// they are, and goroutines.
func (w *watcher) holdings(n *lab.Node, address string) map[string]int {
	w.t.Helper()
	all := make(map[string]int)
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", n.Appliance().PID()))
	if err != nil || len(links) == 0 {
		w.t.Fatalf("the descriptors of %s: %v", n.Name, err)
	}
	for _, l := range links {
		to, err := os.Readlink(l)
		if err != nil {
			continue // it is closed by now
		}
		kind, _, _ := strings.Cut(to, ":[")
		all[kind]++
	}
	all["goroutines"] = int(value(w.scrape(address), "go_goroutines", nil))
	return all
}

// Nothing of a switch is left behind, however many there are: with a group, virtual
// MAC addresses, and services of the kernel path.
func TestSwitchesLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	const door = "[admin]\nlisten = \"0.0.0.0:9112\"\nallow  = [\"192.168.15.0/24\"]\n"
	p := newKernelPair(t, replaced(t, kernelConfig, quickAdverts, slowAdverts, preemptOff, preemptOff+"\nvirtual_mac = true")+door)
	p.dual = afterFreeze // four routers take a moment more than one, and it is not judged here
	p.startInKernel()
	for _, n := range p.Nodes() {
		p.waitPeerRouters(n)
	}
	w := newWatcher(t, p.Client)
	doors := map[*lab.Node]string{p.LB01: "192.168.15.11:9112", p.LB02: "192.168.15.12:9112"}
	quiet := func() {
		t.Helper()
		for _, n := range p.Nodes() {
			eventually(t, 20*time.Second, "nothing lingers on "+n.Name, func() bool {
				for _, s := range p.status(n).VRRP {
					if s.Lingering != nil || s.PassingOn != nil {
						return false
					}
				}
				return true
			})
		}
	}
	thereAndBack := func() {
		t.Helper()
		for _, verb := range []string{"failover", "failback"} {
			for _, r := range p.move(p.LB01, verb, "--drain", "10s") {
				if r.NotLingering != "" {
					t.Fatalf("%s: %s: %s", verb, r.VRRP, r.NotLingering)
				}
			}
		}
	}
	for range 3 { // for what is made at the first time, and kept
		thereAndBack()
	}
	quiet()
	before := make(map[*lab.Node]map[string]int)
	for _, n := range p.Nodes() {
		before[n] = w.holdings(n, doors[n])
	}
	talks := p.talks(6)
	began := time.Now()
	for range leakSwitches {
		thereAndBack()
	}
	t.Logf("%d switches took %v", 2*leakSwitches, time.Since(began).Round(time.Millisecond))
	goOn(t, talks, "after all switches")
	for _, k := range talks {
		k.conn.Close()
	}
	quiet()
	for _, n := range p.Nodes() {
		// What comes and goes, of checks for example, may be there at one glance.
		var grown []string
		for deadline := time.Now().Add(30 * time.Second); ; {
			grown = nil
			after := w.holdings(n, doors[n])
			for _, kind := range slices.Sorted(maps.Keys(after)) {
				if after[kind] > before[n][kind] {
					grown = append(grown, fmt.Sprintf("%s: %d, before %d", kind, after[kind], before[n][kind]))
				}
			}
			if len(grown) == 0 || time.Now().After(deadline) {
				break
			}
		}
		if len(grown) > 0 {
			t.Errorf("%s has more than before the switches: %s", n.Name, strings.Join(grown, "; "))
		}
		t.Logf("%s has %v", n.Name, before[n])
	}
	p.nothingLingers()
}
