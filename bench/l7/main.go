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
	caddy   = flag.String("caddy", "", "the program caddy; none: without it")
	report  = flag.String("report", "", "the file whose section l7 is to be written; none: only print")
	rounds  = flag.Int("rounds", 5, "how many times everything is measured")
	long    = flag.Duration("long", 2*time.Second, "how long each measurement lasts")
	only    = flag.String("only", "", "the workloads to measure, those whose name begins so; all if empty")
	peers   = flag.String("proxies", "", "the proxies to measure, separated by commas; all if empty")
	keepAt  = flag.String("samples", "", "a file in which samples are kept, so that several runs make one report")
	inside  = flag.Bool("inside", false, "already in the namespace")
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
	if !*inside {
		return contest.Apart()
	}
	limit, err := contest.Prepare()
	if err != nil {
		return err
	}
	idleConnections = min(idleConnections, limit/2-1100)
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
	name  string
	unit  string
	bytes bool // the unit is a MiB, not a request
	load  func(p *proxy) ([]string, func(out string) (result, error))
}

// wrk is a workload of wrk with that many connections.
func wrk(connections int, port func(p *proxy) string, path string, more ...string) func(p *proxy) ([]string, func(string) (result, error)) {
	return func(p *proxy) ([]string, func(string) (result, error)) {
		args := append([]string{"wrk", "-t1", fmt.Sprint("-c", connections), fmt.Sprintf("-d%ds", max(1, int(long.Seconds()))), "--latency"}, more...)
		return append(args, port(p)+path), wrkResult
	}
}

func plain(p *proxy) string { return fmt.Sprintf("http://%s:%d", p.address, plainPort) }
func logged(p *proxy) string {
	return fmt.Sprintf("http://%s:%d", p.address, loggedPort)
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
	{"HTTP/1.1, 64 kept connections", "request", false, wrk(64, plain, "/")},
	{"HTTP/1.1, 256 kept connections", "request", false, wrk(256, plain, "/")},
	{"HTTP/1.1, 64 kept connections, with an access log", "request", false, wrk(64, logged, "/")},
	{"HTTP/1.1, a new connection each", "request", false, wrk(32, plain, "/", "-H", "Connection: close")},
	{"HTTPS (ECDSA), 64 kept connections", "request", false, wrk(64, ecdsa, "/")},
	{"HTTPS (RSA), 64 kept connections", "request", false, wrk(64, rsa, "/")},
	{"full handshake and a request, ECDSA", "handshake", false, h2load(ecdsa, "--h1", "-n1000", "-c1000", "-m1")},
	{"full handshake and a request, RSA", "handshake", false, h2load(rsa, "--h1", "-n400", "-c400", "-m1")},
	{"HTTP/2, 64 connections of 10 streams", "request", false, h2load(ecdsa, "-n20000", "-c64", "-m10")},
	{"1 MiB bodies to the client, 16 connections", "MiB", true, wrk(16, plain, "/1m")},
	{"1 MiB bodies to the server, 16 connections", "MiB", true, wrk(16, plain, "/up", "-s")},
}

func (r *rig) measure(t *table) error {
	for round := range *rounds {
		for _, w := range workloads {
			if !strings.HasPrefix(w.name, *only) {
				continue
			}
			for i := range r.proxies {
				p := r.proxies[(i+round)%len(r.proxies)] // who is first changes
				if p.name == "Caddy" && strings.Contains(w.name, "RSA") {
					continue // it chooses certificates by name alone and would show the other one
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
	for _, w := range []struct {
		name   string
		secure bool
	}{{"idle, HTTP/1.1", false}, {"idle, HTTPS", true}} {
		if !strings.HasPrefix(w.name, *only) {
			continue
		}
		for _, p := range r.proxies {
			n, err := idle(p, w.secure)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", p.name, w.name, err)
			}
			t.add(w.name, p.name, sample{Memory: n})
		}
	}
	for _, p := range r.proxies {
		if !slices.Contains(t.Versions, p.version) {
			t.Versions = append(t.Versions, p.version)
		}
	}
	return nil
}

// one measures one workload with one proxy.
func (r *rig) one(p *proxy, w workload) (sample, error) {
	args, parse := w.load(p)
	for i, a := range args {
		if a == "-s" {
			args = slices.Insert(args, i+1, r.upload)
			break
		}
	}
	before, began := contest.CPU(p.pid()), time.Now()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return sample{}, fmt.Errorf("%v: %w: %s", args, err, out)
	}
	used, took := contest.CPU(p.pid())-before, time.Since(began)
	res, err := parse(string(out))
	if err != nil {
		return sample{}, fmt.Errorf("%v: %w:\n%s", args, err, out)
	}
	return sample{Rate: res.count / took.Seconds(), CPU: used.Seconds() * 1e6 / res.count, P50: res.p50, P99: res.p99}, nil
}
