package pool

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// What goes wrong with a server is counted by kind, and those of connects add up.
func TestErrorsByKind(t *testing.T) {
	p := New(Config{Servers: servers("a")})
	s, err := p.Pick()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Done()
	for _, err := range []error{
		os.NewSyscallError("connect", syscall.ECONNREFUSED),
		fmt.Errorf("dial: %w", &net.OpError{Err: syscall.ECONNREFUSED}),
		syscall.ETIMEDOUT, context.DeadlineExceeded, os.ErrDeadlineExceeded,
		syscall.EHOSTUNREACH, os.NewSyscallError("connect", syscall.ENOENT), errors.New("something else"),
	} {
		s.ConnectFailed(err)
	}
	s.Failed(time.Now())
	s.Broke()
	got := s.Stats()
	if want := (Errors{Refused: 2, TimedOut: 3, Unreachable: 3, Broken: 2}); got.Errors != want || got.ConnectErrors != 8 {
		t.Errorf("%+v and %d, want %+v and 8", got.Errors, got.ConnectErrors, want)
	}
}
