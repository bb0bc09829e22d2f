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
	defer func() { _ = conn.Close() }()
	_, payload, err := readPacket(conn)
	if err != nil {
		return "", err
	}
	greeting, err := parseGreeting(payload)
	if err != nil {
		return "", err
	}
	reason := "greeted by version " + printable(greeting.readableVersion())
	if err := leave(conn, greeting); err != nil {
		// The server is fine, but the administrator has to know before it
		// starts to refuse this node.
		reason = fmt.Sprintf("%s; give the check a user: the server may count checks without one as errors (%s)",
			reason, inWords(err, target.Check.EffectiveTimeout()))
	}
	return reason, nil
}
