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

// udpKey is what tells sessions of a port apart: the addresses of both ends.
type udpKey struct {
	client netip.AddrPort
	local  netip.Addr
}

// udpSession is what one client sends, and what a server answers. The server's
// socket is connected, so that answers and refusals find their session.
type udpSession struct {
	id       uint64
	began    time.Duration
	port     *udpPort
	door     *door // of the session's begin
	key      udpKey
	admitted bool // is counted for its client
	target   *pool.Server
	tried    []*pool.Server // refused what is under way
	side     side           // towards the server
	timer    epoll.Timer[timed]
	last     time.Duration // when the latest datagram passed
	answers  int

	toServer, toClient int64 // bytes
}

// pass passes the datagrams from first to before end of a batch to the server.
func (s *udpSession) pass(b *batch, first, end int) {
	s.last = s.port.loop.now
	for refusals := 0; first < end && refusals < maxTries; {
		if (s.target == nil || !s.target.Keeps()) && !s.choose() {
			s.end()
			return
		}
		n, err := b.send(s.side.fd, first, end)
		switch {
		case err == nil:
			s.sent(b, first, first+n)
			first += n
		case err == unix.EINTR:
		case err == errAgain, err == unix.ENOBUFS:
			s.lost(end - first)
			return
		case isOfDatagram(err):
			s.lost(1)
			first++
		default: // the refusal of an earlier datagram; this one was not sent
			s.refused(err)
			refusals++
		}
	}
	if first < end {
		s.lost(end - first)
	}
}

// sent counts datagrams that the server was sent.
func (s *udpSession) sent(b *batch, first, end int) {
	var bytes int64
	for i := first; i < end; i++ {
		bytes += int64(b.size(i))
	}
	s.toServer += bytes
	s.target.AddBytes(bytes, 0)
	s.door.service.bytesToServer.Add(bytes)
}

// lost counts datagrams that go no further, as datagrams may.
func (s *udpSession) lost(n int) { s.door.service.lost.Add(int64(n)) }

// isOfDatagram reports whether a datagram could not be sent because of what it is
// or of this machine, whoever the receiver: it is longer than the way allows, or a
// filter of this machine has it.
func isOfDatagram(err error) bool {
	return err == unix.EMSGSIZE || err == unix.EPERM || err == unix.EINVAL || err == unix.ENOMEM
}

// choose gives the session a server, another one than before.
func (s *udpSession) choose() bool {
	s.letGo()
	from := s.door.table.fallback
	for i := range maxTries {
		target, err := from.PickFor(s.key.client.Addr(), s.tried...)
		if i == 0 && len(s.tried) > 0 && errors.Is(err, pool.ErrNoServer) {
			s.tried = s.tried[:0] // all have refused an earlier datagram; one may be back
			target, err = from.PickFor(s.key.client.Addr())
		}
		if err != nil {
			s.door.refused(s.key.client, fmt.Errorf("pool %s: %w", from.Name(), err))
			return false
		}
		s.target = target
		if err = s.connect(); err == nil {
			return true
		}
		if exhausted(err) {
			s.letGo()
			s.door.refused(s.key.client, fmt.Errorf("no socket for its session: %w", err))
			if lacks(err) {
				s.port.fail(err)
			}
			return false
		}
		s.refused(err)
	}
	return false
}

// lacks reports whether err says that this machine lacks what every session
// takes, and not only local ports.
func lacks(err error) bool {
	errno, _ := errors.AsType[unix.Errno](err)
	return errno == unix.EMFILE || errno == unix.ENFILE || errno == unix.ENOBUFS || errno == unix.ENOMEM || errno == unix.ENOSPC
}

// connect opens the socket towards the target.
func (s *udpSession) connect() error {
	addr := s.target.Endpoint().IP()
	family := unix.AF_INET6
	if addr.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := socketUDP(family)
	if err != nil {
		return err
	}
	s.side = side{fd: fd, ready: s.receive}
	if err := unix.Connect(fd, sockaddr(addr)); err != nil {
		return os.NewSyscallError("connect", err)
	}
	return s.port.loop.watch(&s.side)
}

// letGo ends what the session has with its server.
func (s *udpSession) letGo() {
	s.side.close(s.port.loop)
	if s.target != nil {
		s.target.Done()
		s.target = nil
	}
}

// refused has the session moved with its next datagram: the server's host says
// that nobody is there.
func (s *udpSession) refused(err error) {
	s.target.ConnectFailed(err)
	s.door.limited(s.door.failures).Err(err).Str("server", s.target.Label()).Msg("server does not take datagrams")
	if len(s.tried) >= maxTries {
		s.tried = s.tried[:0]
	}
	s.tried = append(s.tried, s.target)
	s.letGo()
}

// receive passes on what the server has sent.
func (s *udpSession) receive(events uint32) (more bool) {
	b := s.port.loop.batch()
	for range udpTurn {
		n, err := b.receive(s.side.fd, false)
		switch {
		case err == errAgain:
			return false
		case err == unix.EINTR, err != nil && isOfDatagram(err):
			continue
		case err != nil:
			s.refused(err)
			return false
		}
		s.answer(b, n)
		if s.door.responses > 0 && s.answers >= s.door.responses {
			s.end()
			return false
		}
		if n < udpBatch && events&unix.EPOLLERR == 0 {
			return false // the kernel tells when there are more
		}
	}
	return true
}

// answer passes n datagrams on to the client, but not more than end the session.
func (s *udpSession) answer(b *batch, n int) {
	if s.door.responses > 0 {
		n = min(n, s.door.responses-s.answers)
	}
	s.answers += n
	s.last = s.port.loop.now
	s.tried = s.tried[:0]
	s.target.Succeeded()
	bytes := int64(b.prepare(0, n))
	s.toClient += bytes
	s.target.AddBytes(0, bytes)
	s.door.service.bytesToClient.Add(bytes)
	b.address(0, n, s.key.client, s.port.source(s.key.local))
	for first := 0; first < n; {
		sent, err := b.send(s.port.side.fd, first, n)
		switch {
		case err == nil:
			first += sent
		case err == unix.EINTR:
		case err == errAgain, err == unix.ENOBUFS:
			s.lost(n - first)
			return
		default: // a client that is gone is found by the idle timeout
			s.lost(1)
			first++
		}
	}
}

// timeout ends the session if nothing has passed for long enough.
func (s *udpSession) timeout() {
	l := s.port.loop
	if due := s.last + s.door.timeouts.idle; due > l.now {
		l.timers.Set(&s.timer, due)
		return
	}
	if s.answers == 0 {
		s.door.service.timedOut.Add(1)
	}
	s.end()
}

func (s *udpSession) end() {
	s.letGo()
	s.port.loop.timers.Remove(&s.timer)
	delete(s.port.sessions, s.key)
	if s.admitted {
		s.door.service.clients.leave(s.key.client.Addr(), s.door.limits.rate)
	}
	s.door.service.current.Add(-1)
}

func (s *udpSession) info(now time.Duration) SessionInfo {
	i := SessionInfo{
		ID: s.id, Service: s.door.service.name, State: "datagrams",
		Client: s.key.client, Peer: s.key.client, Local: netip.AddrPortFrom(s.key.local, s.port.addr.Port()),
		Pool: s.door.table.fallback.Name(), Age: now - s.began, BytesToServer: s.toServer, BytesToClient: s.toClient,
	}
	if s.target != nil {
		i.Server = s.target.Label()
	}
	return i
}
