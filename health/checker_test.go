package health

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/endpoint"
)

// bench is a checker with scripted probes, inside a synctest bubble.
type bench struct {
	*Checker
	start   time.Time
	changes []Result // read after synctest.Wait
	log     bytes.Buffer
	stop    func() // ends Run and waits for it
}

func newBench(t *testing.T, probe func(context.Context, Target) (string, error)) *bench {
	b := &bench{start: time.Now()}
	b.Checker = NewChecker(zerolog.New(&b.log), func(_ Target, r Result) { b.changes = append(b.changes, r) })
	b.prepare = prepareFor(probe)
	b.random = func() float64 { return 0.5 } // first gap half an interval, then no jitter
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- b.Run(ctx) }()
	b.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	return b
}

// prepareFor makes probes of a function.
func prepareFor(f func(context.Context, Target) (string, error)) func(Target) way {
	return func(target Target) way { return way{probe: withoutWarning(target, f)} }
}

// until lets the time reach d after the start, and every goroutine settle.
func (b *bench) until(d time.Duration) {
	time.Sleep(time.Until(b.start.Add(d)))
	synctest.Wait()
}

func target(n int) Target {
	return Target{
		Address: endpoint.IP(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 80)),
		Check:   Config{Type: TCP, Interval: 2 * time.Second, Timeout: time.Second},
	}
}

func targets(n int) []Target {
	all := make([]Target, n)
	for i := range all {
		all[i] = target(i)
	}
	return all
}

// hang answers when its context ends.
func hang(ctx context.Context, _ Target) (string, error) {
	<-ctx.Done()
	return "", ctx.Err()
}

func TestFirstVerdictsWithinOneTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hang)
		defer b.stop()
		b.Set(targets(1000))
		b.until(time.Second)
		if len(b.changes) != 1000 {
			t.Fatalf("%d verdicts within one timeout, want 1000", len(b.changes))
		}
		for target, r := range b.Results() {
			if r.State != Down || r.Reason != "no answer within 1s" || r.Latency != time.Second {
				t.Fatalf("%v: %+v", target.Address, r)
			}
		}
	})
}

// Handshakes take so much of a CPU that they begin one after the other: a thousand
// of them within half a second and what checks may come early.
func TestFirstHandshakesAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var begun []time.Duration
		start := time.Now()
		b := newBench(t, func(context.Context, Target) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			begun = append(begun, time.Since(start))
			return "", nil
		})
		defer b.stop()
		all := targets(1000)
		for i := range all {
			all[i].Check.Type, all[i].Check.Interval = TLS, time.Minute
		}
		b.Set(all)
		b.until(time.Second)
		mu.Lock()
		defer mu.Unlock()
		if len(begun) != len(all) {
			t.Fatalf("%d checks have begun, want all", len(begun))
		}
		for i, at := range begun {
			due := time.Duration(i) * handshakePace
			if at > due || at < due-earliest {
				t.Fatalf("check %d begins after %v, want %v, or up to %v earlier", i, at, due, earliest)
			}
		}
	})
}

func TestRhythm(t *testing.T) {
	tests := map[string]struct {
		random []float64
		jitter time.Duration
		took   time.Duration // by each probe
		want   []time.Duration
	}{
		"the first gap is a part of the interval": {
			random: []float64{0.25, 0.5, 0.5},
			want:   []time.Duration{0, 500, 2500, 4500},
		},
		"jitter goes both ways": {
			random: []float64{0.5, 0, 0.75},
			jitter: 400,
			want:   []time.Duration{0, 1000, 2600, 4800},
		},
		"gaps are from start to start": {
			random: []float64{0.5, 0.5, 0.5},
			took:   700,
			want:   []time.Duration{0, 1000, 3000, 5000},
		},
		"a probe waits for the one before": {
			random: []float64{0, 0.125, 0.5},
			jitter: 2000,
			took:   900,
			want:   []time.Duration{0, 900, 1800, 3800},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var starts []time.Duration
				start := time.Now()
				b := newBench(t, func(context.Context, Target) (string, error) {
					starts = append(starts, time.Since(start)/time.Millisecond)
					time.Sleep(test.took * time.Millisecond)
					return "", nil
				})
				b.random = func() float64 {
					if len(test.random) == 0 {
						return 0.5
					}
					r := test.random[0]
					test.random = test.random[1:]
					return r
				}
				only := target(1)
				only.Check.Jitter = test.jitter * time.Millisecond
				b.Set([]Target{only})
				b.until(test.want[len(test.want)-1]*time.Millisecond + time.Millisecond)
				b.stop()
				if !slices.Equal(starts, test.want) {
					t.Errorf("probes start at %d ms, want %d", starts, test.want)
				}
			})
		})
	}
}

func TestChecksNeverPileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most, count atomic.Int32
		b := newBench(t, func(ctx context.Context, t Target) (string, error) {
			count.Add(1)
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			return hang(ctx, t)
		})
		b.random = func() float64 { return 0 } // every gap as short as it can be: none
		slow := target(1)
		slow.Check.Timeout, slow.Check.Jitter = slow.Check.Interval, slow.Check.Interval
		b.Set([]Target{slow})
		b.until(19 * time.Second)
		b.stop()
		if most.Load() != 1 || count.Load() != 10 {
			t.Errorf("%d probes, at most %d at once; want 10, one after the other", count.Load(), most.Load())
		}
	})
}

func TestNotifyOnChangesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outcomes := "+++-+----++-" // starts at 0 s, 1 s, 3 s, 5 s ...
		b := newBench(t, func(context.Context, Target) (string, error) {
			o := byte('-')
			if outcomes != "" {
				o, outcomes = outcomes[0], outcomes[1:]
			}
			if o == '+' {
				return "fine", nil
			}
			return "", syscall.ECONNREFUSED
		})
		b.Set([]Target{target(1)})
		b.until(22 * time.Second)
		b.stop()
		var got []string
		for _, r := range b.changes {
			if !r.Since.Equal(r.Checked) {
				t.Errorf("a change at %v is since %v", r.Checked, r.Since)
			}
			got = append(got, fmt.Sprintf("%v %s %s", r.Since.Sub(b.start), r.State, r.Reason))
		}
		want := []string{"0s up fine", "13s down connection refused", "19s up fine"}
		if !slices.Equal(got, want) {
			t.Errorf("changes %q, want %q", got, want)
		}
		r := b.Results()[target(1)]
		if r.State != Up || r.Reason != "connection refused" || r.Checked.Sub(b.start) != 21*time.Second {
			t.Errorf("a failure that does not change the state: %+v", r)
		}
		for _, line := range []string{
			`{"level":"warn","server":"10.0.0.1:80","check":"tcp","reason":"connection refused","message":"server is down"}`,
			`{"level":"info","server":"10.0.0.1:80","check":"tcp","reason":"fine","message":"server is up"}`,
		} {
			if !strings.Contains(b.log.String(), line) {
				t.Errorf("no line %s in the log:\n%s", line, &b.log)
			}
		}
	})
}

func TestSetKeepsWhatStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var starts []string
		start := time.Now()
		b := newBench(t, func(_ context.Context, t Target) (string, error) {
			if t == target(1) {
				starts = append(starts, time.Since(start).String())
			}
			return "", nil
		})
		b.Set([]Target{target(1), target(2)})
		b.until(1500 * time.Millisecond)
		before := b.Results()[target(1)]
		b.Set([]Target{target(3), target(1), target(1)})
		synctest.Wait()
		if after := b.Results(); after[target(1)] != before || len(after) != 2 || after[target(3)].State != Up {
			t.Errorf("after Set: %+v", after)
		}
		b.until(5500 * time.Millisecond)
		b.stop()
		if want := []string{"0s", "1s", "3s", "5s"}; !slices.Equal(starts, want) {
			t.Errorf("probes of the one that stays at %v, want %v", starts, want)
		}
		if len(b.changes) != 3 {
			t.Errorf("%d changes, want the first verdicts of three targets", len(b.changes))
		}
	})
}

func TestLateResultOfRemovedTargetIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := 0
		b := newBench(t, func(ctx context.Context, t Target) (string, error) {
			defer func() { ended++ }()
			return hang(ctx, t)
		})
		defer b.stop()
		b.Set([]Target{target(1)})
		b.until(300 * time.Millisecond)
		b.Set(nil)
		b.until(301 * time.Millisecond)
		if ended != 1 {
			t.Error("the probe of a removed target goes on")
		}
		if len(b.changes) != 0 || len(b.Results()) != 0 {
			t.Errorf("a removed target has results: %v, %v", b.changes, b.Results())
		}
	})
}

func TestTargetThatComesBackStartsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hang)
		defer b.stop()
		b.Set([]Target{target(1)})
		b.until(time.Second)
		b.Set(nil)
		b.until(1100 * time.Millisecond)
		b.Set([]Target{target(1)})
		synctest.Wait()
		if r := b.Results()[target(1)]; r.State != Unknown || r.Reason != "not checked yet" || !r.Since.IsZero() {
			t.Errorf("at once: %+v", r)
		}
		b.until(2100 * time.Millisecond)
		if len(b.changes) != 2 {
			t.Errorf("%d first verdicts, want 2", len(b.changes))
		}
	})
}

func TestLastSetBeforeRunCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewChecker(zerolog.Nop(), func(Target, Result) {})
		c.prepare = prepareFor(hang)
		want := []Target{target(2)}
		c.Set([]Target{target(1)})
		c.Set(want)
		want[0] = target(3) // the caller's own slice from here on
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- c.Run(ctx) }()
		synctest.Wait()
		results := c.Results()
		if _, ok := results[target(2)]; !ok || len(results) != 1 {
			t.Errorf("checked: %v, want the second of the last Set", results)
		}
		cancel()
		<-ended
	})
}

func TestRunWaitsForProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Int32
		b := newBench(t, func(ctx context.Context, _ Target) (string, error) {
			running.Add(1)
			<-ctx.Done()
			time.Sleep(200 * time.Millisecond) // takes its time to close things
			running.Add(-1)
			return "", ctx.Err()
		})
		b.Set(targets(3))
		synctest.Wait()
		b.stop()
		if running.Load() != 0 {
			t.Errorf("%d probes outlive Run", running.Load())
		}
		if len(b.changes) != 0 {
			t.Error("probes that Run has cancelled count as outcomes")
		}
	})
}

func TestEndOfRunJudgesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hang)
		b.Set(targets(100))
		synctest.Wait()
		b.stop()
		if len(b.changes) != 0 {
			t.Errorf("the end of Run turns the state of %d servers", len(b.changes))
		}
	})
}

// One operation is one probe of each of 1,000 targets, without the network: at
// an interval of 1 s, the time on the CPU that the checker needs in a second.
func BenchmarkThousandTargets(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	var count atomic.Int64
	c := NewChecker(zerolog.Nop(), func(Target, Result) {})
	c.prepare = prepareFor(func(context.Context, Target) (string, error) {
		if count.Add(1) == int64(b.N)*1000 {
			cancel()
		}
		return "", nil
	})
	all := targets(1000)
	for i := range all {
		all[i].Check.Interval, all[i].Check.Timeout = time.Nanosecond, time.Second
	}
	c.Set(all)
	b.ReportAllocs()
	b.ResetTimer()
	_ = c.Run(ctx)
}
