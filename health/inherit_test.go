package health

import (
	"context"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A reload that changes how often a server is asked, or how many answers count,
// keeps what is known of it; one that changes what is asked does not.
func TestStateSurvivesAChangeOfRhythm(t *testing.T) {
	slower := func(c *Config) { c.Interval, c.Timeout, c.Jitter = 4*time.Second, 2*time.Second, time.Second }
	patient := func(c *Config) { c.Rise, c.Fall = 3, 5 }
	tests := map[string]struct {
		before  string // outcomes of the checks before the change: + passed, - failed
		also    func(*Config)
		change  func(*Config)
		after   string // outcomes from then on
		changes string // the states told after the change
	}{
		"up: one lost answer is one":       {"+", nil, slower, "-+", ""},
		"up: the old failures are gone":    {"+--", nil, slower, "--+", ""},
		"up: the new fall counts":          {"+", nil, patient, "-----", "down"},
		"down: one answer does not raise":  {"-", nil, slower, "+-", ""},
		"down: the new rise counts":        {"-", nil, patient, "+++", "up"},
		"another question: the first says": {"+", nil, func(c *Config) { c.Type = HTTP }, "-", "down"},
		"another path: the first says":     {"+", nil, func(c *Config) { c.Path = "/health" }, "-", "down"},
		"two of before: the first says":    {"++", slower, patient, "-", "down"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex // two targets are probed at once
				outcomes := test.before
				b := newBench(t, func(context.Context, Target) (string, error) {
					mu.Lock()
					defer mu.Unlock()
					if outcomes == "" {
						return "", syscall.EMFILE // tells nothing
					}
					o := outcomes[0]
					outcomes = outcomes[1:]
					if o == '+' {
						return "fine", nil
					}
					return "", syscall.ECONNREFUSED
				})
				old := []Target{target(1)}
				if test.also != nil {
					second := target(1)
					test.also(&second.Check)
					old = append(old, second)
				}
				b.Set(old)
				b.until(time.Minute)
				was := b.Results()[target(1)]
				told := len(b.changes)

				changed := target(1)
				test.change(&changed.Check)
				outcomes = test.after
				b.Set([]Target{changed})
				b.until(2 * time.Minute)
				b.stop()
				var got []string
				for _, r := range b.changes[told:] {
					got = append(got, r.State.String())
				}
				if strings.Join(got, " ") != test.changes {
					t.Errorf("told %v, want %q", got, test.changes)
				}
				if r := b.Results()[changed]; test.changes == "" && (r.State != was.State || !r.Since.Equal(was.Since)) {
					t.Errorf("%+v, was %+v", r, was)
				}
			})
		})
	}
}
