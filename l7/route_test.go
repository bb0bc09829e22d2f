package l7

import (
	"strings"
	"testing"

	"appliance/internal/pool"
)

func TestRoutes(t *testing.T) {
	pools := make(map[string]*pool.Pool)
	for _, name := range []string{"blog", "forum", "forum-new", "wild", "deep", "any", "static", "rest", "late"} {
		pools[name] = pool.New(pool.Config{Name: name})
	}
	cfg := Config{
		Name: "web",
		Pool: "rest",
		Routes: []Route{
			{Hosts: []string{"*.example.com"}, Pool: "wild"},
			{Hosts: []string{"*.deep.example.com"}, Pool: "deep"},
			{Hosts: []string{"Blog.Example.com"}, Paths: []string{"/"}, Pool: "blog"},
			{Hosts: []string{"blog.example.com"}, Paths: []string{"/forum"}, Pool: "forum"},
			{Hosts: []string{"blog.example.com"}, Paths: []string{"/forum/new/", "/new"}, Pool: "forum-new"},
			{Hosts: []string{"blog.example.com"}, Paths: []string{"/forum"}, Pool: "late"},
			{Hosts: []string{"part.example.com"}, Paths: []string{"/part"}, Pool: "late"},
			{Paths: []string{"/static"}, Pool: "static"},
			{Hosts: []string{"api.example.org"}, Pool: "any"},
			{Paths: []string{"/old"}, Redirect: &Redirect{Scheme: "https"}},
		},
	}
	table, err := newTable(cfg, pools)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ host, target, want string }{
		{"blog.example.com", "/", "blog"},
		{"BLOG.example.com.:443", "/x?/forum", "blog"},
		{"blog.example.com", "/forum", "forum"},
		{"blog.example.com", "/forum/", "forum"},
		{"blog.example.com", "/forum?x", "forum"},
		{"blog.example.com", "/forum/x", "forum"},
		{"blog.example.com", "/forums", "blog"},
		{"blog.example.com", "/forum/new", "forum-new"},
		{"blog.example.com", "/forum/newer", "forum"},
		{"blog.example.com", "/new/x", "forum-new"},
		{"blog.example.com", "/x/../forum", "forum"},
		{"blog.example.com", "/%66orum/x", "forum"},
		{"blog.example.com", "/static/x", "blog"}, // exact hosts come first
		{"www.example.com", "/static/x", "wild"},
		{"a.b.example.com", "/", "wild"},
		{"a.deep.example.com", "/", "deep"}, // the more particular wildcard, though later
		{"deep.example.com", "/", "wild"},
		{"example.com", "/", "rest"},
		{"notexample.com", "/", "rest"},
		{"part.example.com", "/part", "late"},
		{"part.example.com", "/other", "wild"}, // no path of the exact host matches
		{"api.example.org", "/", "any"},
		{"other.org", "/static", "static"},
		{"other.org", "/statics", "rest"},
		{"other.org", "/old/x", "redirect"},
		{"", "/", "rest"},
		{"", "/static", "static"},
		{"bad host", "/static", "static"},
		{"other.org", "*", "rest"},
		{"api.example.org", "*", "any"},
	} {
		host, _ := normalHost(tc.host)
		to := table.find(host, &exchange{method: "GET", target: tc.target})
		got := "nothing"
		switch {
		case to != nil && to.redirect != nil:
			got = "redirect"
		case to != nil:
			got = to.pool.Name()
		}
		if got != tc.want {
			t.Errorf("%s %s goes to %s, want %s", tc.host, tc.target, got, tc.want)
		}
	}

	cfg.Pool = ""
	if table, err = newTable(cfg, pools); err != nil {
		t.Fatal(err)
	}
	if to := table.find("other.org", &exchange{method: "GET", target: "/"}); to != nil {
		t.Errorf("without a pool of the service, / goes to %v", to)
	}
	cfg.Routes[1].Pool = "missing"
	if _, err := newTable(cfg, pools); err == nil || !strings.Contains(err.Error(), `route[1]: unknown pool "missing"`) {
		t.Errorf("error for a missing pool: %v", err)
	}
}

func TestRedirectLocation(t *testing.T) {
	for _, tc := range []struct {
		redirect     Redirect
		host, target string
		want         string
	}{
		{Redirect{Scheme: "https"}, "blog.example.com", "/", "https://blog.example.com/"},
		{Redirect{Scheme: "https"}, "Blog.example.com:80", "/a%2Fb//c/../?x=1&y=%20#z", "https://blog.example.com/a%2Fb//c/../?x=1&y=%20#z"},
		{Redirect{Scheme: "https", Port: 8443}, "blog.example.com:80", "/", "https://blog.example.com:8443/"},
		{Redirect{Scheme: "https", Port: 443}, "blog.example.com", "/", "https://blog.example.com/"},
		{Redirect{Scheme: "http", Port: 443}, "blog.example.com", "/", "http://blog.example.com:443/"},
		{Redirect{Scheme: "http", Port: 80}, "blog.example.com:443", "/", "http://blog.example.com/"},
		{Redirect{Scheme: "https", Port: 8443}, "[::1]:80", "/", "https://[::1]:8443/"},
		{Redirect{Scheme: "https"}, "blog.example.com", "//evil.example", "https://blog.example.com//evil.example"},
		{Redirect{Scheme: "https"}, "", "/", ""},
		{Redirect{Scheme: "https"}, "evil.example/x", "/", ""},
		{Redirect{Scheme: "https"}, "user@evil.example", "/", ""},
		{Redirect{Scheme: "https"}, "blog.example.com", "*", ""},
	} {
		got, ok := tc.redirect.location(tc.host, tc.target)
		if got != tc.want || ok != (tc.want != "") {
			t.Errorf("%+v of %q %q: %q, %v; want %q", tc.redirect, tc.host, tc.target, got, ok, tc.want)
		}
	}
}
