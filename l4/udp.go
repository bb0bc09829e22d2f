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

	"appliance/internal/epoll"
	"appliance/internal/listen"
)

const (
	// udpTurn is how many batches a socket moves before others have their turn.
	udpTurn = 2
	// udpBuffer is the room for datagrams that a socket asks the kernel for.
	udpBuffer = 4 << 20
	// udpRetry is how often a port that fails looks whether it works again.
	udpRetry = time.Second
)

// udpPort is a socket that clients send datagrams to. It lives as long as a
// configuration wants its address; door is the latest one's.
type udpPort struct {
	addr netip.AddrPort
	door atomic.Pointer[door]
	loop *loop

	// What follows is the loop's.
	side     side
	watched  bool
	sessions map[udpKey]*udpSession
	fault    error              // why clients are not served, as the engine's owner was told
	retry    epoll.Timer[timed] // set while there is a fault
}

// openUDP opens the socket of a port. It is not watched yet.
func openUDP(addr netip.AddrPort, l *loop) (*udpPort, error) {
	family, level, freebind, info := unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_FREEBIND, unix.IPV6_RECVPKTINFO
	if addr.Addr().Is4() {
		family, level, freebind, info = unix.AF_INET, unix.SOL_IP, unix.IP_FREEBIND, unix.IP_PKTINFO
	}
	fd, err := socketUDP(family)
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", addr, err)
	}
	p := &udpPort{addr: addr, loop: l, sessions: make(map[udpKey]*udpSession)}
	p.side = side{fd: fd, ready: p.receive}
	p.retry.Owner = p
	options := []struct{ level, name int }{{level, freebind}}
	if addr.Addr().IsUnspecified() {
		options = append(options, struct{ level, name int }{level, info})
	}
	if family == unix.AF_INET6 {
		options = append(options, struct{ level, name int }{level, unix.IPV6_V6ONLY})
	}
	for _, o := range options {
		if err = unix.SetsockoptInt(fd, o.level, o.name, 1); err != nil {
			break
		}
	}
	if err == nil {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, udpBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, udpBuffer) // as much as is allowed
		}
		err = unix.Bind(fd, sockaddr(addr))
	}
	if err != nil {
		unix.Close(fd)
		return nil, listen.Advise(fmt.Errorf("listener %s: udp: %w", addr, err), addr)
	}
	return p, nil
}

// socketUDP returns a new socket for datagrams.
func socketUDP(family int) (fd int, err error) {
	fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	return fd, os.NewSyscallError("socket", err)
}

// open has the loop take datagrams.
func (p *udpPort) open() { p.loop.post(p.watch) }

// watch begins to take datagrams.
func (p *udpPort) watch() {
	if err := p.loop.watch(&p.side); err != nil {
		p.fail(err)
		return
	}
	p.watched = true
}

// close ends the port, its sessions, and its fault.
func (p *udpPort) close() {
	p.loop.call(func() {
		for _, s := range p.sessions {
			s.end()
		}
		p.loop.timers.Remove(&p.retry)
		p.works()
		p.side.close(p.loop)
	})
}

// fail raises the port's fault: clients are not served, because of err.
func (p *udpPort) fail(err error) {
	if p.fault == nil {
		p.fault = fmt.Errorf("udp on %s: %w", p.addr, err)
		d := p.door.Load()
		d.log.Error().Err(err).Stringer("listen", p.addr).Msg("cannot take datagrams")
		d.engine.fault(p.addr, p.fault)
	}
	p.loop.timers.Set(&p.retry, p.loop.now+udpRetry)
}

// works ends the fault, if there is one.
func (p *udpPort) works() {
	if p.fault == nil {
		return
	}
	p.fault = nil
	d := p.door.Load()
	d.log.Info().Stringer("listen", p.addr).Msg("can take datagrams again")
	d.engine.fault(p.addr, nil)
}

// timeout looks whether the port works again. Nothing else tells: once the
// virtual address has moved because of the fault, no client comes.
func (p *udpPort) timeout() {
	fd, err := socketUDP(unix.AF_INET) // as a session would
	if err != nil {
		p.fail(err)
		return
	}
	unix.Close(fd)
	if !p.watched {
		p.watch()
	}
	if !p.retry.IsSet() {
		p.loop.serve(&p.side, 0)
	}
	if !p.retry.IsSet() {
		p.works()
	}
}

// receive passes on what clients have sent.
func (p *udpPort) receive(events uint32) (more bool) {
	b := p.loop.batch()
	failed := false
	for range udpTurn {
		n, err := b.receive(p.side.fd, true)
		switch {
		case err == errAgain:
			return false
		case err == unix.EINTR:
			continue
		case err != nil && failed:
			p.fail(os.NewSyscallError("recvmmsg", err))
			return false
		case err != nil:
			failed = true // of something that was sent, if it does not happen again
			continue
		}
		failed = false
		p.pass(b, n)
		if n < udpBatch && events&unix.EPOLLERR == 0 {
			return false // the kernel tells when there are more
		}
	}
	return true
}

// pass passes n datagrams on, those of one session that follow one another
// together.
func (p *udpPort) pass(b *batch, n int) {
	b.prepare(0, n)
	for first := 0; first < n; {
		key, end := p.key(b, first), first+1
		for end < n && p.key(b, end) == key {
			end++
		}
		s := p.sessions[key]
		if s != nil && s.door.table.fallback != p.door.Load().table.fallback {
			s.end() // a reload has given the service another pool
			s = nil
		}
		if s == nil {
			s = p.begin(key)
		}
		if s != nil {
			s.pass(b, first, end)
		}
		first = end
	}
}

// key returns what the datagram i of a batch is to be told by.
func (p *udpPort) key(b *batch, i int) udpKey {
	local := p.addr.Addr()
	if local.IsUnspecified() {
		local = b.destination(i)
	}
	return udpKey{b.source(i), local}
}

// begin begins a session, unless there are too many.
func (p *udpPort) begin(key udpKey) *udpSession {
	d := p.door.Load()
	d.service.total.Add(1)
	d.service.arrivals.Add(time.Now())
	if n := d.service.current.Add(1); d.limits.all > 0 && n > int64(d.limits.all) {
		d.service.current.Add(-1)
		d.service.limited.Add(1)
		d.refused(key.client, errors.New("the service has as many sessions as it may"))
		return nil
	}
	s := &udpSession{id: d.engine.ids.Add(1), began: p.loop.now, port: p, door: d, key: key, last: p.loop.now}
	if d.limits.perClient > 0 || d.limits.rate > 0 {
		refusal := d.service.clients.enter(key.client.Addr(), d.limits.perClient, d.limits.rate, time.Since(d.engine.began))
		if refusal != "" {
			d.service.current.Add(-1)
			d.service.limited.Add(1)
			d.refused(key.client, errors.New(refusal))
			return nil
		}
		s.admitted = true
	}
	s.side = side{fd: -1}
	s.timer.Owner = s
	p.sessions[key] = s
	p.loop.timers.Set(&s.timer, p.loop.now+d.timeouts.idle)
	return s
}

// source returns the address that answers to one who asked local must leave
// from; invalid where the socket is bound to it.
func (p *udpPort) source(local netip.Addr) netip.Addr {
	if !p.addr.Addr().IsUnspecified() {
		return netip.Addr{}
	}
	return local
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: zone(a.Addr())}
}

// batch returns room for datagrams.
func (l *loop) batch() *batch {
	if l.datagrams == nil {
		l.datagrams = newBatch()
	}
	return l.datagrams
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
