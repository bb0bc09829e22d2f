package l4

import (
	"cmp"
	"time"

	"appliance/internal/listen"
)

// KeepAlive says when a peer is asked whether it is still there, client or
// server, and when it is given up; see tcp(7). The zero value of each field means
// its default.
type KeepAlive struct {
	// Idle is how long a peer is silent before it is asked; whole seconds,
	// default 15 s.
	Idle time.Duration `toml:"idle"`
	// Interval is the time between two questions; whole seconds, default 15 s.
	Interval time.Duration `toml:"interval"`
	// Count is how many questions without an answer give it up; 1 to 127, default
	// 9.
	Count int `toml:"count"`
	// UserTimeout is after what time a peer is given up that does not acknowledge
	// what it was sent, or that takes no more (RFC 5482); default 0, the kernel's
	// own: some 15 minutes, and never for one that is there and takes no more.
	UserTimeout time.Duration `toml:"user_timeout"`
}

// The bounds of the kernel, MAX_TCP_KEEPIDLE and MAX_TCP_KEEPCNT.
const (
	longestKeepAlive = 32767 * time.Second
	mostQuestions    = 127
)

// options returns k with its defaults applied.
func (k KeepAlive) options() listen.KeepAlive {
	return listen.KeepAlive{
		Idle:        cmp.Or(k.Idle, listen.DefaultKeepAlive.Idle),
		Interval:    cmp.Or(k.Interval, listen.DefaultKeepAlive.Interval),
		Count:       cmp.Or(k.Count, listen.DefaultKeepAlive.Count),
		UserTimeout: k.UserTimeout,
	}
}

func (k KeepAlive) validate(problem func(key, message string)) {
	for _, t := range []struct {
		key string
		d   time.Duration
	}{{"idle", k.Idle}, {"interval", k.Interval}} {
		if t.d != 0 && (t.d < time.Second || t.d > longestKeepAlive || t.d%time.Second != 0) {
			problem("keepalive."+t.key, "the kernel counts in whole seconds, from 1s to 32767s")
		}
	}
	if k.Count < 0 || k.Count > mostQuestions {
		problem("keepalive.count", "the number must be between 1 and 127")
	}
	if k.UserTimeout != 0 && (k.UserTimeout < time.Second || k.UserTimeout > 24*time.Hour) {
		problem("keepalive.user_timeout", "the timeout must be between 1s and 24h")
	}
}
