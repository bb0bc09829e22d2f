package health

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, breakItOff := context.WithCancel(t.Context())
		defer breakItOff()
		begun := time.Now()
		ctx := limit(parent, begun.Add(time.Second))
		if deadline, ok := ctx.Deadline(); !ok || !deadline.Equal(begun.Add(time.Second)) || ctx.Err() != nil {
			t.Errorf("deadline %v, %v; %v", deadline, ok, ctx.Err())
		}
		<-ctx.Done()
		if took := time.Since(begun); took != time.Second || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Errorf("ends after %v with %v", took, ctx.Err())
		}
		ctx.end()

		ctx = limit(parent, time.Now().Add(time.Second))
		if breakOff(ctx) != parent || breakOff(parent) != parent {
			t.Error("what breaks it off is another context")
		}
		breakItOff()
		<-ctx.Done()
		if !errors.Is(ctx.Err(), context.Canceled) {
			t.Errorf("broken off with %v", ctx.Err())
		}
		ctx.end()
	})
}

// Nothing is left running by contexts that nobody waited for.
func TestLimitCostsNothingUnlessAsked(t *testing.T) {
	parent := context.WithoutCancel(t.Context())
	deadline := time.Now().Add(time.Hour)
	if n := testing.AllocsPerRun(100, func() { limit(parent, deadline).end() }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}
