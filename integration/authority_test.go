package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

// authority makes the certificates of sites and clients as authorities do, in
// files of a host.
type authority struct {
	t    *testing.T
	host *alone
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority makes an authority, whose certificate is in ca.pem.
func newAuthority(t *testing.T, host *alone) *authority {
	t.Helper()
	now := time.Now()
	a := &authority{t: t, host: host, cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Example CA", Organization: []string{"Example"}}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0), SubjectKeyId: []byte("ca"),
	}}
	a.key = a.newKey()
	a.write("ca.pem", "CERTIFICATE", a.sign(a.cert, a.key))
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *authority) sign(template *x509.Certificate, key *ecdsa.PrivateKey) (der []byte) {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	a.host.write(name, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
}

// issue makes a certificate in the files name.pem and name.key: of a site if
// serial is 0, else of a client.
func (a *authority) issue(name string, serial int64, subject string) {
	a.t.Helper()
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: subject}, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 0, 89),
	}
	if serial == 0 {
		random, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 158))
		if err != nil {
			a.t.Fatal(err)
		}
		template.SerialNumber, template.DNSNames, template.ExtKeyUsage = random, []string{subject}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		template.CRLDistributionPoints = []string{"http://" + subject + "/ca.crl"}
	}
	key := a.newKey()
	a.write(name+".pem", "CERTIFICATE", a.sign(template, key))
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".key", "PRIVATE KEY", der)
}

// revoke writes a list of revoked certificates, ca.crl.
func (a *authority) revoke(serials ...int64) {
	a.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().AddDate(0, 1, 0)}
	for _, s := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write("ca.crl", "X509 CRL", der)
}
