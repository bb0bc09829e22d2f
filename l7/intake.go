package l7

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchTime is how long a batch takes to come, at the pace of what came before.
	batchTime = 500 * time.Microsecond
	// batchLeast is the size from which on a batch is worth waiting for.
	batchLeast = 128 << 10
	// batchWait is how long a batch is waited for: the sender may have become slow.
	batchWait = 10 * time.Millisecond
)

// intake is the socket that a pipe is filled from: it says how much must have come
// before the kernel wakes us (SO_RCVLOWAT). Who is quicker than we are is not
// noticed: there is always more. Who is not would wake us for each segment, and
// while the other side takes no more, for nothing.
type intake struct {
	raw   syscall.RawConn // nil: we are woken for every byte, always
	least int32           // what must have come, as the socket was told
	got   int64           // bytes since the last wait began
	since time.Time       // when that was

	// For RawConn, made once: a closure is allocated for each call.
	setTurn, windowTurn func(fd uintptr)
}

func (in *intake) init() {
	in.setTurn = func(fd uintptr) {
		// What fails wakes us more often than needed.
		_, _, _ = unix.RawSyscall6(unix.SYS_SETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, uintptr(unsafe.Pointer(&in.least)), unsafe.Sizeof(in.least), 0)
	}
	in.windowTurn = func(fd uintptr) {
		if n := mayCome(fd); n != in.least {
			in.least = n
			in.setTurn(fd)
		}
	}
}

// mayCome returns how many bytes a socket has when its window is full, 1 if it
// does not say. The kernel does not make the window larger for so many.
func mayCome(fd uintptr) int32 {
	var info unix.TCPInfo
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_TCP, unix.TCP_INFO, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 1
	}
	var there int32
	if _, _, errno = unix.RawSyscall(unix.SYS_IOCTL, fd, unix.SIOCINQ, uintptr(unsafe.Pointer(&there))); errno != 0 {
		return 1
	}
	return int32(min(int64(info.Rcv_wnd)+int64(there), 1<<30))
}

// begin takes a socket that wakes us for every byte; nil if it can do nothing else.
// Whoever calls it calls end.
func (in *intake) begin(raw syscall.RawConn, now time.Time) {
	in.raw, in.least, in.got, in.since = raw, 1, 0, now
}

// end leaves the socket as it was.
func (in *intake) end() {
	in.each()
	in.raw = nil
}

// each has us woken for every byte.
func (in *intake) each() { in.set(1) }

func (in *intake) set(least int32) {
	if in.raw == nil || in.least == least {
		return
	}
	in.least = least
	_ = in.raw.Control(in.setTurn) // fails if closed, which ends the wait
}

// batch has us woken when as much has come, of left bytes, as is worth it. It
// reports false if that is every byte, and true if there has to be an end to the
// wait after batchWait: the rest may come later.
func (in *intake) batch(now time.Time, left int64) bool {
	if in.raw == nil {
		return false
	}
	n := in.got * int64(batchTime) / max(1, int64(now.Sub(in.since)))
	in.got, in.since = 0, now
	if n < batchLeast {
		in.each()
		return false
	}
	in.set(int32(min(n, left, pipeSize)))
	return true
}

// hush has us not woken by what comes: there is nowhere to put it. The window
// bounds that; the kernel tells of its end, and of the connection's.
func (in *intake) hush() {
	if in.raw != nil {
		_ = in.raw.Control(in.windowTurn)
	}
}
