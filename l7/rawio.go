package l7

import (
	"io"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// transfer is one read or write by way of a RawConn. The function is made once
// and used again, because a method value would be allocated for each.
type transfer struct {
	b     []byte // where to read to, or what is left to write
	flags int    // of writes
	n     int
	err   error
	turn  func(fd uintptr) bool
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
		n, err := writeSocket(fd, t.b, t.flags)
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
func writeConn(c syscall.RawConn, b []byte) (int, error) { return writeConnFlags(c, b, 0) }

// writeConnFlags is writeConn with flags for writeSocket.
func writeConnFlags(c syscall.RawConn, b []byte, flags int) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	t := writes.Get().(*transfer)
	t.b, t.flags, t.n, t.err = b, flags, 0, nil
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

// mostParts bounds what writeParts takes.
const mostParts = 4

// gather is one write of several parts, used again like a transfer.
type gather struct {
	iov  [mostParts]unix.Iovec
	left []unix.Iovec // of iov
	msg  unix.Msghdr
	err  error
	turn func(fd uintptr) bool
}

var gathers = sync.Pool{New: func() any { g := &gather{}; g.turn = g.write; return g }}

func (g *gather) write(fd uintptr) bool {
	for len(g.left) > 0 {
		g.msg.Iov = &g.left[0]
		g.msg.SetIovlen(len(g.left))
		n, err := writeSocketParts(fd, &g.msg)
		if err != nil {
			g.err = err
			return err != syscall.EAGAIN
		}
		g.wrote(n)
	}
	g.err = nil
	return true
}

// wrote takes n bytes off the beginning of what is left.
func (g *gather) wrote(n int) {
	for len(g.left) > 0 && n >= int(g.left[0].Len) {
		n -= int(g.left[0].Len)
		g.left = g.left[1:]
	}
	if n > 0 {
		first := &g.left[0]
		first.Base = (*byte)(unsafe.Add(unsafe.Pointer(first.Base), n))
		first.SetLen(int(first.Len) - n)
	}
}

// writeParts writes all of the parts, mostParts at most, by one system call if
// there is room for them.
func writeParts(c syscall.RawConn, parts ...[]byte) error {
	g := gathers.Get().(*gather)
	g.left, g.err = g.iov[:0], nil
	for _, p := range parts {
		if len(p) > 0 {
			g.left = g.left[:len(g.left)+1]
			last := &g.left[len(g.left)-1]
			last.Base = unsafe.SliceData(p)
			last.SetLen(len(p))
		}
	}
	err := c.Write(g.turn)
	if err == nil && g.err != nil {
		err = os.NewSyscallError("write", g.err)
	}
	clear(g.iov[:])
	g.left, g.msg.Iov = nil, nil
	gathers.Put(g)
	return err
}
