package l4

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of the hot path, on descriptors that never block. They are
// raw: the runtime is not told, as it need be only of calls that may wait. To
// tell it costs a part of what a small message takes; and a thread that it sees
// in system calls most of the time keeps its monitor awake, which costs more.

func rawRead(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return rawResult(n, errno)
}

func rawWrite(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return rawResult(n, errno)
}

// rawSplice moves up to size bytes from one descriptor to another.
func rawSplice(from, to, size int) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(size),
		unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
	return rawResult(n, errno)
}

// rawEpollWait returns what has happened, without waiting for it.
func rawEpollWait(fd int, events []unix.EpollEvent) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(events))),
		uintptr(len(events)), 0, 0, 0)
	return rawResult(n, errno)
}

func rawResult(n uintptr, errno unix.Errno) (int, error) {
	switch errno {
	case 0:
		return int(n), nil
	case unix.EAGAIN:
		return 0, errAgain
	}
	return 0, errno
}

// errAgain is unix.EAGAIN, made an error once.
var errAgain error = unix.EAGAIN

func rawSocket(family int) (int, error) {
	fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, uintptr(family), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	return rawResult(fd, errno)
}

func rawSetInt(fd, level, name int, value int32) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&value)), unsafe.Sizeof(value), 0)
	return rawError(errno)
}

// rawConnect begins to connect to the address of size bytes at sa.
func rawConnect(fd int, sa unsafe.Pointer, size uintptr) error {
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(sa), size)
	return rawError(errno)
}

// rawWatch has an epoll descriptor report e of the descriptor fd.
func rawWatch(epoll, fd int, e *unix.EpollEvent) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epoll), unix.EPOLL_CTL_ADD, uintptr(fd), uintptr(unsafe.Pointer(e)), 0, 0)
	return rawError(errno)
}

func rawShutdown(fd int) error {
	_, _, errno := unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
	return rawError(errno)
}

func rawClose(fd int) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

func rawError(errno unix.Errno) error {
	_, err := rawResult(0, errno)
	return err
}
