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
	want  int32           // what is to be waited for next; 0: there may be any
	got   int64           // bytes since the last wait began
	since time.Time       // when that was
	last  time.Time       // when the last of them came
	pace  *int64          // the connection's: bytes in a batchTime, at the end of its last large body

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
// It reports whether to wait before anything is taken: who was quick the last time
// is likely to be. Whoever calls it calls end.
func (in *intake) begin(raw syscall.RawConn, pace *int64, now time.Time) bool {
	in.raw, in.pace, in.least, in.want, in.got, in.since, in.last = raw, pace, 1, 0, 0, now, now
	if raw == nil || *pace < batchLeast {
		return false
	}
	in.got, in.since = *pace, now.Add(-batchTime) // for batch
	return true
}

// took is told of what has come.
func (in *intake) took(n int) {
	in.got += int64(n)
	in.last = time.Now()
}

// end leaves the socket as it was.
func (in *intake) end() {
	in.each()
	*in.pace = in.perBatch(in.last)
	in.raw, in.pace = nil, nil
}

// each has us woken for every byte.
func (in *intake) each() {
	in.want = 0
	if in.raw == nil || in.least == 1 {
		return
	}
	in.least = 1
	_ = in.raw.Control(in.setTurn) // fails if closed, which ends the wait
}

// perBatch returns how much comes in a batchTime, by what has come until now.
func (in *intake) perBatch(now time.Time) int64 {
	return in.got * int64(batchTime) / max(1, int64(now.Sub(in.since)))
}

// batch has the next wait, which asks ready, be for as much, of at most most bytes, as
// is worth it. It reports false if that is every byte, and true if there has to be an
// end to the wait after batchWait: the rest may come later.
func (in *intake) batch(now time.Time, most int64) bool {
	if in.raw == nil {
		return false
	}
	n := in.perBatch(now)
	in.got, in.since = 0, now
	if n < batchLeast {
		in.each()
		return false
	}
	in.want = int32(min(n, most))
	return true
}

// ready reports whether to take what there is. If not, the kernel wakes us when
// there is enough: also when that came since we asked.
func (in *intake) ready(fd uintptr) bool {
	want := in.want
	if in.want = 0; want == 0 {
		return true
	}
	var there int32
	if _, _, errno := unix.RawSyscall(unix.SYS_IOCTL, fd, unix.SIOCINQ, uintptr(unsafe.Pointer(&there))); errno != 0 || there >= want {
		return true
	}
	if in.least != want {
		in.least = want
		in.setTurn(fd)
	}
	return false
}

// hush has us not woken by what comes: there is nowhere to put it. The window
// bounds that; the kernel tells of its end, and of the connection's.
func (in *intake) hush() {
	if in.raw != nil {
		_ = in.raw.Control(in.windowTurn)
	}
}
