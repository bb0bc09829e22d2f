package health

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"appliance/internal/endpoint"
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

// Whoever no longer wants a check ends what its connection waits for, whichever
// comes first; and a connection that was closed is let go.
func TestBreaker(t *testing.T) {
	for name, early := range map[string]bool{"while it waits": false, "before it connects": true} {
		t.Run(name, func(t *testing.T) {
			b := newBreaker(t.Context())
			defer b.stop()
			ctx := limit(b, time.Now().Add(ample))
			defer ctx.end()
			accepted := make(chan struct{})
			address := serve(t, func(c net.Conn) { close(accepted); silent(c) })
			if early {
				b.stop()
			}
			conn, err := dial(ctx, Target{Address: endpoint.IP(address)})
			if err == nil {
				defer conn.Close()
				if !early {
					<-accepted
					time.AfterFunc(10*time.Millisecond, b.stop)
				}
				_, err = conn.Read(make([]byte, 1))
			}
			if !timedOut(err) || ctx.Err() != context.Canceled {
				t.Errorf("the wait ends with %v, the context with %v", err, ctx.Err())
			}
		})
	}
	b := newBreaker(t.Context())
	conn, err := dial(limit(b, time.Now().Add(ample)), Target{Address: endpoint.IP(serve(t, silent))})
	if err != nil {
		t.Fatal(err)
	}
	if b.conn != conn {
		t.Error("the connection is not held")
	}
	conn.Close()
	if b.conn != nil {
		t.Error("a closed connection is held")
	}
	conn.Close() // as those do who close one beneath TLS
	b.stop()
}
