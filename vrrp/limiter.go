package vrrp

import "time"

// logGap is the least time between two log lines of one kind.
const logGap = 10 * time.Second

// limiter keeps an endless trouble from filling the log. The zero value is
// ready; it belongs to one goroutine. Kinds must be few: a name from the code,
// never one from a packet.
type limiter struct {
	kinds map[string]*logged
}

type logged struct {
	last    time.Time
	skipped int
}

// allow says whether a line of that kind may be logged now, and how many were
// not logged since the last one.
func (l *limiter) allow(now time.Time, kind string) (skipped int, ok bool) {
	k := l.kinds[kind]
	if k == nil {
		if l.kinds == nil {
			l.kinds = make(map[string]*logged)
		}
		l.kinds[kind] = &logged{last: now}
		return 0, true
	}
	if now.Sub(k.last) < logGap {
		k.skipped++
		return 0, false
	}
	skipped = k.skipped
	k.last, k.skipped = now, 0
	return skipped, true
}
