package health

import (
	"context"
	"sync"
	"time"
)

// limited is a context with a deadline, like that of context.WithDeadline, but
// one that costs a timer only if somebody waits for its end: the connections of
// most checks have deadlines of their own.
type limited struct {
	context.Context // ends when the check is broken off
	deadline        time.Time

	mu     sync.Mutex
	full   context.Context // once somebody waits
	cancel context.CancelFunc
}

// limit returns ctx with a deadline; end gives up what it holds.
func limit(ctx context.Context, deadline time.Time) *limited {
	return &limited{Context: ctx, deadline: deadline}
}

// Deadline returns the deadline.
func (l *limited) Deadline() (time.Time, bool) { return l.deadline, true }

// Done returns a channel that is closed at the deadline, or before when the
// check is broken off.
func (l *limited) Done() <-chan struct{} { return l.whole().Done() }

// Err says whether and why the context has ended.
func (l *limited) Err() error { return l.whole().Err() }

func (l *limited) whole() context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full == nil {
		l.full, l.cancel = context.WithDeadline(l.Context, l.deadline)
	}
	return l.full
}

// end gives up what the context holds; it is over then.
func (l *limited) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil {
		l.cancel()
	}
}

// breakOff returns a context that ends when whoever asked for a check no longer
// wants it, whatever its deadline.
func breakOff(ctx context.Context) context.Context {
	if l, ok := ctx.(*limited); ok {
		return l.Context
	}
	return ctx
}
