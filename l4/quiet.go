package l4

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// quiet returns for how long nothing has moved on any of the connections, in
// either direction. The kernel keeps that time for every TCP socket
// (tcp(7), TCP_INFO), so that copying needs no deadlines, which would have to
// be moved on with every chunk, and would count a chunk that a slow reader
// takes long to accept as silence. A connection that cannot be asked is about
// to end anyway; for it the answer is 0.
func quiet(conns ...*net.TCPConn) time.Duration {
	least := uint32(1<<32 - 1)
	for _, c := range conns {
		raw, err := c.SyscallConn()
		if err != nil {
			return 0
		}
		var info *unix.TCPInfo
		if ctrlErr := raw.Control(func(fd uintptr) {
			info, err = unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO)
		}); ctrlErr != nil || err != nil {
			return 0
		}
		least = min(least, info.Last_data_recv, info.Last_data_sent)
	}
	return time.Duration(least) * time.Millisecond
}

// patience decides when a connection has been silent for too long. It knows no
// clock: times are arguments.
type patience struct {
	limit time.Duration
	since time.Time // when limit became the limit; silence before does not count
}

// expired reports whether a connection on which nothing has moved for quiet is
// over at now. If not, it returns how long to wait before the next look.
func (p patience) expired(now time.Time, quiet time.Duration) (over bool, wait time.Duration) {
	silence := min(quiet, now.Sub(p.since))
	if silence >= p.limit {
		return true, 0
	}
	return false, p.limit - silence
}
