package l4

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The pace at which settle looks; see there.
const (
	firstLook   = time.Millisecond
	longestLook = 250 * time.Millisecond
)

// settle returns when the peer of c has acknowledged all that it was sent, when
// it is gone, or after limit. Usually that is at once.
//
// After the end was sent too, its acknowledgement changes the state of the
// connection, which wakes whoever waits to write. Without it, after the other
// side's reset, nothing tells, so that settle looks, less and less often.
func settle(c *net.TCPConn, limit time.Duration) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	for pause := firstLook; limit > 0; pause = min(2*pause, longestLook) {
		pause = min(pause, limit)
		limit -= pause
		_ = c.SetWriteDeadline(time.Now().Add(pause)) // fails only if closed
		if err := raw.Write(settled); !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

// settled reports whether there is nothing to wait for on the socket fd.
func settled(fd uintptr) bool {
	n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
	return err != nil || n == 0 || over(fd)
}

// gone reports whether c is over: reset, given up by the kernel, ended by both
// of its sides, or closed.
func gone(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	is := true
	_ = raw.Control(func(fd uintptr) { is = over(fd) }) // fails only if closed
	return is
}

// over does what gone does, for the open socket fd. It asks for the state of
// RFC 9293, section 3.3.2: poll(2) tells of a hang-up also while the last bytes
// of a connection that both sides have ended are on their way.
func over(fd uintptr) bool {
	const closed = 7 // TCP_CLOSE of netinet/tcp.h
	info, err := unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO)
	return err != nil || info.State == closed
}

// atHand returns how many bytes can be read before the connection's end or
// urgent data, without reading them.
func atHand(raw syscall.RawConn) (n int, err error) {
	if ctrlErr := raw.Control(func(fd uintptr) {
		n, err = unix.IoctlGetInt(int(fd), unix.SIOCINQ)
	}); ctrlErr != nil {
		return 0, ctrlErr
	}
	return n, os.NewSyscallError("ioctl SIOCINQ", err)
}

// reset closes c so that its peer sees a reset, not an end.
func reset(c *net.TCPConn) {
	// Both fail only on a connection that is closed already.
	_ = c.SetLinger(0)
	_ = c.Close()
}
