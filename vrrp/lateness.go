package vrrp

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// latenessParts is how many buckets there are from each power of two of
	// microseconds to the next: what they tell is at most an eighth too long.
	latenessParts = 8
	// latenessOctaves is how many powers of two are told apart, and what is below
	// latenessParts microseconds: up to 67 seconds.
	latenessOctaves = 23
	latenessBuckets = latenessOctaves * latenessParts
)

// Lateness is by how much adverts left after they were due.
type Lateness struct {
	// Count is how many adverts were due by their timer. Those that answer an
	// event at once are none of them.
	Count uint64
	// P50 and P999 are at least the length that half, or 999 of 1000, of them
	// did not exceed, and at most an eighth longer. Max is exact. All are 0
	// while Count is.
	P50, P999, Max time.Duration
}

// lateness is a Lateness while it counts: a histogram of fixed buckets. One
// goroutine adds, any may read.
type lateness struct {
	buckets [latenessBuckets]atomic.Uint64
	max     atomic.Int64
}

// add counts one advert that left by late after it was due.
func (l *lateness) add(late time.Duration) {
	l.buckets[latenessBucket(late)].Add(1)
	if int64(late) > l.max.Load() {
		l.max.Store(int64(late))
	}
}

// read sums up.
func (l *lateness) read() Lateness {
	var counts [latenessBuckets]uint64
	out := Lateness{Max: time.Duration(l.max.Load())}
	for i := range l.buckets {
		counts[i] = l.buckets[i].Load()
		out.Count += counts[i]
	}
	quantile := func(perMille uint64) time.Duration {
		rank := (out.Count*perMille + 999) / 1000 // of the one that is looked for, from 1
		for i, n := range counts {
			if rank <= n {
				return min(latenessBound(i), out.Max)
			}
			rank -= n
		}
		return out.Max
	}
	out.P50, out.P999 = quantile(500), quantile(999)
	return out
}

// latenessBucket returns the bucket of a length: latenessParts equal ones from
// each power of two of microseconds to the next.
func latenessBucket(d time.Duration) int {
	us := uint64(max(0, d) / time.Microsecond)
	if us < latenessParts {
		return int(us)
	}
	octave := bits.Len64(us) - bits.Len64(latenessParts)
	return min((octave+1)*latenessParts+int(us>>octave)-latenessParts, latenessBuckets-1)
}

// latenessBound returns the length that those of a bucket are shorter than.
func latenessBound(bucket int) time.Duration {
	if bucket < latenessParts {
		return time.Duration(bucket+1) * time.Microsecond
	}
	octave := bucket/latenessParts - 1
	return time.Duration((bucket%latenessParts+latenessParts+1)<<octave) * time.Microsecond
}
