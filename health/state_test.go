package health

import (
	"testing"
	"time"
)

func TestVerdict(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		rise, fall int
		outcomes   string // + passed, - failed, one a second
		states     string // after each: U up, D down; a change in lower case
	}{
		"first pass decides":           {3, 3, "+", "u"},
		"first failure decides":        {3, 3, "-", "d"},
		"fall counts failures":         {2, 3, "+---", "uUUd"},
		"a pass starts the fall again": {2, 3, "+--+---", "uUUUUUd"},
		"rise counts passes":           {2, 3, "-++", "dDu"},
		"a failure starts the rise":    {2, 3, "-+-++", "dDDDu"},
		"rise and fall of one":         {1, 1, "+-+-", "udud"},
		"the count does not survive":   {2, 2, "+--+--++", "uUdDDDDu"},
		"steady up":                    {2, 3, "++++", "uUUU"},
		"steady down":                  {2, 3, "----", "dDDD"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			v := verdict{rise: test.rise, fall: test.fall}
			var got []byte
			for i, o := range test.outcomes {
				now := start.Add(time.Duration(i) * time.Second)
				before := v.since
				changed := v.Observe(now, o == '+')
				letter := map[State]byte{Up: 'U', Down: 'D', Unknown: '?'}[v.state]
				if changed {
					letter += 'a' - 'A'
					before = now
				}
				if !v.since.Equal(before) {
					t.Errorf("outcome %d: since %v, want %v", i, v.since, before)
				}
				got = append(got, letter)
			}
			if string(got) != test.states {
				t.Errorf("states %s, want %s", got, test.states)
			}
		})
	}
}
