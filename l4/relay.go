package l4

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The ends of a connection that is not closed by its sides.
var (
	errIdle      = errors.New("idle timeout")
	errHalfClose = errors.New("half-close timeout")
)

// maxChunk bounds what is moved before it is counted, in bytes.
const maxChunk = 256 << 10

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
	// count is told of every chunk, from two goroutines.
	count func(toServer, toClient int64)

	toServer, toClient flow
}

// run carries the connection to its end and closes both sides: cleanly, with
// nil, if both sides closed; otherwise with a reset and the reason. The end of
// ctx is a reason. All goroutines have ended when it returns.
func (r *relay) run(ctx context.Context) error {
	defer r.server.Close()
	defer r.client.Close()
	r.toServer = flow{way: "client to server", src: r.client, dst: r.server, count: func(n int64) { r.count(n, 0) }}
	r.toClient = flow{way: "server to client", src: r.server, dst: r.client, count: func(n int64) { r.count(0, n) }}
	ends := make(chan error, 2)
	go func() { ends <- r.toServer.run() }()
	go func() { ends <- r.toClient.run() }()

	wait := patience{limit: r.timeouts.idle, since: time.Now()}
	tooQuiet := errIdle
	timer := time.NewTimer(wait.limit)
	defer timer.Stop()

	var reason error
	abort := func(err error) {
		if reason == nil {
			reason = err
			reset(r.client)
			reset(r.server)
		}
	}
	for running := 2; running > 0; {
		select {
		case err := <-ends:
			running--
			if err != nil {
				abort(err)
				break
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
	return reason
}

// flow is one direction of a relay.
type flow struct {
	way      string // for errors
	src, dst *net.TCPConn
	count    func(n int64)
	moved    int64 // bytes; of the flow's goroutine until it has ended
}

// run copies until src has no more to say and passes that on to dst.
func (f *flow) run() error {
	if err := f.copy(); err != nil {
		return fmt.Errorf("%s: %w", f.way, cause(err))
	}
	return nil
}

// copy does what run does.
//
// TCPConn.ReadFrom splices, through a pipe that it borrows from a pool, if the
// reader is a *net.TCPConn or an io.LimitedReader around one, and nothing else:
// no wrapper must come between. It would keep the pipe, two descriptors, while
// it waits for the sender. So this waits itself and asks only for what is
// there: a connection that idles for hours costs two descriptors, not six.
func (f *flow) copy() error {
	arrivals, err := newArrivals(f.src)
	if err != nil {
		return err
	}
	limited := io.LimitedReader{R: f.src}
	for {
		n, err := arrivals.wait()
		if err != nil {
			return err
		}
		limited.N = int64(min(n, maxChunk))
		moved, err := f.dst.ReadFrom(&limited)
		f.moved += moved
		f.count(moved)
		if err != nil {
			return err
		}
		if moved == 0 {
			return f.dst.CloseWrite()
		}
	}
}

// cause strips the operation and the addresses that package net adds to an
// error; whoever logs it names client and server.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// arrivals tells when a connection has something to read, without reading it.
type arrivals struct {
	raw   syscall.RawConn
	ready func(fd uintptr) bool // the method look, made a value once
	n     int
	err   error
}

func newArrivals(c *net.TCPConn) (*arrivals, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	a := &arrivals{raw: raw}
	a.ready = a.look
	return a, nil
}

// wait returns when a read would not block, and how many bytes there are, at
// least 1: an end or an error shows itself to a read of 1 as well.
func (a *arrivals) wait() (n int, err error) {
	if err := a.raw.Read(a.ready); err != nil {
		return 0, err
	}
	return a.n, a.err
}

// look reports whether there is something to read; if not, the runtime waits
// before it calls look again.
func (a *arrivals) look(fd uintptr) bool {
	a.n, a.err = unix.IoctlGetInt(int(fd), unix.TIOCINQ)
	if a.err != nil || a.n > 0 {
		return true
	}
	// The end of the stream and a reset are no bytes, but readable.
	a.n = 1
	for {
		poll := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		ready, err := unix.Poll(poll[:], 0)
		if err == unix.EINTR {
			continue
		}
		a.err = err
		return err != nil || ready > 0
	}
}

// reset closes c so that its peer sees a reset, not an end.
func reset(c *net.TCPConn) {
	// Both fail only on a connection that is closed already.
	_ = c.SetLinger(0)
	_ = c.Close()
}
