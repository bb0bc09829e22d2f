package vrrp

import (
	"testing"
	"time"
)

func TestLatenessBuckets(t *testing.T) {
	last := 0
	for d := time.Duration(0); d < 2*time.Minute; d += d/50 + time.Microsecond/4 {
		i := latenessBucket(d)
		if i < last || i > last+1 {
			t.Fatalf("%v is in bucket %d, what is a little shorter in %d", d, i, last)
		}
		last = i
		if i == latenessBuckets-1 {
			continue // no bound
		}
		// Whole microseconds are told apart at best.
		if bound := latenessBound(i); bound <= d || bound > d+d/latenessParts+2*time.Microsecond {
			t.Errorf("%v is in the bucket below %v", d, bound)
		}
	}
	if last != latenessBuckets-1 {
		t.Errorf("the last bucket is %d of %d", last, latenessBuckets)
	}
}

func TestLatenessQuantiles(t *testing.T) {
	var l lateness
	if got := l.read(); got != (Lateness{}) {
		t.Errorf("of nothing: %+v", got)
	}
	for range 1998 {
		l.add(100 * time.Microsecond)
	}
	l.add(7 * time.Millisecond)
	l.add(9 * time.Millisecond)
	got := l.read()
	if got.Count != 2000 || got.Max != 9*time.Millisecond {
		t.Errorf("%+v", got)
	}
	if got.P50 < 100*time.Microsecond || got.P50 > 113*time.Microsecond || got.P999 != got.P50 {
		t.Errorf("%+v", got)
	}
	l.add(9 * time.Millisecond)
	if got := l.read(); got.P999 < 7*time.Millisecond || got.P999 > 8*time.Millisecond {
		t.Errorf("%+v", got)
	}
}

func TestLatenessAllocatesNothing(t *testing.T) {
	var l lateness
	if n := testing.AllocsPerRun(100, func() { l.add(time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
