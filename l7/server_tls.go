package l7

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// errNoHTTP2 says that a server does not agree on HTTP/2.
var errNoHTTP2 = errors.New("the server does not speak HTTP/2: it does not agree on h2 (ALPN)")

// maxConfigs is for how many servers, of those whose addresses have changed too,
// there are sessions.
const maxConfigs = 4096

// sessionsPerServer is how many TLS sessions are kept for each server, to be taken
// up again. One is enough: a server gives a new one with each connection.
const sessionsPerServer = 1

// closeWatch is what TLS to a server reads from.
type closeWatch struct {
	streamConn
	raw   syscall.RawConn
	ended bool // without a farewell by TLS, if TLS reports an end too
	quiet bool // nothing is to be read
}

// errQuiet is what TLS gets that wants to read on a connection which is to be
// silent. To be temporary keeps TLS from giving up.
var errQuiet error = &timeoutError{"nothing is there"}

func (w *closeWatch) Read(p []byte) (int, error) {
	if w.quiet {
		return 0, errQuiet
	}
	n, err := readConn(w.raw, p)
	if err == io.EOF {
		w.ended = true
	}
	return n, err
}

func (w *closeWatch) Write(p []byte) (int, error) { return writeConn(w.raw, p) }

// handshake makes a connection to a server encrypted.
func (u *upstream) handshake(ctx context.Context, to destination, below *closeWatch, until time.Time) (*tls.Conn, error) {
	if err := below.SetDeadline(until); err != nil {
		return nil, err
	}
	t := tls.Client(below, u.tlsConfig(to))
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, inTLSWords(err)
	}
	if u.transport.http2 && t.ConnectionState().NegotiatedProtocol != protocolHTTP2 {
		return nil, errNoHTTP2
	}
	return t, below.SetDeadline(time.Time{})
}

// tlsConfig returns the configuration for a destination, with the sessions that it has
// given.
func (u *upstream) tlsConfig(to destination) *tls.Config {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := u.configs[to]
	if c == nil {
		if len(u.configs) >= maxConfigs {
			clear(u.configs)
		}
		c = u.transport.tls.Clone()
		c.ServerName = to.name
		c.ClientSessionCache = tls.NewLRUClientSessionCache(sessionsPerServer)
		u.configs[to] = c
	}
	return c
}

// inTLSWords replaces errors of a handshake that do not speak for themselves.
func inTLSWords(err error) error {
	var header tls.RecordHeaderError
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &header):
		return errors.New("TLS: the server's answer is not TLS")
	case errors.As(err, &untrusted):
		return errors.New("TLS: the server's certificate does not pass: " + strings.TrimPrefix(untrusted.Err.Error(), "x509: "))
	case isAlert(err):
		return errors.New("TLS: the server refuses: " + strings.TrimPrefix(err.Error(), "remote error: tls: "))
	case isTimeout(err):
		return fmt.Errorf("TLS: the handshake took too long: %w", err)
	}
	return fmt.Errorf("TLS: %w", err)
}

// isAlert reports whether the server has broken TLS off, with a reason.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// refusesUs reports whether the server has ended the connection because of the
// certificate that we have shown, or have not: it has not looked at the request. By
// TLS 1.3 that comes when the handshake is over for us and the request is sent.
// crypto/tls tells alerts apart by their text alone.
func refusesUs(err error) bool {
	return isAlert(err) && (strings.Contains(err.Error(), "certificate") || strings.HasSuffix(err.Error(), "access denied"))
}

// awaitTLS waits for more as await does. Before the first byte of an answer it
// holds no buffer.
func (c *serverConn) awaitTLS() error {
	first := c.in == nil
	b := c.one[:]
	if !first {
		b = c.in.b[c.in.w:]
	}
	n, err := c.tls.Read(b)
	if n > 0 {
		if first {
			c.in = inboxes.Get().(*inbox)
			c.in.b[0] = c.one[0]
		}
		c.in.w += n
		c.n, c.err = n, nil
		return nil
	}
	c.n, c.err = 0, err
	switch {
	case err == io.EOF && c.watch.ended:
		// The end is not the server's word: anybody may have cut the connection.
		c.err = io.ErrUnexpectedEOF
	case isTimeout(err):
		return err
	}
	return nil
}

// silentTLS reports whether TLS has read nothing beyond what has been used.
func (c *serverConn) silentTLS() bool {
	c.watch.quiet = true
	n, err := c.tls.Read(c.one[:])
	c.watch.quiet = false
	return n == 0 && errors.Is(err, errQuiet)
}

// isIP reports whether s is an IP address.
func isIP(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}
