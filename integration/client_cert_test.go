package integration

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

const clientCertConfig = `
[[l7]]
name       = "web"
listen     = ["127.0.0.1:443"]
servers    = ["127.0.0.1:8000"]
access_log = "access.log"

[l7.tls]
certificates = [{ cert = "site.pem", key = "site.key" }]
client_ca    = "ca.pem"
client_auth  = "optional"
client_crl   = "ca.crl"

[l7.request_headers]
set = { X-Client = "{cert_subject}", X-Serial = "{cert_serial}" }
`

// curl shows certificates, or none; the server learns who it is, whatever curl
// says itself.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	curl := need(t, "curl", "curl")
	a := newAlone(t)
	ca := newAuthority(t, a)
	ca.issue("site", 0, "blog.example")
	ca.issue("ann", 17, "Ann")
	ca.issue("bob", 18, "Bob")
	ca.revoke(18)
	l, err := a.Listen(netip.MustParseAddrPort("127.0.0.1:8000"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%q %q", r.Header.Values("X-Client"), r.Header.Values("X-Serial"))
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	a.start(clientCertConfig)

	ask := func(more ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		return a.Output(ctx, curl, append([]string{"-qsS", "--cacert", "/run/appliance/ca.pem", "--resolve", "blog.example:443:127.0.0.1",
			"-H", "X-Client: CN=root", "-H", "x-serial: 1", "https://blog.example/"}, more...)...)
	}
	show := func(name string) []string {
		return []string{"--cert", "/run/appliance/" + name + ".pem", "--key", "/run/appliance/" + name + ".key"}
	}
	for _, version := range []string{"--http1.1", "--http2"} {
		if got, err := ask(append(show("ann"), version)...); err != nil || got != `["CN=Ann"] ["11"]` {
			t.Errorf("%s, with a certificate: %s, %v", version, got, err)
		}
		if got, err := ask(version); err != nil || got != `[] []` {
			t.Errorf("%s, without one: %s, %v", version, got, err)
		}
		if got, err := ask(append(show("bob"), version)...); err == nil {
			t.Errorf("%s, with one that is revoked: %s", version, got)
		}
	}
	a.write("appliance.toml", strings.Replace(clientCertConfig, "optional", "require", 1))
	a.command("reload")
	if got, err := ask(); err == nil {
		t.Errorf("without a certificate that is required: %s", got)
	}
	ca.revoke(17, 18)
	a.command("reload")
	if got, err := ask(show("ann")...); err == nil {
		t.Errorf("revoked by now: %s", got)
	}
	for _, want := range []string{`"tls_client":"CN=Ann"`, "the client's certificate, CN=Bob, is revoked", "the client's certificate, CN=Ann, is revoked", "didn't provide a certificate"} {
		eventually(t, 30*time.Second, "the access log has "+want, func() bool { return strings.Contains(a.read("access.log"), want) })
	}
	eventually(t, 10*time.Second, "four handshakes have failed", func() bool { return a.status().Services[0].Errors["tls_handshake"] == 4 })
}
