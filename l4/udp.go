package l4

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"appliance/internal/pool"
)

const (
	// maxDatagram is more than the largest payload of UDP, in bytes.
	maxDatagram = 64 << 10
	// udpTurn is how many datagrams a socket moves before others have their
	// turn.
	udpTurn = 64
	// udpBuffer is the room for datagrams that a socket asks the kernel for.
	udpBuffer = 4 << 20
)

// udpPort is a socket that clients send datagrams to. It lives as long as a
// configuration wants its address; door is the latest one's.
type udpPort struct {
	addr netip.AddrPort
	door atomic.Pointer[door]
	loop *loop

	// What follows is the loop's.
	side     side
	sessions map[udpKey]*udpSession
}

// udpKey is what tells sessions of a port apart: the addresses of both ends.
type udpKey struct {
	client netip.AddrPort
	local  netip.Addr
}

// udpSession is what one client sends, and what a server answers. The server's
// socket is connected, so that answers and refusals find their session.
type udpSession struct {
	id      uint64
	began   time.Duration
	port    *udpPort
	door    *door // of the session's begin
	key     udpKey
	target  *pool.Server
	tried   []*pool.Server // refused what is under way
	side    side           // towards the server
	timer   timer
	last    time.Duration // when the latest datagram passed
	answers int

	toServer, toClient int64 // bytes
}

// openUDP opens the socket of a port. It is not watched yet.
func openUDP(addr netip.AddrPort, l *loop) (*udpPort, error) {
	family, level, freebind, info := unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_FREEBIND, unix.IPV6_RECVPKTINFO
	if addr.Addr().Is4() {
		family, level, freebind, info = unix.AF_INET, unix.SOL_IP, unix.IP_FREEBIND, unix.IP_PKTINFO
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", addr, os.NewSyscallError("socket", err))
	}
	p := &udpPort{addr: addr, loop: l, sessions: make(map[udpKey]*udpSession)}
	p.side = side{fd: fd, ready: p.receive}
	options := []struct{ level, name int }{{level, freebind}, {level, info}}
	if family == unix.AF_INET6 {
		options = append(options, struct{ level, name int }{level, unix.IPV6_V6ONLY})
	}
	for _, o := range options {
		if err = unix.SetsockoptInt(fd, o.level, o.name, 1); err != nil {
			break
		}
	}
	if err == nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, udpBuffer) // as much as is allowed
		err = unix.Bind(fd, sockaddr(addr))
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listener %s: udp: %w", addr, err)
	}
	return p, nil
}

// open has the loop take datagrams.
func (p *udpPort) open() {
	p.loop.post(func() {
		if err := p.loop.watch(&p.side); err != nil {
			p.door.Load().log.Error().Err(err).Stringer("listen", p.addr).Msg("no datagrams can be taken")
		}
	})
}

// close ends the port and its sessions.
func (p *udpPort) close() {
	p.loop.call(func() {
		for _, s := range p.sessions {
			s.end()
		}
		p.side.close(p.loop)
	})
}

// receive passes on what clients have sent.
func (p *udpPort) receive(uint32) (more bool) {
	l := p.loop
	b := l.datagram()
	oob := make([]byte, 64)
	for range udpTurn {
		n, oobn, _, from, err := unix.Recvmsg(p.side.fd, b, oob, 0)
		switch {
		case err == unix.EAGAIN:
			return false
		case err != nil:
			continue // of a datagram that was sent: the client is gone
		}
		client := fromSockaddr(from)
		local := p.addr.Addr()
		if local.IsUnspecified() {
			local = destination(oob[:oobn])
		}
		p.pass(udpKey{client, local}, b[:n])
	}
	return true
}

// pass passes a datagram to the server of its session.
func (p *udpPort) pass(key udpKey, b []byte) {
	s := p.sessions[key]
	if s == nil {
		if s = p.begin(key); s == nil {
			return
		}
	}
	s.last = p.loop.now
	for range maxTries {
		if (s.target == nil || !s.target.Usable()) && !s.choose() {
			s.end()
			return
		}
		n, err := unix.SendmsgN(s.side.fd, b, nil, nil, unix.MSG_DONTWAIT)
		switch {
		case err == nil:
			s.toServer += int64(n)
			s.target.AddBytes(int64(n), 0)
			s.door.service.bytesToServer.Add(int64(n))
			return
		case err == unix.EAGAIN, err == unix.ENOBUFS:
			return // lost, as datagrams may be
		}
		// The refusal of an earlier datagram; this one was not sent.
		s.refused(err)
	}
}

// begin begins a session, unless there are too many.
func (p *udpPort) begin(key udpKey) *udpSession {
	d := p.door.Load()
	d.service.total.Add(1)
	d.service.arrivals.add(time.Now())
	if n := d.service.current.Add(1); d.limits.all > 0 && n > int64(d.limits.all) {
		d.service.current.Add(-1)
		d.service.limited.Add(1)
		d.refused(key.client, errors.New("the service has as many sessions as it may"))
		return nil
	}
	s := &udpSession{id: d.engine.ids.Add(1), began: p.loop.now, port: p, door: d, key: key, last: p.loop.now}
	s.side = side{fd: -1}
	s.timer.owner = s
	p.sessions[key] = s
	p.loop.timers.set(&s.timer, p.loop.now+d.timeouts.idle)
	return s
}

// choose gives the session a server, another one than before.
func (s *udpSession) choose() bool {
	s.letGo()
	l := s.port.loop
	target, err := s.door.table.fallback.PickFor(s.key.client.Addr(), s.tried...)
	if err != nil {
		s.door.refused(s.key.client, fmt.Errorf("pool %s: %w", s.door.table.fallback.Name(), err))
		return false
	}
	s.target = target
	addr := target.Endpoint().IP()
	family := unix.AF_INET6
	if addr.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		s.side = side{fd: fd, ready: s.receive}
		if err = unix.Connect(fd, sockaddr(addr)); err == nil {
			err = l.watch(&s.side)
		}
	}
	if err != nil {
		s.door.limited(s.door.failures).Err(err).Str("server", target.Label()).Msg("no socket for a session of datagrams")
		s.letGo()
		return false
	}
	return true
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
	s.target.Failed(time.Now())
	s.door.limited(s.door.failures).Err(err).Str("server", s.target.Label()).Msg("server does not take datagrams")
	if len(s.tried) >= maxTries {
		s.tried = s.tried[:0]
	}
	s.tried = append(s.tried, s.target)
	s.letGo()
}

// receive passes on what the server has sent.
func (s *udpSession) receive(uint32) (more bool) {
	b := s.port.loop.datagram()
	for range udpTurn {
		n, err := rawRead(s.side.fd, b)
		switch {
		case err == errAgain:
			return false
		case err == unix.EINTR:
			continue
		case err != nil:
			s.refused(err)
			return false
		}
		s.last = s.port.loop.now
		s.tried = s.tried[:0]
		s.target.Succeeded()
		s.toClient += int64(n)
		s.target.AddBytes(0, int64(n))
		s.door.service.bytesToClient.Add(int64(n))
		// A client that takes nothing any more is found by the idle timeout.
		_, _ = unix.SendmsgN(s.port.side.fd, b[:n], s.port.source(s.key.local), sockaddr(s.key.client), unix.MSG_DONTWAIT)
		if s.answers++; s.door.responses > 0 && s.answers >= s.door.responses {
			s.end()
			return false
		}
	}
	return true
}

// timeout ends the session if nothing has passed for long enough.
func (s *udpSession) timeout() {
	l := s.port.loop
	if due := s.last + s.door.timeouts.idle; due > l.now {
		l.timers.set(&s.timer, due)
		return
	}
	if s.answers == 0 {
		s.door.service.timedOut.Add(1)
	}
	s.end()
}

func (s *udpSession) end() {
	s.letGo()
	s.port.loop.timers.remove(&s.timer)
	delete(s.port.sessions, s.key)
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

// source returns the control message that has a datagram leave from local,
// which the client knows; nil where the socket is bound to it.
func (p *udpPort) source(local netip.Addr) []byte {
	if !p.addr.Addr().IsUnspecified() {
		return nil
	}
	if local.Is4() {
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: local.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: local.As16()})
}

// destination returns the address that a datagram was sent to, from the control
// messages that came with it; invalid if they do not tell.
func destination(oob []byte) netip.Addr {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 12:
			return netip.AddrFrom4([4]byte(m.Data[8:12])) // struct in_pktinfo: ifindex, spec_dst, addr
		case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16:
			return netip.AddrFrom16([16]byte(m.Data[:16]))
		}
	}
	return netip.Addr{}
}

func fromSockaddr(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			a = a.WithZone(fmt.Sprint(sa.ZoneId))
		}
		return netip.AddrPortFrom(a, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: zone(a.Addr())}
}

// datagram returns room for one.
func (l *loop) datagram() []byte {
	if l.large == nil {
		l.large = make([]byte, maxDatagram)
	}
	return l.large
}

// datagrams calls f for each session of datagrams, on its loop's goroutine. f may
// end it.
func (e *Engine) datagrams(f func(s *udpSession)) {
	e.mu.Lock()
	ports := slices.Collect(maps.Values(e.ports))
	e.mu.Unlock()
	for _, p := range ports {
		p.loop.call(func() {
			for _, s := range p.sessions {
				f(s)
			}
		})
	}
}

// cutDatagrams ends the sessions of datagrams that are meant and returns how many
// there were. Nobody can be told: their clients find another server, or the other
// node, with their next datagram.
func (e *Engine) cutDatagrams(meant func(*udpSession) bool) (n int) {
	e.datagrams(func(s *udpSession) {
		if meant(s) {
			s.end()
			n++
		}
	})
	return n
}
