package integration

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"

	"appliance/internal/lab"
)

// A certificate that was replaced is shown to new clients, also if the file's
// text is the same; those who are connected notice nothing.
func TestReloadCertificate(t *testing.T) {
	t.Parallel()
	oldCert, oldKey := newCertificate(t, "blog.example")
	newCert, newKey := newCertificate(t, "blog.example")
	text := patientConfig(t, `listen = ["192.168.15.3:80"]`, `listen = ["192.168.15.3:443"]
tls    = { certificates = [{ cert = "blog.pem", key = "blog.key" }] }`)
	p := newPair(t, text)
	write := func(cert, key []byte) {
		t.Helper()
		for _, n := range p.Nodes() {
			for path, data := range map[string][]byte{"/run/appliance/blog.pem": cert, "/run/appliance/blog.key": key} {
				if err := n.WriteFile(path, data); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	write(oldCert, oldKey)
	p.start()
	kept := p.newBrowser(reloadTrust(t, oldCert))
	kept.get("https://192.168.15.3/")

	write(newCert, newKey)
	p.newBrowser(reloadTrust(t, oldCert)).get("https://192.168.15.3/") // in force until the reload
	for i, reload := range []func(*lab.Node, string){p.reload, p.reloadBySignal} {
		for _, n := range p.Nodes() {
			reload(n, text)
		}
		if i == 0 {
			p.newBrowser(reloadTrust(t, newCert)).get("https://192.168.15.3/")
			kept.get("https://192.168.15.3/")
		}
	}
	if n := kept.dials.Load(); n != 1 {
		t.Errorf("the kept client had to connect %d times", n)
	}
	stranger := p.newBrowser(reloadTrust(t, oldCert))
	if response, err := stranger.client.Get("https://192.168.15.3/"); err == nil {
		response.Body.Close()
		t.Error("the old certificate is still shown to new clients")
	}

	// The pair of two halves is refused, and the good one stays.
	write(oldCert, newKey)
	if code, output := p.applianctl(p.LB01, "reload"); code != 1 || !strings.Contains(output, "does not match") {
		t.Errorf("reload with a key that does not match: exit code %d: %s", code, output)
	}
	p.newBrowser(reloadTrust(t, newCert)).get("https://192.168.15.3/")
}

// reloadTrust accepts one certificate, and shows no session of before.
func reloadTrust(t *testing.T, cert []byte) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(cert) {
		t.Fatal("no certificate")
	}
	return &tls.Config{RootCAs: pool, ServerName: "blog.example"}
}
