//go:build scan

package integration

import (
	"encoding/json"
	"testing"
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
	newAuthority(t, a).issue("leaf", 0, "blog.example")
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
