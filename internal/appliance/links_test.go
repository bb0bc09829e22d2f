package appliance

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// A trouble with netlink is a fault for as long as it lasts, not for ever.
func TestWatchingLinksGoesOnAfterATrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attempts := 0
		watch := func(ctx context.Context, names []string, report func(string, bool, string)) error {
			attempts++
			if attempts < 3 {
				return errors.New("no buffer space")
			}
			for _, name := range names {
				report(name, true, "")
			}
			<-ctx.Done()
			return nil
		}
		var told []string
		began := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			keepWatching(ctx, zerolog.Nop(), watch, []string{"eth0"}, func(iface, down string) { told = append(told, iface+" "+down) })
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		cancel()
		<-ended
		blind := "eth0 cannot be watched: no buffer space"
		if want := []string{blind, blind, "eth0 "}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
		if attempts != 3 || time.Since(began) < 2*watchPause {
			t.Errorf("%d attempts", attempts)
		}
	})
}

func TestWatchingLinksEndsInItsPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), watchPause/2)
		defer cancel()
		began := time.Now()
		keepWatching(ctx, zerolog.Nop(), func(context.Context, []string, func(string, bool, string)) error {
			return errors.New("no buffer space")
		}, nil, func(string, string) {})
		if took := time.Since(began); took != watchPause/2 {
			t.Errorf("ended after %s", took)
		}
	})
}
