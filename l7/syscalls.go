package l7

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// These are system calls on non-blocking sockets. They do not wait, so the
// scheduler need not be told of them, which costs as much as the shorter ones
// themselves. recvfrom and sendto are read and write without the ways of the
// file system.

// readSocket reads into b, which is not empty; 0 is the end.
func readSocket(fd uintptr, b []byte) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// writeSocket writes some of b. With unix.MSG_MORE in flags the kernel may wait for
// what follows, to put it into the same segment.
func writeSocket(fd uintptr, b []byte, flags int) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(flags|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL), 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// writeSocketParts writes some of the parts of m.
func writeSocketParts(fd uintptr, m *unix.Msghdr) (int, error) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(m)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// peek returns EAGAIN if the other side has neither sent anything nor closed,
// and nil or another error otherwise.
func peek(fd uintptr) error {
	var b [1]byte
	_, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), 1, unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// hungUp reports whether the other side has closed, be it for sending alone.
func hungUp(fd uintptr) bool {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(fds[:], 0)
	return err == nil && n > 0
}
