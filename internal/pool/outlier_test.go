package pool

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestEjectionsGrowAndAreForgotten(t *testing.T) {
	o := Outlier{Base: 10 * time.Second, Max: 35 * time.Second}
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	tests := []struct {
		rest time.Duration // since the end of the ejection before
		want time.Duration
	}{
		{0, 10 * time.Second},
		{time.Second, 20 * time.Second},
		{9 * time.Second, 30 * time.Second},
		{0, 35 * time.Second},
		{0, 35 * time.Second},
		{45 * time.Second, 20 * time.Second}, // four are forgotten
		{time.Hour, 10 * time.Second},
	}
	var e Ejection
	now := start
	for i, test := range tests {
		now = now.Add(test.rest)
		e = o.next(e, now)
		if got := e.Until.Sub(now); got != test.want || !e.Since.Equal(now) || !e.Out(now) || e.Out(e.Until) {
			t.Errorf("ejection %d lasts %v, want %v: %+v", i+1, got, test.want, e)
		}
		now = e.Until
	}
}

func TestMayEject(t *testing.T) {
	tests := []struct {
		percent, out, usable int
		want                 bool
	}{
		{0, 0, 1, false}, {0, 0, 2, true}, {0, 1, 2, false}, {0, 0, 3, true}, {0, 1, 3, false}, {0, 1, 4, true},
		{100, 0, 1, true}, {100, 2, 3, true}, {100, 3, 3, false}, {10, 0, 9, false}, {10, 0, 10, true}, {34, 0, 3, true}, {33, 0, 3, false},
	}
	for _, test := range tests {
		if got := (Outlier{MaxEjectedPercent: test.percent}).mayEject(test.out, test.usable); got != test.want {
			t.Errorf("%d%% of %d, %d out: %v, want %v", test.percent, test.usable, test.out, got, test.want)
		}
	}
}

// outlierBench is a pool of three servers on virtual time.
type outlierBench struct {
	*Pool
	t     *testing.T
	start time.Time
	told  []string
}

func onOutlierBench(t *testing.T, cfg Config, f func(b *outlierBench)) {
	synctest.Test(t, func(t *testing.T) {
		if cfg.Servers == nil {
			cfg.Servers = servers("a", "b", "c")
		}
		b := &outlierBench{t: t, start: time.Now(), Pool: New(Config{})}
		b.OnEject(func(s *Server, e Ejection) {
			b.told = append(b.told, fmt.Sprint(s.Label(), " for ", e.Until.Sub(e.Since)))
		})
		b.Update(cfg, nil)
		f(b)
	})
}

func (b *outlierBench) fail(server, times int) {
	s := b.Servers()[server]
	for range times {
		s.ConnectFailed(errors.New("refused"))
	}
}

// picked returns which servers six picks lead to.
func (b *outlierBench) picked() string {
	found := make(map[string]bool)
	for range 6 {
		s, err := b.Pick()
		if err != nil {
			b.t.Fatal(err)
		}
		s.Done()
		found[s.Label()] = true
	}
	names := ""
	for _, s := range b.Servers() {
		if found[s.Label()] {
			names += s.Label()
		}
	}
	return names
}

func (b *outlierBench) want(at time.Duration, picked string) {
	b.t.Helper()
	time.Sleep(time.Until(b.start.Add(at)))
	if got := b.picked(); got != picked {
		b.t.Errorf("after %v %s are picked, want %s", at, got, picked)
	}
	if got := b.Usable(); got != len(picked) {
		b.t.Errorf("after %v %d are usable, want %d", at, got, len(picked))
	}
}

func TestOutliersAreEjectedAndReturn(t *testing.T) {
	cfg := Config{Outlier: &Outlier{ConsecutiveFailures: 3, Base: 10 * time.Second}}
	onOutlierBench(t, cfg, func(b *outlierBench) {
		b.fail(1, 2)
		b.Servers()[1].Succeeded()
		b.fail(1, 2)
		b.want(0, "abc")
		b.fail(1, 1)
		b.want(0, "ac")
		if s := b.Servers()[1].Stats(); s.Usable || !s.Ejection.Out(time.Now()) || s.Ejection.Times != 1 || s.ConnectErrors != 5 {
			t.Errorf("%+v", s)
		}
		b.fail(1, 10) // what was under way does not make it longer
		b.want(10*time.Second-1, "ac")
		b.want(10*time.Second, "abc")
		if s := b.Servers()[1].Stats(); !s.Usable {
			t.Errorf("%+v", s)
		}
		b.fail(1, 2)
		b.want(11*time.Second, "abc")
		b.fail(1, 1)
		b.want(30*time.Second, "ac")
		b.want(31*time.Second, "abc")
		if got := strings.Join(b.told, ", "); got != "b for 10s, b for 20s" {
			t.Errorf("told %s", got)
		}
	})
}

func TestNoMoreThanAPartIsEjected(t *testing.T) {
	cfg := Config{Outlier: &Outlier{ConsecutiveFailures: 1, Base: 10 * time.Second}}
	onOutlierBench(t, cfg, func(b *outlierBench) {
		b.fail(0, 1)
		b.fail(1, 100)
		b.want(0, "bc")
		b.want(10*time.Second, "abc")
		b.fail(1, 1) // may, now that the other is back
		b.want(10*time.Second, "ac")
	})
	// Of servers that are down none counts.
	cfg.Checked = true
	onOutlierBench(t, cfg, func(b *outlierBench) {
		for _, address := range []string{"a", "b", "c"} {
			b.SetHealth(addressOf(b.Pool, address), Health{State: Up})
		}
		b.SetHealth(addressOf(b.Pool, "c"), Health{State: Down})
		b.fail(0, 1)
		b.fail(1, 1)
		b.want(0, "b")
		b.fail(2, 1) // is down anyway
		if b.Servers()[2].Stats().Ejection.Times != 0 {
			t.Error("a server that is down is ejected")
		}
		// And the last one that is left going down, the ejected one has to do.
		b.SetHealth(addressOf(b.Pool, "b"), Health{State: Down})
		b.want(time.Second, "a")
		b.SetHealth(addressOf(b.Pool, "b"), Health{State: Up})
		b.want(time.Second, "b")
		// What was down and is up again has been proven anew.
		b.SetHealth(addressOf(b.Pool, "a"), Health{State: Down})
		b.SetHealth(addressOf(b.Pool, "a"), Health{State: Up})
		b.want(time.Second, "ab")
	})
}

func TestReloadsAndEjections(t *testing.T) {
	cfg := Config{Outlier: &Outlier{ConsecutiveFailures: 1}, Servers: servers("a", "b")}
	onOutlierBench(t, cfg, func(b *outlierBench) {
		b.fail(0, 1)
		b.want(0, "b")
		b.Update(cfg, nil)
		b.want(0, "b")
		off := cfg
		off.Outlier = nil
		b.Update(off, nil)
		b.want(0, "ab")
		b.fail(0, 100)
		b.want(0, "ab")
	})
}

func TestOutlierIsValidated(t *testing.T) {
	for _, tt := range []struct {
		o    Outlier
		want string
	}{
		{Outlier{}, ""},
		{Outlier{ConsecutiveFailures: -1}, "consecutive_failures must be at least 1"},
		{Outlier{Base: -1, Max: 1}, "the time of an ejection must be positive"},
		{Outlier{Base: time.Minute, Max: time.Second}, "the longest ejection must not be shorter"},
		{Outlier{MaxEjectedPercent: 101}, "101 is no percentage"},
		{Outlier{MaxEjectedPercent: 33}, "no server is ever ejected: 33 % of 3 is less than one; write at least 34"},
		{Outlier{MaxEjectedPercent: 34}, ""},
	} {
		got := ""
		Config{Servers: servers("a", "b", "c"), Outlier: &tt.o}.Validate(func(_, message string) { got += message })
		if !strings.HasPrefix(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("%+v: %q, want %q", tt.o, got, tt.want)
		}
	}
}

func addressOf(p *Pool, label string) string {
	for _, s := range p.Servers() {
		if s.Label() == label {
			return s.Address()
		}
	}
	return ""
}
