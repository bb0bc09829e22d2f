//go:build bench

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"appliance/bench/contest"
	"appliance/internal/lab"
)

// This file is `make bench-failover`. It is no test: it fails when something does
// not work, and on no time. These variables of the environment change it:
//
//	BENCH_CRASHES   how many times each contestant loses its active node in each
//	                way (default 100); with 20 it takes about eight minutes
//	BENCH_INTERVALS the advert intervals, default "10ms 1s"
//	BENCH_LINK      whether the appliances have a peer link, default "no yes"
//	BENCH_WAYS      the ways to lose it, default "kill cut switch"
//	BENCH_INTO      the file whose section is replaced, none if empty
//	BENCH_STATE     a file in which events are kept, so that several runs add up;
//	                with BENCH_CRASHES=0 its tables are written, and nothing else

const (
	ourPort      = 7100                    // of the greeting; that of the echo is the next one
	theirPort    = 7200                    // the same, of keepalived's address
	probeEvery   = time.Millisecond        // between new connections
	probePatient = 5 * time.Second         // a lost SYN is repeated after one second
	longLived    = 1500 * time.Millisecond // more than handover.drain
	// streamPatient is how long the stream waits for its echo before it connects
	// anew: the sign of a lost node that sends no reset.
	streamPatient = 20 * time.Millisecond
)

// contestant is one way to keep a virtual address on a pair. Both are there all
// the time, on the same two hosts.
type contestant interface {
	name() string
	vip() netip.AddrPort // with the port of the greeting
	// start starts it on a node, as a backup if the other one is active.
	start(n *lab.Node)
	// kill ends all it has on a node by SIGKILL.
	kill(n *lab.Node)
	// give moves the address from the active node to the other one, in the
	// gentlest way there is, and returns when that is done.
	give(n *lab.Node)
	// clean removes what a killed one has left on a node.
	clean(n *lab.Node)
}

// failoverBench is one run with one advert interval.
type failoverBench struct {
	*pair
	interval time.Duration
	link     bool                           // the appliances have a peer link
	keep     func()                         // writes down what there is
	results  map[string]map[string]*outcome // by way, then by contestant
}

// outcome is what one contestant did with one way to lose its active node.
type outcome struct {
	Wire, Connect, Stream distribution
	Probes, Failed        int // connections that were begun, and those of them that failed
}

func TestBenchFailover(t *testing.T) {
	crashes := 100
	if text := os.Getenv("BENCH_CRASHES"); text != "" {
		var err error
		if crashes, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	var report strings.Builder
	begun, state := time.Now(), readBenchState(t)
	for _, text := range strings.Fields(or(os.Getenv("BENCH_INTERVALS"), "10ms 1s")) {
		interval, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range strings.Fields(or(os.Getenv("BENCH_LINK"), "no yes")) {
			if crashes == 0 {
				break
			}
			t.Run(text+", link "+link, func(t *testing.T) {
				b := newFailoverBench(t, interval, link == "yes")
				b.results = state.of(text)
				b.keep = func() { state.write(t) }
				b.run(strings.Fields(or(os.Getenv("BENCH_WAYS"), "kill cut switch")), crashes)
			})
		}
		tellBench(&report, text, state.of(text))
	}
	if t.Failed() {
		return
	}
	text := benchHead(t, begun) + report.String()
	fmt.Println(text)
	if path := os.Getenv("BENCH_INTO"); path != "" {
		if err := contest.WriteSection(path, "failover", text); err != nil {
			t.Fatal(err)
		}
	}
}

// benchState is what has been measured: by interval, way and contestant.
type benchState map[string]map[string]map[string]*outcome

func (s benchState) of(interval string) map[string]map[string]*outcome {
	if s[interval] == nil {
		s[interval] = make(map[string]map[string]*outcome)
	}
	return s[interval]
}

func readBenchState(t *testing.T) benchState {
	state := make(benchState)
	text, err := os.ReadFile(os.Getenv("BENCH_STATE"))
	if err != nil {
		return state // the first run
	}
	if err := json.Unmarshal(text, &state); err != nil {
		t.Fatal(err)
	}
	return state
}

func (s benchState) write(t *testing.T) {
	path := os.Getenv("BENCH_STATE")
	if path == "" {
		return
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

func newFailoverBench(t *testing.T, interval time.Duration, link bool) *failoverBench {
	config := fmt.Sprintf(`
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
advert_interval   = "%v"
preempt           = false
[[l4]]
name    = "greeting"
listen  = ["192.168.15.3:%d"]
servers = ["172.16.1.51:%d"]
[[l4]]
name    = "echo"
listen  = ["192.168.15.3:%d"]
servers = ["172.16.1.51:%d"]
`, interval, ourPort, ourPort, ourPort+1, ourPort+1)
	if link {
		config = peerTable + config
	}
	b := &failoverBench{pair: newPair(t, config), interval: interval, link: link}
	b.dual = time.Hour // a killed keepalived leaves its address, which is no news
	serveGreeting(t, b.Servers[0].Host, netip.MustParseAddrPort("172.16.1.51:7100"))
	return b
}

// run loses the active node of each contestant in turns, so many times each.
func (b *failoverBench) run(ways []string, crashes int) {
	ours := &benchAppliance{b}
	theirs := newBenchKeepalived(b)
	for _, c := range []contestant{ours, theirs} {
		b.begin(c)
	}
	b.calibrate(ours.vip())
	b.calibrate(theirs.vip())
	for _, way := range ways {
		if b.results[way] == nil {
			b.results[way] = make(map[string]*outcome)
		}
		for range crashes {
			for _, c := range []contestant{ours, theirs} {
				o := b.results[way][c.name()]
				if o == nil {
					o = new(outcome)
					b.results[way][c.name()] = o
				}
				b.lose(c, way, o)
				b.keep()
			}
		}
		for _, c := range []contestant{ours, theirs} {
			if o := b.results[way][c.name()]; o != nil {
				b.t.Logf("%v, %s, %s: wire %v; connect %v; stream %v; failed %d of %d",
					b.interval, way, c.name(), o.Wire, o.Connect, o.Stream, o.Failed, o.Probes)
			}
		}
	}
}

// begin starts a contestant on both nodes, lb01 first.
func (b *failoverBench) begin(c contestant) {
	b.t.Helper()
	c.start(b.LB01)
	eventually(b.t, 30*time.Second, c.name()+" is active on lb01", func() bool { return b.activeOf(c) == b.LB01 })
	c.start(b.LB02)
}

// activeOf returns the node whose host sent the latest advert of a contestant
// with a priority.
func (b *failoverBench) activeOf(c contestant) *lab.Node {
	events := b.Capture.Events()
	for i := len(events) - 1; i >= 0; i-- {
		if e := events[i]; e.Kind == lab.Advert && e.VRID == vridOf(c) {
			if e.Priority == 0 {
				return nil
			}
			n, _ := b.nodeNamed(e.Host)
			return n
		}
	}
	return nil
}

func vridOf(c contestant) int {
	if _, ok := c.(*benchAppliance); ok {
		return 50
	}
	return 51
}

// calibrate shows that the client itself is no bottleneck.
func (b *failoverBench) calibrate(vip netip.AddrPort) {
	b.t.Helper()
	p, s := startProbes(b.Client, vip), startLongStream(b.Client, vip)
	time.Sleep(2 * time.Second)
	begun := time.Now()
	time.Sleep(3 * time.Second)
	ended := time.Now()
	p.stop()
	s.stop()
	gap, failed, total := p.report(begun, ended)
	rate := float64(total) / ended.Sub(begun).Seconds()
	b.t.Logf("nothing happens to %v: %.0f connections a second, %d failed, no success for %v at most, the stream for %v",
		vip, rate, failed, gap.Round(100*time.Microsecond), s.gap(begun, ended).Round(100*time.Microsecond))
	if rate < 900 || failed > 0 {
		b.t.Errorf("the client manages %.0f connections a second, %d failed: it would measure itself", rate, failed)
	}
}

// lose loses the active node of a contestant once, and makes the pair whole again.
func (b *failoverBench) lose(c contestant, way string, o *outcome) {
	b.t.Helper()
	gone := b.activeOf(c)
	if gone == nil {
		b.t.Fatalf("%s: nobody is active", c.name())
	}
	heir := b.Other(gone)
	p, s := startProbes(b.Client, c.vip()), startLongStream(b.Client, c.vip())
	defer p.stop()
	defer s.stop()
	p.waitSuccesses(b.t, 100)
	s.waitEchoes(b.t, 20)
	if way == "switch" {
		// What is young is waited for: the stream is meant to be one that is not.
		time.Sleep(longLived)
	}
	begun := time.Now()
	switch way {
	case "kill":
		c.kill(gone)
	case "cut":
		if err := b.Cut(gone.Host, lab.LAN, lab.Silent); err != nil {
			b.t.Fatal(err)
		}
	case "switch":
		c.give(gone)
	}
	var first lab.Event
	eventually(b.t, 30*time.Second, heir.Name+" takes over for "+c.name()+" after "+way, func() bool {
		for _, e := range b.Capture.Events() {
			if e.Kind == lab.Advert && e.VRID == vridOf(c) && e.Host == heir.Name && e.Priority > 0 && !e.Time.Before(begun) {
				first = e
				return true
			}
		}
		return false
	})
	p.waitSuccesses(b.t, 200)
	s.waitEchoes(b.t, 50)
	ended := time.Now()
	s.stop()
	p.halt()
	b.mend(c, way, gone)
	p.stop()

	gap, failed, total := p.report(begun, ended)
	if way != "switch" {
		o.Wire = append(o.Wire, first.Time.Sub(begun))
	}
	o.Connect = append(o.Connect, gap)
	o.Stream = append(o.Stream, s.gap(begun, ended))
	o.Failed += failed
	o.Probes += total
	b.t.Logf("%s, %s on %s: first advert of %s after %.1f ms; no connection for %.1f ms, no echo for %.1f ms", c.name(), way, gone.Name,
		heir.Name, ms(first.Time.Sub(begun)), ms(gap), ms(s.gap(begun, ended)))
	if way == "switch" && failed > 0 {
		b.t.Logf("%d connections failed:\n%s", failed, strings.Join(p.failures(begun, ended), "\n"))
	}
}

// mend makes the pair whole again after a loss.
func (b *failoverBench) mend(c contestant, way string, gone *lab.Node) {
	b.t.Helper()
	switch way {
	case "kill":
		c.clean(gone)
		c.start(gone)
	case "cut":
		// It dies where nobody hears it, as a machine does that lost its power.
		c.kill(gone)
		c.clean(gone)
		if err := b.Heal(gone.Host, lab.LAN); err != nil {
			b.t.Fatal(err)
		}
		// The other contestant was cut off with it: it settles.
		time.Sleep(max(500*time.Millisecond, 5*b.interval))
		c.start(gone)
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// contestants are their names in the order of the tables.
var contestants = []string{"applianctl", "applianctl with a peer link", "keepalived"}

// tellBench writes the table of one interval.
func tellBench(w io.Writer, interval string, results map[string]map[string]*outcome) {
	names := map[string]string{
		"kill":   "the process is killed (SIGKILL)",
		"cut":    "the machine is lost (its cable goes silent)",
		"switch": "planned switch",
	}
	fmt.Fprintf(w, "\n### Adverts every %s\n\n", interval)
	fmt.Fprintln(w, "| what happens | who | events | first advert of the other node | no new connection | no echo on the stream | connections that failed |")
	fmt.Fprintln(w, "| --- | --- | --- | --- | --- | --- | --- |")
	cell := func(d distribution) string {
		if len(d) == 0 {
			return "-"
		}
		return fmt.Sprintf("%.1f / %.1f / %.1f ms", ms(d.at(0.5)), ms(d.at(0.99)), ms(d.at(1)))
	}
	for _, way := range []string{"kill", "cut", "switch"} {
		for _, who := range contestants {
			if o := results[way][who]; o != nil {
				fmt.Fprintf(w, "| %s | %s | %d | %s | %s | %s | %d of %d |\n", names[way], who, len(o.Connect),
					cell(o.Wire), cell(o.Connect), cell(o.Stream), o.Failed, o.Probes)
			}
		}
	}
}

// benchHead tells what was measured, where and when.
func benchHead(t *testing.T, begun time.Time) string {
	first := func(name string, args ...string) string {
		out, _ := exec.Command(name, args...).CombinedOutput()
		line, _, _ := bytes.Cut(out, []byte("\n"))
		return string(line)
	}
	return fmt.Sprintf(`## Losing the active node

%s, %d CPUs, kernel %s, %s; applianctl and %s on the same two hosts of one
bridge, in turns. Each cell: median / 99th percentile / largest, counted from the event. A client
opens a new connection every millisecond, reads a greeting, and notes the longest time without one; beside it a stream
sends a byte and waits for its echo, and connects anew after a reset or %v of silence. Connections fail when
they are refused or reset, or are not answered within %v. With keepalived the greeting is served by a process
on each node that is killed together with it; with applianctl it comes through its L4 proxy from a server behind.
In a planned switch without a peer link applianctl keeps new connections off for 200 ms, while those under way end: they are late, not
refused, and the stream is %v old then, so it is not waited for. With the link both nodes answer for a moment, and the stream goes on. The link's price for a lost machine is the time in which the backup asks
whether it lives.
`, begun.UTC().Format("2006-01-02"), runtime.NumCPU(), first("uname", "-r"), runtime.Version(), first("keepalived", "--version"),
		streamPatient, probePatient, longLived)
}

// serveGreeting serves the greeting and the echo on a host until the test ends
// or the returned function is called, which resets what is open.
func serveGreeting(t *testing.T, h *lab.Host, address netip.AddrPort) (kill func()) {
	t.Helper()
	var mu sync.Mutex
	dead, open := false, make(map[net.Conn]bool)
	var listeners []net.Listener
	for port, serve := range map[uint16]func(net.Conn){
		address.Port():     func(c net.Conn) { c.Write([]byte("!")); io.Copy(io.Discard, c) },
		address.Port() + 1: func(c net.Conn) { io.Copy(c, c) },
	} {
		l, err := h.Listen(netip.AddrPortFrom(address.Addr(), port))
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				mu.Lock()
				if dead {
					c.Close()
				}
				open[c] = true
				mu.Unlock()
				go func() {
					serve(c)
					c.Close()
					mu.Lock()
					delete(open, c)
					mu.Unlock()
				}()
			}
		}()
	}
	kill = func() {
		mu.Lock()
		defer mu.Unlock()
		dead = true
		for _, l := range listeners {
			l.Close()
		}
		for c := range open {
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}
	t.Cleanup(kill)
	return kill
}

// benchAppliance is our side.
type benchAppliance struct{ *failoverBench }

func (a *benchAppliance) name() string {
	if a.link {
		return contestants[1]
	}
	return contestants[0]
}

func (a *benchAppliance) vip() netip.AddrPort { return netip.AddrPortFrom(a.VIP, ourPort) }

func (a *benchAppliance) start(n *lab.Node) {
	a.t.Helper()
	a.startNode(n)
	eventually(a.t, 20*time.Second, n.Name+" takes part", func() bool {
		s := a.status(n).VRRP[0]
		return s.State == "active" || s.ActiveRouter != nil
	})
}

func (a *benchAppliance) kill(n *lab.Node) {
	if err := n.Kill(); err != nil {
		a.t.Fatal(err)
	}
}

func (a *benchAppliance) give(n *lab.Node) {
	ctx, cancel := context.WithTimeout(a.t.Context(), 30*time.Second)
	defer cancel()
	cmd := n.Command("applianctl", "failover")
	if err := n.Run(ctx, cmd); err != nil {
		a.t.Fatal(err)
	}
}

// clean waits until the guard has ended: then nothing is left.
func (a *benchAppliance) clean(n *lab.Node) {
	eventually(a.t, 10*time.Second, "the address has gone from "+n.Name, func() bool {
		has, err := n.Network.HasAddress(a.VIP)
		return err == nil && !has
	})
}

// benchKeepalived is the other side: keepalived for the address, and a process
// that serves.
type benchKeepalived struct {
	*failoverBench
	program   string
	processes map[*lab.Node]*lab.Process
	servers   map[*lab.Node]func()
}

var benchKeepalivedVIP = netip.MustParsePrefix("192.168.15.4/24")

func newBenchKeepalived(b *failoverBench) *benchKeepalived {
	k := &benchKeepalived{failoverBench: b, program: need(b.t, "keepalived", "keepalived"),
		processes: make(map[*lab.Node]*lab.Process), servers: make(map[*lab.Node]func())}
	for _, n := range b.Nodes() {
		priority := map[string]int{"lb01": 100, "lb02": 90}[n.Name]
		text := fmt.Sprintf(`global_defs {
 router_id %s
 vrrp_version 3
}
vrrp_instance VI_2 {
 state BACKUP
 interface eth0
 virtual_router_id 51
 priority %d
 nopreempt
 advert_int %g
 virtual_ipaddress {
 %s
 }
}
`, n.Name, priority, b.interval.Seconds(), benchKeepalivedVIP)
		if err := n.WriteFile(keepalivedConfig, []byte(text)); err != nil {
			b.t.Fatal(err)
		}
	}
	return k
}

func (*benchKeepalived) name() string { return contestants[2] }
func (*benchKeepalived) vip() netip.AddrPort {
	return netip.AddrPortFrom(benchKeepalivedVIP.Addr(), theirPort)
}

func (k *benchKeepalived) start(n *lab.Node) {
	k.t.Helper()
	log, err := os.Create(n.Path(keepalivedLog))
	if err != nil {
		k.t.Fatal(err)
	}
	defer log.Close() // the process has it too
	cmd := n.Command(k.program, "--dont-fork", "--log-console", "--no-syslog", "--log-detail", "--vrrp",
		"--use-file="+keepalivedConfig, "--pid=/run/keepalived.pid", "--vrrp_pid="+keepalivedChild)
	cmd.Stdout, cmd.Stderr = log, log
	if k.processes[n], err = n.Host.Start(cmd); err != nil {
		k.t.Fatal(err)
	}
	// A node serves before it may be active, as ours does.
	k.servers[n] = serveGreeting(k.t, n.Host, netip.AddrPortFrom(netip.IPv4Unspecified(), theirPort))
	eventually(k.t, 20*time.Second, "keepalived takes part on "+n.Name, func() bool {
		text, _ := os.ReadFile(n.Path(keepalivedLog))
		return strings.Contains(string(text), keepalivedReady)
	})
	time.Sleep(2 * k.interval) // it says nothing of the advert it hears
}

// child returns the process that does the work.
func (k *benchKeepalived) child(n *lab.Node) int {
	text, err := os.ReadFile(n.Path(keepalivedChild))
	if err != nil {
		k.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		k.t.Fatal(err)
	}
	return pid
}

func (k *benchKeepalived) kill(n *lab.Node) {
	child := k.child(n)
	k.processes[n].Stop() // it would start another child
	syscall.Kill(child, syscall.SIGKILL)
	k.servers[n]()
	k.processes[n].Kill()
}

// give stops keepalived, which says priority 0, and starts it again: it has no
// command for that.
func (k *benchKeepalived) give(n *lab.Node) {
	if err := k.processes[n].Signal(syscall.SIGTERM); err != nil {
		k.t.Fatal(err)
	}
	<-k.processes[n].Done()
	k.servers[n]()
	k.start(n)
}

func (k *benchKeepalived) clean(n *lab.Node) {
	if has, err := n.Network.HasAddress(benchKeepalivedVIP.Addr()); err == nil && has {
		if err := n.Network.DeleteAddress(lab.LAN, benchKeepalivedVIP); err != nil {
			k.t.Fatal(err)
		}
	}
}

// probes opens a connection every millisecond.
type probes struct {
	halt func() // begins no more
	stop func() // and waits for those under way

	mu        sync.Mutex
	outcomes  []probeOutcome
	successes int
}

type probeOutcome struct {
	start, end time.Time
	err        error
}

func startProbes(from *lab.Host, to netip.AddrPort) *probes {
	ctx, cancel := context.WithCancel(context.Background())
	p := &probes{halt: cancel}
	var running sync.WaitGroup
	p.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	running.Go(func() {
		next := time.Now()
		for ctx.Err() == nil {
			start := time.Now()
			running.Go(func() {
				err := probe(from, to)
				end := time.Now()
				p.mu.Lock()
				defer p.mu.Unlock()
				p.outcomes = append(p.outcomes, probeOutcome{start, end, err})
				if err == nil {
					p.successes++
				}
			})
			next = next.Add(probeEvery)
			time.Sleep(time.Until(next))
		}
	})
	return p
}

// probe opens a connection, waits for the greeting and resets it: a port that
// waits for the end of a connection is not free for the next one.
func probe(from *lab.Host, to netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(context.Background(), probePatient)
	defer cancel()
	c, err := from.Dial(ctx, to)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetLinger(0)
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	_, err = io.ReadFull(c, make([]byte, 1))
	return err
}

func (p *probes) waitSuccesses(t *testing.T, more int) {
	t.Helper()
	count := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.successes
	}
	from := count()
	eventually(t, 30*time.Second, fmt.Sprintf("%d connections", more), func() bool { return count() >= from+more })
}

// report returns the longest time without a success, and how many of the
// connections that began between two moments failed. It follows stop.
func (p *probes) report(from, to time.Time) (gap time.Duration, failed, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ends []time.Time
	for _, o := range p.outcomes {
		if o.err == nil && o.end.After(from) && o.end.Before(to) {
			ends = append(ends, o.end)
		}
		if o.start.After(from) && o.start.Before(to) {
			total++
			if o.err != nil {
				failed++
			}
		}
	}
	return longestGap(ends, from, to), failed, total
}

// failures tells of the connections that began between two moments and failed,
// by what and when; ten of them at most.
func (p *probes) failures(from, to time.Time) (list []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.outcomes {
		if o.err != nil && o.start.After(from) && o.start.Before(to) && len(list) < 10 {
			list = append(list, fmt.Sprintf("begun after %.1f ms, ended after %.1f ms: %v", ms(o.start.Sub(from)), ms(o.end.Sub(from)), o.err))
		}
	}
	return list
}

// longestGap returns the longest time between two of the moments from, to, and
// those given.
func longestGap(times []time.Time, from, to time.Time) (longest time.Duration) {
	for _, t := range append(times, to) {
		longest = max(longest, t.Sub(from))
		if t.After(from) {
			from = t
		}
	}
	return longest
}

// longStream is one long-lived connection, again and again.
type longStream struct {
	stop func()

	mu     sync.Mutex
	echoes []time.Time
}

func startLongStream(from *lab.Host, greeting netip.AddrPort) *longStream {
	ctx, cancel := context.WithCancel(context.Background())
	s := &longStream{}
	done := make(chan struct{})
	s.stop = func() {
		cancel()
		<-done
	}
	to := netip.AddrPortFrom(greeting.Addr(), greeting.Port()+1)
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			s.once(ctx, from, to)
			time.Sleep(probeEvery) // where connections are refused at once
		}
	}()
	return s
}

// once sends bytes by one connection until it breaks.
func (s *longStream) once(ctx context.Context, from *lab.Host, to netip.AddrPort) {
	dialling, cancel := context.WithTimeout(ctx, streamPatient)
	defer cancel()
	c, err := from.Dial(dialling, to)
	if err != nil {
		return
	}
	defer c.Close()
	c.SetLinger(0)
	buf := make([]byte, 1)
	for ctx.Err() == nil {
		c.SetDeadline(time.Now().Add(streamPatient))
		if _, err := c.Write(buf); err != nil {
			return
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			return
		}
		s.mu.Lock()
		s.echoes = append(s.echoes, time.Now())
		s.mu.Unlock()
		time.Sleep(probeEvery)
	}
}

func (s *longStream) waitEchoes(t *testing.T, more int) {
	t.Helper()
	count := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.echoes)
	}
	from := count()
	eventually(t, 30*time.Second, fmt.Sprintf("%d echoes", more), func() bool { return count() >= from+more })
}

func (s *longStream) gap(from, to time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var within []time.Time
	for _, e := range s.echoes {
		if e.After(from) && e.Before(to) {
			within = append(within, e)
		}
	}
	return longestGap(within, from, to)
}
