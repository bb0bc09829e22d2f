package l4

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"appliance/internal/epoll"
	"appliance/internal/pool"
)

// The ends of a session that is not closed by its sides.
var (
	errIdle      = errors.New("idle timeout")
	errHalfClose = errors.New("half-close timeout")
	errTimeout   = error(connectTimeout{})
	errHeader    = errors.New("header timeout")
	errQueue     = errors.New("no server became free in time")
	errNoRoute   = errors.New("no route for the server name, and no pool for the rest")
)

// The pace at which a settling session looks; see settle.
const (
	firstLook   = time.Millisecond
	longestLook = 250 * time.Millisecond
)

// maxTries is how many servers a connection is offered to.
const maxTries = 3

// phase is how far a session has got.
type phase uint8

const (
	reading    phase = iota // what tells where the connection goes
	waiting                 // for a server that is not full
	connecting              // to a server
	relaying                // bytes
	settling                // until the client has what it was sent
	ended
)

// session is one client's connection and the server's that goes with it. It is
// its loop's, except for what never changes.
type session struct {
	id          uint64
	loop        *loop
	door        *door
	peer, local netip.AddrPort // of the client's connection
	// source and dest are those of the client's own connection where proxies
	// come before this one, else peer and local.
	source, dest netip.AddrPort
	head         head       // what is to be read yet
	pool         *pool.Pool // where it goes; nil if no route matches
	admitted     bool       // is counted for its client
	ticket       *pool.Ticket
	began        time.Duration

	phase              phase
	queued             bool // is in loop.again
	client, server     side
	toServer, toClient flow
	target             *pool.Server
	tried              [maxTries]*pool.Server
	tries              int
	failure            error // why the latest server was not to be had

	timer epoll.Timer[timed]
	since time.Duration // when the present timeout became the one that counts
	look  time.Duration // the pause before the next look
	why   error         // the end of a settling session

	next, prev *session
}

// newSession returns a session for the client's connection fd, which it owns
// from now on.
func newSession(l *loop, d *door, fd int, local, peer netip.AddrPort) *session {
	s := &session{id: d.engine.ids.Add(1), loop: l, door: d, peer: peer, local: local, source: peer, dest: local, pool: d.table.fallback}
	s.client = side{session: s, fd: fd}
	s.server = side{session: s, fd: -1}
	s.toServer = flow{src: &s.client, dst: &s.server, way: "client to server"}
	s.toClient = flow{src: &s.server, dst: &s.client, way: "server to client"}
	s.timer.Owner = s
	return s
}

// start is the first thing that the loop does with a session.
func (s *session) start() {
	l := s.loop
	s.began = l.now
	if s.next = l.first; s.next != nil {
		s.next.prev = s
	}
	l.first = s
	if s.door.engine.over.Load() {
		s.abort(errCut)
		return
	}
	if err := l.watch(&s.client); err != nil {
		s.refuse(err)
		return
	}
	s.head = head{proxy: s.door.trusts(s.peer.Addr()), hello: s.door.table.byName()}
	if s.head.proxy || s.head.hello {
		s.alarm(s.door.timeouts.header)
	}
	s.readHead()
}

// admit is called when it is known who the client is and where it wants to go.
func (s *session) admit() {
	d := s.door
	if d.limits.perClient > 0 || d.limits.rate > 0 {
		refusal := d.service.clients.enter(s.source.Addr(), d.limits.perClient, d.limits.rate, time.Since(d.engine.began))
		if refusal != "" {
			d.service.limited.Add(1)
			s.refuse(errors.New(refusal))
			return
		}
		s.admitted = true
	}
	if s.pool == nil {
		s.refuse(errNoRoute)
		return
	}
	s.connect()
}

// leave ends what the session has with its target.
func (s *session) leave() {
	if s.target != nil {
		s.target.Done()
		s.target = nil
	}
}

// alarm has timeout called when limit is over.
func (s *session) alarm(limit time.Duration) {
	s.since = s.loop.now
	s.loop.timers.Set(&s.timer, s.loop.now+limit)
}

// step does what there is to do after an event.
func (s *session) step() {
	switch s.phase {
	case reading:
		s.readHead()
	case waiting:
		if s.client.failed {
			s.abort(fmt.Errorf("client: %w", orReset(pendingError(s.client.fd))))
		}
	case connecting:
		s.connected()
	case relaying:
		s.relay()
	case settling:
		s.settle()
	case ended:
	}
}

// connected looks whether the server has accepted.
func (s *session) connected() {
	switch {
	case s.client.failed:
		s.abort(fmt.Errorf("client: %w", orReset(pendingError(s.client.fd))))
	case s.server.failed:
		s.passOver(os.NewSyscallError("connect", orReset(pendingError(s.server.fd))))
		s.connect()
	case s.server.writable:
		s.target.Succeeded()
		s.target.Connected(time.Since(s.loop.epoch) - s.since)
		if err := s.sendProxy(); err != nil {
			s.passOver(err)
			s.connect()
			return
		}
		s.phase = relaying
		s.alarm(s.door.timeouts.idle)
		s.relay()
	}
}

// relay moves what can be moved and looks whether that was the last.
func (s *session) relay() {
	if s.client.failed {
		// What else it may have said is not to be trusted to be whole.
		s.abort(fmt.Errorf("%s: %w", s.toServer.way, os.NewSyscallError("read", orReset(pendingError(s.client.fd)))))
		return
	}
	halves := s.halves()
	more := s.toServer.pump(s.loop)
	more = s.toClient.pump(s.loop) || more
	up, down := &s.toServer, &s.toClient
	switch {
	case up.err != nil && s.over(&s.client), down.err != nil && s.over(&s.client):
		s.abort(errors.Join(up.err, down.err))
	case down.err != nil:
		s.finish(down.err)
	case up.err != nil && down.told:
		s.finish(up.err)
	case s.server.failed && down.told:
		// It had said its last, and refuses to hear the rest.
		s.finish(fmt.Errorf("%s: %w", up.way, os.NewSyscallError("write", orReset(pendingError(s.server.fd)))))
	case up.told && down.told:
		s.finish(nil)
	default:
		if more && !s.queued {
			s.queued = true
			s.loop.again = append(s.loop.again, s)
		}
		if s.halves() > halves {
			s.alarm(s.door.timeouts.halfClose)
		}
	}
}

// halves returns how many directions are over.
func (s *session) halves() (n int) {
	for _, f := range []*flow{&s.toServer, &s.toClient} {
		if f.over() {
			n++
		}
	}
	return n
}

func (s *session) over(d *side) bool { return d.failed || over(d.fd) }

// timeout is called when the time that alarm was told of is over.
func (s *session) timeout() {
	switch s.phase {
	case reading:
		s.headIsOver(errHeader)
	case waiting:
		s.door.service.limited.Add(1)
		s.abort(errQueue)
	case connecting:
		s.passOver(errTimeout)
		s.connect()
	case relaying:
		limit, err := s.door.timeouts.idle, errIdle
		if s.halves() > 0 {
			limit, err = s.door.timeouts.halfClose, errHalfClose
		}
		p := patience{limit: limit, since: s.since}
		over, wait := p.expired(s.loop.now, quiet(s.client.fd, s.server.fd))
		if over {
			s.abort(err)
			return
		}
		s.loop.timers.Set(&s.timer, s.loop.now+wait)
	case settling:
		s.settle()
	case ended:
	}
}

// finish ends the session when both sides have ended it, with nil, or when no
// more will come from the server, because of err. The client gets first what it
// was sent: a reset would take that away from it.
func (s *session) finish(err error) {
	s.why = err
	s.closeServer(err)
	if settled(s.client.fd) {
		s.end()
		return
	}
	if err == nil {
		_ = rawShutdown(s.client.fd) // fails if there is nobody to tell
	}
	s.phase = settling
	s.since, s.look = s.loop.now, firstLook
	s.settle()
}

// settle ends the session if the client has acknowledged all that it was sent,
// is gone, or after the half-close timeout.
//
// After the end was sent too, its acknowledgement changes the state of the
// connection, which is an event. Without it, after the other side's reset,
// nothing tells, so that settle looks, less and less often.
func (s *session) settle() {
	limit := s.since + s.door.timeouts.halfClose
	if s.client.failed || settled(s.client.fd) || s.loop.now >= limit {
		s.end()
		return
	}
	s.loop.timers.Set(&s.timer, min(s.loop.now+s.look, limit))
	s.look = min(2*s.look, longestLook)
}

// refuse resets a client that cannot be served.
func (s *session) refuse(why error) {
	s.door.refused(s.source, why)
	s.client.reset(s.loop)
	s.remove()
}

// abort resets both sides at once, because of err.
func (s *session) abort(err error) {
	if s.phase <= connecting {
		s.closeServer(err)
		s.refuse(err)
		return
	}
	s.why = err
	s.closeServer(err)
	s.end()
}

// closeServer ends the server's side: cleanly if err is nil.
func (s *session) closeServer(err error) {
	s.toServer.release(s.loop)
	s.toClient.release(s.loop)
	if err == nil {
		s.server.close(s.loop)
	} else {
		s.server.reset(s.loop)
	}
	if s.phase == connecting {
		s.leave()
	}
	if s.ticket != nil {
		s.ticket.Leave() // if it is too late for that, served gives the server back
		s.ticket = nil
	}
}

// end closes the client's side, in the way that s.why says.
func (s *session) end() {
	if s.why == nil {
		s.client.close(s.loop)
	} else {
		s.client.reset(s.loop)
	}
	switch {
	case s.why == errIdle, s.why == errHalfClose:
		s.door.service.timedOut.Add(1)
	case s.why != nil:
		s.door.service.broken.Add(1)
		if s.server.failed {
			s.target.Broke()
		}
	}
	s.door.log.Debug().
		Stringer("client", s.source).
		Str("server", s.target.Label()).
		Dur("lasted", s.loop.now-s.began).
		Int64("to_server", s.toServer.moved).
		Int64("to_client", s.toClient.moved).
		Str("end", describe(s.why)).
		Msg("connection ended")
	s.leave()
	s.remove()
}

// remove is the last thing done for a session.
func (s *session) remove() {
	s.phase = ended
	s.loop.timers.Remove(&s.timer)
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		s.loop.first = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	if s.admitted {
		s.door.service.clients.leave(s.source.Addr(), s.door.limits.rate)
	}
	s.door.service.current.Add(-1)
	s.door.engine.leave(s.local.Addr())
}

// count counts bytes that f has moved.
func (s *session) count(f *flow, n int64) {
	if f == &s.toServer {
		s.target.AddBytes(n, 0)
		s.door.service.bytesToServer.Add(n)
	} else {
		s.target.AddBytes(0, n)
		s.door.service.bytesToClient.Add(n)
	}
}

// orReset returns err or, if there is none, that the connection was reset: the
// kernel tells of an error only once, and may have told already.
func orReset(err error) error {
	if err == nil {
		return unix.ECONNRESET
	}
	return err
}

// describe returns the reason for which a connection ended, in words.
func describe(err error) string {
	if err == nil {
		return "both sides closed"
	}
	return err.Error()
}

// exhausted reports whether err says that this machine, not the server, lacks
// something: descriptors, memory, or local ports.
func exhausted(err error) bool {
	errno, _ := errors.AsType[unix.Errno](err)
	switch errno {
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM,
		unix.ENOSPC, // of epoll_ctl(2): more may not be watched
		unix.EADDRNOTAVAIL, unix.EADDRINUSE, unix.EAGAIN:
		return true
	}
	return false
}
