package pool

import (
	"testing"
	"time"
)

func TestMeter(t *testing.T) {
	var m Meter
	at := func(s float64) time.Time { return time.UnixMilli(int64(s * 1000)) }
	for _, s := range []float64{100, 100.5, 101.2} {
		m.Add(at(s))
	}
	for s, want := range map[float64]int64{101.9: 2} {
		if got := m.Rate(at(s)); got != want {
			t.Errorf("at %v: %d, want %d", s, got, want)
		}
	}
	if got := m.Rate(at(102.1)); got != 1 {
		t.Errorf("a second later: %d, want 1", got)
	}
	if got := m.Rate(at(200)); got != 0 {
		t.Errorf("much later: %d, want 0", got)
	}
}
