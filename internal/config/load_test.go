package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
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

// writePair writes a certificate for host and its key to dir.
func writePair(t *testing.T, dir, host string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{host}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, host+".pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})))
	write(t, filepath.Join(dir, host+".key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir, "blog")
	write(t, filepath.Join(dir, "pw"), "secret")
	path := filepath.Join(dir, "appliance.toml")
	write(t, path, `
[[l7]]
name = "web"
listen = ["127.0.0.1:443"]
servers = ["127.0.0.1:8000"]
tls = { certificates = [ { cert = "blog.pem", key = "`+dir+`/blog.key" } ] }
[pool.mysql]
servers = ["127.0.0.1:3306"]
check = { type = "mysql", user = "lb", password_file = "pw" }
`)
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	n, err := f.ForNode("x")
	if err != nil {
		t.Fatal(err)
	}
	pair := n.L7[0].TLS.Certificates[0]
	for got, want := range map[string]string{
		pair.Cert: "blog.pem", pair.Key: "blog.key", n.Pools["mysql"].Check.PasswordFile: "pw",
	} {
		if got != filepath.Join(dir, want) {
			t.Errorf("got %s, want %s in %s", got, want, dir)
		}
	}
}

// What is wrong with files is reported together with what is wrong in the text.
func TestLoadProblems(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir, "blog")
	writePair(t, dir, "forum")
	path := filepath.Join(dir, "appliance.toml")
	write(t, path, `
[[l7]]
name = "web"
listen = ["127.0.0.1:443"]
servers = ["127.0.0.1:8000"]
check = { type = "mysql", user = "lb", password_file = "." }
[[l7.tls.certificates]]
cert = "gone.pem"
key = "gone.key"
[[l7.tls.certificates]]
cert = "blog.pem"
key = "gone.key"
[[l7.tls.certificates]]
cert = "blog.pem"
key = "forum.key"
[[l7.tls.certificates]]
cert = "blog.pem"
ky = "blog.key"
[pool.mysql]
servers = ["127.0.0.1:3306"]
check = { type = "mysql", user = "lb", password_file = "gone" }
`)
	_, err := Load(path)
	var problems Problems
	if !errors.As(err, &problems) {
		t.Fatalf("got %v", err)
	}
	want := []struct {
		line int
		key  string
		says string
	}{
		{6, "l7[0].check.password_file", "is a directory"},
		{8, "l7[0].tls.certificates[0].cert", "gone.pem"},
		{9, "l7[0].tls.certificates[0].key", "gone.key"},
		{12, "l7[0].tls.certificates[1].key", "gone.key"},
		{15, "l7[0].tls.certificates[2].key", "match"},
		{18, "l7[0].tls.certificates[3].ky", "did you mean key?"},
		{21, "pool.mysql.check.password_file", "no such file"},
	}
	if len(problems) != len(want) {
		t.Fatalf("got %d problems, want %d:\n%v", len(problems), len(want), problems)
	}
	for i, w := range want {
		p := problems[i]
		if p.File != path || p.Line != w.line || p.Column < 1 || p.Key != w.key || !strings.Contains(p.Message, w.says) {
			t.Errorf("got %s, want line %d, key %s, saying %q", p, w.line, w.key, w.says)
		}
	}
}

func TestLoadWithoutFile(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "gone.toml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
