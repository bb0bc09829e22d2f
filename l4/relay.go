package l4

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// The ends of a connection that is not closed by its sides.
var (
	errIdle      = errors.New("idle timeout")
	errHalfClose = errors.New("half-close timeout")
)

// relayTimeouts bound how long a relay carries nothing; see Timeouts.
type relayTimeouts struct {
	idle      time.Duration
	halfClose time.Duration
}

// relay carries bytes between a client and a server until both have closed or
// something ends it. It is used once.
type relay struct {
	client, server *net.TCPConn
	timeouts       relayTimeouts
	buffers        *sync.Pool // of *buffer
	// count is told of every chunk, from two goroutines.
	count func(toServer, toClient int64)

	toServer, toClient flow
}

// run carries the connection to its end and closes both sides: cleanly, with
// nil, if both sides closed; otherwise with a reset and the reason. The end of
// ctx is a reason. All goroutines have ended when it returns, and what the
// client was sent has reached it, if it can be reached.
func (r *relay) run(ctx context.Context) error {
	defer r.server.Close()
	defer r.client.Close()
	r.toServer = flow{
		way: "client to server", src: r.client, dst: r.server, back: &r.toClient,
		buffers: r.buffers, count: func(n int64) { r.count(n, 0) },
	}
	r.toClient = flow{
		way: "server to client", src: r.server, dst: r.client, back: &r.toServer,
		buffers: r.buffers, count: func(n int64) { r.count(0, n) },
	}
	ends := make(chan *flow, 2)
	go func() {
		r.toServer.run()
		ends <- &r.toServer
	}()
	go func() {
		r.toClient.run()
		settle(r.client, r.timeouts.halfClose)
		ends <- &r.toClient
	}()

	wait := patience{limit: r.timeouts.idle, since: time.Now()}
	tooQuiet := errIdle
	timer := time.NewTimer(wait.limit)
	defer timer.Stop()

	var reason error
	abort := func(err error) {
		if reason == nil {
			reason = err
		}
		reset(r.client)
		reset(r.server)
	}
	for running := 2; running > 0; {
		select {
		case f := <-ends:
			running--
			if f.err != nil {
				// A server that refuses an upload half-way answers, closes, and
				// so resets what still comes: the answer has to get through.
				if f == &r.toServer && running > 0 && !gone(r.client) {
					reason = f.err
				} else {
					abort(f.err)
				}
			}
			wait = patience{limit: r.timeouts.halfClose, since: time.Now()}
			tooQuiet = errHalfClose
			timer.Reset(wait.limit)
		case now := <-timer.C:
			over, next := wait.expired(now, quiet(r.client, r.server))
			if over {
				abort(tooQuiet)
				break
			}
			timer.Reset(next)
		case <-ctx.Done():
			abort(context.Cause(ctx))
			ctx = context.Background() // once is enough
		}
	}
	if reason != nil {
		abort(reason)
	}
	return reason
}
