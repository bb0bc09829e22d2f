package l4

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// options returns options of the sockets of the latest session, as KeepAlive has
// them: the client's and the server's.
func (h *house) keepAlive() (client, server KeepAlive) {
	h.t.Helper()
	var latest *session
	read := func(fd int) (k KeepAlive) {
		option := func(level, name int) time.Duration {
			n, err := unix.GetsockoptInt(fd, level, name)
			if err != nil {
				h.t.Error(err)
			}
			return time.Duration(n)
		}
		if option(unix.SOL_SOCKET, unix.SO_KEEPALIVE) == 0 {
			h.t.Error("keep-alive is off")
		}
		return KeepAlive{
			Idle:        option(unix.SOL_TCP, unix.TCP_KEEPIDLE) * time.Second,
			Interval:    option(unix.SOL_TCP, unix.TCP_KEEPINTVL) * time.Second,
			Count:       int(option(unix.SOL_TCP, unix.TCP_KEEPCNT)),
			UserTimeout: option(unix.SOL_TCP, unix.TCP_USER_TIMEOUT) * time.Millisecond,
		}
	}
	for _, l := range h.engine.loops {
		l.call(func() {
			for s := l.first; s != nil; s = s.next {
				if latest == nil || s.id > latest.id {
					latest, client, server = s, read(s.client.fd), read(s.server.fd)
				}
			}
		})
	}
	return client, server
}

func TestKeepAlive(t *testing.T) {
	h := newHouse(t)
	p := newPool("web", backend(t, greet("hi")))
	for _, tt := range []struct{ is, want KeepAlive }{
		{KeepAlive{}, KeepAlive{15 * time.Second, 15 * time.Second, 9, 0}},
		{KeepAlive{time.Minute, 5 * time.Second, 3, 90 * time.Second}, KeepAlive{time.Minute, 5 * time.Second, 3, 90 * time.Second}},
		{KeepAlive{Count: 2}, KeepAlive{15 * time.Second, 15 * time.Second, 2, 0}},
	} {
		// Each time a reload, by which the listener stays.
		h.load([]Config{{Name: "web", Listen: []netip.AddrPort{entrance}, KeepAlive: tt.is}}, p)
		expect(t, h.dial(entrance), "hi")
		if client, server := h.keepAlive(); client != tt.want || server != tt.want {
			t.Errorf("%+v: the client has %+v, the server %+v, want %+v", tt.is, client, server, tt.want)
		}
	}
}

// vanish has a connection hear nothing any more, as if its host were gone.
func vanish(t *testing.T, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	program, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err != nil {
		t.Fatal(err)
	}
	filter := []unix.SockFilter{{Code: program[0].Op, K: program[0].K}}
	if ctrlErr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &filter[0]})
	}); ctrlErr != nil || err != nil {
		t.Fatal(ctrlErr, err)
	}
}

// Whoever is gone without a word is noticed, and the other side is told: a silent
// client, a silent server, and a client that something is on its way to.
func TestPeersThatAreGone(t *testing.T) {
	for name, gone := range map[string]func(t *testing.T, client, server *net.TCPConn){
		"client": func(t *testing.T, client, server *net.TCPConn) {
			vanish(t, client)
			expectReset(t, server)
		},
		"server": func(t *testing.T, client, server *net.TCPConn) {
			vanish(t, server)
			expectReset(t, client)
		},
		"client with something to hear": func(t *testing.T, client, server *net.TCPConn) {
			vanish(t, client)
			say(t, server, "hello?")
			expectReset(t, server)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			at, accepted, done := entrance, make(chan *net.TCPConn), make(chan struct{})
			p := newPool("web", backend(t, func(c *net.TCPConn) { accepted <- c; <-done }))
			h.load([]Config{{Name: "web", Listen: []netip.AddrPort{at},
				KeepAlive: KeepAlive{Idle: time.Second, Interval: time.Second, Count: 2, UserTimeout: 3 * time.Second}}}, p)
			client := h.dial(at)
			server := <-accepted
			defer close(done)
			gone(t, client, server)
			if end := h.end(); !strings.Contains(end, "timed out") {
				t.Errorf("the connection ended with %q, want the kernel's timeout", end)
			}
		})
	}
}
