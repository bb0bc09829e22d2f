package health

import (
	"context"
	"fmt"
)

// prepareMySQL returns a probe that logs in where the check names a user.
// Otherwise it passes when the target greets. Where the check asks for TLS, either
// needs that.
func prepareMySQL(target Target) probe {
	client := clientOf(target)
	return func(ctx context.Context) (finding, error) {
		if target.Check.User != "" {
			return probeLogin(ctx, target, client)
		}
		return probeGreeting(ctx, target, client)
	}
}

func probeGreeting(ctx context.Context, target Target, client *tlsClient) (finding, error) {
	conn, err := dial(ctx, target)
	if err != nil {
		return finding{}, err
	}
	handshake := newHandshake(conn, client)
	if err := handshake.read(); err != nil {
		return finding{}, handshake.end(err)
	}
	if client != nil {
		if err := handshake.offered(); err != nil {
			_ = handshake.leave()
			return finding{}, handshake.end(err)
		}
		if err := handshake.secure(loginHeadFor(handshake.greeting)); err != nil {
			return finding{}, handshake.end(err)
		}
	}
	defer func() { _ = conn.Close() }()
	reason := "greeted by version " + printable(handshake.greeting.readableVersion())
	if err := handshake.leave(); err != nil {
		// The server is fine, but the administrator has to know before it
		// starts to refuse this node.
		reason = fmt.Sprintf("%s; give the check a user: the server may count checks without one as errors (%s)",
			reason, inWords(err, target.Check.EffectiveTimeout()))
	}
	return finding{reason, handshake.tls.warning}, nil
}
