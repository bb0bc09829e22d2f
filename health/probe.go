package health

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// probe checks target once in the way its type asks for. It returns what it
// found in words when the check passed, and an error that inWords can explain
// when it failed. It returns soon after ctx ends, with everything closed.
func probe(ctx context.Context, target Target) (string, error) {
	switch target.Check.Type {
	case TCP:
		return probeTCP(ctx, target)
	case HTTP:
		return probeHTTP(ctx, target)
	case MySQL:
		return probeMySQL(ctx, target)
	case ICMP:
		return probeICMP(ctx, target)
	default:
		return "", fmt.Errorf("unknown check type %q", target.Check.Type)
	}
}

// dial connects to address and binds the connection to ctx. The caller closes
// it.
func dial(ctx context.Context, address netip.AddrPort) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address.String())
	if err != nil {
		return nil, err
	}
	return bind(ctx, conn), nil
}

// bind returns conn bound to ctx: once ctx ends, reads and writes fail as they
// do after a deadline. The caller closes what is returned instead of conn.
func bind(ctx context.Context, conn net.Conn) net.Conn {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return &boundConn{Conn: conn, stop: stop}
}

// boundConn is a connection bound to a context.
type boundConn struct {
	net.Conn
	stop func() bool
}

// Close unbinds the connection from its context and closes it.
func (c *boundConn) Close() error {
	c.stop()
	return c.Conn.Close()
}
