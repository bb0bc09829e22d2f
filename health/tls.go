package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"appliance/internal/endpoint"
)

// errNotTLS says that a server answers a TLS handshake with something else.
var errNotTLS = errors.New("the answer is not TLS")

// tlsClient makes the TLS handshakes of a check.
type tlsClient struct {
	config *tls.Config
	caFile string // read for each handshake, so that a new one counts at once
	days   int    // of warning before a certificate expires
}

// newTLSClient returns the client that check asks for, which takes name for the
// server's unless the check names another. Each handshake is a full one: a
// resumed one would not show a certificate that has been replaced.
func newTLSClient(check Config, name string, protocols ...string) *tlsClient {
	c := &tlsClient{
		config: &tls.Config{
			ServerName:         orDefault(check.ServerName, name),
			InsecureSkipVerify: !check.Verify,
			NextProtos:         protocols,
			// Nothing here is worth a secret that outlives quantum computers,
			// which takes as long again.
			CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521},
		},
		caFile: check.CAFile,
		days:   check.EffectiveExpiryWarningDays(),
	}
	if check.Cert != "" {
		c.config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(check.Cert, check.Key)
			if file := new(os.PathError); err != nil && !errors.As(err, &file) {
				err = ownError(check.Cert + ": " + err.Error())
			}
			return &pair, err
		}
	}
	return c
}

// clientOf returns the client of a check that may be without; nil then.
func clientOf(target Target) *tlsClient {
	switch check := target.Check; {
	case check.Type == HTTPS:
		return newTLSClient(check, hostName(check.Host, target.Address), "http/1.1")
	case check.TLS:
		return newTLSClient(check, hostName("", target.Address))
	}
	return nil
}

// handshake returns the encrypted connection over conn, and what is to be said
// about its certificates. The caller closes either of them.
func (c *tlsClient) handshake(conn *boundConn) (encrypted *tls.Conn, warning string, err error) {
	config := c.config
	if c.caFile != "" {
		config = config.Clone()
		if config.RootCAs, err = readCAs(c.caFile); err != nil {
			return nil, "", err
		}
	}
	encrypted = tls.Client(conn, config)
	if err := encrypted.Handshake(); err != nil {
		return nil, "", inTLSWords(err)
	}
	return encrypted, expiryWarning(encrypted.ConnectionState().PeerCertificates, time.Now(), c.days), nil
}

// handshakeAnyhow is handshake for servers that are not to be broken off: a
// certificate that does not pass, or a file of ours that cannot be read, is no
// error, but said in untrusted.
func (c *tlsClient) handshakeAnyhow(conn *boundConn) (encrypted *tls.Conn, warning string, untrusted, err error) {
	lenient := *c
	lenient.config = c.config.Clone()
	lenient.config.InsecureSkipVerify, lenient.caFile = true, ""
	if own := c.config.GetClientCertificate; own != nil {
		lenient.config.GetClientCertificate = func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			var pair *tls.Certificate
			if pair, untrusted = own(request); untrusted != nil {
				pair = new(tls.Certificate) // shows none
			}
			return pair, nil
		}
	}
	encrypted, warning, err = lenient.handshake(conn)
	if err != nil || untrusted != nil || c.config.InsecureSkipVerify {
		return encrypted, warning, untrusted, err
	}
	options := x509.VerifyOptions{DNSName: c.config.ServerName, Intermediates: x509.NewCertPool()}
	if c.caFile != "" {
		if options.Roots, untrusted = readCAs(c.caFile); untrusted != nil {
			return encrypted, "", untrusted, nil
		}
	}
	shown := encrypted.ConnectionState().PeerCertificates
	for _, one := range shown[1:] {
		options.Intermediates.AddCert(one)
	}
	if _, err := shown[0].Verify(options); err != nil {
		untrusted = inTLSWords(&tls.CertificateVerificationError{UnverifiedCertificates: shown, Err: err})
	}
	return encrypted, warning, untrusted, nil
}

// dialSecured connects to a target and, unless client is nil, makes the handshake.
// The caller closes the connection.
func dialSecured(ctx context.Context, target Target, client *tlsClient) (conn net.Conn, warning string, err error) {
	bound, err := dial(ctx, target)
	if err != nil {
		return nil, "", err
	}
	if client == nil {
		return bound, "", nil
	}
	encrypted, warning, err := client.handshake(bound)
	if err != nil {
		_ = bound.Close()
		return nil, "", err
	}
	return encrypted, warning, nil
}

// readCAs reads a file of certificates in PEM.
func readCAs(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, ownError(path + ": no certificate in it")
	}
	return pool, nil
}

// inTLSWords replaces errors of a handshake that do not speak for themselves.
func inTLSWords(err error) error {
	var header tls.RecordHeaderError
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &header):
		return errNotTLS
	case errors.As(err, &untrusted):
		return errors.New("the certificate does not pass: " + strings.TrimPrefix(untrusted.Err.Error(), "x509: "))
	}
	return err
}

// expiryWarning says which of the certificates that a server shows expires
// first, when that is within so many days of now; it is empty otherwise.
func expiryWarning(shown []*x509.Certificate, now time.Time, days int) string {
	var first *x509.Certificate
	for _, c := range shown {
		if first == nil || c.NotAfter.Before(first.NotAfter) {
			first = c
		}
	}
	if first == nil {
		return ""
	}
	const day = 24 * time.Hour
	left := first.NotAfter.Sub(now)
	whose, date := printable(subjectOf(first)), first.NotAfter.UTC().Format(time.DateOnly)
	switch {
	case left < 0:
		return fmt.Sprintf("the certificate of %s expired on %s", whose, date)
	case left < day:
		return fmt.Sprintf("the certificate of %s expires on %s, in less than a day", whose, date)
	case left < time.Duration(days)*day:
		return fmt.Sprintf("the certificate of %s expires on %s, in %s", whose, date, count(int(left/day), "day"))
	}
	return ""
}

// count returns how many there are of a thing, in words.
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprint(n, " ", what)
}

// subjectOf returns the name by which people know a certificate.
func subjectOf(c *x509.Certificate) string {
	switch {
	case len(c.DNSNames) > 0:
		return c.DNSNames[0]
	case c.Subject.CommonName != "":
		return c.Subject.CommonName
	default:
		return c.Subject.String()
	}
}

// hostName returns the name of a server by which it is asked for: the host of
// an http check without its port, or else the address, or localhost.
func hostName(host string, server endpoint.Endpoint) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	address := "localhost"
	if server.Path() == "" {
		address = server.IP().Addr().WithZone("").String()
	}
	return orDefault(strings.Trim(host, "[]"), address)
}

// prepareTLS returns a probe that passes when the target makes a TLS handshake.
func prepareTLS(target Target) (probe, error) {
	client := newTLSClient(target.Check, hostName("", target.Address))
	return func(ctx context.Context) (finding, error) {
		conn, err := dial(ctx, target)
		if err != nil {
			return finding{}, err
		}
		defer func() { _ = conn.Close() }()
		encrypted, warning, err := client.handshake(conn)
		if err != nil {
			return finding{}, err
		}
		state := encrypted.ConnectionState()
		_ = encrypted.Close() // says goodbye
		return finding{tls.VersionName(state.Version) + " handshake", warning}, nil
	}, nil
}
