package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"

	"golang.org/x/sys/unix"
)

// upload is one connection to the sink.
type upload struct {
	head []byte // as far as it has come
	left int    // of the body, in bytes
}

var contentLength = regexp.MustCompile(`(?i)\r\ncontent-length: *(\d+)\r\n`)

// sink serves uploads at address until it is killed: it answers when it has all
// of a body, which it throws away without a copy. An nginx that is told to return
// something answers before it has read the body; there is no upload then, for
// who forwards one may stop.
func sink(address string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(listener, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}); err != nil {
		return fmt.Errorf("bind %s: %w", address, err)
	}
	if err := unix.Listen(listener, 4096); err != nil {
		return err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	watch := func(fd int) error {
		return unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	}
	if err := watch(listener); err != nil {
		return err
	}
	uploads := make(map[int]*upload)
	buf := make([]byte, 1<<20)
	var events [128]unix.EpollEvent
	for {
		n, err := unix.EpollWait(epoll, events[:], -1)
		if err != nil && err != unix.EINTR {
			return err
		}
		for _, e := range events[:max(n, 0)] {
			fd := int(e.Fd)
			if fd == listener {
				c, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
				if err != nil {
					continue
				}
				_ = unix.SetsockoptInt(c, unix.SOL_TCP, unix.TCP_NODELAY, 1)
				uploads[c] = &upload{}
				if err := watch(c); err != nil {
					return err
				}
			} else if !uploads[fd].serve(fd, buf) {
				delete(uploads, fd)
				unix.Close(fd)
			}
		}
	}
}

// serve takes what there is. It reports false if the connection is to be closed.
func (u *upload) serve(fd int, buf []byte) bool {
	if u.left > 0 {
		n, _, err := unix.Recvfrom(fd, buf[:min(u.left, len(buf))], unix.MSG_TRUNC) // which copies nothing
		if err != nil || n == 0 {
			return err == unix.EAGAIN
		}
		u.left -= n
		return u.left > 0 || u.answer(fd)
	}
	n, _, err := unix.Recvfrom(fd, buf[:4096], 0)
	if err != nil || n == 0 {
		return err == unix.EAGAIN
	}
	u.head = append(u.head, buf[:n]...)
	end := bytes.Index(u.head, []byte("\r\n\r\n"))
	if end < 0 {
		return true
	}
	if m := contentLength.FindSubmatch(u.head[:end+2]); m != nil {
		if u.left, err = strconv.Atoi(string(m[1])); err != nil {
			return false
		}
	}
	u.left -= len(u.head) - end - 4
	u.head = u.head[:0]
	return u.left > 0 || u.answer(fd)
}

func (u *upload) answer(fd int) bool {
	_, err := unix.Write(fd, []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	return err == nil
}
