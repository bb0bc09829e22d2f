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

// breaker is the context of all checks of a job. It ends, by stop alone, when
// nobody wants them any more, and so do the waits of the connection that it holds:
// to have a context tell each connection costs more than all else about it.
type breaker struct {
	context.Context
	cancel context.CancelFunc

	mu   sync.Mutex
	over bool
	conn *boundConn // of the check under way; nil if there is none
}

// newBreaker returns a breaker within ctx. Whoever has it calls stop, also if ctx
// ends before.
func newBreaker(ctx context.Context) *breaker {
	b := new(breaker)
	b.Context, b.cancel = context.WithCancel(ctx)
	return b
}

func (b *breaker) stop() {
	b.cancel()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	if b.conn != nil {
		b.conn.expire()
	}
}

// hold has stop end the waits of a connection, until drop.
func (b *breaker) hold(c *boundConn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conn = c
	if b.over {
		c.expire()
	}
}

func (b *breaker) drop(c *boundConn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn == c {
		b.conn = nil
	}
}
