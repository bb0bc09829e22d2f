package l7

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"appliance/internal/certs"
)

// HTTPVersion is a version of HTTP that servers are spoken to by.
type HTTPVersion string

// The versions.
const (
	HTTP1 HTTPVersion = "1.1"
	HTTP2 HTTPVersion = "2"
)

// Transport says how the servers of a pool are spoken to. The zero value is
// HTTP/1.1 without TLS.
type Transport struct {
	// HTTP is the version; default 1.1. Version 2 is agreed on by ALPN if there
	// is TLS, else taken for granted: the server must expect it.
	HTTP HTTPVersion `toml:"http"`
	// TLS has the connections encrypted; nil for plain ones.
	TLS *ServerTLS `toml:"tls"`
}

// ServerTLS says how servers are spoken to by TLS. The zero value of each field
// means its default.
type ServerTLS struct {
	// ServerName is the name that is asked for (SNI) and that the certificate
	// must be for; default the host of the server's address. An IP address is
	// not sent, but the certificate must be for it.
	ServerName string `toml:"server_name"`
	// Verify wants a certificate by a known authority, for the right name;
	// default true.
	Verify *bool `toml:"verify"`
	// CAFile has the authorities, in PEM; default those of the system.
	CAFile string `toml:"ca_file"`
	// Cert and Key are shown to servers that ask who we are: a chain, leaf first,
	// and its key, in PEM; default: nothing is.
	Cert string `toml:"cert"`
	Key  string `toml:"key"`
}

// EffectiveHTTP returns HTTP with its default applied.
func (t Transport) EffectiveHTTP() HTTPVersion {
	if t.HTTP == "" {
		return HTTP1
	}
	return t.HTTP
}

// EffectiveVerify returns Verify with its default applied.
func (t ServerTLS) EffectiveVerify() bool { return t.Verify == nil || *t.Verify }

// Plain reports whether servers are spoken to as those are that nothing is said
// about.
func (t Transport) Plain() bool { return t.TLS == nil && t.EffectiveHTTP() == HTTP1 }

// Validate calls problem once for each mistake in t: key is the path of the field
// below the pool's table, message says what is wrong and what would be right.
// Whether files exist is not judged here.
func (t Transport) Validate(problem func(key, message string)) {
	if v := t.EffectiveHTTP(); v != HTTP1 && v != HTTP2 {
		problem("http", fmt.Sprintf("unknown version %q; known: \"1.1\", \"2\"", t.HTTP))
	}
	s := t.TLS
	if s == nil {
		return
	}
	if s.ServerName != "" && !ValidServerName(s.ServerName) {
		problem("tls.server_name", fmt.Sprintf("%q is no host name such as app.example.com, and no IP address", s.ServerName))
	}
	if s.CAFile != "" && !s.EffectiveVerify() {
		problem("tls.ca_file", "with verify = false no certificate is looked at; leave one of the two out")
	}
	switch {
	case s.Cert != "" && s.Key == "":
		problem("tls.key", "a certificate is shown with its key; name the file that has it")
	case s.Cert == "" && s.Key != "":
		problem("tls.cert", "a key goes with its certificate; name the file that has it")
	}
}

// ValidServerName reports whether name can be asked for.
func ValidServerName(name string) bool {
	return validHost(name) && !strings.HasPrefix(name, "*") || isIP(name)
}

// EachFile calls visit for every file that t names, with the key that names it.
// visit may change the path.
func (t Transport) EachFile(visit func(key string, path *string)) {
	if s := t.TLS; s != nil {
		visit("tls.ca_file", &s.CAFile)
		visit("tls.cert", &s.Cert)
		visit("tls.key", &s.Key)
	}
}

// CheckFiles calls problem for the files that t names and that are of no use.
func (t Transport) CheckFiles(problem func(key, message string)) {
	s := t.TLS
	if s == nil {
		return
	}
	if _, err := readAuthorities(s.CAFile); err != nil {
		problem("tls.ca_file", err.Error())
	}
	if s.Cert == "" || s.Key == "" {
		return // said already
	}
	_, err := certs.Load(s.Cert, s.Key)
	var part *certs.FileError
	switch {
	case errors.As(err, &part):
		problem("tls."+part.Part, strings.TrimPrefix(part.Error(), part.Part+": "))
	case err != nil:
		problem("tls.cert", err.Error())
	}
}

// transport is Transport, compiled. It is comparable by its mark.
type transport struct {
	mark  string // equal for equal transports, the contents of their files included; "": plain
	http2 bool
	name  string      // to be asked for; "": the server's host
	tls   *tls.Config // without a name and a cache; nil: no TLS
}

// plainTransport is that of pools which nothing is said about.
var plainTransport = &transport{}

// newTransport compiles t; it reads the files.
func newTransport(t Transport) (*transport, error) {
	if t.Plain() {
		return plainTransport, nil
	}
	out := &transport{http2: t.EffectiveHTTP() == HTTP2}
	sum := sha256.New()
	fmt.Fprintf(sum, "%t", out.http2)
	if s := t.TLS; s != nil {
		out.name = s.ServerName
		out.tls = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: !s.EffectiveVerify(), NextProtos: []string{protocolHTTP1}}
		if out.http2 {
			out.tls.NextProtos = []string{protocolHTTP2}
		}
		text, err := readAuthorities(s.CAFile)
		if err != nil {
			return nil, fmt.Errorf("tls.ca_file: %w", err)
		}
		if text != nil {
			out.tls.RootCAs = x509.NewCertPool()
			out.tls.RootCAs.AppendCertsFromPEM(text)
		}
		fmt.Fprintf(sum, "%q %t %q", s.ServerName, s.EffectiveVerify(), text)
		if s.Cert != "" {
			pair, err := certs.Load(s.Cert, s.Key)
			if err != nil {
				return nil, fmt.Errorf("tls.%w", err)
			}
			out.tls.Certificates = []tls.Certificate{pair}
			fmt.Fprintf(sum, "%q", pair.Certificate)
		}
	}
	out.mark = hex.EncodeToString(sum.Sum(nil))
	return out, nil
}

// readAuthorities returns the content of a file of certificates, nil if there is
// no file.
func readAuthorities(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if !x509.NewCertPool().AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate in PEM", path)
	}
	return text, nil
}
