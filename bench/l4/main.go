// Command l4 compares the L4 proxy with HAProxy and nginx stream: one worker of
// each pinned to a processor, load and servers on another, all in a network
// namespace of its own, interleaved. It writes its section of
// docs/benchmarks.md. Run it as root, by `make bench-l4`.
package main

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"appliance/bench/contest"
)

var (
	binary = flag.String("appliance", "build/applianctl", "the binary to measure")
	report = flag.String("report", "", "the file whose section l4 is to be written; none: only print")
	rounds = flag.Int("rounds", 5, "how many times everything is measured")
	long   = flag.Duration("long", 1500*time.Millisecond, "how long each measurement lasts")
	only   = flag.String("only", "", "the workload to measure; all if empty")
	peer   = flag.String("proxy", "", "the proxy to measure; all if empty")
	inside = flag.Bool("inside", false, "already in the namespace")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench l4:", err)
		os.Exit(1)
	}
}

func run() error {
	if !*inside {
		return contest.Apart()
	}
	limit, err := contest.Prepare()
	if err != nil {
		return err
	}
	idleConnections = min(idleConnections, (limit-1000)/2)
	dir, err := os.MkdirTemp("", "bench-l4-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	proxies, err := startAll(dir)
	defer func() {
		for _, p := range proxies {
			p.stop()
		}
	}()
	if err != nil {
		return err
	}
	if err := contest.PinLoad(); err != nil {
		return err
	}
	table, err := measureAll(proxies)
	if err != nil {
		return err
	}
	text := table.text()
	fmt.Print(text)
	if *report == "" {
		return nil
	}
	return contest.WriteSection(*report, "l4", text)
}

// servers are the addresses of the servers: several, so that a proxy does not
// run out of ports.
func servers() []netip.Addr {
	var all []netip.Addr
	for i := range 8 {
		all = append(all, netip.AddrFrom4([4]byte{127, 0, 1, byte(1 + i)}))
	}
	return all
}

// workload is one thing to measure.
type workload struct {
	name, unit string
	clients    int
	port       int
	renew      bool
}

var workloads = []workload{
	{"small requests, 64 kept connections", "request", 64, echoPort, false},
	{"small requests, 1 kept connection", "request", 1, echoPort, false},
	{"new connections, 32 at a time", "connection", 32, echoPort, true},
	{"bulk to the client, 4 connections", "MiB", 4, sourcePort, false},
	{"bulk to the server, 4 connections", "MiB", 4, sinkPort, false},
}

func measureAll(proxies []*proxy) (*table, error) {
	t := newTable(proxies)
	for round := range *rounds {
		for _, w := range workloads {
			if *only != "" && *only != w.name {
				continue
			}
			for i := range proxies {
				p := proxies[(i+round)%len(proxies)] // who is first changes
				r, cpu, err := measureOne(p, w)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", p.name, w.name, err)
				}
				t.add(p, w, r, cpu)
			}
		}
	}
	if *only != "" && *only != "idle" {
		return t, nil
	}
	for _, p := range proxies {
		n, err := measureIdle(p)
		if err != nil {
			return nil, fmt.Errorf("%s, idle: %w", p.name, err)
		}
		t.idle[p.name] = n
	}
	return t, nil
}

func measureOne(p *proxy, w workload) (result, time.Duration, error) {
	l, err := newLoad(p.address, servers())
	if err != nil {
		return result{}, 0, err
	}
	defer l.end()
	l.renew = w.renew
	for range w.clients {
		if err := l.dial(w.port); err != nil {
			return result{}, 0, err
		}
	}
	var used []time.Duration
	r, err := l.measure(300*time.Millisecond, *long, func() { used = append(used, contest.CPU(p.pid())) })
	if err != nil {
		return result{}, 0, err
	}
	return r, used[1] - used[0], nil
}

// wantedIdle is how many connections are to be held open at once.
const wantedIdle = 10000

// idleConnections is how many there are: fewer if the machine does not let a
// process have that many descriptors.
var idleConnections = wantedIdle

// measureIdle returns the memory of an idle connection in bytes: what the
// process has grown by when there are many that have carried one message.
func measureIdle(p *proxy) (float64, error) {
	l, err := newLoad(p.address, servers())
	if err != nil {
		return 0, err
	}
	defer l.end()
	before := contest.Memory(p.pid())
	l.idle = true
	for i := range idleConnections {
		if err := l.dial(echoPort); err != nil {
			return 0, err
		}
		if i%100 == 99 {
			if err := l.run(time.Now().Add(20 * time.Millisecond)); err != nil {
				return 0, err
			}
		}
	}
	for end := time.Now().Add(20 * time.Second); int(l.count) < idleConnections; {
		if time.Now().After(end) {
			return 0, fmt.Errorf("only %.0f of %d connections were answered", l.count, idleConnections)
		}
		if err := l.run(time.Now().Add(50 * time.Millisecond)); err != nil {
			return 0, err
		}
	}
	if err := l.run(time.Now().Add(time.Second)); err != nil {
		return 0, err
	}
	return float64(contest.Memory(p.pid())-before) / float64(idleConnections), nil
}

// find returns the path of a program.
func find(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no %s", name)
}
