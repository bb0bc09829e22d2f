package l7

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// ClientAuth says whether clients must show a certificate.
type ClientAuth string

// The ways to ask for it.
const (
	ClientAuthRequire  ClientAuth = "require"  // who shows none gets no connection
	ClientAuthOptional ClientAuth = "optional" // one that is shown must be good
)

// validateClients reports mistakes in what concerns certificates of clients.
func (t *TLS) validateClients(problem func(key, message string)) {
	switch t.ClientAuth {
	case "", ClientAuthRequire, ClientAuthOptional:
	default:
		problem("tls.client_auth", fmt.Sprintf("unknown value %q; known: require, optional", string(t.ClientAuth)))
	}
	if t.ClientCA == "" {
		if t.ClientAuth != "" {
			problem("tls.client_auth", "who may sign the certificates of clients? client_ca is missing")
		}
		if t.ClientCRL != "" {
			problem("tls.client_crl", "a list of revoked certificates goes with client_ca")
		}
	}
}

// EffectiveClientAuth returns ClientAuth with its default applied; "" if no
// certificate is asked for.
func (t TLS) EffectiveClientAuth() ClientAuth {
	if t.ClientAuth == "" && t.ClientCA != "" {
		return ClientAuthRequire
	}
	return t.ClientAuth
}

// usesCertificate reports whether a text has a variable of the client's
// certificate.
func usesCertificate(text string) bool { return strings.Contains(text, "{cert_") }

// tellsWho reports whether a text tells who the client has proved to be.
func tellsWho(text string) bool { return usesCertificate(text) || strings.Contains(text, "{user}") }

// validateIdentityFields reports rules by which a client could say itself what
// its certificate or password is to say.
func (c Config) validateIdentityFields(problem func(key, message string)) {
	asked := c.TLS != nil && c.TLS.ClientCA != ""
	c.EachRules(func(at string, r *Rules) {
		if r.RequestHeaders == nil {
			return
		}
		for name, value := range r.RequestHeaders.Add {
			if tellsWho(value) {
				problem(at+"request_headers.add."+quoteKey(name), "a client could send this field too; put it into set, which takes the client's own away")
			}
		}
		for name, value := range r.RequestHeaders.Set {
			if usesCertificate(value) && !asked {
				problem(at+"request_headers.set."+quoteKey(name), "clients are not asked for a certificate; tls.client_ca is missing")
			}
		}
	})
}

// clientCerts judges the certificates of clients.
type clientCerts struct {
	roots   *x509.CertPool
	require bool
	revoked map[string]bool // by revocation
	mark    string          // equal for equal contents
}

// revocation is the name of a certificate in a list of revoked ones.
func revocation(issuer []byte, serial []byte) string { return string(issuer) + "\x00" + string(serial) }

// loadClientCerts reads what cfg names, nil if clients are asked for nothing.
func loadClientCerts(cfg TLS) (*clientCerts, error) {
	if cfg.ClientCA == "" {
		return nil, nil
	}
	text, err := os.ReadFile(cfg.ClientCA)
	if err != nil {
		return nil, &clientFileError{"client_ca", err}
	}
	authorities, err := parseAuthorities(text)
	if err != nil {
		return nil, &clientFileError{"client_ca", fmt.Errorf("%s: %w", cfg.ClientCA, err)}
	}
	cs := &clientCerts{roots: x509.NewCertPool(), require: cfg.EffectiveClientAuth() == ClientAuthRequire}
	for _, a := range authorities {
		cs.roots.AddCert(a)
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%t %d ", cs.require, len(text))
	sum.Write(text)
	if cfg.ClientCRL != "" {
		if text, err = os.ReadFile(cfg.ClientCRL); err != nil {
			return nil, &clientFileError{"client_crl", err}
		}
		if cs.revoked, err = parseRevoked(text, authorities); err != nil {
			return nil, &clientFileError{"client_crl", fmt.Errorf("%s: %w", cfg.ClientCRL, err)}
		}
		sum.Write(text)
	}
	cs.mark = hex.EncodeToString(sum.Sum(nil))
	return cs, nil
}

// clientFileError says which key names a file that is of no use.
type clientFileError struct {
	key string
	err error
}

func (e *clientFileError) Error() string { return e.key + ": " + e.err.Error() }
func (e *clientFileError) Unwrap() error { return e.err }

// checkClientFiles calls problem for a file that is of no use.
func (t TLS) checkClientFiles(problem func(key, message string)) {
	_, err := loadClientCerts(t)
	if fe, ok := errors.AsType[*clientFileError](err); ok {
		problem("tls."+fe.key, fe.err.Error())
	}
}

func parseAuthorities(text []byte) (list []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if !c.IsCA {
			return nil, fmt.Errorf("the certificate of %s is not that of an authority", c.Subject)
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, errors.New("no certificate in the file; it must hold a PEM block CERTIFICATE")
	}
	return list, nil
}

// parseRevoked reads lists of revoked certificates, in PEM or one in DER. Each
// must be signed by one of the authorities.
func parseRevoked(text []byte, authorities []*x509.Certificate) (map[string]bool, error) {
	var lists [][]byte
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "X509 CRL" {
			lists = append(lists, block.Bytes)
		}
	}
	if len(lists) == 0 {
		lists = append(lists, text)
	}
	revoked := make(map[string]bool)
	for _, der := range lists {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, fmt.Errorf("no list of revoked certificates in PEM (X509 CRL) or DER: %w", err)
		}
		signed := false
		for _, a := range authorities {
			signed = signed || list.CheckSignatureFrom(a) == nil
		}
		if !signed {
			return nil, fmt.Errorf("the list of %s is signed by none of client_ca", list.Issuer)
		}
		for _, one := range list.RevokedCertificateEntries {
			revoked[revocation(list.RawIssuer, one.SerialNumber.Bytes())] = true
		}
	}
	return revoked, nil
}

// apply has a handshake ask for a certificate.
func (cs *clientCerts) apply(cfg *tls.Config) {
	if cs == nil {
		return
	}
	cfg.ClientCAs, cfg.ClientAuth = cs.roots, tls.VerifyClientCertIfGiven
	if cs.require {
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
	}
	cfg.VerifyConnection = func(s tls.ConnectionState) error { return cs.verify(s, time.Now()) }
}

// verify judges what the handshake has found good: whether it is revoked, and
// when a session is resumed whether it would be good today. A reload may have
// changed who is let in, and time passes.
func (cs *clientCerts) verify(s tls.ConnectionState, now time.Time) error {
	chains := s.VerifiedChains
	if s.DidResume {
		chains = nil
	}
	return cs.judge(s.PeerCertificates, chains, now)
}

// judge is verify for what a client has shown; no chains: it is not known yet whether
// that is good.
func (cs *clientCerts) judge(shown []*x509.Certificate, chains [][]*x509.Certificate, now time.Time) error {
	if len(shown) == 0 {
		if cs.require {
			return errors.New("the client shows no certificate")
		}
		return nil
	}
	if len(chains) == 0 {
		between := x509.NewCertPool()
		for _, c := range shown[1:] {
			between.AddCert(c)
		}
		var err error
		chains, err = shown[0].Verify(x509.VerifyOptions{
			Roots: cs.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		})
		if err != nil {
			return fmt.Errorf("the client's certificate is not good any more: %w", err)
		}
	}
	for _, chain := range chains {
		if !cs.hasRevoked(chain) {
			return nil
		}
	}
	return fmt.Errorf("the client's certificate, %s, is revoked", shown[0].Subject)
}

// admit reports why a request is not let in that came by a connection which was let in
// before: a reload may have changed who is, during its handshake too. A nil cs lets
// all in. It may be called by several goroutines.
func (cs *clientCerts) admit(s *session, now time.Time) error {
	if cs == nil {
		return nil
	}
	if s == nil { // the connection is older than TLS here
		return cs.judge(nil, nil, now)
	}
	before := s.judge.Load()
	if before == cs {
		return nil
	}
	if before == nil || before.mark != cs.mark {
		if err := cs.judge(s.shown, nil, now); err != nil {
			return err
		}
	}
	s.judge.Store(cs)
	return nil
}

func (cs *clientCerts) hasRevoked(chain []*x509.Certificate) bool {
	for _, c := range chain {
		if cs.revoked[revocation(c.RawIssuer, c.SerialNumber.Bytes())] {
			return true
		}
	}
	return false
}

// certValue returns what a variable is for an exchange: something of the
// certificate that the client has shown and that has been found good, "" without
// one.
func certValue(value func(c *x509.Certificate) string) func(ex *exchange) string {
	return func(ex *exchange) string {
		if s := ex.peer.session; s != nil && len(s.shown) > 0 {
			return visible(value(s.shown[0]))
		}
		return ""
	}
}

func certFingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

func certName(c *x509.Certificate) string    { return c.Subject.CommonName }
func certSerial(c *x509.Certificate) string  { return c.SerialNumber.Text(16) }
func certSubject(c *x509.Certificate) string { return c.Subject.String() }

// certDER is the form of RFC 9440, section 2.1.
func certDER(c *x509.Certificate) string {
	return ":" + base64.StdEncoding.EncodeToString(c.Raw) + ":"
}

// visible returns s as it can stand in a field, whatever is in a certificate.
func visible(s string) string {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			quoted := strconv.QuoteToASCII(s)
			return quoted[1 : len(quoted)-1]
		}
	}
	return strings.TrimSpace(s)
}
