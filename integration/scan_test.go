//go:build scan

package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

const scanConfig = `
[[l7]]
name   = "web"
listen = ["127.0.0.1:443"]
tls    = { certificates = [{ cert = "leaf.pem", key = "leaf.key" }] }
hsts   = { include_subdomains = true }

[[l7.route]]
respond = { body = "hello" }

[l7.response_headers]
set = { X-Content-Type-Options = "nosniff", X-Frame-Options = "DENY", Content-Security-Policy = "default-src 'self'" }
`

// scanAllowed are findings that are known: docs/tls.md says why.
var scanAllowed = map[string]bool{
	"TLS_session_ticket": true,
	"engine_problem":     true, // of the scanner's own openssl
	"scanTime":           true, // it may take long
}

// testssl.sh has nothing to say against the defaults.
func TestScan(t *testing.T) {
	scanner := need(t, "testssl", "testssl.sh")
	a := newAlone(t)
	a.certificates()
	a.start(scanConfig)
	a.run(scanner, "--quiet", "--color", "0", "--warnings", "off", "--nodns", "min", "--ip", "127.0.0.1", "--add-ca", "/run/appliance/ca.pem",
		"-p", "-s", "-f", "-P", "-S", "-h", "-U", "--jsonfile", "/run/appliance/scan.json", "https://blog.example:443")
	var findings []struct{ ID, Severity, Finding string }
	if err := json.Unmarshal([]byte(a.read("scan.json")), &findings); err != nil {
		t.Fatal(err)
	}
	judged := 0
	for _, f := range findings {
		switch f.Severity {
		case "OK":
			judged++
		case "INFO":
		default:
			t.Logf("%s %s: %s", f.Severity, f.ID, f.Finding)
			if !scanAllowed[f.ID] {
				t.Errorf("testssl.sh: %s: %s: %s", f.Severity, f.ID, f.Finding)
			}
		}
	}
	t.Logf("%d findings, %d of them good", len(findings), judged)
	if judged < 40 {
		t.Errorf("only %d things were found good: the scan has not worked", judged)
	}
}

// certificates writes an authority, and the certificate of a site as authorities
// make them.
func (a *alone) certificates() {
	a.t.Helper()
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Example CA", Organization: []string{"Example"}}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 158))
	if err != nil {
		a.t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "blog.example"}, DNSNames: []string{"blog.example"}, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		CRLDistributionPoints: []string{"http://blog.example/ca.crl"}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 0, 89),
	}
	var keys [2]*ecdsa.PrivateKey
	for i := range keys {
		if keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			a.t.Fatal(err)
		}
	}
	for name, one := range map[string]struct {
		cert *x509.Certificate
		key  *ecdsa.PrivateKey
	}{"ca": {ca, keys[0]}, "leaf": {leaf, keys[1]}} {
		der, err := x509.CreateCertificate(rand.Reader, one.cert, ca, one.key.Public(), keys[0])
		if err != nil {
			a.t.Fatal(err)
		}
		key, err := x509.MarshalPKCS8PrivateKey(one.key)
		if err != nil {
			a.t.Fatal(err)
		}
		a.write(name+".pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
		a.write(name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	}
}
