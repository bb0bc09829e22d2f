//go:build bench

package integration

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"appliance/internal/lab"
)

// TestBenchHandover is `make bench-handover`: for how long connections stand still
// when the addresses move under them, there and back, BENCH_SWITCHES times
// (default 10), and without that for about as long. Each connection carries a line
// every 20 ms.
func TestBenchHandover(t *testing.T) {
	rounds := 10
	if text := os.Getenv("BENCH_SWITCHES"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	for _, virtual := range []bool{false, true} {
		t.Run(fmt.Sprintf("virtual_mac = %v", virtual), func(t *testing.T) {
			p := newPair(t, steadyConfig(t, preemptOff, preemptOff+fmt.Sprintf("\nvirtual_mac = %v", virtual)))
			s := p.startStreams()
			p.startLinked()
			for range 50 {
				for _, target := range p.targets(80, 8080) {
					s.download(p, target)
				}
			}
			for range 5 {
				for _, target := range p.targets(80, 8080) {
					s.upload(p, target)
					s.websocket(p, target)
				}
				s.echo(p, p.targets(3306)[0])
			}
			load := p.load(failoverRate, 80, 8080)
			s.gaps()
			for range 2 * rounds {
				p.waitRequests(load, failoverRate)
			}
			t.Logf("without a switch, the longest time without a line: %s", s.gaps())
			var moves []time.Duration
			began := time.Now()
			for range rounds {
				for _, verb := range []string{"failover", "failback"} {
					to := map[string]*lab.Node{"failover": p.LB02, "failback": p.LB01}[verb]
					r := p.move(p.LB01, verb, "--drain", "60s")[0]
					if r.Lingering == nil {
						t.Fatalf("%s: %+v", verb, r)
					}
					moves = append(moves, time.Duration(r.Seconds*float64(time.Second)))
					p.waitActive(to)
					p.waitRequests(load, failoverRate)
				}
			}
			s.alive("after the last switch")
			t.Logf("with %d switches: %s", len(moves), s.gaps())
			s.finish()
			report := load.Report(began, time.Now())
			slices.Sort(moves)
			t.Logf("%d switches, each after %v, %v at most; %d new connections: %s, no answer for %v at most", len(moves),
				moves[len(moves)/2].Round(time.Millisecond), moves[len(moves)-1].Round(time.Millisecond), report.Requests, report, report.Gap.Round(time.Millisecond))
			for _, o := range load.Outcomes() {
				if o.Err != nil {
					t.Logf("%v after the first switch began: %s %s after %v: %v", o.Start.Sub(began).Round(time.Millisecond), o.Target, o.Kind, o.End.Sub(o.Start).Round(time.Millisecond), o.Err)
				}
			}
		})
	}
}
