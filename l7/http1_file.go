package l7

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// sendfileLeast is the size from which on a file is sent by the kernel: below,
	// a copy costs less.
	sendfileLeast = 32 << 10
	// sendfileMost is sent at a time.
	sendfileMost = 1 << 20
)

// WriteFile is described at fileWriter: by sendfile(2), which TLS cannot have.
func (a *http1Answer) WriteFile(f *os.File, n int64) (int64, error) {
	if a.conn.secure || a.chunked || n < sendfileLeast || n > a.left {
		return 0, nil
	}
	if err := a.Flush(); err != nil {
		return 0, err
	}
	sent := int64(0)
	for sent < n {
		if err := a.conn.armWrite(time.Now()); err != nil {
			return sent, err
		}
		most := min(n-sent, sendfileMost)
		k, err := sendFile(a.conn.raw, f, most)
		sent += k
		a.left -= k
		switch {
		case err == nil && k < most:
			return sent, errAborted // the file has become shorter
		case err != nil && !tookPiece(k, err):
			return sent, err
		}
	}
	return sent, nil
}

// sendFile sends n bytes of f, from where it is read, or as many as it has. It may
// wait for the disk, so the scheduler is told.
func sendFile(to syscall.RawConn, f *os.File, n int64) (sent int64, err error) {
	from, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	write := func(fd, file uintptr) (done bool) {
		for sent < n {
			k := 0
			k, err = unix.Sendfile(int(fd), int(file), nil, int(n-sent))
			switch {
			case k > 0:
				sent += int64(k)
			case err == nil:
				return true
			case err != unix.EINTR:
				return err != unix.EAGAIN
			}
		}
		return true
	}
	var wait error
	ctl := from.Control(func(file uintptr) {
		wait = to.Write(func(fd uintptr) bool { return write(fd, file) })
	})
	switch {
	case ctl != nil:
		return sent, ctl
	case wait != nil:
		return sent, wait
	}
	return sent, os.NewSyscallError("sendfile", err)
}
