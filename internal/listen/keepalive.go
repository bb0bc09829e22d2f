package listen

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// KeepAlive says when a peer is asked whether it is still there (tcp(7)), and when
// it is given up.
type KeepAlive struct {
	// Idle is how long it is silent before it is asked, Interval the time between
	// questions: 1 s to 32767 s, of which the whole seconds count.
	Idle, Interval time.Duration
	// Count is how many questions without an answer give it up; 1 to 127.
	Count int
	// UserTimeout is TCP_USER_TIMEOUT (RFC 5482); 0 leaves that to the kernel.
	UserTimeout time.Duration
}

// DefaultKeepAlive has the times that package net gives to connections.
var DefaultKeepAlive = KeepAlive{Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 9}

// KeepAliver is a Handler whose connections are kept alive in a way of its own,
// not by DefaultKeepAlive.
type KeepAliver interface {
	KeepAlive() KeepAlive
}

// Options returns what a socket needs for that.
func (k KeepAlive) Options() []Option {
	return []Option{
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", unix.SOL_TCP, unix.TCP_KEEPIDLE, int(k.Idle / time.Second)},
		{"TCP_KEEPINTVL", unix.SOL_TCP, unix.TCP_KEEPINTVL, int(k.Interval / time.Second)},
		{"TCP_KEEPCNT", unix.SOL_TCP, unix.TCP_KEEPCNT, k.Count},
		{"TCP_USER_TIMEOUT", unix.SOL_TCP, unix.TCP_USER_TIMEOUT, int(k.UserTimeout / time.Millisecond)},
	}
}

// Option is a socket option.
type Option struct {
	Text               string // for errors
	Level, Name, Value int
}

func (o Option) set(fd int) error {
	return os.NewSyscallError("setsockopt "+o.Text, unix.SetsockoptInt(fd, o.Level, o.Name, o.Value))
}
