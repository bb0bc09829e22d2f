package l7

import (
	"io"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestNormalHost(t *testing.T) {
	for _, tc := range []struct {
		in, want string
		ok       bool
	}{
		{"blog.example.com", "blog.example.com", true},
		{"Blog.EXAMPLE.com", "blog.example.com", true},
		{"blog.example.com.", "blog.example.com", true},
		{"blog.example.com:8443", "blog.example.com", true},
		{"blog.example.com.:8443", "blog.example.com", true},
		{"blog.example.com:", "blog.example.com", true},
		{"my_host", "my_host", true},
		{"192.0.2.1:80", "192.0.2.1", true},
		{"[2001:DB8:0::1]:80", "[2001:db8::1]", true},
		{"[::1]", "[::1]", true},
		{"", "", false},
		{".", "", false},
		{":80", "", false},
		{"a..b", "", false},
		{"a b", "", false},
		{"a/b", "", false},
		{"a@b", "", false},
		{"*.example.com", "", false},
		{"blog.example.com:http", "", false},
		{"blog.example.com:99999", "", false},
		{"blog.example.com:1:2", "", false},
		{"2001:db8::1", "", false},
		{"[::1", "", false},
		{"[::1]x", "", false},
		{"[fe80::1%25eth0]", "", false},
		{"[192.0.2.1]", "", false},
		{"bücher.example", "", false},
		{"\u212aelvin.example", "", false}, // whose lower case is k
		{strings.Repeat("a", 64), "", false},
	} {
		if got, ok := normalHost(tc.in); got != tc.want || ok != tc.ok {
			t.Errorf("normalHost(%q) = %q, %v; want %q, %v", tc.in, got, ok, tc.want, tc.ok)
		}
	}
}

func TestNormalPath(t *testing.T) {
	for in, want := range map[string]string{
		"/":                 "/",
		"/?a=/../b":         "/",
		"/forum":            "/forum",
		"/forum/":           "/forum",
		"/forum?x":          "/forum",
		"//forum///x//":     "/forum/x",
		"/a/../forum/./x":   "/forum/x",
		"/../../forum":      "/forum",
		"/%66orum":          "/forum",
		"/a/%2e%2e/forum":   "/forum",
		"/a%2Fb":            "/a/b",
		"/a+b":              "/a+b",
		"/%zz":              "/%zz",
		"/forum;session=17": "/forum;session=17",
		"*":                 "",
		"":                  "",
		"example.com:443":   "",
	} {
		if got := normalPath(in); got != want {
			t.Errorf("normalPath(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestValidTarget(t *testing.T) {
	for _, tc := range []struct {
		method, target string
		want           bool
	}{
		{"GET", "/", true}, {"GET", "//x", true}, {"OPTIONS", "*", true}, {"OPTIONS", "/x?#", false},
		{"GET", "*", false}, {"GET", "", false}, {"GET", "x", false}, {"GET", "http:/x", false},
		{"GET", "/x#y", false}, {"GET", "/x%23y", true}, {"OPTIONS", "*x", false},
		{"GET", "/a%2Fb%ff?%&%zz", true}, {"GET", "/%25zz", true}, {"GET", "/%", false}, {"GET", "/%a", false}, {"GET", "/%zz", false},
		{"GET", "/%2", false}, {"GET", "/a%2%2f", false}, {"GET", "/%00", false}, {"GET", "/a%00.html?x", false},
	} {
		if got := validTarget(tc.method, tc.target); got != tc.want {
			t.Errorf("validTarget(%s, %q) = %v", tc.method, tc.target, got)
		}
	}
}

func TestPlainTarget(t *testing.T) {
	for in, want := range map[string]string{
		"/":                          "/",
		"*":                          "*",
		"/a%2Fb//c/%7e?/../%2e%2e":   "/a%2Fb//c/%7e?/../%2e%2e",
		"/.git/x.y/..z/z../...":      "/.git/x.y/..z/z../...",
		"/a;b/c\\d/.;x":              "/a;b/c\\d/.;x",
		"/admin/x/../../public?y=..": "/public?y=..",
		"/admin/%2e%2E/b":            "/b",
		"/admin/..%2fb":              "/b",
		"/a/./b":                     "/a/b",
		"/..":                        "/",
		"/a/b/..":                    "/a/",
		"/a/b/.":                     "/a/b/",
		"/a/../b/":                   "/b/",
		"/a/../%20%3f//%ff":          "/%20%3F/%FF",
		"/..;/b":                     "",
		"/a/..;x=1/b":                "",
		"/a/%2e.%3B/b":               "",
		"/..\\b":                     "",
		"/a/b%5c..":                  "",
	} {
		if got, ok := plainTarget(in); got != want || ok != (want != "") {
			t.Errorf("plainTarget(%q) = %q, %v; want %q", in, got, ok, want)
		}
	}
}

// A server is asked for the path that the route was found by, or for none.
func TestDotsDoNotPassRoutes(t *testing.T) {
	log := t.TempDir() + "/access.log"
	r, addr := clear2(t, web(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RequestURI) }), func(c *Config) {
		c.Routes = []Route{{Paths: []string{"/admin"}, Pool: "p", Rules: Rules{Deny: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}}}
		c.AccessLog = &AccessLog{Path: log}
	})
	p := http2Dial(t, addr)
	id := uint32(1)
	for target, want := range map[string]string{
		"/public":                "200 /public",
		"/admin/x":               "403 403 Forbidden\n",
		"/admin/../public":       "200 /public",
		"/admin/%2e%2e/public?x": "200 /public?x",
		"/admin%2f..%2fpublic":   "200 /public",
		"/admin/./":              "403 403 Forbidden\n",
		"/public/../admin/":      "403 403 Forbidden\n",
		"/public/..;/admin/":     "400 400 Bad Request\n",
		"/public/..%5cadmin/":    "400 400 Bad Request\n",
	} {
		resp := say(t, addr, "GET "+target+" HTTP/1.1\r\nHost: a\r\n\r\n")
		if got := strconv.Itoa(resp.StatusCode) + " " + body(t, resp); got != want {
			t.Errorf("%s by HTTP/1.1: %q, want %q", target, got, want)
		}
		p.ask(id, true, "GET", target)
		if got := p.outcome(id) + " " + p.answers[id].body; got != want {
			t.Errorf("%s by HTTP/2: %q, want %q", target, got, want)
		}
		id += 2
	}
	p.conn.Close()
	r.until("the log has what was sent", func() bool {
		b, _ := os.ReadFile(log)
		return strings.Contains(string(b), `"target":"/admin/../public"`)
	})
}

// What is normal stays as it is, and a host never brings more than a host.
func FuzzNormalHost(f *testing.F) {
	for _, s := range []string{"blog.example.com:80", "[::1]:80", "a..", "[::1", "x:y:z", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		host, ok := normalHost(in)
		if !ok {
			if host != "" {
				t.Fatalf("%q is no host, yet %q came back", in, host)
			}
			return
		}
		if again, ok := normalHost(host); !ok || again != host {
			t.Fatalf("%q -> %q -> %q, %v", in, host, again, ok)
		}
		if strings.ContainsAny(host, "/@?#\\% \t\r\n\"") {
			t.Fatalf("%q -> %q would lead elsewhere", in, host)
		}
		location, ok := (Redirect{Scheme: "https"}).location(in, "/x")
		if !ok || location != "https://"+host+"/x" {
			t.Fatalf("redirect of %q: %q, %v", in, location, ok)
		}
	})
}

func FuzzNormalPath(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "/%2e%2e/%2F", "//x", "*", "/a?b/../c", "/%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		p := normalPath(in)
		if p == "" {
			if strings.HasPrefix(in, "/") {
				t.Fatalf("%q has no path", in)
			}
			return
		}
		for segment := range strings.SplitSeq(strings.Trim(p, "/"), "/") {
			if segment == ".." || segment == "." || (segment == "" && p != "/") {
				t.Fatalf("%q -> %q has the segment %q", in, p, segment)
			}
		}
		if !validEscapes(in[:len(in)-lenQuery(in)]) {
			return
		}
		if plain, ok := plainTarget(in); ok && (normalPath(plain) != p || strings.Contains(plain[:len(plain)-lenQuery(plain)]+"/", "/../")) {
			t.Fatalf("%q -> %q, which is %q and not %q", in, plain, normalPath(plain), p)
		}
		if p[0] != '/' || p != "/" && strings.HasSuffix(p, "/") {
			t.Fatalf("%q -> %q", in, p)
		}
	})
}
