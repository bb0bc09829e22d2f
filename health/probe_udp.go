package health

import (
	"context"
	"fmt"
	"time"
)

// prepareUDP returns a probe that sends a datagram and looks at the first maxAnswer
// bytes of what comes. With something to expect it
// passes when such an answer comes. Without, it passes when any answer comes, or
// none within the timeout: only a refusal, by ICMP, speaks against the target.
func prepareUDP(target Target) (probe, error) {
	send, err := unescape(target.Check.Send)
	if err != nil {
		return nil, err
	}
	want, err := newPattern(target.Check)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (finding, error) {
		conn, err := dialUDP(ctx, target.Address)
		if err != nil {
			return finding{}, err
		}
		defer func() { _ = conn.Close() }()
		if _, err := conn.Write(send); err != nil {
			return finding{}, err
		}
		buffer, last, came := make([]byte, maxAnswer), "", false
		for {
			n, err := conn.Read(buffer)
			switch {
			case err == nil && want.in(buffer[:n]):
				return finding{words: "answered " + quoted(buffer[:n])}, nil
			case err == nil:
				last, came = quoted(buffer[:n]), true
			case timedOut(err) && want.any() && isOver(ctx):
				return finding{words: fmt.Sprintf("no refusal within %s", target.Check.EffectiveTimeout())}, nil
			case timedOut(err) && came:
				return finding{}, fmt.Errorf("answered %s, want %v", last, want)
			default:
				return finding{}, err
			}
		}
	}, nil
}

// isOver reports whether the time of a check is over; it may also end because
// nobody wants it any more.
func isOver(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && !time.Now().Before(deadline)
}
