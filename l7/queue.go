package l7

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"appliance/internal/pool"
	"appliance/l7/accesslog"
)

// errQueueTimeout says that no server of a pool became free in time.
var errQueueTimeout = errors.New("no server became free in time")

// wait waits in the queue of a pool whose servers are all full, but for those in tried,
// and returns one that has become free, picked. The error is errAborted if there is
// nobody to answer any more, else pool.ErrQueueFull or errQueueTimeout.
func (p *pipeline) wait(ctx context.Context, from *pool.Pool, client netip.Addr, ex *exchange, tried []*pool.Server) (*pool.Server, error) {
	free := make(chan *pool.Server, 1)
	join := func() (*pool.Ticket, error) {
		return from.Queue(client, func(s *pool.Server) { free <- s }, tried...)
	}
	ticket, err := join()
	if err != nil {
		return nil, err
	}
	defer func() { ex.now = time.Now() }()
	late := time.NewTimer(from.QueueTimeout())
	defer late.Stop()
	every := firstLook
	look := time.NewTimer(every)
	defer look.Stop()
	for {
		select {
		case s := <-free:
			if s.Keeps() {
				return s, nil
			}
			s.Done() // it has died, or gone, while it was on its way here
			if ticket, err = join(); err != nil {
				return nil, err
			}
		case <-late.C:
			err = errQueueTimeout
		case <-ctx.Done():
			err = errAborted
		case <-look.C:
			if ex.client != nil && ex.client.gone() {
				ex.interrupt()
			}
			if ex.over() {
				err = errAborted
			}
			every = min(2*every, lastLook)
			look.Reset(every)
		}
		if err == nil {
			continue
		}
		if ticket.Leave() {
			return nil, err
		}
		s := <-free // just now
		if err == errQueueTimeout && s.Keeps() {
			return s, nil
		}
		s.Done()
		return nil, err
	}
}

// noServerEnd tells why there is no server for a request.
func noServerEnd(err error) accesslog.End {
	switch err {
	case pool.ErrFull, pool.ErrQueueFull:
		return accesslog.Full
	case errQueueTimeout:
		return accesslog.QueueTimeout
	}
	return accesslog.NoServer
}
