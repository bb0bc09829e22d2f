package pool

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"syscall"
)

// Errors count what went wrong with a server, by kind.
type Errors struct {
	// Refused are connections that the server's host refused, TimedOut those that
	// were not accepted in time, Unreachable those that did not get there.
	Refused, TimedOut, Unreachable int64
	// Broken are connections and requests that the server broke off, or answered
	// with what is no answer, after it had accepted.
	Broken int64
}

// errorCounts are Errors while they are counted.
type errorCounts struct{ refused, timedOut, unreachable, broken atomic.Int64 }

func (c *errorCounts) load() Errors {
	return Errors{c.refused.Load(), c.timedOut.Load(), c.unreachable.Load(), c.broken.Load()}
}

// connect counts a connection that was not made, because of err.
func (c *errorCounts) connect(err error) {
	slow, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		c.refused.Add(1)
	case ok && slow.Timeout(), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		c.timedOut.Add(1)
	default:
		c.unreachable.Add(1)
	}
}
