package l7

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/certs"
	"appliance/l7/accesslog"
)

// certificates finds the certificate for the name that a client asks for.
type certificates struct {
	list     []CertificateStats // in the order of the file
	first    *tls.Certificate
	exact    map[string][]*tls.Certificate
	wildcard map[string][]*tls.Certificate // by what follows the "*": ".example.com"
}

// loadCertificates reads the certificates of a service. An error names the
// table and the file. One that is not valid now is used and logged: to refuse
// it would take the service away, and clients judge for themselves.
func loadCertificates(cfg TLS, now time.Time, log zerolog.Logger) (*certificates, error) {
	var loaded []*tls.Certificate
	var list []CertificateStats
	for i, pair := range cfg.Certificates {
		c, err := certs.Load(pair.Cert, pair.Key)
		if err != nil {
			return nil, fmt.Errorf("tls.certificates[%d]: %w", i, err)
		}
		if now.After(c.Leaf.NotAfter) || now.Before(c.Leaf.NotBefore) {
			log.Warn().Str("cert", pair.Cert).Time("not_before", c.Leaf.NotBefore).Time("not_after", c.Leaf.NotAfter).
				Msg("certificate is not valid now")
		}
		loaded = append(loaded, &c)
		list = append(list, CertificateStats{Path: pair.Cert, Names: c.Leaf.DNSNames, NotAfter: c.Leaf.NotAfter})
	}
	if len(loaded) == 0 {
		return nil, fmt.Errorf("tls.certificates: HTTPS needs at least one certificate")
	}
	cs := newCertificates(loaded)
	cs.list = list
	return cs, nil
}

// newCertificates arranges certificates, at least one, by the names that their
// leaves are valid for.
func newCertificates(loaded []*tls.Certificate) *certificates {
	cs := &certificates{
		first:    loaded[0],
		exact:    make(map[string][]*tls.Certificate),
		wildcard: make(map[string][]*tls.Certificate),
	}
	for _, c := range loaded {
		for _, name := range c.Leaf.DNSNames {
			name = strings.ToLower(strings.TrimSuffix(name, "."))
			if suffix, ok := strings.CutPrefix(name, "*"); ok {
				cs.wildcard[suffix] = append(cs.wildcard[suffix], c)
			} else {
				cs.exact[name] = append(cs.exact[name], c)
			}
		}
	}
	return cs
}

// choose returns the certificate for a handshake: of an exact name before that
// of a wildcard (which stands for one label, RFC 6125, section 6.4.3), the
// first one when none matches; among several of one name the first that the
// client can use.
func (cs *certificates) choose(hello *tls.ClientHelloInfo) *tls.Certificate {
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	found := cs.exact[name]
	if len(found) == 0 {
		if dot := strings.IndexByte(name, '.'); dot > 0 {
			found = cs.wildcard[name[dot:]]
		}
	}
	switch len(found) {
	case 0:
		return cs.first
	case 1:
		return found[0]
	}
	for _, c := range found {
		if hello.SupportsCertificate(c) == nil {
			return c
		}
	}
	return found[0]
}

// ciphers are those of TLS 1.2 that crypto/tls has and that nobody finds fault
// with: no CBC, and no key exchange without forward secrecy. TLS 1.3 has no others.
var ciphers = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// tlsConfig returns the settings of handshakes.
func (st *state) tlsConfig() *tls.Config {
	cfg := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		CipherSuites: ciphers,
		NextProtos:   []string{protocolHTTP2, protocolHTTP1, protocolHTTP10},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return st.certs.choose(hello), nil
		},
		// A record for each piece of an answer costs more than the wait for a
		// larger one to be whole.
		DynamicRecordSizingDisabled: true,
	}
	if !st.cfg.HTTP2.EffectiveEnabled(true) {
		cfg.NextProtos = []string{protocolHTTP1, protocolHTTP10}
	}
	st.clients.apply(cfg)
	return cfg
}

// handshake returns the settings for a client, those of the service's current
// state. The keys of session tickets are those of the service, so that tickets
// stay good over reloads.
func (s *service) handshake(*tls.ClientHelloInfo) (*tls.Config, error) {
	st := s.state.Load()
	if st.tls == nil {
		return nil, fmt.Errorf("service %s does not terminate TLS any more", s.name)
	}
	s.tickets.refresh(s.tls, s.name, time.Now())
	return st.tls, nil
}

// The protocols of HTTP as ALPN names them (RFC 7301).
const (
	protocolHTTP1 = "http/1.1"
	// protocolHTTP10 is what clients offer that will have no other version, such as
	// curl --http1.0; it is served by the same door.
	protocolHTTP10 = "http/1.0"
	protocolHTTP2  = "h2"
)

// protocolName2 is what access logs call HTTP/2.
const protocolName2 = "HTTP/2.0"

// session is what is known of a TLS connection.
type session struct {
	version, cipher string // "": there was no agreement
	sni             string
	protocol        string // by ALPN
	resumed         bool
	shown           []*x509.Certificate         // by the client: its certificate, and what leads to an authority
	judge           atomic.Pointer[clientCerts] // who has found them good last; nil: it is not known
}

func newSession(s tls.ConnectionState) *session {
	if s.Version == 0 {
		return &session{}
	}
	now := &session{version: tls.VersionName(s.Version), sni: s.ServerName, protocol: s.NegotiatedProtocol, resumed: s.DidResume}
	if s.CipherSuite != 0 {
		now.cipher = tls.CipherSuiteName(s.CipherSuite)
	}
	now.shown = s.PeerCertificates
	return now
}

// describe fills in what the access log shows of the session.
func (s *session) describe(r *accesslog.Record) {
	r.TLSVersion, r.TLSCipher, r.SNI, r.Resumed = s.version, s.cipher, s.sni, s.resumed
	if len(s.shown) > 0 {
		r.TLSClient = s.shown[0].Subject.String()
	}
}

// failedHandshake counts and logs a handshake that failed. Who says nothing at
// all only looks whether there is somebody.
func (s *service) failedHandshake(who *peer, began time.Time, err error) {
	if who.session.version == "" && (err == io.EOF || errors.Is(err, syscall.ECONNRESET)) {
		return
	}
	s.pipeline.count.tlsFailures.Add(1)
	s.logNoRequest(who, began, accesslog.Record{End: accesslog.TLSFailed, Problem: err.Error()})
}
