package l4

import (
	"cmp"
	"errors"
	"fmt"

	"appliance/internal/pool"
)

// connect begins to connect to a server. Servers that do not accept at once are
// passed over; those whose fault it is are told.
//
// The server may be the one who speaks first, and a client whose bytes were
// taken could not be offered to another server: nothing is read before a server
// has accepted.
func (s *session) connect() {
	for s.tries < maxTries {
		target, err := s.pool.PickFor(s.source.Addr(), s.tried[:s.tries]...)
		if errors.Is(err, pool.ErrFull) {
			s.queue()
			return
		}
		if err != nil {
			if s.failure == nil {
				s.failure = fmt.Errorf("pool %s: %w", s.pool.Name(), err)
			}
			break
		}
		if s.dial(target) {
			return
		}
	}
	s.refuse(s.failure)
}

// dial begins to connect to target, or passes it over.
func (s *session) dial(target *pool.Server) bool {
	s.target = target
	var err error
	if s.server.fd, err = s.door.connect(target.Endpoint(), s.door.options); err == nil {
		if err = s.loop.watch(&s.server); err == nil {
			s.phase = connecting
			s.alarm(s.door.timeouts.connect)
			return true
		}
	}
	s.passOver(err)
	return false
}

// queue waits until a server is not full any more, other than those that it was
// offered to.
func (s *session) queue() {
	s.phase = waiting
	ticket, err := s.pool.Queue(s.source.Addr(), func(target *pool.Server) {
		if !s.loop.post(func() { s.served(target) }) {
			target.Done()
		}
	}, s.tried[:s.tries]...)
	if err != nil {
		s.door.service.limited.Add(1)
		s.refuse(cmp.Or(s.failure, fmt.Errorf("pool %s: %w", s.pool.Name(), err)))
		return
	}
	s.ticket = ticket
	s.alarm(s.pool.QueueTimeout())
}

// served ends the wait with a server.
func (s *session) served(target *pool.Server) {
	if s.phase != waiting {
		target.Done() // the client has just gone
		return
	}
	s.ticket = nil
	if !target.Keeps() { // it has died, or gone, while it was on its way here
		target.Done()
		s.connect()
		return
	}
	if !s.dial(target) {
		s.connect()
	}
}

// passOver gives up on the target, because of err.
func (s *session) passOver(err error) {
	s.failure = fmt.Errorf("server %s: %w", s.target.Label(), err)
	if exhausted(err) {
		// Another server may do: ports are used up for one at a time.
		s.door.limited(s.door.failures).Err(s.failure).Msg("this machine lacks what a connection takes")
	} else {
		s.target.ConnectFailed(err)
		s.door.limited(s.door.failures).Err(s.failure).Msg("server does not accept connections")
	}
	s.server.close(s.loop)
	s.server = side{session: s, fd: -1}
	s.tried[s.tries] = s.target
	s.tries++
	s.leave()
}
