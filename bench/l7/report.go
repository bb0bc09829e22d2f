package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"appliance/bench/contest"
)

// sample is one measurement.
type sample struct {
	Rate     float64 // units a second
	CPU      float64 // microseconds a unit
	Memory   float64 // KiB
	P50, P99 time.Duration
	P99_9    time.Duration
}

// table holds all measurements, by workload and proxy.
type table struct {
	Samples  map[string]map[string][]sample
	Versions []string
}

// readTable reads what earlier runs have kept at path, if that is not empty.
func readTable(path string) (*table, error) {
	t := &table{Samples: make(map[string]map[string][]sample)}
	if path == "" {
		return t, nil
	}
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return t, nil
	}
	if err != nil {
		return nil, err
	}
	return t, json.Unmarshal(text, t)
}

func (t *table) write(path string) error {
	if path == "" {
		return nil
	}
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

func (t *table) add(workload, proxy string, s sample) {
	if t.Samples[workload] == nil {
		t.Samples[workload] = make(map[string][]sample)
	}
	t.Samples[workload][proxy] = append(t.Samples[workload][proxy], s)
}

// earlier is the name of the build that is given by -before. It is no peer.
const earlier = "before"

var order = []string{"applianctl", earlier, "nginx", "HAProxy", "Caddy"}

func (t *table) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "## HTTP services (L7)\n\nMeasured on %s with `make bench-l7`: %s, %s.\n",
		time.Now().Format("2 January 2006"), contest.Machine(), strings.Join(t.Versions, ", "))
	b.WriteString(`One worker of each proxy on one processor; wrk or h2load and an nginx as the server, which answers with 60 bytes unless it says
otherwise, on another; over loopback, one after the other in each round; medians. CPU is user and system time of the proxy's
process for each unit. "To best" is ours divided by the best peer's: below 1 is better for CPU, above 1 for throughput.
Processors that others use at the same time disturb throughput and latency more than CPU. HAProxy is told to splice. wrk resumes TLS sessions;
the handshakes are made with a client that does not. Bodies to the server go to one that has read all of a body before it answers, and
throws it away without a copy. What is large is not stored by any of the proxies. h2load does not tell percentiles.

| work | proxy | rounds | units/s | CPU us/unit | to best: units/s | to best: CPU | p50 | p99 | p99.9 |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
`)
	for _, w := range workloads {
		t.rows(&b, w)
	}
	shown := slices.DeleteFunc(slices.Clone(order), func(p string) bool { return p == earlier && *before == "" })
	fmt.Fprintf(&b, "\nWhat each of %d connections takes of a new process, which has answered two requests before, when they have carried one request\n"+
		"each and been idle for %v; then what another request on each costs, one after the other:\n\n| | %s |\n| --- |%s\n",
		idleConnections, settle, strings.Join(shown, " | "), strings.Repeat(" --- |", len(shown)))
	for _, row := range []struct {
		what string
		text func(s []sample) string
	}{
		{"KiB", func(s []sample) string {
			return fmt.Sprintf("%.1f", contest.Median(s, func(s sample) float64 { return s.Memory }))
		}},
		{"CPU us of the next request", func(s []sample) string {
			return fmt.Sprintf("%.1f", contest.Median(s, func(s sample) float64 { return s.CPU }))
		}},
		{"its p50, p99", func(s []sample) string {
			return fmt.Sprint(contest.Median(s, func(s sample) time.Duration { return s.P50 }).Round(time.Microsecond), ", ",
				contest.Median(s, func(s sample) time.Duration { return s.P99 }).Round(time.Microsecond))
		}},
	} {
		for _, w := range idles {
			fmt.Fprintf(&b, "| %s, %s |", strings.TrimPrefix(w.name, "idle, "), row.what)
			for _, p := range shown {
				if s := t.Samples[w.name][p]; len(s) > 0 {
					b.WriteString(" " + row.text(s))
				}
				b.WriteString(" |")
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

// rows writes the rows of one workload.
func (t *table) rows(b *strings.Builder, w workload) {
	rate := func(p string) float64 {
		return contest.Median(t.Samples[w.name][p], func(s sample) float64 { return s.Rate })
	}
	cpu := func(p string) float64 {
		return contest.Median(t.Samples[w.name][p], func(s sample) float64 { return s.CPU })
	}
	bestRate, bestCPU := 0.0, 0.0
	for _, p := range order[2:] {
		bestRate = max(bestRate, rate(p))
		if c := cpu(p); c > 0 && (bestCPU == 0 || c < bestCPU) {
			bestCPU = c
		}
	}
	for i, p := range order {
		samples := t.Samples[w.name][p]
		if len(samples) == 0 {
			continue
		}
		ratios := " | "
		if i == 0 && bestCPU > 0 {
			ratios = fmt.Sprintf("%.2f | %.2f", rate(p)/bestRate, cpu(p)/bestCPU)
		}
		fmt.Fprintf(b, "| %s (%s) | %s | %d | %.0f | %.1f | %s |", w.name, w.unit, p, len(samples), rate(p), cpu(p), ratios)
		for _, of := range []func(sample) float64{
			func(s sample) float64 { return float64(s.P50) },
			func(s sample) float64 { return float64(s.P99) },
			func(s sample) float64 { return float64(s.P99_9) },
		} {
			if d := time.Duration(contest.Median(samples, of)); d > 0 {
				fmt.Fprintf(b, " %v", d.Round(10*time.Microsecond))
			}
			b.WriteString(" |")
		}
		b.WriteString("\n")
	}
}
