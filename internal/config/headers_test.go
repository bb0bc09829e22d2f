package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"appliance/health"
)

// parseCheck reads a file whose only check has these keys.
func parseCheck(t *testing.T, keys string) (*health.Config, error) {
	t.Helper()
	f, err := Parse("f.toml", []byte("[pool.a]\nservers = [\"10.0.0.1:80\"]\ncheck = { "+keys+" }\n"+
		"[[l4]]\nname = \"b\"\nlisten = [\"10.0.0.2:80\"]\npool = \"a\"\n"))
	if err != nil {
		return nil, err
	}
	return f.Pools["a"].Check, nil
}

func TestHeadersOfACheck(t *testing.T) {
	check, err := parseCheck(t, `type = "http", headers = { X-B = "2", "X-A" = "1" }`)
	if err != nil || check.Headers != "X-A: 1\nX-B: 2" {
		t.Errorf("%+v, %v", check, err)
	}
	for keys, want := range map[string]string{
		`type = "http", headers = ["X-A: 1"]`:                      "check.headers: want a table of strings, got array",
		`type = "http", headers = { X-A = 1 }`:                     "check.headers.X-A: want a string, got integer",
		`type = "http", headers = { Host = "a" }`:                  "check.headers: the host of a check has a key of its own, host",
		`type = "http", headers = { TE = "a" }`:                    "check.headers: TE is not for a check to choose",
		`type = "http", headers = { "X A" = "a" }`:                 `check.headers: "X A" is no name of a header`,
		`type = "tcp", headers = { X-A = "a" }`:                    "check.headers: headers belongs to checks of type http, https or grpc, not tcp",
		`type = "icmp", address = "10.0.0.300"`:                    "check.address: ",
		`type = "tcp", port = 0`:                                   "check.port: must not be 0",
		`type = "redis", role = "king"`:                            `check.role: unknown role "king"; known: master, slave, sentinel`,
		`type = "tcp", expect = '\x0', send = "a"`:                 `check.expect: \x0 is no byte`,
		`type = "http", http = "3"`:                                `check.http: unknown version "3"; known: "1.1", "2"`,
		`type = "grpc", headers = { content-type = "text/plain" }`: "check.headers: a grpc check sends application/grpc",
		`type = "grpc", path = "/a"`:                               "check.path: path belongs to checks of type http or https, not grpc",
		`type = "grpc", verify = true`:                             "check.verify: verify goes with tls = true",
		`type = "tcp", service = "a"`:                              "check.service: service belongs to checks of type grpc, not tcp",
		`type = "tls", expiry_warning_days = 10000`:                "check.expiry_warning_days: ",
	} {
		if _, err := parseCheck(t, keys); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", keys, err, want)
		}
	}
}

// A grpc check that a pool has encrypted may have its own way to judge certificates.
func TestGRPCInAPoolWithTLS(t *testing.T) {
	const file = `
[pool.a]
http = "2"
servers = ["10.0.0.1:80"]
check = { type = "grpc", verify = true, server_name = "a.example.com" }
tls = { verify = false, server_name = "b.example.com" }
[[l7]]
name = "b"
listen = ["10.0.0.2:80"]
pool = "a"
`
	f, err := Parse("f.toml", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	n := f.Pools["a"]
	n.inherit()
	if c := n.Check; !c.TLS || !c.Verify || c.ServerName != "a.example.com" {
		t.Errorf("%+v", c)
	}
}

func TestAuthoritiesOfACheck(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f.toml")
	text := "[pool.a]\nservers = [\"10.0.0.1:443\"]\ncheck = { type = \"tls\", verify = true, ca_file = \"ca.pem\" }\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "check.ca_file: the certificates cannot be read") {
		t.Errorf("without the file: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), []byte("?"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "has no certificate in PEM") {
		t.Errorf("with an odd file: %v", err)
	}
}
