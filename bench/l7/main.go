// Command l7 compares the L7 proxy with nginx, HAProxy and Caddy: one worker of
// each pinned to a processor, load and server on another, all in a network
// namespace of its own, interleaved. It writes its section of
// docs/benchmarks.md. Run it as root, by `make bench-l7`.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"appliance/bench/contest"
)

var (
	binary  = flag.String("appliance", "build/applianctl", "the binary to measure")
	before  = flag.String("before", "", "another build of ours, which is measured in the same rounds; none: without it")
	caddy   = flag.String("caddy", "", "the program caddy; none: without it")
	report  = flag.String("report", "", "the file whose section l7 is to be written; none: only print")
	rounds  = flag.Int("rounds", 5, "how many times everything is measured")
	long    = flag.Duration("long", 2*time.Second, "how long each measurement lasts")
	only    = flag.String("only", "", "the workloads to measure, those whose name begins so; all if empty")
	peers   = flag.String("proxies", "", "the proxies to measure, separated by commas; all if empty")
	keepAt  = flag.String("samples", "", "a file in which samples are kept, so that several runs make one report")
	inside  = flag.Bool("inside", false, "already in the namespace")
	sinkAt  = flag.String("sink", "", "only serve uploads at this address")
	noTable = flag.Bool("measure-only", false, "do not print a report")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench l7:", err)
		os.Exit(1)
	}
}

func run() error {
	if *sinkAt != "" {
		return sink(*sinkAt)
	}
	if !*inside {
		return contest.Apart()
	}
	limit, err := contest.Prepare()
	if err != nil {
		return err
	}
	idleConnections = min(idleConnections, limit-1200)
	t, err := readTable(*keepAt)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-l7-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r, err := start(dir, limit)
	if r != nil {
		defer r.stop()
	}
	if err != nil {
		return err
	}
	if err := contest.PinLoad(); err != nil {
		return err
	}
	if err := r.measure(t); err != nil {
		return err
	}
	if err := t.write(*keepAt); err != nil || *noTable {
		return err
	}
	text := t.text()
	fmt.Print(text)
	if *report == "" {
		return nil
	}
	return contest.WriteSection(*report, "l7", text)
}

// workload is one thing to measure.
type workload struct {
	name string
	unit string
	mib  float64 // the size of what a request carries, if that is the unit; -1: what was read counts
	load func(p *proxy) ([]string, func(out string) (result, error))
}

// wrk is a workload of wrk with that many connections and a script.
func wrk(connections int, port func(p *proxy) string, path, script string, more ...string) func(p *proxy) ([]string, func(string) (result, error)) {
	return func(p *proxy) ([]string, func(string) (result, error)) {
		args := append([]string{"wrk", "-t1", fmt.Sprint("-c", connections), fmt.Sprintf("-d%ds", max(1, int(long.Seconds()))), "-s", script}, more...)
		return append(args, port(p)+path), wrkResult
	}
}

func plain(p *proxy) string { return fmt.Sprintf("http://%s:%d", p.address, plainPort) }
func logged(p *proxy) string {
	return fmt.Sprintf("http://%s:%d", p.address, loggedPort)
}
func sunk(p *proxy) string {
	return fmt.Sprintf("http://%s:%d", p.address, uploadPort)
}
func ecdsa(p *proxy) string { return fmt.Sprintf("https://%s:%d", p.address, ecdsaPort) }
func rsa(p *proxy) string   { return fmt.Sprintf("https://%s:%d", p.address, rsaPort) }

// h2load is a workload of h2load.
func h2load(port func(p *proxy) string, args ...string) func(p *proxy) ([]string, func(string) (result, error)) {
	return func(p *proxy) ([]string, func(string) (result, error)) {
		return append(append([]string{"h2load"}, args...), port(p)+"/"), h2loadResult
	}
}

var workloads = []workload{
	{"HTTP/1.1, 64 kept connections", "request", 0, wrk(64, plain, "/", "get.lua")},
	{"HTTP/1.1, 256 kept connections", "request", 0, wrk(256, plain, "/", "get.lua")},
	{"HTTP/1.1, 64 kept connections, with an access log", "request", 0, wrk(64, logged, "/", "get.lua")},
	{"HTTP/1.1, a new connection each", "request", 0, wrk(32, plain, "/", "get.lua", "-H", "Connection: close")},
	{"HTTPS (ECDSA), 64 kept connections", "request", 0, wrk(64, ecdsa, "/", "get.lua")},
	{"HTTPS (RSA), 64 kept connections", "request", 0, wrk(64, rsa, "/", "get.lua")},
	{"full handshake and a request, ECDSA", "handshake", 0, h2load(ecdsa, "--h1", "-n1000", "-c1000", "-m1")},
	{"full handshake and a request, RSA", "handshake", 0, h2load(rsa, "--h1", "-n400", "-c400", "-m1")},
	{"HTTP/2, 64 connections of 10 streams", "request", 0, h2load(ecdsa, "-n20000", "-c64", "-m10")},
	{"1 MiB bodies to the client, 16 connections", "MiB", -1, wrk(16, plain, "/1m", "get.lua")},
	{"1 MiB bodies to the server, 16 connections", "MiB", 1, wrk(16, sunk, "/", "1m.lua")},
	{"64 MiB bodies to the client, 4 connections", "MiB", -1, wrk(4, plain, "/64m", "get.lua")},
	{"64 MiB bodies to the server, 4 connections", "MiB", 64, wrk(4, sunk, "/", "64m.lua")},
}

// The rows of what an idle connection takes.
var idles = []struct {
	name   string
	secure bool
}{{"idle, HTTP/1.1", false}, {"idle, HTTPS", true}}

func (r *rig) measure(t *table) error {
	if err := r.measureIdle(t); err != nil {
		return err
	}
	for _, p := range r.proxies {
		if err := p.start(r.dir); err != nil {
			return err
		}
	}
	for round := range *rounds {
		for _, w := range workloads {
			if !strings.HasPrefix(w.name, *only) {
				continue
			}
			for i := range r.proxies {
				p := r.proxies[(i+round)%len(r.proxies)] // who is first changes
				if p.name == "Caddy" && (round > 0 || strings.Contains(w.name, "RSA")) {
					continue // it is far from being the best, and chooses certificates by name alone
				}
				s, err := r.one(p, w)
				if err != nil && p.ours {
					return fmt.Errorf("%s, %s: %w", p.name, w.name, err)
				}
				if err != nil {
					fmt.Fprintf(os.Stderr, "%s, %s: %v\n", p.name, w.name, err)
					continue
				}
				t.add(w.name, p.name, s)
			}
		}
	}
	for _, p := range r.proxies {
		if !slices.Contains(t.Versions, p.version) {
			t.Versions = append(t.Versions, p.version)
		}
	}
	return nil
}

// measureIdle measures idle connections, each time with a process that is new.
func (r *rig) measureIdle(t *table) error {
	for _, w := range idles {
		if !strings.HasPrefix(w.name, *only) {
			continue
		}
		for _, p := range r.proxies {
			if err := p.start(r.dir); err != nil {
				return err
			}
			s, err := idle(p, w.secure)
			p.stop()
			if err != nil {
				return fmt.Errorf("%s, %s: %w", p.name, w.name, err)
			}
			t.add(w.name, p.name, s)
		}
	}
	return nil
}

// one measures one workload with one proxy.
func (r *rig) one(p *proxy, w workload) (sample, error) {
	args, parse := w.load(p)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = r.dir // where the scripts are
	before, began := contest.CPU(p.pid()), time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return sample{}, fmt.Errorf("%v: %w: %s", args, err, out)
	}
	used, took := contest.CPU(p.pid())-before, time.Since(began)
	res, err := parse(string(out))
	if err != nil {
		return sample{}, fmt.Errorf("%v: %w:\n%s", args, err, out)
	}
	switch {
	case w.mib > 0:
		res.count *= w.mib
	case w.mib < 0:
		res.count = res.bytes / (1 << 20)
	}
	return sample{Rate: res.count / took.Seconds(), CPU: used.Seconds() * 1e6 / res.count, P50: res.p50, P99: res.p99, P99_9: res.p99_9}, nil
}
