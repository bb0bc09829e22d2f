package l4

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"

	"appliance/internal/listen"
)

// errCut is the end of a connection that outlived its engine.
var errCut = errors.New("cut by shutdown")

// Engine forwards the connections of all l4 services. All methods may be called
// from any goroutine; whoever made the Engine calls Shutdown.
type Engine struct {
	log   zerolog.Logger
	doors atomic.Pointer[[]*door] // the committed ones, in the order of the file

	// cut ends all connections and connects under way.
	cut    context.Context
	cutAll context.CancelCauseFunc

	buffers *sync.Pool // of *buffer, for all connections

	mu      sync.Mutex         // guards what follows
	carried map[netip.Addr]int // how many connections are under way at each local address that has any
	closing bool               // no more connections
	empty   chan struct{}      // closed once closing and nothing is carried
}

// New returns an engine without services. Nothing runs before a connection
// arrives.
func New(log zerolog.Logger) *Engine {
	e := &Engine{
		log:     log,
		buffers: newBuffers(),
		carried: make(map[netip.Addr]int),
		empty:   make(chan struct{}),
	}
	e.cut, e.cutAll = context.WithCancelCause(context.Background())
	e.doors.Store(&[]*door{})
	return e
}

// enter counts a connection to local. It is false if the engine is shutting
// down.
func (e *Engine) enter(local netip.Addr) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return false
	}
	e.carried[local]++
	return true
}

// leave is the last thing done for a connection to local that entered.
func (e *Engine) leave(local netip.Addr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.carried[local]--
	if e.carried[local] == 0 {
		delete(e.carried, local)
	}
	if e.closing && len(e.carried) == 0 {
		close(e.empty)
	}
}

// Active returns the number of connections being carried now whose local
// address is one of vips; with nil, all. A connection counts from before the
// connect to its server until its client has all that was sent to it, see
// Timeouts.HalfClose.
func (e *Engine) Active(vips []netip.Addr) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	sum := 0
	for local, n := range e.carried {
		if listen.Matches(vips, local) {
			sum += n
		}
	}
	return sum
}

// Shutdown waits until all connections have ended; those that have not when ctx
// ends are reset, and the error says how many. When it returns, the engine's
// goroutines have ended. Connections that arrive from now on are reset: close
// the listeners first.
func (e *Engine) Shutdown(ctx context.Context) error {
	e.close()
	defer e.cutAll(errCut) // releases the context also if nothing was cut
	select {
	case <-e.empty:
		return nil
	case <-ctx.Done():
	}
	n := e.Active(nil)
	e.cutAll(errCut)
	<-e.empty
	if n == 0 {
		return nil // the last one was just faster
	}
	return fmt.Errorf("l4: %d connections cut: %w", n, context.Cause(ctx))
}

func (e *Engine) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return
	}
	e.closing = true
	if len(e.carried) == 0 {
		close(e.empty)
	}
}

// ServiceStats describes a service at one moment.
type ServiceStats struct {
	Name   string
	Listen []netip.AddrPort
	Pool   string
	// Current is the number of connections now, Total of all ever accepted,
	// including Refused: those for which no server could be had.
	Current int64
	Total   int64
	Refused int64
	// BytesToServer and BytesToClient are payload, without headers of TCP.
	BytesToServer int64
	BytesToClient int64
}

// Stats describes all committed services, in the order of the file.
func (e *Engine) Stats() []ServiceStats {
	doors := *e.doors.Load()
	stats := make([]ServiceStats, 0, len(doors))
	for _, d := range doors {
		stats = append(stats, d.stats())
	}
	return stats
}
