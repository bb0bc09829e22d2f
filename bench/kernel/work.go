package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"appliance/bench/contest"
)

// sample is one measurement.
type sample struct {
	rate     float64       // units a second
	cpu      float64       // microseconds for each unit, of all that take part
	p50, p99 time.Duration // of a request
}

// workload is one thing to measure, with wrk.
type workload struct {
	name, unit  string
	connections int
	path        string
	closed      bool // a connection for each request
	bulk        bool
}

var workloads = []workload{
	{"small requests, 64 kept connections", "request", 64, "/", false, false},
	{"small requests, 1 kept connection", "request", 1, "/", false, false},
	{"new connections, 32 at a time", "connection", 32, "/", true, false},
	{"bulk to the client, 4 connections", "MiB", 4, "/bulk", false, true},
}

var (
	requests = regexp.MustCompile(`(\d+) requests in ([\d.]+)s, ([\d.]+)([KMGT]?)B read`)
	quantile = regexp.MustCompile(`(?m)^\s+(50|99)%\s+([\d.]+)(us|ms|s)`)
	failures = regexp.MustCompile(`Socket errors: .*|Non-2xx or 3xx responses: .*`)
)

// measure runs the workload on a contestant.
func (w workload) measure(c *contestant) (sample, error) {
	args := []string{"netns", "exec", "client", "wrk", "-t1", fmt.Sprintf("-c%d", w.connections),
		fmt.Sprintf("-d%ds", max(int(long.Seconds()), 1)), "--latency", "--timeout", "10s"}
	if w.closed {
		args = append(args, "-H", "Connection: close")
	}
	cmd := exec.Command("ip", append(args, "http://"+c.target+w.path)...)
	before := used(c.pids)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return sample{}, fmt.Errorf("%w: %s", err, out)
	}
	busy := used(c.pids) - before + cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if f := failures.Find(out); f != nil {
		fmt.Fprintf(os.Stderr, "bench kernel: %s, %s: %s\n", c.name, w.name, f)
	}
	m := requests.FindSubmatch(out)
	if m == nil {
		return sample{}, fmt.Errorf("wrk says: %s", out)
	}
	count, _ := strconv.ParseFloat(string(m[1]), 64)
	seconds, _ := strconv.ParseFloat(string(m[2]), 64)
	if w.bulk {
		count, _ = strconv.ParseFloat(string(m[3]), 64)
		count *= map[string]float64{"": 1. / (1 << 20), "K": 1. / (1 << 10), "M": 1, "G": 1 << 10, "T": 1 << 20}[string(m[4])]
	}
	if count == 0 {
		return sample{}, errors.New("nothing was answered")
	}
	s := sample{rate: count / seconds, cpu: busy.Seconds() * 1e6 / count}
	if w.bulk {
		return s, nil
	}
	for _, q := range quantile.FindAllSubmatch(out, -1) {
		d, _ := time.ParseDuration(string(q[2]) + string(q[3]))
		if string(q[1]) == "50" {
			s.p50 = d
		} else {
			s.p99 = d
		}
	}
	return s, nil
}

// used returns the time on a processor of some processes, and of the kernel's
// threads that handle packets for which there was no time in the context of the
// process that sent them.
func used(pids []int) (sum time.Duration) {
	for _, pid := range slices.Concat(pids, ksoftirqd()) {
		sum += contest.CPU(pid)
	}
	return sum
}

// ksoftirqd returns the ids of these threads, one for each processor.
func ksoftirqd() (pids []int) {
	names, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, name := range names {
		if text, _ := os.ReadFile(name); strings.HasPrefix(string(text), "ksoftirqd/") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// table holds all measurements of a topology.
type table struct {
	arms        string
	contestants []*contestant
	samples     map[string]map[string][]sample // by workload and contestant
}

func (t *table) text() string {
	var b strings.Builder
	title, where := "two arms", "client and server on networks of their own, the balancer between them"
	if t.arms == "one" {
		title, where = "one arm", "client, balancer and server on one network, joined by a bridge"
	}
	fmt.Fprintf(&b, "## The kernel path, %s\n\nMeasured on %s with `make bench-kernel`: %s", title, time.Now().Format("2 January 2006"), contest.Machine())
	for _, c := range t.contestants {
		if c.version != "" {
			fmt.Fprintf(&b, ", %s", c.version)
		}
	}
	fmt.Fprintf(&b, `.
Network namespaces, %s; nginx with one worker behind it, wrk with one thread before it, one worker of each proxy, one
contestant after the other in each of %d rounds of %s; medians. CPU is that of client, server, balancer and the kernel's threads
for packets; the balancer's own is what it is more than without a balancer.

| work | contestant | units/s | to forwarding | CPU us/unit | to forwarding | the balancer's | p50 us | p99 us |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
`, where, *rounds, *long)
	for _, w := range workloads {
		all := t.samples[w.name]
		if all == nil {
			continue
		}
		rate := func(name string) float64 { return contest.Median(all[name], func(s sample) float64 { return s.rate }) }
		cpu := func(name string) float64 { return contest.Median(all[name], func(s sample) float64 { return s.cpu }) }
		for _, c := range t.contestants {
			fmt.Fprintf(&b, "| %s (%s) | %s | %.0f | %.2f | %.1f | %.2f | ", w.name, w.unit, c.name, rate(c.name), rate(c.name)/rate(forwarding), cpu(c.name), cpu(c.name)/cpu(forwarding))
			if c.name != nobody {
				fmt.Fprintf(&b, "%.1f ", cpu(c.name)-cpu(nobody))
			}
			b.WriteString("|")
			for _, of := range []func(sample) time.Duration{func(s sample) time.Duration { return s.p50 }, func(s sample) time.Duration { return s.p99 }} {
				if d := contest.Median(all[c.name], of); d > 0 {
					fmt.Fprintf(&b, " %d |", d.Microseconds())
				} else {
					b.WriteString(" |")
				}
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}
