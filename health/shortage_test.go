package health

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestShortageOnThisNodeJudgesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const short, broken = time.Second, 31 * time.Second // from when on
		start := time.Now()
		b := newBench(t, func(context.Context, Target) (string, error) {
			switch since := time.Since(start); {
			case since < short:
				return "fine", nil
			case since < broken:
				return "", fmt.Errorf("open: %w", syscall.EMFILE)
			default:
				return "", errors.New("broken")
			}
		})
		b.Set([]Target{target(1)})
		b.until(broken - time.Millisecond)
		r := b.Results()[target(1)]
		want := "not judged, the fault is on this node: too many open files"
		if r.State != Up || r.Reason != want || !r.Since.Equal(b.start) || r.Checked.Sub(b.start) != 29*time.Second {
			t.Errorf("while descriptors are short: %+v", r)
		}
		b.until(broken + 10*time.Second)
		b.stop()
		if r := b.Results()[target(1)]; r.State != Down || len(b.changes) != 2 {
			t.Errorf("afterwards: %+v, after %d changes, want down after 2", r, len(b.changes))
		}
		if n := strings.Count(b.log.String(), "cannot check server"); n != 1 {
			t.Errorf("the shortage is logged %d times, want once:\n%s", n, &b.log)
		}
	})
}

// A server that this node cannot even try stays unknown, and the try is told: who
// waits for the first round of checks must not wait for ever.
func TestShortageFromTheFirstCheckOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(context.Context, Target) (string, error) { return "", syscall.EADDRNOTAVAIL })
		b.Set([]Target{target(1)})
		b.until(10 * time.Second)
		b.stop()
		if len(b.changes) != 1 || b.changes[0].State != Unknown || !b.changes[0].Checked.Equal(b.start) {
			t.Errorf("told %+v, want the first check alone", b.changes)
		}
		if r := b.Results()[target(1)]; r.State != Unknown || r.Checked.Sub(b.start) != 9*time.Second || !r.Since.IsZero() {
			t.Errorf("in the end %+v", r)
		}
	})
}
