package resolve

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The bounds of a TTL, whatever a server says.
const (
	MinTTL = time.Second
	MaxTTL = 5 * time.Minute
)

const (
	// retryAfter is the pause after a lookup that failed.
	retryAfter = 2 * time.Second
	// holdDenied is for how long a name that had an address keeps it while the
	// servers say that it has none (HAProxy: hold nx): one who has just restarted
	// may say so of everything.
	holdDenied = 30 * time.Second
)

// ErrDenied says that a name has no address, by the word of those who know. All
// other errors of a Lookup mean that nobody has told.
var ErrDenied = errors.New("the name has no address")

// Found is what a lookup has found: at least one address, and for how long they
// are good.
type Found struct {
	Addresses []netip.Addr
	TTL       time.Duration
}

// Lookup looks a name up. It returns soon after ctx ends.
type Lookup func(ctx context.Context, name string) (Found, error)

// Answer is what is known of a name.
type Answer struct {
	// Address is the one to use; invalid if there is none.
	Address netip.Addr
	// Reason says in words why there is none.
	Reason string
}

// Resolver keeps the addresses of names.
type Resolver struct {
	lookup  Lookup
	names   chan []string
	results chan result
	done    chan struct{}
	changed chan struct{}
	known   atomic.Pointer[map[string]Answer]
}

// result is the end of a lookup.
type result struct {
	name  string
	found Found
	err   error
}

// New returns a resolver that knows no names. Nothing happens before Run.
func New(lookup Lookup) *Resolver {
	r := &Resolver{
		lookup:  lookup,
		names:   make(chan []string),
		results: make(chan result),
		done:    make(chan struct{}),
		changed: make(chan struct{}, 1),
	}
	r.known.Store(&map[string]Answer{})
	return r
}

// Set has the resolver know these names and no others. Those that it knew stay
// known. After Run has ended it does nothing.
func (r *Resolver) Set(names []string) {
	select {
	case r.names <- slices.Clone(names):
	case <-r.done:
	}
}

// Known returns what is known. A name that has not been looked up for the first
// time is missing. The map must not be changed.
func (r *Resolver) Known() map[string]Answer { return *r.known.Load() }

// Changed receives whenever Known has changed since it last received.
func (r *Resolver) Changed() <-chan struct{} { return r.changed }

// entry is what Run knows of a name.
type entry struct {
	answer  Answer
	tried   bool
	looking bool      // a lookup is under way
	due     time.Time // the next one
	denied  time.Time // since when the name is said to have no address; zero if it is not
}

// Run looks names up until ctx ends. When it returns, all lookups have ended.
func (r *Resolver) Run(ctx context.Context) {
	var lookups sync.WaitGroup
	defer lookups.Wait()
	defer close(r.done)
	entries := make(map[string]*entry)
	timer := time.NewTimer(MaxTTL)
	defer timer.Stop()
	for {
		now, next := time.Now(), MaxTTL
		for name, e := range entries {
			if e.looking {
				continue
			}
			if wait := e.due.Sub(now); wait > 0 {
				next = min(next, wait)
				continue
			}
			e.looking = true
			lookups.Go(func() {
				found, err := r.lookup(ctx, name)
				select {
				case r.results <- result{name, found, err}:
				case <-ctx.Done():
				}
			})
		}
		timer.Reset(next)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case names := <-r.names:
			maps.DeleteFunc(entries, func(name string, _ *entry) bool { return !slices.Contains(names, name) })
			for _, name := range names {
				if entries[name] == nil {
					entries[name] = &entry{}
				}
			}
		case res := <-r.results:
			if e := entries[res.name]; e != nil {
				e.take(res, time.Now())
			}
		}
		r.publish(entries)
	}
}

// take notes what a lookup has found.
func (e *entry) take(res result, now time.Time) {
	e.tried, e.looking = true, false
	if res.err == nil {
		e.answer = Answer{Address: choose(res.found.Addresses)}
		e.denied = time.Time{}
		e.due = now.Add(min(max(res.found.TTL, MinTTL), MaxTTL))
		return
	}
	e.due = now.Add(retryAfter)
	isDenied := errors.Is(res.err, ErrDenied)
	if !isDenied {
		e.denied = time.Time{}
	} else if e.denied.IsZero() {
		e.denied = now
	}
	if e.answer.Address.IsValid() && (!isDenied || now.Sub(e.denied) < holdDenied) {
		return // the check tells whether a server is there still
	}
	e.answer = Answer{Reason: res.err.Error()}
}

// choose returns the address to use: the first in order, IPv4 before IPv6, so
// that all nodes use the same, whatever order an answer has.
func choose(addresses []netip.Addr) netip.Addr {
	return slices.MinFunc(addresses, netip.Addr.Compare)
}

// publish tells what is known if that has changed.
func (r *Resolver) publish(entries map[string]*entry) {
	known := make(map[string]Answer, len(entries))
	for name, e := range entries {
		if e.tried {
			known[name] = e.answer
		}
	}
	if maps.Equal(known, r.Known()) {
		return
	}
	r.known.Store(&known)
	select {
	case r.changed <- struct{}{}:
	default:
	}
}
