package l4

import (
	"context"
	"errors"
	"fmt"
	"net"
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

	mu      sync.Mutex                  // guards what follows
	carried map[*net.TCPConn]netip.Addr // connections under way, with their local address
	closing bool                        // no more connections
	empty   chan struct{}               // closed once closing and nothing is carried
}

// New returns an engine without services. Nothing runs before a connection
// arrives.
func New(log zerolog.Logger) *Engine {
	e := &Engine{
		log:     log,
		carried: make(map[*net.TCPConn]netip.Addr),
		empty:   make(chan struct{}),
	}
	e.cut, e.cutAll = context.WithCancelCause(context.Background())
	e.doors.Store(&[]*door{})
	return e
}

// enter registers a connection. It is false if the engine is shutting down.
func (e *Engine) enter(c *net.TCPConn) bool {
	local := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return false
	}
	e.carried[c] = local
	return true
}

// leave is the last thing done for a connection that entered.
func (e *Engine) leave(c *net.TCPConn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.carried, c)
	if e.closing && len(e.carried) == 0 {
		close(e.empty)
	}
}

// Active returns the number of connections being carried now, connects under
// way included, whose local address is one of vips; with nil, all.
func (e *Engine) Active(vips []netip.Addr) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if vips == nil {
		return len(e.carried)
	}
	n := 0
	for _, local := range e.carried {
		if listen.Matches(vips, local) {
			n++
		}
	}
	return n
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
	Name   string           `json:"name"`
	Listen []netip.AddrPort `json:"listen"`
	Pool   string           `json:"pool"`
	// Current is the number of connections now, Total of all ever accepted,
	// including Refused: those for which no server could be had.
	Current int64 `json:"current"`
	Total   int64 `json:"total"`
	Refused int64 `json:"refused"`
	// BytesToServer and BytesToClient are payload, without headers of TCP.
	BytesToServer int64 `json:"bytes_to_server"`
	BytesToClient int64 `json:"bytes_to_client"`
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
