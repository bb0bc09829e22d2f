package listen

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// crowd takes connections, and for each that goes another one has come already,
// until it is over.
type crowd struct {
	over  atomic.Bool
	taken atomic.Int64
}

func (c *crowd) ServeConn(conn *Conn) { conn.Close() }

func (c *crowd) Take(fd int, local, _ netip.AddrPort) {
	unix.Close(fd)
	c.taken.Add(1)
	if c.over.Load() {
		return
	}
	to := &unix.SockaddrInet4{Port: int(local.Port()), Addr: local.Addr().As4()}
	if next, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
		_ = unix.Connect(next, to) // fails once the listener is closed
		_ = unix.SetsockoptLinger(next, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		unix.Close(next)
	}
}

// A listener closes although clients come as fast as it accepts them.
func TestCloseInACrowd(t *testing.T) {
	c, s := &crowd{}, newSet(t)
	want := anyPort("127.0.0.1")
	stage(t, s, map[netip.AddrPort]Handler{want: c}).Commit()
	dial(t, s.Addr(want)).Close()
	for end := time.Now().Add(patience); c.taken.Load() < 100; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the crowd does not come")
		}
	}
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Error("it does not close")
		c.over.Store(true)
		<-closed
	}
}
