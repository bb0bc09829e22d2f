package resolve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func addresses(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// world is what lookups find.
type world struct {
	mu    sync.Mutex
	found map[string]Found
	err   error
	asked int
}

func (w *world) lookup(_ context.Context, name string) (Found, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if w.err != nil {
		return Found{}, w.err
	}
	if f, ok := w.found[name]; ok {
		return f, nil
	}
	return Found{}, fmt.Errorf("%s: %w", name, ErrDenied)
}

// has makes a name have addresses, or none.
func (w *world) has(name string, ttl time.Duration, texts ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = nil
	if delete(w.found, name); len(texts) > 0 {
		w.found[name] = Found{addresses(texts...), ttl}
	}
}

// fails makes all lookups fail.
func (w *world) fails(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

func (w *world) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked
}

// run runs a resolver in a bubble, as long as f does.
func run(t *testing.T, f func(w *world, r *Resolver)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{found: make(map[string]Found)}
		r := New(w.lookup)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			r.Run(ctx)
		}()
		f(w, r)
		cancel()
		<-ended
		r.Set([]string{"after the end"}) // does not hang
	})
}

// is checks what is known of a name, an address or a reason, and whether that
// was told as a change.
func is(t *testing.T, r *Resolver, name, want string, told bool) {
	t.Helper()
	synctest.Wait()
	got := "not known"
	if answer, ok := r.Known()[name]; ok {
		if got = answer.Reason; answer.Address.IsValid() {
			got = answer.Address.String()
		}
	}
	if got != want {
		t.Errorf("%s: %s, want %s", name, got, want)
	}
	select {
	case <-r.Changed():
		if !told {
			t.Errorf("%s: a change was told", name)
		}
	default:
		if told {
			t.Errorf("%s: no change was told", name)
		}
	}
}

func TestNamesAreLookedUpAgainByTTL(t *testing.T) {
	for ttl, want := range map[time.Duration]time.Duration{0: MinTTL, 7 * time.Second: 7 * time.Second, time.Hour: MaxTTL} {
		run(t, func(w *world, r *Resolver) {
			w.has("a", ttl, "10.0.0.1")
			r.Set([]string{"a"})
			is(t, r, "a", "10.0.0.1", true)
			w.has("a", ttl, "10.0.0.2")
			time.Sleep(want - time.Millisecond)
			is(t, r, "a", "10.0.0.1", false)
			time.Sleep(2 * time.Millisecond)
			is(t, r, "a", "10.0.0.2", true)
			if w.count() != 2 {
				t.Errorf("asked %d times, want 2", w.count())
			}
		})
	}
}

func TestWhichAddress(t *testing.T) {
	for _, all := range [][]string{
		{"10.0.0.9", "10.0.0.10", "2001:db8::1"},
		{"2001:db8::1", "10.0.0.10", "10.0.0.9"},
	} {
		run(t, func(w *world, r *Resolver) {
			w.has("a", time.Minute, all...)
			r.Set([]string{"a"})
			is(t, r, "a", "10.0.0.9", true)
		})
	}
}

// A name that was known keeps its address while nobody can tell, and for a while
// when it is denied.
func TestAddressesAreKept(t *testing.T) {
	run(t, func(w *world, r *Resolver) {
		w.fails(errors.New("nobody answers"))
		r.Set([]string{"a"})
		is(t, r, "a", "nobody answers", true)
		w.has("a", time.Second, "10.0.0.1")
		time.Sleep(retryAfter + 1)
		is(t, r, "a", "10.0.0.1", true)

		w.fails(errors.New("nobody answers"))
		time.Sleep(time.Hour)
		is(t, r, "a", "10.0.0.1", false)

		w.has("a", 0)
		time.Sleep(holdDenied)
		is(t, r, "a", "10.0.0.1", false)
		time.Sleep(2 * retryAfter)
		is(t, r, "a", "a: the name has no address", true)

		w.has("a", time.Second, "10.0.0.3")
		time.Sleep(retryAfter)
		is(t, r, "a", "10.0.0.3", true)
	})
}

func TestNamesThatComeAndGo(t *testing.T) {
	run(t, func(w *world, r *Resolver) {
		w.has("a", time.Second, "10.0.0.1")
		w.has("b", time.Minute, "10.0.0.2")
		r.Set([]string{"a", "b"})
		is(t, r, "b", "10.0.0.2", true)
		r.Set([]string{"b"})
		is(t, r, "a", "not known", true)
		asked := w.count()
		time.Sleep(30 * time.Second)
		is(t, r, "b", "10.0.0.2", false)
		if w.count() != asked {
			t.Errorf("asked %d times for a name that nobody wants", w.count()-asked)
		}
	})
}
