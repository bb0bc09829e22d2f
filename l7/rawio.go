package l7

import (
	"io"
	"os"
	"sync"
	"syscall"
)

// transfer is one read or write by way of a RawConn. The function is made once
// and used again, because a method value would be allocated for each.
type transfer struct {
	b    []byte // where to read to, or what is left to write
	n    int
	err  error
	turn func(fd uintptr) bool
}

var (
	reads  = sync.Pool{New: func() any { t := &transfer{}; t.turn = t.read; return t }}
	writes = sync.Pool{New: func() any { t := &transfer{}; t.turn = t.write; return t }}
)

func (t *transfer) read(fd uintptr) bool {
	t.n, t.err = readSocket(fd, t.b)
	return t.err != syscall.EAGAIN
}

func (t *transfer) write(fd uintptr) bool {
	for {
		n, err := writeSocket(fd, t.b)
		if err != nil {
			t.err = err
			return err != syscall.EAGAIN
		}
		t.n, t.b, t.err = t.n+n, t.b[n:], nil
		if len(t.b) == 0 {
			return true
		}
	}
}

// readConn reads into b as net.Conn does, but the scheduler is not told of the
// system call, see syscalls.go. That saves more than the telling: while threads
// are in system calls that the scheduler knows of, its monitor looks at them every
// 20 us.
func readConn(c syscall.RawConn, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	t := reads.Get().(*transfer)
	t.b, t.n, t.err = b, 0, nil
	err := c.Read(t.turn)
	n, callErr := t.n, t.err
	t.b = nil
	reads.Put(t)
	switch {
	case err != nil:
		return 0, err
	case callErr != nil:
		return 0, os.NewSyscallError("read", callErr)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// writeConn writes all of b, in the same way.
func writeConn(c syscall.RawConn, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	t := writes.Get().(*transfer)
	t.b, t.n, t.err = b, 0, nil
	err := c.Write(t.turn)
	n, callErr := t.n, t.err
	t.b = nil
	writes.Put(t)
	switch {
	case err != nil:
		return n, err
	case callErr != nil:
		return n, os.NewSyscallError("write", callErr)
	}
	return n, nil
}
