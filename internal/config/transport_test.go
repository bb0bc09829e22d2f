package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"appliance/health"
	"appliance/internal/endpoint"
	"appliance/l7"
)

// A pool that is spoken to by TLS, and all that is wrong with it.
func TestTransportProblems(t *testing.T) {
	const web = "[[l7]]\nname = \"web\"\nlisten = [\"10.0.0.1:80\"]\npool = \"p\"\n"
	for _, tt := range []struct{ name, text, want string }{
		{"version", web + "[pool.p]\nservers = [\"10.0.0.2:80\"]\nhttp = \"3\"\n", `pool.p.http: unknown version "3"; known: "1.1", "2"`},
		{"name", web + "[pool.p]\nservers = [\"10.0.0.2:80\"]\ntls = { server_name = \"a b\" }\n", `pool.p.tls.server_name: "a b" is no host name`},
		{"authorities for nothing", web + "[pool.p]\nservers = [\"10.0.0.2:80\"]\ntls = { verify = false, ca_file = \"x\" }\n", "pool.p.tls.ca_file: with verify = false"},
		{"key alone", web + "[pool.p]\nservers = [\"10.0.0.2:80\"]\ntls = { key = \"x\" }\n", "pool.p.tls.cert: a key goes with its certificate"},
		{"certificate alone", web + "[pool.p]\nservers = [\"10.0.0.2:80\"]\ntls = { cert = \"x\" }\n", "pool.p.tls.key: a certificate is shown with its key"},
		{"unix without a name", web + "[pool.p]\nservers = [\"unix:/run/a\"]\ntls = {}\n", "pool.p.servers[0].address: the certificate of a server on a unix socket"},
		{"a server's name for nothing", web + "[pool.p]\nservers = [{ address = \"10.0.0.2:80\", server_name = \"a\" }]\n", "pool.p.servers[0].server_name: a name is asked for by TLS"},
		{"a server's name", web + "[pool.p]\ntls = {}\nservers = [{ address = \"10.0.0.2:80\", server_name = \"a b\" }]\n", `pool.p.servers[0].server_name: "a b" is no host name`},
		{"plain check", web + "[pool.p]\nservers = [\"10.0.0.2:80\"]\ntls = {}\ncheck = { type = \"http\" }\n", `pool.p.check.type: the pool's servers speak TLS; choose "https"`},
		{"l4", "[[l4]]\nname = \"raw\"\nlisten = [\"10.0.0.1:80\"]\npool = \"p\"\n[pool.p]\nservers = [\"10.0.0.2:80\"]\ntls = {}\n",
			"pool.p.tls: service raw uses this pool, and services of [[l4]] pass on what clients send"},
		{"l4 by HTTP/2", "[[l4]]\nname = \"raw\"\nlisten = [\"10.0.0.1:80\"]\npool = \"p\"\n[pool.p]\nservers = [\"10.0.0.2:80\"]\nhttp = \"2\"\n",
			"pool.p.http: service raw uses this pool"},
	} {
		_, err := Parse("f.toml", []byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Count(err.Error(), "\n") > 0 {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
}

// Files are looked for beside the configuration, and one that is missing is named.
func TestTransportFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.toml")
	text := "[[l7]]\nname = \"web\"\nlisten = [\"10.0.0.1:80\"]\npool = \"p\"\n[pool.p]\nservers = [\"10.0.0.2:80\"]\n" +
		"tls = { ca_file = \"ca.pem\", cert = \"c.pem\", key = \"k.pem\" }\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"pool.p.tls.ca_file: open " + filepath.Dir(path) + "/ca.pem", "pool.p.tls.cert: open " + filepath.Dir(path) + "/c.pem"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not say %s", err, want)
		}
	}
}

// Servers that are sent a PROXY header are checked with one, where they are asked as
// the services do.
func TestCheckSendsProxy(t *testing.T) {
	at := endpoint.IP(netip.MustParseAddrPort("10.0.0.2:25"))
	for name, test := range map[string]struct {
		check health.Config
		want  string
	}{
		"as the server gets it": {health.Config{Type: health.SMTP}, "v2"},
		"another version":       {health.Config{Type: health.SMTP, SendProxy: "v1"}, "v1"},
		"none":                  {health.Config{Type: health.SMTP, SendProxy: "none"}, "none"},
		"another port":          {health.Config{Type: health.SMTP, Port: 26}, ""},
		"another address":       {health.Config{Type: health.SMTP, Address: netip.MustParseAddr("10.0.0.3")}, ""},
		"no connection":         {health.Config{Type: health.ICMP}, ""},
	} {
		p := Pool{Check: &test.check}
		if got := p.CheckFor(at, "", "", "v2").Check.SendProxy; got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// A check by TLS judges servers as those do that use them.
func TestCheckSharesTLS(t *testing.T) {
	text := "[[l7]]\nname = \"web\"\nlisten = [\"10.0.0.1:80\"]\npool = \"p\"\n[pool.p]\nservers = [\"10.0.0.2:443\", \"app.internal:443\"]\n" +
		"tls = { ca_file = \"/ca.pem\", cert = \"/c.pem\", key = \"/k.pem\" }\ncheck = { type = \"https\" }\n"
	f, err := Parse("f.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	n, err := f.ForNode("x")
	if err != nil {
		t.Fatal(err)
	}
	p := n.Pools["p"]
	if c := p.Check; !c.Verify || c.CAFile != "/ca.pem" || c.Cert != "/c.pem" || c.Key != "/k.pem" {
		t.Errorf("%+v", c)
	}
	at := func(text string) endpoint.Endpoint {
		e, err := endpoint.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	if name := p.CheckFor(at("10.0.0.3:443"), "app.internal", "", "").Check.ServerName; name != "app.internal" {
		t.Errorf("the check asks for %q", name)
	}
	if target := p.CheckFor(at("10.0.0.2:443"), "10.0.0.2", "", ""); *target != p.Check.For(at("10.0.0.2:443")) {
		t.Errorf("%+v", target)
	}
	p.TLS.ServerName = "pool.example"
	for name, want := range map[string]string{"": "pool.example", "own.example": "own.example"} {
		if got := p.CheckFor(at("10.0.0.3:443"), "app.internal", name, "").Check.ServerName; got != want {
			t.Errorf("a server with the name %q: the check asks for %q, want %q", name, got, want)
		}
	}
	p.Check.ServerName = "check.example"
	if got := p.CheckFor(at("10.0.0.3:443"), "app.internal", "own.example", "").Check.ServerName; got != "check.example" {
		t.Errorf("a check with a name of its own asks for %q", got)
	}
	p.Check, p.HTTP = &health.Config{Type: health.GRPC}, l7.HTTP2
	if p.inherit(); !p.Check.TLS || p.Check.CAFile != "/ca.pem" || p.Check.HTTP != "" {
		t.Errorf("%+v", p.Check)
	}
	for kind, want := range map[health.Type]string{health.HTTPS: "2", health.TCP: ""} {
		p.Check = &health.Config{Type: kind}
		if p.inherit(); p.Check.HTTP != want {
			t.Errorf("%+v", p.Check)
		}
	}
	p.Check = &health.Config{Type: health.HTTPS, HTTP: "1.1"}
	if p.inherit(); p.Check.HTTP != "1.1" {
		t.Errorf("%+v", p.Check)
	}
	p.Check = &health.Config{Type: health.HTTPS, Port: 8443}
	p.inherit()
	if p.Check.Verify || p.Check.HTTP != "" {
		t.Error("a check of another port is judged by the pool's tls")
	}
}
