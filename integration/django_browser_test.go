package integration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"appliance/internal/lab"
)

const djangoBlog = "https://blog.example.com"

// djangoSeen is the answer of the view seen.
type djangoSeen struct {
	Server       string
	Remote       string
	ForwardedFor string `json:"forwarded_for"`
	RealIP       string `json:"real_ip"`
	Secure       bool
	URL          string
	User         string
}

// djangoBrowser is a user at the client, with cookies, who knows one version of
// HTTP.
type djangoBrowser struct {
	t       *testing.T
	client  *http.Client
	version string
}

// djangoNewBrowser returns a browser that finds all names at the virtual
// address, follows no redirects, and closes with the test.
func djangoNewBrowser(t *testing.T, from *lab.Host, roots *x509.CertPool, version string) *djangoBrowser {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(version == "HTTP/1.1")
	protocols.SetHTTP2(version == "HTTP/2.0")
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return from.DialContext(ctx, network, net.JoinHostPort(lab.DefaultVIP.String(), port))
		},
		TLSClientConfig: &tls.Config{RootCAs: roots},
		Protocols:       protocols,
	}
	t.Cleanup(transport.CloseIdleConnections)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &djangoBrowser{t: t, version: version, client: &http.Client{
		Transport:     transport,
		Jar:           jar,
		Timeout:       30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// do sends a request and returns the answer with its body.
func (b *djangoBrowser) do(r *http.Request) (*http.Response, string) {
	b.t.Helper()
	resp, err := b.client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatalf("%s %s: reading the answer: %v", r.Method, r.URL, err)
	}
	if r.URL.Scheme == "https" && resp.Proto != b.version {
		b.t.Errorf("%s %s: answer by %s, want %s", r.Method, r.URL, resp.Proto, b.version)
	}
	return resp, string(body)
}

// request returns a request with fields, which alternate between name and
// value.
func (b *djangoBrowser) request(method, where, body string, fields ...string) *http.Request {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, where, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	return r
}

func (b *djangoBrowser) get(where string, fields ...string) (status int, body string) {
	b.t.Helper()
	resp, body := b.do(b.request("GET", where, "", fields...))
	return resp.StatusCode, body
}

func (b *djangoBrowser) reaches(where, want string) {
	b.t.Helper()
	if code, body := b.get(where); code != http.StatusOK || body != want {
		b.t.Errorf("%s: status %d, %q; want %q", where, code, body, want)
	}
}

// seen asks the application what it sees.
func (b *djangoBrowser) seen(fields ...string) (s djangoSeen) {
	b.t.Helper()
	code, body := b.get(djangoBlog+"/seen", fields...)
	if err := json.Unmarshal([]byte(body), &s); err != nil || code != http.StatusOK {
		b.t.Fatalf("/seen: status %d, %v: %q", code, err, body)
	}
	return s
}

var djangoToken = regexp.MustCompile(`name="csrfmiddlewaretoken" value="(\w+)"`)

// logIn logs in as administrator, once with a token that is wrong.
func (b *djangoBrowser) logIn() {
	b.t.Helper()
	const login = djangoBlog + "/admin/login/?next=/admin/"
	if resp, _ := b.do(b.request("GET", djangoBlog+"/admin/", "")); resp.StatusCode != http.StatusFound ||
		resp.Header.Get("Location") != "/admin/login/?next=/admin/" {
		b.t.Fatalf("/admin/ of nobody: status %d, to %q", resp.StatusCode, resp.Header.Get("Location"))
	}
	_, page := b.get(login)
	token := djangoToken.FindStringSubmatch(page)
	if token == nil {
		b.t.Fatalf("no token on the login page:\n%s", page)
	}
	for _, try := range []struct {
		token string
		want  int
	}{{strings.Repeat("a", len(token[1])), http.StatusForbidden}, {token[1], http.StatusFound}} {
		form := url.Values{"csrfmiddlewaretoken": {try.token}, "username": {djangoUser}, "password": {djangoWord}, "next": {"/admin/"}}
		resp, body := b.do(b.request("POST", login, form.Encode(), "Referer", login, "Origin", djangoBlog,
			"Content-Type", "application/x-www-form-urlencoded"))
		if resp.StatusCode != try.want {
			b.t.Fatalf("login: status %d, want %d:\n%s", resp.StatusCode, try.want, body)
		}
	}
	if code, body := b.get(djangoBlog + "/admin/"); code != http.StatusOK || !strings.Contains(body, "Site administration") {
		b.t.Fatalf("/admin/ after the login: status %d:\n%s", code, body)
	}
}

// seesClient shows that the application knows who asks, whatever the client
// says of itself.
func (b *djangoBrowser) seesClient() {
	b.t.Helper()
	for name, spoofed := range map[string][]string{
		"honest": nil,
		"spoofed": {"X-Forwarded-For", "10.9.9.9", "X-Real-IP", "10.9.9.9", "Forwarded", "for=10.9.9.9",
			"X-Forwarded-Proto", "http", "X-Forwarded-Host", "evil.example.com", "X_Forwarded_For", "10.9.9.9"},
	} {
		s := b.seen(spoofed...)
		if s.ForwardedFor != "192.168.15.100" || s.RealIP != "192.168.15.100" || s.Remote != "172.16.1.11" ||
			!s.Secure || s.URL != djangoBlog+"/seen" {
			b.t.Errorf("%s: the application sees %+v", name, s)
		}
	}
}

// staysLoggedIn shows that both servers answer and know the user.
func (b *djangoBrowser) staysLoggedIn() {
	b.t.Helper()
	answers := make(map[string]int)
	for range 20 {
		s := b.seen()
		answers[s.Server]++
		if s.User != djangoUser {
			b.t.Errorf("%s takes the user for %q, want %q", s.Server, s.User, djangoUser)
		}
	}
	if answers["web1"] == 0 || answers["web2"] == 0 {
		b.t.Errorf("answers of the servers: %v, want some of each", answers)
	}
}

// isRedirected shows that plain HTTP leads to the same place by HTTPS, with a
// status that keeps the method. Plain HTTP is always HTTP/1.1.
func (b *djangoBrowser) isRedirected() {
	b.t.Helper()
	plain := *b.client
	transport := plain.Transport.(*http.Transport).Clone()
	transport.Protocols.SetHTTP1(true)
	defer transport.CloseIdleConnections()
	plain.Transport = transport
	for _, method := range []string{"GET", "POST"} {
		resp, err := plain.Do(b.request(method, "http://blog.example.com/admin/?next=%2Fadmin%2F", ""))
		if err != nil {
			b.t.Fatal(err)
		}
		resp.Body.Close()
		if where := resp.Header.Get("Location"); resp.StatusCode != http.StatusPermanentRedirect ||
			where != djangoBlog+"/admin/?next=%2Fadmin%2F" {
			b.t.Errorf("%s by plain HTTP: status %d, to %q", method, resp.StatusCode, where)
		}
	}
}

// djangoAsk asks by HTTP/2, in one connection, and by HTTP/1.1, in several, in
// turn.
func djangoAsk(t *testing.T, from *lab.Host, roots *x509.CertPool) *asking {
	browsers := []*djangoBrowser{djangoNewBrowser(t, from, roots, "HTTP/1.1"), djangoNewBrowser(t, from, roots, "HTTP/2.0")}
	var turn atomic.Uint64
	return startAsking(t, func(ctx context.Context) (string, error) {
		client := browsers[turn.Add(1)%2].client
		r, err := http.NewRequestWithContext(ctx, "GET", djangoBlog+"/seen", nil)
		if err != nil {
			return "", err
		}
		resp, err := client.Do(r)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return "", errors.New(resp.Status)
		}
		var s djangoSeen
		err = json.NewDecoder(resp.Body).Decode(&s)
		return s.Server, err
	})
}

var djangoAsset = regexp.MustCompile(`(?:href|src)="(/static/[^"]+)"`)

// seesStaticFiles gets what the administrator's page is made of, which the
// appliance serves, for gunicorn serves none of it.
func (b *djangoBrowser) seesStaticFiles(folder string) {
	b.t.Helper()
	_, page := b.get(djangoBlog + "/admin/")
	assets := djangoAsset.FindAllStringSubmatch(page, -1)
	if len(assets) < 3 {
		b.t.Errorf("the page has %d static files: %s", len(assets), page)
	}
	for _, asset := range assets {
		want, err := os.ReadFile(filepath.Join(folder, strings.TrimPrefix(asset[1], "/static/")))
		if err != nil {
			b.t.Fatal(err)
		}
		resp, body := b.do(b.request("GET", djangoBlog+asset[1], ""))
		if resp.StatusCode != http.StatusOK || body != string(want) {
			b.t.Errorf("%s: status %d, %d bytes of %d", asset[1], resp.StatusCode, len(body), len(want))
		}
		kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
		if strings.HasSuffix(asset[1], ".css") && kind != "text/css" || strings.HasSuffix(asset[1], ".js") && kind != "text/javascript" {
			b.t.Errorf("%s is of type %s", asset[1], kind)
		}
		if again, _ := b.do(b.request("GET", djangoBlog+asset[1], "", "If-None-Match", resp.Header.Get("ETag"))); again.StatusCode != http.StatusNotModified {
			b.t.Errorf("%s again: status %d", asset[1], again.StatusCode)
		}
	}
}
