package health

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"appliance/internal/endpoint"
)

// scripted passes and fails as outcomes says, + and -, and notes when; after the
// last one it fails.
func scripted(outcomes string, starts *[]string) func(context.Context, Target) (string, error) {
	begun := time.Now()
	return func(context.Context, Target) (string, error) {
		*starts = append(*starts, time.Since(begun).String())
		passed := outcomes != "" && outcomes[0] == '+'
		outcomes = outcomes[min(1, len(outcomes)):]
		if !passed {
			return "", errors.New("no")
		}
		return "fine", nil
	}
}

func TestIntervalsFollowTheState(t *testing.T) {
	tests := map[string]struct {
		change   func(*Config)
		outcomes string
		want     []string // starts; the first gap is half an interval, here 1 s
	}{
		"fast until the server is down": {
			func(c *Config) { c.FastInterval = 500 * time.Millisecond }, "+---",
			[]string{"0s", "1s", "1.5s", "2s", "4s"},
		},
		"fast until the trouble is over": {
			func(c *Config) { c.FastInterval = 500 * time.Millisecond }, "+-+++",
			[]string{"0s", "1s", "1.5s", "3.5s", "5.5s"},
		},
		"not faster than that": {
			func(c *Config) { c.FastInterval = 20 * time.Millisecond }, "+---",
			[]string{"0s", "1s", "1.02s", "1.04s", "3.04s"},
		},
		"slow while down, fast on the way up": {
			func(c *Config) { c.DownInterval, c.FastInterval = 10*time.Second, time.Second }, "--++++",
			[]string{"0s", "1s", "11s", "12s", "14s", "16s"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var starts []string
				b := newBench(t, scripted(test.outcomes, &starts))
				only := target(1)
				test.change(&only.Check)
				b.Set([]Target{only})
				last, _ := time.ParseDuration(test.want[len(test.want)-1])
				b.until(last + time.Millisecond)
				b.stop()
				if !slices.Equal(starts, test.want) {
					t.Errorf("probes start at %v, want %v", starts, test.want)
				}
			})
		})
	}
}

// The jitter of another interval is the same share of it.
func TestJitterOfOtherIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var starts []string
		b := newBench(t, scripted("", &starts))
		b.random = func() float64 { return 0.75 } // half the jitter more
		only := target(1)
		only.Check.Jitter, only.Check.DownInterval = time.Second, 10*time.Second
		b.Set([]Target{only})
		b.until(30 * time.Second)
		b.stop()
		if want := []string{"0s", "1.5s", "14s", "26.5s"}; !slices.Equal(starts, want) {
			t.Errorf("probes start at %v, want %v", starts, want)
		}
	})
}

func TestInitialState(t *testing.T) {
	tests := []struct {
		initial  Initial
		outcomes string // from 0 s, 1 s, 3 s, 5 s ...
		want     []string
	}{
		{"", "+", []string{"0s up"}},
		{InitialUnknown, "-", []string{"0s down"}},
		{InitialUp, "----", []string{"0s up", "0s up", "3s down"}}, // the second time after the first check
		{InitialDown, "+++", []string{"0s down", "0s down", "1s up"}},
	}
	for _, test := range tests {
		t.Run(string(test.initial), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var starts []string
				b := newBench(t, scripted(test.outcomes, &starts))
				only := target(1)
				only.Check.Initial = test.initial
				b.Set([]Target{only})
				b.until(3500 * time.Millisecond)
				b.stop()
				var got []string
				for _, r := range b.changes {
					got = append(got, fmt.Sprint(r.Since.Sub(b.start), " ", r.State))
				}
				if !slices.Equal(got, test.want) {
					t.Errorf("told %q, want %q", got, test.want)
				}
			})
		})
	}
}

func TestResultsCountChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var starts []string
		b := newBench(t, scripted("++-++--", &starts))
		b.Set([]Target{target(1)})
		b.until(11500 * time.Millisecond)
		b.stop()
		if r := b.Results()[target(1)]; r.Passed != 4 || r.Failed != 3 {
			t.Errorf("%d passed, %d failed, want 4 and 3", r.Passed, r.Failed)
		}
	})
}

func TestWarningsShowAndAreLoggedOnceADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		b := newBench(t, nil)
		b.prepare = func(Target) way {
			return way{probe: func(context.Context) (finding, error) {
				if time.Since(start) > 48*time.Hour {
					return finding{words: "fine"}, nil
				}
				return finding{"fine", "not for long"}, nil
			}}
		}
		b.Set([]Target{target(1)})
		b.until(47 * time.Hour)
		if r := b.Results()[target(1)]; r.Warning != "not for long" || r.State != Up {
			t.Errorf("%+v", r)
		}
		b.until(49 * time.Hour)
		b.stop()
		if r := b.Results()[target(1)]; r.Warning != "" {
			t.Errorf("the warning stays: %+v", r)
		}
		if n := strings.Count(b.log.String(), "not for long"); n != 2 {
			t.Errorf("the warning is logged %d times in two days, want twice", n)
		}
	})
}

// lingering makes probes that connect, run out of time, and keep the connection
// until the server speaks or the checker gives it up.
type lingering struct {
	speaks       chan struct{}
	opened, left atomic.Int32
}

func (l *lingering) prepare(Target) way {
	return way{probe: func(ctx context.Context) (finding, error) {
		l.opened.Add(1)
		select {
		case <-l.speaks:
			l.left.Add(1)
			return finding{words: "fine"}, nil
		case <-ctx.Done():
		}
		return finding{}, &unfinished{ctx.Err(), func(ctx context.Context) {
			select {
			case <-l.speaks:
				l.left.Add(1)
			case <-ctx.Done():
			}
		}}
	}}
}

// A server that is frozen is found down, in time, by one connection, which it
// never sees broken off.
func TestLingeringProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lingering{speaks: make(chan struct{})}
		b := newBench(t, nil)
		b.prepare = l.prepare
		go func() {
			l.speaks <- struct{}{} // is fine once
			time.Sleep(11500 * time.Millisecond)
			close(l.speaks) // and again
		}()
		b.Set([]Target{target(1)})
		b.until(7500 * time.Millisecond) // failed at 2 s, 3 s and 5 s
		r := b.Results()[target(1)]
		if r.State != Down || r.Since.Sub(b.start) != 5*time.Second || r.Reason != "no answer for 6s" || l.opened.Load() != 2 || l.left.Load() != 1 {
			t.Errorf("%+v since %v; %d opened, %d left", r, r.Since.Sub(b.start), l.opened.Load(), l.left.Load())
		}
		b.until(16 * time.Second) // thaws at 11.5 s, passes at 13 s and 15 s
		r = b.Results()[target(1)]
		if r.State != Up || r.Since.Sub(b.start) != 15*time.Second || l.opened.Load() != l.left.Load() {
			t.Errorf("%+v since %v; %d opened, %d left", r, r.Since.Sub(b.start), l.opened.Load(), l.left.Load())
		}
		b.stop()
	})
}

func TestLingeringProbeHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lingering{speaks: make(chan struct{})}
		b := newBench(t, nil)
		b.prepare = l.prepare
		b.Set([]Target{target(1)})
		b.until(time.Hour)
		if l.opened.Load() != 6 {
			t.Errorf("%d connections in an hour, want one in %v", l.opened.Load(), lingerFor)
		}
		b.Set(nil) // ends the one that lingers
		b.until(time.Hour + time.Second)
		b.Set([]Target{target(1)})
		b.until(time.Hour + 5*time.Second)
		if l.opened.Load() != 7 {
			t.Errorf("%d connections, want one more", l.opened.Load())
		}
		b.stop() // as does the end of Run
	})
}

func TestTargetOfACheck(t *testing.T) {
	server := endpoint.IP(netip.MustParseAddrPort("10.0.0.1:80"))
	tests := []struct {
		check Config
		want  string
	}{
		{Config{Type: TCP}, "10.0.0.1:80"},
		{Config{Type: TCP, Port: 81}, "10.0.0.1:81"},
		{Config{Type: TCP, Address: netip.MustParseAddr("10.0.0.2")}, "10.0.0.2:80"},
		{Config{Type: TCP, Address: netip.MustParseAddr("::1"), Port: 81}, "[::1]:81"},
		{Config{Type: ICMP}, "10.0.0.1"},
	}
	for _, test := range tests {
		if got := test.check.For(server); got.String() != test.want {
			t.Errorf("%+v: %v, want %s", test.check, got, test.want)
		}
	}
	direct := Config{Type: TCP}.For(endpoint.IP(netip.MustParseAddrPort("10.0.0.1:81")))
	if direct != (Config{Type: TCP, Port: 81}).For(server) {
		t.Error("two ways to one place are not one target")
	}
}

// Checks that start early, together with others, are no more of them.
func TestEarlyChecksKeepTheirRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, seconds = 200, 60
		b := newBench(t, func(context.Context, Target) (string, error) { return "fine", nil })
		b.random = rand.New(rand.NewPCG(1, 2)).Float64
		all := targets(n)
		for i := range all {
			all[i].Check.Interval = time.Second
		}
		b.Set(all)
		b.until(seconds * time.Second)
		b.stop()
		checks := uint64(0)
		for _, r := range b.Results() {
			checks += r.Passed
		}
		// One at once, one after half an interval on average, then one a second.
		if got, want := float64(checks)/n, seconds+0.5+0.5; got < want-0.4 || got > want+0.4 {
			t.Errorf("%.2f checks of each server in %d s, want %.1f", got, seconds, want)
		}
	})
}
