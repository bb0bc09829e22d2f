package l4

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of the hot path, on descriptors that never block. They are
// raw: the runtime is not told, as it need be only of calls that may wait. To
// tell it costs a part of what a small message takes; and each call that it is
// told of wakes its monitor, which then looks every 20 us for a while. A single
// such call in the life of a connection is felt, see docs/l4.md.

func rawRead(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return rawResult(n, errno)
}

func rawWrite(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return rawResult(n, errno)
}

// rawPeek reads without taking what it reads.
func rawPeek(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_PEEK, 0, 0)
	return rawResult(n, errno)
}

// rawSplice moves up to size bytes from one descriptor to another.
func rawSplice(from, to, size int) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(size),
		unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
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

// rawSet sets a socket option to the size bytes at value.
func rawSet(fd, level, name int, value unsafe.Pointer, size uintptr) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(value), size, 0)
	return rawError(errno)
}

func rawSetInt(fd, level, name int, value int32) error {
	return rawSet(fd, level, name, unsafe.Pointer(&value), unsafe.Sizeof(value))
}

// rawGet gets a socket option into the size bytes at value.
func rawGet(fd, level, name int, value unsafe.Pointer, size uint32) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(value), uintptr(unsafe.Pointer(&size)), 0)
	return rawError(errno)
}

func rawTCPInfo(fd int) (info unix.TCPInfo, err error) {
	err = rawGet(fd, unix.SOL_TCP, unix.TCP_INFO, unsafe.Pointer(&info), uint32(unsafe.Sizeof(info)))
	return info, err
}

// rawUnacknowledged returns how many bytes the peer has not acknowledged.
func rawUnacknowledged(fd int) (n int32, err error) {
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCOUTQ, uintptr(unsafe.Pointer(&n)))
	return n, rawError(errno)
}

// rawConnect begins to connect to the address of size bytes at sa.
func rawConnect(fd int, sa unsafe.Pointer, size uintptr) error {
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(sa), size)
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
