package main

import (
	"fmt"
	"strings"
	"time"

	"appliance/bench/contest"
)

// sample is one measurement.
type sample struct {
	rate float64 // units a second
	cpu  float64 // microseconds a unit
	r    result
}

// table holds all measurements.
type table struct {
	proxies []*proxy
	samples map[string]map[string][]sample // by workload and proxy
	idle    map[string]float64             // bytes
}

func newTable(proxies []*proxy) *table {
	return &table{proxies: proxies, samples: make(map[string]map[string][]sample), idle: make(map[string]float64)}
}

func (t *table) add(p *proxy, w workload, r result, cpu time.Duration) {
	if t.samples[w.name] == nil {
		t.samples[w.name] = make(map[string][]sample)
	}
	t.samples[w.name][p.name] = append(t.samples[w.name][p.name], sample{
		rate: r.Units / r.Elapsed.Seconds(),
		cpu:  cpu.Seconds() * 1e6 / r.Units,
		r:    r,
	})
}

func (t *table) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "## TCP services (L4)\n\nMeasured on %s with `make bench-l4`: %s", time.Now().Format("2 January 2006"), contest.Machine())
	for _, p := range t.proxies {
		if p.version != "" {
			fmt.Fprintf(&b, ", %s", p.version)
		}
	}
	fmt.Fprintf(&b, `.
One worker of each proxy on one processor, clients and servers on another, over loopback, one after the other in each of %d
rounds of %s; medians. CPU is user and system time of the proxy's process for each unit. "To best" is ours divided by the best
peer's: below 1 is better for CPU, above 1 for throughput.

| work | proxy | units/s | CPU us/unit | to best: units/s | to best: CPU | p50 us | p99 us | p99.9 us |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
`, *rounds, *long)
	for _, w := range workloads {
		if t.samples[w.name] == nil {
			continue
		}
		bestRate, bestCPU := 0.0, 0.0
		for _, p := range t.proxies {
			if s := t.samples[w.name][p.name]; !p.ours {
				bestRate = max(bestRate, contest.Median(s, func(s sample) float64 { return s.rate }))
				if c := contest.Median(s, func(s sample) float64 { return s.cpu }); bestCPU == 0 || c < bestCPU {
					bestCPU = c
				}
			}
		}
		for _, p := range t.proxies {
			s := t.samples[w.name][p.name]
			rate, used := contest.Median(s, func(s sample) float64 { return s.rate }), contest.Median(s, func(s sample) float64 { return s.cpu })
			ratios := " | "
			if p.ours && bestCPU > 0 {
				ratios = fmt.Sprintf("%.2f | %.2f", rate/bestRate, used/bestCPU)
			}
			fmt.Fprintf(&b, "| %s (%s) | %s | %.0f | %.1f | %s |", w.name, w.unit, p.name, rate, used, ratios)
			for _, of := range []func(sample) time.Duration{
				func(s sample) time.Duration { return s.r.P50 },
				func(s sample) time.Duration { return s.r.P99 },
				func(s sample) time.Duration { return s.r.P999 },
			} {
				if d := contest.Median(s, of); d > 0 {
					fmt.Fprintf(&b, " %d |", d.Microseconds())
				} else {
					b.WriteString(" |")
				}
			}
			b.WriteString("\n")
		}
	}
	if len(t.idle) > 0 {
		bound := ""
		if idleConnections < wantedIdle {
			bound = " (as many as a process may have descriptors for here, two each)"
		}
		fmt.Fprintf(&b, "\nMemory of the proxy's process for each of %d idle connections%s that have carried a message, in KiB:\n", idleConnections, bound)
		for i, p := range t.proxies {
			sep := ", "
			if i == len(t.proxies)-1 {
				sep = ".\n"
			}
			fmt.Fprintf(&b, "%s %.1f%s", p.name, t.idle[p.name]/1024, sep)
		}
	}
	return b.String()
}
