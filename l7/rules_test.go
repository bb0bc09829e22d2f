package l7

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"appliance/internal/pool"
)

// ruledService makes a service "web" with these routes in front of a server
// that tells what it was asked.
func ruledService(t *testing.T, cfg Config) (*rig, netip.AddrPort) {
	t.Helper()
	r := newRig(t)
	r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "secret")
		for _, name := range []string{"X-A", "X-B", "Cookie"} {
			for _, v := range r.Header.Values(name) {
				w.Header().Add("Got-"+name, v)
			}
		}
		fmt.Fprintf(w, "%s %s %s", r.Method, r.Host, r.RequestURI)
	}))
	addr := r.addr()
	cfg.Name, cfg.Listen = "web", []netip.AddrPort{addr}
	r.apply(cfg)
	return r, addr
}

// askFor asks for a target and returns the answer, its body read.
func askFor(t *testing.T, addr netip.AddrPort, target string, more ...string) (*http.Response, string) {
	t.Helper()
	resp := say(t, addr, "GET "+target+" HTTP/1.1\r\nHost: a.example\r\n"+strings.Join(more, "\r\n")+strings.Repeat("\r\n", min(len(more), 1))+"\r\n")
	return resp, body(t, resp)
}

func TestMatching(t *testing.T) {
	pools := make(map[string]*pool.Pool)
	var cfg Config
	for i, r := range []Route{
		{Paths: []string{"/"}},
		{Paths: []string{"/a"}},
		{Paths: []string{"/a/b"}},
		{Paths: []string{"~ ^/a/b/c.*[.]php$"}},
		{Paths: []string{"=/a/b/", "= /only"}},
		{Paths: []string{"/m"}, Methods: []string{"GET", "PUT"}},
		{Paths: []string{"/m"}},
		{Paths: []string{"/h"}, Headers: map[string]string{"X-One": "1", "X-Any": "*", "X-Re": "~ ^b+$"}},
		{Paths: []string{"/q"}, Query: map[string]string{"a b": "~^[0-9]+$", "c": "ü"}},
	} {
		r.Pool = strconv.Itoa(i)
		pools[r.Pool] = pool.New(pool.Config{Name: r.Pool})
		cfg.Routes = append(cfg.Routes, r)
	}
	table, err := newTable(cfg, pools)
	if err != nil {
		t.Fatal(err)
	}
	all := fields{{Name: "x-one", Value: "1"}, {Name: "X-ANY", Value: ""}, {Name: "X-Re", Value: "a"}, {Name: "x-re", Value: "bb"}}
	for _, tc := range []struct {
		method, target string
		fields         fields
		want           string
	}{
		{"GET", "/", nil, "0"},
		{"GET", "/x", nil, "0"},
		{"GET", "/a/", nil, "1"},
		{"GET", "/a/b", nil, "4"},
		{"GET", "/a/./%62/", nil, "4"},
		{"GET", "/a/b/c", nil, "2"},
		{"GET", "/a/b/c/d.php", nil, "3"},
		{"GET", "/a/b/c/d.php?x", nil, "3"},
		{"GET", "/a/b/c/d.phpx", nil, "2"},
		{"GET", "/only/", nil, "4"},
		{"GET", "/only/x", nil, "0"},
		{"GET", "/m", nil, "5"},
		{"HEAD", "/m", nil, "5"},
		{"PUT", "/m", nil, "5"},
		{"POST", "/m", nil, "6"},
		{"GET", "/h", all, "7"},
		{"GET", "/h", all[:3], "0"},
		{"GET", "/h", all[1:], "0"},
		{"GET", "/q?a%20b=17&c=%C3%BC", nil, "8"},
		{"GET", "/q?c=%C3%BC&x&a+b=17", nil, "8"},
		{"GET", "/q?a+b=x&c=%C3%BC", nil, "0"},
		{"GET", "/q", nil, "0"},
	} {
		to := table.find("", &exchange{method: tc.method, target: tc.target, fields: tc.fields})
		if got := to.pool.Name(); got != tc.want {
			t.Errorf("%s %s %v goes to %s, want %s", tc.method, tc.target, tc.fields, got, tc.want)
		}
	}
}

func TestPathEdit(t *testing.T) {
	for _, tc := range []struct {
		route        Route
		target, want string // "": refused
	}{
		{Route{StripPrefix: "/api/"}, "/api", "/"},
		{Route{StripPrefix: "/api"}, "/api/", "/"},
		{Route{StripPrefix: "/api"}, "/api?x=/api", "/?x=/api"},
		{Route{StripPrefix: "/api"}, "/api/x%2Fy/%41?q", "/x%2Fy/%41?q"}, // its own spelling
		{Route{StripPrefix: "/api"}, "/apis/x", "/apis/x"},
		{Route{StripPrefix: "/api"}, "/%61pi/x/?q", "/x/?q"},
		{Route{StripPrefix: "/api"}, "/api/../api/x", "/x"},
		{Route{StripPrefix: "/api"}, "/api/%2e%2e/api/x", "/x"},
		{Route{StripPrefix: "/api"}, "//api//x", "/x"},
		{Route{StripPrefix: "/api"}, "/api/%zz", ""},
		{Route{StripPrefix: "/api"}, "*", "*"},
		{Route{Rewrite: &Rewrite{Match: "^/old/(.*)$", To: "/new/$1"}}, "/old/a%20b?q=1", "/new/a%20b?q=1"},
		{Route{Rewrite: &Rewrite{Match: "^/old/(.*)$", To: "/new/$1"}}, "/old/a/", "/new/a/"},
		{Route{Rewrite: &Rewrite{Match: "^/old/(.*)$", To: "$1"}}, "/old//evil/%0d%0ax%3f", "/evil/%0D%0Ax%3F"},
		{Route{Rewrite: &Rewrite{Match: "^/u/([0-9]+)$", To: "/user/${1}x"}}, "/u/17", "/user/17x"},
		{Route{Rewrite: &Rewrite{Match: "^/u$", To: "/v"}}, "/w", "/w"},
		{Route{StripPrefix: "/api", Rewrite: &Rewrite{Match: "^/", To: "/v2/"}}, "/api/x", "/v2/x"},
	} {
		e, err := newPathEdit(tc.route)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := e.apply(tc.target); got != tc.want || (err != nil) != (tc.want == "") {
			t.Errorf("%+v: %s becomes %q, %v; want %q", tc.route, tc.target, got, err, tc.want)
		}
	}
}

func TestTemplate(t *testing.T) {
	ex := &exchange{method: "GET", target: "/p?q=1", scheme: "https", host: "A.Example.:8443", peer: newPeer(netip.MustParseAddr("192.0.2.7"))}
	for text, want := range map[string]string{
		"":                               "",
		"plain":                          "plain",
		`{"group":"x","a":{"b":[]}}`:     `{"group":"x","a":{"b":[]}}`,
		"{client}":                       "192.0.2.7",
		"a{client}b{method}{":            "a192.0.2.7bGET{",
		"{scheme}://{host}{path}{query}": "https://a.example/p?q=1",
		"{{path}}{server}}":              "{/p}}",
	} {
		tm, err := newTemplate(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := tm.fill(ex); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	if _, err := newTemplate("x{clint}"); err == nil || !strings.Contains(err.Error(), "{client}") {
		t.Errorf("an unknown variable: %v", err)
	}
}

func TestHeaderRules(t *testing.T) {
	_, addr := ruledService(t, Config{
		Pool:  "p",
		Rules: Rules{ResponseHeaders: &HeaderRules{Set: map[string]string{"X-Common": "1", "X-Served-By": "{server}"}, Remove: []string{"server"}}},
		Routes: []Route{
			{Paths: []string{"/own"}, Pool: "p", StripPrefix: "/own", Rules: Rules{
				RequestHeaders: &HeaderRules{
					Set:    map[string]string{"x-a": "{client}", "Host": "inner.example"},
					Add:    map[string]string{"X-B": "{path}"},
					Remove: []string{"cookie"},
				},
			}},
			{Paths: []string{"/fixed"}, Respond: &Respond{Status: 418, Body: "tea", ContentType: "text/x-tea"}},
			{Paths: []string{"/empty"}, Respond: &Respond{Status: 204}},
			{Paths: []string{"/moved"}, Redirect: &Redirect{To: "https://www.{host}{path}{query}", Status: 302}},
		},
	})
	resp, text := askFor(t, addr, "/own/x?y", "X-A: 1", "x-a: 2", "X-B: 3", "Cookie: c")
	if text != "GET inner.example /x?y" {
		t.Errorf("the server was asked for %q", text)
	}
	if h := fmt.Sprint(resp.Header["Got-X-A"], resp.Header["Got-X-B"], resp.Header["Got-Cookie"]); h != "[127.0.0.1] [3 /own/x] []" {
		t.Errorf("the server got %s", h)
	}
	if resp.Header.Get("X-Common") != "1" || resp.Header.Get("Server") != "" || !strings.HasPrefix(resp.Header.Get("X-Served-By"), "127.0.0.1:") {
		t.Errorf("the client got %v", resp.Header)
	}
	if resp, text := askFor(t, addr, "/plain", "X-A: 1", "Cookie: c"); text != "GET a.example /plain" || resp.Header.Get("Got-X-A") != "1" || resp.Header.Get("Got-Cookie") != "c" {
		t.Errorf("%q %v", text, resp.Header)
	}
	if resp, text := askFor(t, addr, "/fixed"); resp.StatusCode != 418 || text != "tea" || resp.Header.Get("Content-Type") != "text/x-tea" || resp.Header.Get("X-Common") != "1" {
		t.Errorf("%s %q %v", resp.Status, text, resp.Header)
	}
	if resp, text := askFor(t, addr, "/empty"); resp.StatusCode != 204 || text != "" || resp.Header.Get("Content-Type") != "" {
		t.Errorf("%s %q %v", resp.Status, text, resp.Header)
	}
	if resp, _ := askFor(t, addr, "/moved/x?y"); resp.StatusCode != 302 || resp.Header.Get("Location") != "https://www.a.example/moved/x?y" || resp.Header.Get("X-Common") != "1" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	resp = say(t, addr, "HEAD /fixed HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if b, _ := io.ReadAll(resp.Body); resp.ContentLength != 3 || len(b) > 0 {
		t.Errorf("HEAD: %d %q", resp.ContentLength, b)
	}
}

func TestPages(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cfg := Config{
		Rules: Rules{ErrorPages: map[string]string{"404": write("404.html", "<p>gone")}, Maintenance: &Maintenance{Page: write("m.html", "<p>later")}},
		Routes: []Route{
			{Paths: []string{"/p"}, Pool: "p"},
			{Paths: []string{"/instead"}, Pool: "p", Rules: Rules{InterceptErrors: true}},
			{Paths: []string{"/dead"}, Pool: "dead"},
			{Paths: []string{"/closed"}, Pool: "p", Rules: Rules{Maintenance: &Maintenance{Page: write("c.txt", "closed"), Active: true, RetryAfter: 5e9}}},
		},
	}
	r := newRig(t)
	r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/p" {
			w.Header().Set("Retry-After", "7")
		}
		http.Error(w, "its own", 404)
	}))
	r.pool("dead", "127.0.0.1:1")
	addr := r.addr()
	cfg.Name, cfg.Listen = "web", []netip.AddrPort{addr}
	r.apply(cfg)
	for _, s := range r.pools["dead"].Servers() {
		if err := r.pools["dead"].SetAdmin(s.Label(), pool.Maint); err != nil {
			t.Fatal(err)
		}
	}
	for target, want := range map[string]string{
		"/none":    "404 text/html; charset=utf-8  <p>gone",
		"/p":       "404 text/plain; charset=utf-8  its own\n",
		"/instead": "404 text/html; charset=utf-8 7 <p>gone",
		"/dead":    "503 text/html; charset=utf-8 60 <p>later",
		"/closed":  "503 text/plain; charset=utf-8 5 closed",
	} {
		resp, text := askFor(t, addr, target)
		if got := fmt.Sprintf("%d %s %s %s", resp.StatusCode, resp.Header.Get("Content-Type"), resp.Header.Get("Retry-After"), text); got != want {
			t.Errorf("%s: %q, want %q", target, got, want)
		}
	}
}

func TestRulesAreChecked(t *testing.T) {
	for _, tc := range []struct {
		route Route
		key   string // the one that is at fault
	}{
		{Route{Pool: "p", Respond: &Respond{}}, "route[0].pool"},
		{Route{Files: &Files{Root: "/"}, Respond: &Respond{}}, "route[0].pool"},
		{Route{Respond: &Respond{Status: 101}}, "route[0].respond.status"},
		{Route{Respond: &Respond{Status: 204, Body: "x"}}, "route[0].respond.body"},
		{Route{Respond: &Respond{ContentType: "a\nb"}}, "route[0].respond.content_type"},
		{Route{Respond: &Respond{}, StripPrefix: "/x"}, "route[0].strip_prefix"},
		{Route{Pool: "p", Paths: []string{"~ ("}}, "route[0].paths[0]"},
		{Route{Pool: "p", Paths: []string{"= x"}}, "route[0].paths[0]"},
		{Route{Pool: "p", Headers: map[string]string{"host": "a"}}, "route[0].headers.host"},
		{Route{Pool: "p", Methods: []string{"get"}}, "route[0].methods[0]"},
		{Route{Pool: "p", Headers: map[string]string{"X": "~ ["}}, "route[0].headers.X"},
		{Route{Pool: "p", Query: map[string]string{"a.b": "~ ["}}, `route[0].query."a.b"`},
		{Route{Pool: "p", StripPrefix: "x"}, "route[0].strip_prefix"},
		{Route{Pool: "p", Rewrite: &Rewrite{Match: "(", To: "/"}}, "route[0].rewrite.match"},
		{Route{Pool: "p", Rewrite: &Rewrite{Match: "x", To: "/?x"}}, "route[0].rewrite.to"},
		{Route{Redirect: &Redirect{To: "//evil.example"}}, "route[0].redirect.to"},
		{Route{Redirect: &Redirect{To: "{path}"}}, "route[0].redirect.to"},
		{Route{Redirect: &Redirect{To: "/{path}"}}, "route[0].redirect.to"},
		{Route{Redirect: &Redirect{To: "https://{path}"}}, "route[0].redirect.to"},
		{Route{Redirect: &Redirect{To: "/x", Scheme: "https"}}, "route[0].redirect.to"},
		{Route{Pool: "p", Rules: Rules{RequestHeaders: &HeaderRules{Remove: []string{"Transfer-Encoding"}}}}, "route[0].request_headers.remove[0]"},
		{Route{Pool: "p", Rules: Rules{RequestHeaders: &HeaderRules{Set: map[string]string{"X": "a\r\nb"}}}}, "route[0].request_headers.set.X"},
		{Route{Pool: "p", Rules: Rules{ResponseHeaders: &HeaderRules{Add: map[string]string{"content-length": "1"}}}}, "route[0].response_headers.add.content-length"},
		{Route{Pool: "p", Rules: Rules{ResponseHeaders: &HeaderRules{Add: map[string]string{"X": "{nothing}"}}}}, "route[0].response_headers.add.X"},
		{Route{Pool: "p", Rules: Rules{ErrorPages: map[string]string{"200": "x"}}}, "route[0].error_pages.200"},
		{Route{Pool: "p", Rules: Rules{Maintenance: &Maintenance{}}}, "route[0].maintenance.page"},
		{Route{Pool: "p", Rules: Rules{InterceptErrors: true}}, "route[0].intercept_errors"},
		{Route{Respond: &Respond{}, Rules: Rules{Sticky: &Sticky{Cookie: "a", KeyFile: "b"}}}, "route[0].sticky"},
		{Route{Files: &Files{Root: "/"}, Rules: Rules{Retry: &Retry{}}}, "route[0].retry"},
		{Route{Files: &Files{}}, "route[0].files.root"},
		{Route{Files: &Files{Root: "/", Index: "a/b"}}, "route[0].files.index"},
		{Route{Pool: "p", Rules: Rules{PerClient: &PerClient{Burst: 3, MaxRequests: 1}}}, "route[0].per_client.burst"},
		{Route{Pool: "p", Rules: Rules{BasicAuth: &BasicAuth{}}}, "route[0].basic_auth.users_file"},
		{Route{Pool: "p", Rules: Rules{ForwardAuth: &ForwardAuth{Path: "/"}}}, "route[0].forward_auth.pool"},
		{Route{Pool: "p", Rules: Rules{ForwardAuth: &ForwardAuth{Pool: "a", Path: "/a b"}}}, "route[0].forward_auth.path"},
		{Route{Pool: "p", Rules: Rules{ForwardAuth: &ForwardAuth{Pool: "a", Headers: []string{"Connection"}}}}, "route[0].forward_auth.headers[0]"},
		{Route{Pool: "p", Rules: Rules{ForwardAuth: &ForwardAuth{Pool: "a", Headers: []string{"host"}}}}, "route[0].forward_auth.headers[0]"},
		{Route{Pool: "p", Rules: Rules{Sticky: &Sticky{Cookie: "a b", KeyFile: "b"}}}, "route[0].sticky.cookie"},
		{Route{Pool: "p", Rules: Rules{HashBy: &HashBy{}}}, "route[0].hash_by"},
		{Route{Pool: "p", Rules: Rules{Retry: &Retry{Tries: 11}}}, "route[0].retry.tries"},
		{Route{Pool: "p", Rules: Rules{Retry: &Retry{Budget: 101}}}, "route[0].retry.budget"},
		{Route{Pool: "p", Rules: Rules{Compress: &Compress{Types: []string{"html"}}}}, "route[0].compress.types[0]"},
		{Route{Pool: "p", Rules: Rules{MaxBodySize: -1}}, "route[0].max_body_size"},
	} {
		cfg := Config{Name: "web", Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:80")}, Routes: []Route{tc.route}}
		var keys []string
		cfg.Validate(func(key, message string) { keys = append(keys, key) })
		if len(keys) != 1 || keys[0] != tc.key {
			t.Errorf("%+v: problems at %v, want %s", tc.route, keys, tc.key)
		}
	}
}
