package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func certFor(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "blog.example.com"},
		DNSNames:     []string{"blog.example.com"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return block("CERTIFICATE", der)
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestLoad(t *testing.T) {
	ec := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	other := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	rs := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	ecCert, rsCert := certFor(t, ec), certFor(t, rs)
	ecPKCS8 := block("PRIVATE KEY", must[[]byte](t)(x509.MarshalPKCS8PrivateKey(ec)))
	ecSEC1 := block("EC PRIVATE KEY", must[[]byte](t)(x509.MarshalECPrivateKey(ec)))
	otherKey := block("PRIVATE KEY", must[[]byte](t)(x509.MarshalPKCS8PrivateKey(other)))
	rsPKCS1 := block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rs))
	parameters := block("EC PARAMETERS", []byte{6, 8})

	for _, tc := range []struct {
		name      string
		cert, key []byte // nil: no such file
		chain     int
		part, why string // of the error
	}{
		{name: "PKCS8", cert: ecCert, key: ecPKCS8, chain: 1},
		{name: "SEC1 behind its parameters", cert: ecCert, key: append(parameters, ecSEC1...), chain: 1},
		{name: "PKCS1", cert: rsCert, key: rsPKCS1, chain: 1},
		{name: "chain", cert: append(append([]byte{}, ecCert...), rsCert...), key: ecPKCS8, chain: 2},
		{name: "key in front of the chain", cert: append(append([]byte{}, ecSEC1...), ecCert...), key: ecPKCS8, chain: 1},

		{name: "no cert file", key: ecPKCS8, part: "cert", why: "no such file"},
		{name: "no key file", cert: ecCert, part: "key", why: "no such file"},
		{name: "cert is no PEM", cert: []byte("hello"), key: ecPKCS8, part: "cert", why: "no certificate"},
		{name: "cert is garbage", cert: block("CERTIFICATE", []byte("x")), key: ecPKCS8, part: "cert", why: "certificate 1 of the file"},
		{name: "second cert is garbage", cert: append(append([]byte{}, ecCert...), block("CERTIFICATE", []byte("x"))...), key: ecPKCS8, part: "cert", why: "certificate 2 of the file"},
		{name: "key is no PEM", cert: ecCert, key: []byte("hello"), part: "key", why: "no private key"},
		{name: "key is a cert", cert: ecCert, key: ecCert, part: "key", why: "no private key"},
		{name: "key is garbage", cert: ecCert, key: block("PRIVATE KEY", []byte("x")), part: "key", why: "asn1"},
		{name: "encrypted key", cert: ecCert, key: block("ENCRYPTED PRIVATE KEY", []byte("x")), part: "key", why: "passphrase"},
		{name: "another key", cert: ecCert, key: otherKey, part: "key", why: "does not match"},
		{name: "key of another kind", cert: ecCert, key: rsPKCS1, part: "key", why: "does not match"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			cert, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
			for path, text := range map[string][]byte{cert: tc.cert, key: tc.key} {
				if text == nil {
					continue
				}
				if err := os.WriteFile(path, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c, err := Load(cert, key)
			if tc.part == "" {
				if err != nil {
					t.Fatal(err)
				}
				if len(c.Certificate) != tc.chain || c.Leaf == nil || c.PrivateKey == nil {
					t.Fatalf("chain of %d, leaf %v, key %v", len(c.Certificate), c.Leaf, c.PrivateKey)
				}
				return
			}
			var fe *FileError
			if !errors.As(err, &fe) {
				t.Fatalf("error is %T (%v), not *FileError", err, err)
			}
			path := map[string]string{"cert": cert, "key": key}[tc.part]
			if fe.Part != tc.part || fe.Path != path || !strings.Contains(err.Error(), tc.why) {
				t.Errorf("part %q, path %q, %q; want part %q, path %q, %q", fe.Part, fe.Path, err, tc.part, path, tc.why)
			}
			if n := strings.Count(err.Error(), path); n != 1 {
				t.Errorf("%q names the file %d times", err, n)
			}
		})
	}
	if _, err := Load("/nonexistent", "/nonexistent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v does not wrap fs.ErrNotExist", err)
	}
}
