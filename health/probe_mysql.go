package health

import (
	"context"
	"fmt"
)

// probeMySQL logs in where the check names a user. Otherwise it passes when
// the target greets.
func probeMySQL(ctx context.Context, target Target) (string, error) {
	if target.Check.User != "" {
		return probeLogin(ctx, target)
	}
	conn, err := dial(ctx, target.Address)
	if err != nil {
		return "", err
	}
	handshake := newHandshake(conn)
	if err := handshake.read(); err != nil {
		return "", handshake.end(err)
	}
	defer func() { _ = conn.Close() }()
	reason := "greeted by version " + printable(handshake.greeting.readableVersion())
	if err := handshake.leave(); err != nil {
		// The server is fine, but the administrator has to know before it
		// starts to refuse this node.
		reason = fmt.Sprintf("%s; give the check a user: the server may count checks without one as errors (%s)",
			reason, inWords(err, target.Check.EffectiveTimeout()))
	}
	return reason, nil
}
