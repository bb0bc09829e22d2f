package main

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// The services that every proxy offers, by the port it listens on; the servers
// have the same port.
const (
	echoPort   = 7001 // sends back what it gets
	sinkPort   = 7002 // takes everything
	sourcePort = 7003 // sends without end
)

const (
	message = 100       // bytes of a small request and of its answer
	chunk   = 256 << 10 // bytes of a large write or read
)

// result is what a load brought about.
type result struct {
	Units   float64       `json:"units"` // requests, connections or MiB
	Elapsed time.Duration `json:"elapsed"`
	P50     time.Duration `json:"p50"`
	P99     time.Duration `json:"p99"`
	P999    time.Duration `json:"p999"`
}

// conn is one connection of the load, of a client or of a server.
type conn struct {
	fd     int
	client bool
	port   int
	got    int       // bytes of the answer so far
	sent   time.Time // of the request
	in     uint32    // the events that are watched
}

// load is the clients and the servers in one epoll loop, which takes less CPU
// than a thread or a goroutine for each and leaves more to the proxies.
type load struct {
	epoll     int
	listeners map[int]int // port by descriptor
	conns     map[int]*conn
	buf       []byte

	proxy   netip.Addr
	renew   bool // a new connection for each request
	count   float64
	times   []time.Duration
	idle    bool // one request a connection, which then stays
	clients int
}

func newLoad(proxy netip.Addr, servers []netip.Addr) (*load, error) {
	l := &load{listeners: make(map[int]int), conns: make(map[int]*conn), buf: make([]byte, chunk), proxy: proxy}
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	for _, a := range servers {
		for _, port := range []int{echoPort, sinkPort, sourcePort} {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: a.As4()}); err != nil {
				return nil, fmt.Errorf("bind %s:%d: %w", a, port, err)
			}
			if err := unix.Listen(fd, 4096); err != nil {
				return nil, err
			}
			l.listeners[fd] = port
			if err := l.watch(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN); err != nil {
				return nil, err
			}
		}
	}
	return l, nil
}

func (l *load) watch(op, fd int, events uint32) error {
	return unix.EpollCtl(l.epoll, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

// dial begins a client's connection to the proxy.
func (l *load) dial(port int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_NODELAY, 1)
	if l.renew {
		// One address has not enough ports for all that are in TIME-WAIT.
		l.clients++
		_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 2, byte(1 + l.clients%200)}}); err != nil {
			return err
		}
	}
	c := &conn{fd: fd, client: true, port: port, sent: time.Now()}
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: l.proxy.As4()})
	if err != nil && err != unix.EINPROGRESS {
		return fmt.Errorf("connect: %w", err)
	}
	l.conns[fd] = c
	c.in = unix.EPOLLOUT
	if port == sourcePort {
		c.in = unix.EPOLLIN
	}
	return l.watch(unix.EPOLL_CTL_ADD, fd, c.in)
}

func (l *load) close(c *conn) {
	delete(l.conns, c.fd)
	unix.Close(c.fd)
}

// end closes everything.
func (l *load) end() {
	for fd := range l.listeners {
		unix.Close(fd)
	}
	for fd := range l.conns {
		unix.Close(fd)
	}
	unix.Close(l.epoll)
}

// run serves and loads until the deadline.
func (l *load) run(until time.Time) error {
	var events [512]unix.EpollEvent
	for {
		left := time.Until(until)
		if left <= 0 {
			return nil
		}
		n, err := unix.EpollWait(l.epoll, events[:], int(left.Milliseconds())+1)
		if err != nil && err != unix.EINTR {
			return err
		}
		for _, e := range events[:max(n, 0)] {
			fd := int(e.Fd)
			if port, ok := l.listeners[fd]; ok {
				l.accept(fd, port)
			} else if c := l.conns[fd]; c != nil {
				if err := l.serve(c); err != nil {
					return err
				}
			}
		}
	}
}

func (l *load) accept(listener, port int) {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_NODELAY, 1)
		c := &conn{fd: fd, port: port, in: unix.EPOLLIN}
		if port == sourcePort {
			c.in = unix.EPOLLOUT
		}
		l.conns[fd] = c
		_ = l.watch(unix.EPOLL_CTL_ADD, fd, c.in)
	}
}

// serve does what the connection is there for.
func (l *load) serve(c *conn) error {
	switch {
	case c.client && c.port == echoPort:
		return l.ask(c)
	case c.port == echoPort:
		n, err := unix.Read(c.fd, l.buf)
		switch {
		case err == unix.EAGAIN:
		case err != nil || n == 0:
			l.close(c)
		default:
			_, _ = unix.Write(c.fd, l.buf[:n])
		}
	case c.client == (c.port == sinkPort): // who sends
		for range 4 {
			if _, err := unix.Write(c.fd, l.buf); err == unix.EAGAIN {
				return nil
			} else if err != nil {
				l.close(c)
				return nil
			}
		}
	default:
		for range 4 {
			// With MSG_TRUNC nothing is copied.
			n, _, err := unix.Recvfrom(c.fd, l.buf, unix.MSG_TRUNC)
			if err == unix.EAGAIN {
				return nil
			}
			if err != nil || n == 0 {
				l.close(c)
				return nil
			}
			l.count += float64(n) / (1 << 20)
		}
	}
	return nil
}

// ask sends a request, or takes its answer and goes on to the next.
func (l *load) ask(c *conn) error {
	if c.in == unix.EPOLLOUT {
		if !l.renew {
			c.sent = time.Now()
		}
		if _, err := unix.Write(c.fd, l.buf[:message]); err != nil {
			return fmt.Errorf("request: %w", err)
		}
		c.in = unix.EPOLLIN
		return l.watch(unix.EPOLL_CTL_MOD, c.fd, c.in)
	}
	n, err := unix.Read(c.fd, l.buf)
	if err == unix.EAGAIN {
		return nil
	}
	if err != nil || n == 0 {
		return fmt.Errorf("the proxy closed a connection: %d, %v", n, err)
	}
	if c.got += n; c.got < message {
		return nil
	}
	c.got = 0
	l.count++
	now := time.Now()
	l.times = append(l.times, now.Sub(c.sent))
	if l.renew {
		l.close(c)
		return l.dial(echoPort)
	}
	if l.idle {
		return nil
	}
	c.sent = now
	_, err = unix.Write(c.fd, l.buf[:message])
	return err
}

// measure runs until enough time has passed, after a warm-up that does not
// count. between is called at the begin and at the end of what counts.
func (l *load) measure(warm, long time.Duration, between func()) (result, error) {
	if err := l.run(time.Now().Add(warm)); err != nil {
		return result{}, err
	}
	l.count, l.times = 0, l.times[:0]
	between()
	begun := time.Now()
	if err := l.run(begun.Add(long)); err != nil {
		return result{}, err
	}
	elapsed := time.Since(begun)
	between()
	r := result{Units: l.count, Elapsed: elapsed}
	if len(l.times) > 0 {
		slices.Sort(l.times)
		at := func(q float64) time.Duration { return l.times[int(q*float64(len(l.times)-1))] }
		r.P50, r.P99, r.P999 = at(0.5), at(0.99), at(0.999)
	}
	return r, nil
}
