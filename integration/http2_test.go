package integration

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const http2Config = nodesConfig + peerTable + `
[[l7]]
name   = "secure"
listen = ["192.168.15.3:443"]
pool   = "web"
tls    = { certificates = [{ cert = "site.pem", key = "site.key" }] }

[[l7]]
name   = "plain"
listen = ["192.168.15.3:80"]
pool   = "web"
http2  = { enabled = true }

[pool.web]
servers = [{ name = "web1", address = "172.16.1.51:80" }, { name = "web2", address = "172.16.1.52:80" }]
check   = { type = "http", ` + quickCheck + ` }
`

// HTTP/2 as curl and h2load speak it, by TLS and without.
func TestHTTP2(t *testing.T) {
	t.Parallel()
	curl, h2load := need(t, "curl", "curl"), need(t, "h2load", "nghttp2-client")
	p := newPair(t, http2Config)
	cert, key := newCertificate(t, "site.example")
	for _, n := range p.Nodes() {
		for path, data := range map[string][]byte{"/run/appliance/site.pem": cert, "/run/appliance/site.key": key} {
			if err := n.WriteFile(path, data); err != nil {
				t.Fatal(err)
			}
		}
	}
	large := make([]byte, 20<<20)
	rand.Read(large)
	for _, s := range p.Servers {
		s.SetHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/large":
				w.Write(large)
			case r.Method == http.MethodPut:
				b, err := io.ReadAll(r.Body)
				fmt.Fprint(w, len(b), bytes.Equal(b, large), err)
			default:
				io.WriteString(w, "hello")
			}
		}))
	}
	p.start()
	p.waitUp("web", "web1", "web2")
	file := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(file, large, 0o644); err != nil {
		t.Fatal(err)
	}

	run := func(program string, args ...string) string {
		t.Helper()
		out, err := p.Client.Output(p.within(time.Minute), program, args...)
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
		}
		return out
	}
	for site, how := range map[string]string{"https://192.168.15.3/": "--http2", "http://192.168.15.3/": "--http2-prior-knowledge"} {
		ask := func(args ...string) string {
			t.Helper()
			return run(curl, append([]string{"-q", "--silent", "--show-error", "--insecure", how, "--write-out", " %{http_version} %{http_code}"}, args...)...)
		}
		if got := ask(site); got != "hello 2 200" {
			t.Errorf("%s: %q", site, got)
		}
		got := filepath.Join(t.TempDir(), "got")
		if text := ask("--output", got, site+"large"); text != " 2 200" {
			t.Errorf("%s: %q", site, text)
		}
		if b, err := os.ReadFile(got); err != nil || !bytes.Equal(b, large) {
			t.Errorf("%s: %d bytes of %d, %v", site, len(b), len(large), err)
		}
		if text := ask("--upload-file", file, site+"up"); text != fmt.Sprintf("%d true <nil> 2 200", len(large)) {
			t.Errorf("%s: %q", site, text)
		}
		// Without its length, in one stream of unknown end.
		if text := ask("--upload-file", "-", site+"up"); text != "0 false <nil> 2 200" {
			t.Errorf("%s: %q", site, text)
		}
		out := run(h2load, "-n3000", "-c20", "-m20", site)
		if !strings.Contains(out, "3000 succeeded, 0 failed, 0 errored, 0 timeout") {
			t.Errorf("%s: %s", site, out)
		}
	}
	// HTTP/1 is served at the same ports; answers are of version 1.1 (RFC 9110, section 6.2).
	for _, site := range []string{"https://192.168.15.3/", "http://192.168.15.3/"} {
		for _, how := range []string{"--http1.0", "--http1.1"} {
			ask := func(args ...string) string {
				t.Helper()
				return run(curl, append([]string{"-q", "--silent", "--show-error", "--insecure", how, "--write-out", " %{http_version}"}, args...)...)
			}
			if got := ask(site); got != "hello 1.1" {
				t.Errorf("%s by %s: %q", site, how, got)
			}
			got := filepath.Join(t.TempDir(), "got")
			ask("--output", got, site+"large")
			if b, err := os.ReadFile(got); err != nil || !bytes.Equal(b, large) {
				t.Errorf("%s by %s: %d bytes of %d, %v", site, how, len(b), len(large), err)
			}
			if text := ask("--upload-file", file, site+"up"); text != fmt.Sprintf("%d true <nil> 1.1", len(large)) {
				t.Errorf("%s by %s: %q", site, how, text)
			}
		}
	}
}
