package l4

import (
	"sync/atomic"
	"time"
)

// warnEvery is the least time between two warnings of a service of the same kind.
const warnEvery = time.Second

// limiter lets one event in each interval pass and counts the others. It takes
// no lock.
type limiter struct {
	every      time.Duration
	next       atomic.Int64 // nanoseconds since 1970: from then on one may pass
	suppressed atomic.Int64
}

func newLimiter(every time.Duration) *limiter { return &limiter{every: every} }

// allow reports whether an event at now may pass and, if so, how many have not
// since the last one that did.
func (l *limiter) allow(now time.Time) (ok bool, suppressed int64) {
	next := l.next.Load()
	if now.UnixNano() < next || !l.next.CompareAndSwap(next, now.Add(l.every).UnixNano()) {
		l.suppressed.Add(1)
		return false, 0
	}
	return true, l.suppressed.Swap(0)
}
