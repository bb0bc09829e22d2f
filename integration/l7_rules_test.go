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

	"appliance/internal/lab"
)

// rulesConfig has FOLDER in the place of a folder.
const rulesConfig = nodesConfig + peerTable + `
[[l7]]
name       = "web"
listen     = ["192.168.15.3:80"]
pool       = "web"
request_id = "X-Request-ID"

[l7.sticky]
cookie   = "srv"
key_file = "sticky.key"

[[l7.route]]
paths        = ["/static"]
files        = "FOLDER"
strip_prefix = "/static"

[[l7.route]]
paths      = ["/private"]
pool       = "web"
basic_auth = { users_file = "users" }

[[l7.route]]
paths         = ["/bounded"]
pool          = "web"
max_body_size = "1KiB"
per_client    = { rate = 1, burst = 5 }

[[l7.route]]
paths    = ["/packed"]
pool     = "web"
compress = {}

[pool.web]
servers = [{ name = "web1", address = "172.16.1.51:80" }, { name = "web2", address = "172.16.1.52:80" }]
check   = { type = "http", ` + quickCheck + ` }
`

// Files, limits, passwords, packing and cookies, as curl sees them.
func TestRules(t *testing.T) {
	t.Parallel()
	curl, htpasswd := need(t, "curl", "curl"), need(t, "htpasswd", "apache2-utils")
	folder := t.TempDir()
	p := newPair(t, strings.ReplaceAll(rulesConfig, "FOLDER", folder))
	large := make([]byte, 20<<20)
	rand.Read(large)
	for name, content := range map[string][]byte{"large.bin": large, "site.css": []byte("body { color: red }"), "site.css.gz": []byte("packed")} {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	users, err := p.Client.Output(p.within(time.Minute), htpasswd, "-nbB", "ann", "secret")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range p.Nodes() {
		for name, text := range map[string]string{"users": users, "sticky.key": "a key that both nodes know"} {
			if err := n.WriteFile("/run/appliance/"+name, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, s := range p.Servers {
		s.SetHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			if r.URL.Path == "/slow" {
				time.Sleep(50 * time.Millisecond) // so that some are under way at any time
			}
			if r.URL.Path == "/packed" {
				io.WriteString(w, strings.Repeat(s.Name()+" ", 10000))
				return
			}
			fmt.Fprintf(w, "%s %d", s.Name(), len(r.Header.Get("X-Request-ID")))
		}))
	}
	p.start()
	p.waitUp("web", "web1", "web2")

	ask := func(args ...string) string {
		t.Helper()
		out, err := p.Client.Output(p.within(time.Minute), curl, append([]string{"-q", "--silent", "--show-error"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	const site = "http://192.168.15.3"

	t.Run("files", func(t *testing.T) {
		got := filepath.Join(t.TempDir(), "got")
		check := func(want []byte) {
			t.Helper()
			if b, err := os.ReadFile(got); err != nil || !bytes.Equal(b, want) {
				t.Errorf("%d bytes of %d, %v", len(b), len(want), err)
			}
		}
		if text := ask("--output", got, "--write-out", "%{http_code} %{content_type}", site+"/static/large.bin"); text != "200 application/octet-stream" {
			t.Errorf("the whole file: %s", text)
		}
		check(large)
		if text := ask("--range", "1000000-1999999", "--output", got, "--write-out", "%{http_code}", site+"/static/large.bin"); text != "206" {
			t.Errorf("a range: %s", text)
		}
		check(large[1000000:2000000])
		// A download that broke off goes on where it was.
		if err := os.WriteFile(got, large[:5<<20], 0o600); err != nil {
			t.Fatal(err)
		}
		ask("--continue-at", "-", "--output", got, site+"/static/large.bin")
		check(large)
		etag := filepath.Join(t.TempDir(), "etag")
		ask("--etag-save", etag, "--output", got, site+"/static/site.css")
		if text := ask("--etag-compare", etag, "--write-out", "%{http_code}", site+"/static/site.css"); text != "304" {
			t.Errorf("the same file again: %s", text)
		}
		if text := ask("--header", "Accept-Encoding: gzip", site+"/static/site.css"); text != "packed" {
			t.Errorf("a packed file: %q", text)
		}
		for _, path := range []string{"/static/none", "/static/", "/static/.hidden", "/static/..%2f..%2fetc/passwd", "/static/../../../etc/passwd"} {
			code := ask("--path-as-is", "--output", got, "--write-out", "%{http_code}", site+path)
			if below := !strings.Contains(path, ".."); below && code != "404" {
				t.Errorf("%s: %s", path, code)
			}
			if b, _ := os.ReadFile(got); bytes.Contains(b, []byte("root:")) {
				t.Errorf("%s shows what is outside", path)
			}
		}
	})
	t.Run("passwords", func(t *testing.T) {
		for user, want := range map[string]string{"ann:secret": "200", "ann:Secret": "401", "bob:secret": "401"} {
			if code := ask("--user", user, "--output", "/dev/null", "--write-out", "%{http_code}", site+"/private"); code != want {
				t.Errorf("%s: %s, want %s", user, code, want)
			}
		}
	})
	t.Run("limits", func(t *testing.T) {
		if code := ask("--data", strings.Repeat("x", 1025), "--output", "/dev/null", "--write-out", "%{http_code}", site+"/bounded"); code != "413" {
			t.Errorf("a large body: %s", code)
		}
		codes := ask("--output", "/dev/null", "--write-out", "%{http_code} ", site+"/bounded?[1-40]")
		if ok, many := strings.Count(codes, "200"), strings.Count(codes, "429"); ok < 4 || many < 10 || ok+many != 40 {
			t.Errorf("40 requests at once: %s", codes)
		}
	})
	t.Run("packing", func(t *testing.T) {
		text := ask("--compressed", "--write-out", "\n%{size_download} %header{content-encoding}", site+"/packed")
		content, info, _ := strings.Cut(text, "\n")
		var size int
		var coding string
		if _, err := fmt.Sscan(info, &size, &coding); err != nil || len(strings.Fields(content)) != 10000 || size > len(content)/10 {
			t.Errorf("%d bytes came as %s, %v", len(content), info, err)
		}
	})
	t.Run("a server dies", func(t *testing.T) {
		// Requests are under way at it, idempotent ones: not one fails.
		load := lab.StartLoad(p.Client, lab.LoadOptions{Targets: p.targets(80), Rate: 200, Path: "/slow"})
		defer load.Stop()
		for range 3 {
			p.waitRequests(load, 50)
			p.Servers[0].Kill()
			p.waitRequests(load, 50)
			if err := p.Servers[0].Start(); err != nil {
				t.Fatal(err)
			}
			p.waitUp("web", "web1")
		}
		load.Stop()
		failed := 0
		for _, o := range load.Outcomes() {
			if o.Kind != lab.OK {
				failed++
				t.Errorf("after %v: %s, %v", o.End.Sub(o.Start), o.Kind, o.Err)
			}
		}
		t.Logf("%d of %d requests failed", failed, len(load.Outcomes()))
	})
	t.Run("cookies", func(t *testing.T) {
		jar := filepath.Join(t.TempDir(), "jar")
		first := ask("--cookie-jar", jar, site+"/")
		if !strings.HasSuffix(first, " 32") {
			t.Errorf("the server says %q", first)
		}
		stays := func() {
			t.Helper()
			for range 6 {
				if got := ask("--cookie", jar, "--cookie-jar", jar, site+"/"); got != first {
					t.Errorf("%q instead of %q", got, first)
				}
			}
		}
		stays()
		// The other node knows the cookie too.
		if code, out := p.applianctl(p.LB01, "failover"); code != 0 {
			t.Fatalf("failover: %s", out)
		}
		p.waitActive(p.LB02)
		stays()
		// A server that is drained gets no more; its clients go to another one for good.
		name := "web1"
		if p.Servers[1].Name() == strings.Fields(first)[0] {
			name = "web2"
		}
		if code, out := p.applianctl(p.LB02, "server", "drain", "web/"+name); code != 0 {
			t.Fatalf("server drain: %s", out)
		}
		second := ask("--cookie", jar, "--cookie-jar", jar, site+"/")
		if second == first {
			t.Errorf("still %q", second)
		}
		first = second
		stays()
	})
}
