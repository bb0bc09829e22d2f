package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// maxWords bounds a text of a server, in bytes, before it goes into a reason.
const maxWords = 200

// stageError says how far a check came before it failed.
type stageError struct {
	reached string
	err     error
}

func (e *stageError) Error() string { return e.reached + ": " + e.err.Error() }
func (e *stageError) Unwrap() error { return e.err }

// ownError is what keeps this node from checking, in words.
type ownError string

func (e ownError) Error() string { return string(e) }

// inWords says for a human why a check failed: short, without the layers of
// the program. timeout is the check's, for the words of one that ran out.
func inWords(err error, timeout time.Duration) string {
	var (
		errno syscall.Errno
		op    *net.OpError
		file  *os.PathError
		stage *stageError
	)
	switch {
	case errors.As(err, &stage):
		return stage.reached + ": " + inWords(stage.err, timeout)
	case errors.As(err, &file):
		return fmt.Sprintf("%s: %s", file.Path, inWords(file.Err, timeout))
	case timedOut(err):
		if errors.As(err, &op) && op.Op == "dial" {
			return fmt.Sprintf("no connection within %s", timeout)
		}
		return fmt.Sprintf("no answer within %s", timeout)
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed by the server"
	}
	return printable(err.Error())
}

// timedOut reports whether a check failed because its time ran out.
func timedOut(err error) bool {
	var slow net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &slow) && slow.Timeout()
}

// isOurs reports whether a failed check says something about this node, which
// has run out of descriptors, memory or ports, may not do what the check takes or
// lacks a file that it needs, and nothing about the server. A shortage here must not look like the
// death of every server.
func isOurs(err error) bool {
	var own ownError
	var file *os.PathError // connections have another one
	if errors.As(err, &own) || errors.As(err, &file) {
		return true
	}
	for _, errno := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EADDRNOTAVAIL,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// printable makes s, which may come from a server, fit for one line of a log
// or a table.
func printable(s string) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > maxWords {
		s = strings.ToValidUTF8(s[:maxWords], "") + "..."
	}
	return s
}
