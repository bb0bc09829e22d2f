package l4

import "time"

// patience decides when a connection has been silent for too long. It knows no
// clock: times are arguments.
type patience struct {
	limit time.Duration
	since time.Duration // when limit became the limit; silence before does not count
}

// expired reports whether a connection on which nothing has moved for quiet is
// over at now. If not, it returns how long to wait before the next look.
func (p patience) expired(now, quiet time.Duration) (over bool, wait time.Duration) {
	silence := min(quiet, now-p.since)
	if silence >= p.limit {
		return true, 0
	}
	return false, p.limit - silence
}
