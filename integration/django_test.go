package integration

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"appliance/internal/lab"
)

const djangoConfig = nodesConfig + `
[[l7]]
name   = "blog"
listen = ["192.168.15.3:443"]
pool   = "django"

[l7.tls]
certificates = [
    { cert = "blog.pem", key = "blog.key" },
    { cert = "forum.pem", key = "forum.key" },
]

[[l7.route]]
hosts        = ["blog.example.com"]
paths        = ["/static"]
files        = "static"
strip_prefix = "/static"

[[l7.route]]
hosts = ["forum.example.com"]
pool  = "forum"

[[l7.route]]
hosts = ["blog.example.com"]
paths = ["/community"]
pool  = "forum"

[[l7]]
name   = "plain"
listen = ["192.168.15.3:80"]

[l7.redirect]
scheme = "https"

[pool.django]
servers = [{ name = "web1", address = "172.16.1.51:8000" },
           { name = "web2", address = "172.16.1.52:8000" }]
check   = { type = "http", path = "/health", host = "blog.example.com", ` + quickCheck + ` }

[pool.forum]
servers = [{ name = "web3", address = "172.16.1.53:80" }]
check   = { type = "http", ` + quickCheck + ` }
`

// A Django site behind the appliance works as it does without: its users log
// in, over HTTP/1.1 and HTTP/2, and stay logged in whichever server they reach;
// it knows their addresses, and it does without a server that has died.
func TestDjango(t *testing.T) {
	t.Parallel()
	curl := need(t, "curl", "curl")
	static := t.TempDir() // what a deployment copies to both nodes
	p := newPair(t, replaced(t, djangoConfig, `"static"`, strconv.Quote(static)))
	roots, rootFile := djangoCertificates(p, "blog", "forum")
	p.Servers[2].SetHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "forum: %s %s", r.Host, r.URL.Path)
	}))
	site := djangoMakeSite(p, static)
	gunicorns := []*lab.Process{site.serve(p.Servers[0]), site.serve(p.Servers[1])}
	p.start()
	p.waitUp("django", "web1", "web2")
	p.waitUp("forum", "web3")

	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(version, func(t *testing.T) {
			b := djangoNewBrowser(t, p.Client, roots, version)
			b.logIn()
			b.seesClient()
			b.staysLoggedIn()
			b.reaches(djangoBlog+"/community", "forum: blog.example.com /community")
			b.reaches(djangoBlog+"/community/news", "forum: blog.example.com /community/news")
			b.reaches("https://forum.example.com/admin/", "forum: forum.example.com /admin/")
			if code, body := b.get(djangoBlog + "/communities"); code != http.StatusNotFound || strings.HasPrefix(body, "forum") {
				t.Errorf("/communities is not below /community: status %d, %q", code, body)
			}
			b.isRedirected()
			b.seesStaticFiles(static)
		})
	}
	t.Run("curl", func(t *testing.T) { djangoCurl(t, p, curl, rootFile) })

	load := map[string]*asking{"django": djangoAsk(t, p.Client, roots)}
	p.waitUsed(load, "web1", "web2")
	p.loses("web2", load, func() {
		if err := gunicorns[1].Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	})
	select {
	case <-gunicorns[1].Done():
	case <-time.After(time.Minute):
		t.Fatal("gunicorn does not stop")
	}
	site.serve(p.Servers[1])
	p.waitUsed(load, "web1", "web2")
}

// djangoCurl asks with another client than Go's, from the redirect on.
func djangoCurl(t *testing.T, p *pair, program, roots string) {
	var out strings.Builder
	cmd := p.Client.Command(program, "-q", "--silent", "--show-error", "--http2", "--cacert", roots, "--location",
		"--resolve", "blog.example.com:80:192.168.15.3", "--resolve", "blog.example.com:443:192.168.15.3",
		"--header", "X-Forwarded-For: 10.9.9.9", "--write-out", "\n%{http_version} %{num_redirects}",
		"http://blog.example.com/seen")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := p.Client.Run(p.within(time.Minute), cmd); err != nil {
		t.Fatalf("curl: %v\n%s", err, out.String())
	}
	body, info, _ := strings.Cut(out.String(), "\n")
	var s djangoSeen
	if err := json.Unmarshal([]byte(body), &s); err != nil || info != "2 1" {
		t.Fatalf("%v; curl wrote:\n%s\nwant HTTP/2 after one redirect", err, out.String())
	}
	if s.ForwardedFor != "192.168.15.100" || !s.Secure || s.URL != djangoBlog+"/seen" {
		t.Errorf("the application sees %+v", s)
	}
}

// djangoCertificates puts a certificate for NAME.example.com alone on both
// nodes, for each name. It returns what trusts them, also as a file.
func djangoCertificates(p *pair, names ...string) (roots *x509.CertPool, rootFile string) {
	p.t.Helper()
	var all []byte
	for _, name := range names {
		cert, key := newCertificate(p.t, name+".example.com")
		all = append(all, cert...)
		for _, n := range p.Nodes() {
			if err := errors.Join(n.WriteFile("/run/appliance/"+name+".pem", cert), n.WriteFile("/run/appliance/"+name+".key", key)); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	roots = x509.NewCertPool()
	if !roots.AppendCertsFromPEM(all) {
		p.t.Fatal("the certificates are none")
	}
	rootFile = filepath.Join(p.t.TempDir(), "root.pem")
	if err := os.WriteFile(rootFile, all, 0o644); err != nil {
		p.t.Fatal(err)
	}
	return roots, rootFile
}
