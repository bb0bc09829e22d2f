package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// A listener that cannot accept tries again after a pause that doubles from
// the first to the longest, and then gives accept(2) the time of probe.
const (
	firstPause   = 5 * time.Millisecond
	longestPause = time.Second
	probe        = 50 * time.Millisecond
)

// listener is one listening socket. Its goroutine runs from start to close.
type listener struct {
	addr    netip.AddrPort // as it was wanted
	local   netip.AddrPort // as it is bound
	file    *os.File       // the socket: package net lets nobody accept descriptors
	handler atomic.Pointer[Handler]
	needs   needs // guarded by the Set's mutex

	closing chan struct{} // closed by close
	done    chan struct{} // closed when the goroutine has ended
}

// open returns a listener bound to addr, whether or not the machine has that
// address now. If it is one of held, no request is answered before hold says
// so.
func open(addr netip.AddrPort, n needs, held []netip.Addr) (*listener, error) {
	lc := net.ListenConfig{
		Control: func(_, _ string, raw syscall.RawConn) error {
			return setOptions(raw, addr.Addr(), n, held)
		},
		KeepAlive: -1, // setOptions has it, for all connections at once
	}
	// Package net would open a multipath TCP socket where the kernel has them;
	// the filter of hold and splice(2) are made for plain TCP.
	lc.SetMultipathTCP(false)
	network := "tcp6" // with this name, [::] does not include IPv4
	if addr.Addr().Is4() {
		network = "tcp4"
	}
	// The package net asks for SO_REUSEADDR and for the longest backlog that
	// net.core.somaxconn allows.
	l, err := lc.Listen(context.Background(), network, addr.String())
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", addr, Cause(err))
	}
	tcp := l.(*net.TCPListener)
	// The poller is to know of one descriptor alone, or each client woke it twice.
	defer tcp.Close()
	file, err := tcp.File()
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", addr, Cause(err))
	}
	bound := tcp.Addr().(*net.TCPAddr).AddrPort()
	return &listener{
		addr:    addr,
		local:   netip.AddrPortFrom(bound.Addr().Unmap(), bound.Port()),
		file:    file,
		needs:   n,
		closing: make(chan struct{}),
		done:    make(chan struct{}),
	}, nil
}

// Advise adds to an error of binding addr what a person can do about it.
func Advise(err error, addr netip.AddrPort) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%w: another program has the port, on this address or on all of them; ss -lnptu 'sport = :%d' shows which", err, addr.Port())
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: ports below 1024 need CAP_NET_BIND_SERVICE; run it as root, or by its systemd unit", err)
	}
	return err
}

// setOptions prepares a socket that is not bound yet.
func setOptions(raw syscall.RawConn, addr netip.Addr, n needs, held []netip.Addr) error {
	var err error
	if ctrlErr := raw.Control(func(fd uintptr) {
		for _, o := range options(addr, n) {
			if err = o.set(int(fd)); err != nil {
				return
			}
		}
		// It takes a capability that tests may lack.
		_ = transparent(addr).set(int(fd))
		// Before listen(2), so that not a single request slips through.
		err = setFilter(int(fd), holdFilter(addr, held))
	}); ctrlErr != nil {
		return ctrlErr
	}
	return err
}

// options returns those of a listener on addr. Accepted sockets inherit them,
// which saves the system calls to give keep-alive to each.
func options(addr netip.Addr, n needs) []Option {
	freebind := Option{"IPV6_FREEBIND", unix.SOL_IPV6, unix.IPV6_FREEBIND, 1}
	if addr.Is4() {
		freebind = Option{"IP_FREEBIND", unix.SOL_IP, unix.IP_FREEBIND, 1}
	}
	return append([]Option{freebind, {"TCP_NODELAY", unix.SOL_TCP, unix.TCP_NODELAY, 1}}, n.options()...)
}

// transparent returns the option that lets accepted sockets send when their address
// is not this machine's any more. The sockets of a process that is killed still say
// goodbye to their clients, although the guard is quicker to take the addresses off.
func transparent(addr netip.Addr) Option {
	if addr.Is4() {
		return Option{"IP_TRANSPARENT", unix.SOL_IP, unix.IP_TRANSPARENT, 1}
	}
	return Option{"IPV6_TRANSPARENT", unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1}
}

// serve gives the connections that are accepted from now on to h.
func (l *listener) serve(h Handler) {
	l.handler.Store(&h)
	n := needsOf(h)
	if n == l.needs {
		return
	}
	l.needs = n
	raw, err := l.file.SyscallConn()
	if err != nil {
		return // closed
	}
	_ = raw.Control(func(fd uintptr) {
		for _, o := range n.options() {
			_ = o.set(int(fd)) // none of them fails within its bounds
		}
	})
}

// hold makes the listener ignore requests to the held addresses, and only them.
func (l *listener) hold(held []netip.Addr) error {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return err
	}
	if ctrlErr := raw.Control(func(fd uintptr) {
		err = setFilter(int(fd), holdFilter(l.addr.Addr(), held))
	}); ctrlErr != nil {
		return ctrlErr
	}
	return err
}

// start begins to accept connections, for h until another handler is stored.
func (l *listener) start(h Handler, s *Set) {
	l.serve(h)
	a := &acceptor{
		listener: l,
		log:      s.log.With().Stringer("listen", l.addr).Logger(),
		fault:    s.fault,
		conns:    &s.conns,
	}
	go a.run()
}

// close ends the goroutine soon; wait returns when it has ended.
func (l *listener) close() {
	close(l.closing)
	// Closing a listening socket does not fail in a way that could be acted on.
	_ = l.file.Close()
}

func (l *listener) wait() { <-l.done }

// acceptor is what a listener's goroutine works with.
type acceptor struct {
	*listener
	log   zerolog.Logger
	fault func(addr netip.AddrPort, err error)
	conns *conns

	pause time.Duration // before the next attempt; 0 while accepting works
}

// run accepts connections until the listener is closed.
func (a *acceptor) run() {
	defer close(a.done)
	for {
		err := a.accept()
		switch {
		case err == nil:
			a.works()
		case a.closed():
			a.works()
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			// Nobody has come, but accept(2) would have failed first if there
			// were still no descriptor or memory for a connection.
			a.works()
		case clientFailed(err):
			a.log.Debug().Err(Cause(err)).Msg("connection failed before it was accepted")
		default:
			a.failed(err)
		}
	}
}

// closed reports whether the listener is to end.
func (l *listener) closed() bool {
	select {
	case <-l.closing:
		return true
	default:
		return false
	}
}

// failed raises the fault, if it is not raised yet, and waits a while.
func (a *acceptor) failed(err error) {
	if a.pause == 0 {
		a.log.Error().Err(Cause(err)).Msg("cannot accept connections")
		a.fault(a.addr, fmt.Errorf("accept on %s: %w", a.addr, Cause(err)))
		a.pause = firstPause
	} else {
		a.pause = min(2*a.pause, longestPause)
	}
	t := time.NewTimer(a.pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-a.closing:
	}
	// The fault must end also if no client comes, as none will once the virtual
	// address has moved to the other node because of it.
	a.setDeadline(time.Now().Add(probe))
}

// works ends the fault, if it is raised.
func (a *acceptor) works() {
	if a.pause == 0 {
		return
	}
	a.pause = 0
	a.setDeadline(time.Time{})
	a.log.Info().Msg("can accept connections again")
	a.fault(a.addr, nil)
}

// setDeadline bounds the wait for a connection.
func (l *listener) setDeadline(t time.Time) {
	_ = l.file.SetDeadline(t) // fails only if closed
}

// clientFailed reports whether err is about the one connection that was to be
// accepted; accept(2) lists these errors and advises to try again at once.
func clientFailed(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case unix.ECONNABORTED, unix.ECONNRESET, unix.ENETDOWN, unix.EPROTO, unix.ENOPROTOOPT, unix.EHOSTDOWN,
		unix.ENONET, unix.EHOSTUNREACH, unix.EOPNOTSUPP, unix.ENETUNREACH:
		return true
	}
	return false
}

// Cause strips the operation and the addresses that package net adds to an
// error; it is for callers that name the listener or connection themselves.
// Other errors are returned as they are.
func Cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}
