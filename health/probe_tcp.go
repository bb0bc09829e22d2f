package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
)

// maxAnswer bounds the answer to a tcp check, in bytes.
const maxAnswer = 8 << 10

// prepareTCP returns a probe that passes when the target accepts a connection
// and, where the check sends or expects something, says what is expected. The
// connection is closed in the ordinary way.
func prepareTCP(target Target) (probe, error) {
	send, err := unescape(target.Check.Send)
	if err != nil {
		return nil, err
	}
	want, err := newPattern(target.Check)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (finding, error) {
		conn, err := dial(ctx, target.Address)
		if err != nil {
			return finding{}, err
		}
		if want.any() {
			return finding{words: "connection accepted"}, conn.Close()
		}
		defer func() { _ = conn.Close() }()
		if len(send) > 0 {
			if _, err := conn.Write(send); err != nil {
				return finding{}, err
			}
		}
		answer, err := readUntil(conn, want)
		if err != nil {
			return finding{}, err
		}
		return finding{words: "answered " + quoted(answer)}, nil
	}, nil
}

// readUntil reads what conn says until it contains what is wanted.
func readUntil(conn net.Conn, want pattern) ([]byte, error) {
	answer := make([]byte, 0, 512)
	for {
		if len(answer) == maxAnswer {
			return nil, fmt.Errorf("the first %d KiB of the answer have no %v", maxAnswer>>10, want)
		}
		answer = slices.Grow(answer, 1)
		n, err := conn.Read(answer[len(answer):min(cap(answer), maxAnswer)])
		answer = answer[:len(answer)+n]
		switch {
		case n > 0 && want.in(answer):
			return answer, nil
		case err == nil:
		case len(answer) == 0:
			return nil, err
		case timedOut(err), errors.Is(err, io.EOF):
			return nil, fmt.Errorf("answered %s, want %v", quoted(answer), want)
		default:
			return nil, err
		}
	}
}
