package health

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// probe checks a target once in the way its type asks for. It returns what it
// found when the check passed, and an error that inWords can explain when it
// failed. It returns soon after ctx ends, with everything closed, unless the
// error is an *unfinished.
type probe func(ctx context.Context) (finding, error)

// finding is what a check that passed has found, in words, and what an
// administrator should know of although it passed.
type finding struct{ words, warning string }

// unfinished is why a check failed that has connected, and must not break off:
// the server would hold it against this node.
type unfinished struct {
	err error
	// finish waits for the server, takes its leave and closes the connection,
	// or closes it when ctx ends. It is to be called once.
	finish func(ctx context.Context)
}

func (e *unfinished) Error() string { return e.err.Error() }
func (e *unfinished) Unwrap() error { return e.err }

// lingerFor bounds how long a connection is kept that is not to be broken off.
// A server that was silent for so long may be blocked by something that only a
// new connection finds cured.
const lingerFor = 10 * time.Minute

// prepare returns the way to check target, which is used again and again, by one
// goroutine at a time. What a check needs and is the same each time is made
// here. A check that Validate would refuse always fails.
func prepare(target Target) way {
	x, err := prepareExchange(target)
	switch client := clientOf(target); {
	case x != nil && client != nil:
		return way{probe: func(ctx context.Context) (finding, error) { return x.alone(ctx, target, client) }}
	case x != nil:
		x.send = slices.Concat(target.Check.preamble(), x.send)
		return way{exchange: x}
	}
	var p probe
	if err == nil {
		p, err = prepareProbe(target)
	}
	if err != nil {
		p = func(context.Context) (finding, error) { return finding{}, err }
	}
	return way{probe: p}
}

// prepareExchange returns the exchange of a check that takes one question, always the
// same; nil for others.
func prepareExchange(target Target) (*exchange, error) {
	switch check := target.Check; {
	case check.Type == TCP:
		return prepareTCP(target)
	case (check.Type == HTTP || check.Type == HTTPS) && check.HTTP != http2Version:
		return prepareHTTP(target)
	case check.Type == Redis && check.PasswordFile == "":
		return prepareRedis(target), nil
	}
	return nil, nil
}

func prepareProbe(target Target) (probe, error) {
	switch target.Check.Type {
	case TLS:
		return prepareTLS(target)
	case HTTP, HTTPS:
		return prepareHTTP2(target)
	case GRPC:
		return prepareGRPC(target)
	case MySQL:
		return prepareMySQL(target), nil
	case Postgres:
		return preparePostgres(target)
	case Redis:
		return prepareRedisLogin(target), nil
	case SMTP:
		return prepareSMTP(target), nil
	case SSH:
		return withoutWarning(target, probeSSH), nil
	case DNS:
		return prepareDNS(target)
	case UDP:
		return prepareUDP(target)
	case ICMP:
		return withoutWarning(target, probeICMP), nil
	}
	return nil, fmt.Errorf("unknown check type %q", target.Check.Type)
}

// withoutWarning returns the probe of a kind that needs nothing prepared and
// warns of nothing.
func withoutWarning(target Target, f func(context.Context, Target) (string, error)) probe {
	return func(ctx context.Context) (finding, error) {
		words, err := f(ctx, target)
		return finding{words: words}, err
	}
}
