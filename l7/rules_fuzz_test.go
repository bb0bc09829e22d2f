package l7

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"appliance/l7/http1"
)

// A path whose prefix is taken off means what is left of the path that routes
// compare, to everybody who reads it.
func FuzzStripPrefix(f *testing.F) {
	for _, s := range []string{"/api/x", "/api", "/%61pi/../api//y/?q", "/api/%2e%2e/x", "/api/a%2Fb/", "/apis", "/api/%00%0d%0a", "//api/./x"} {
		f.Add(s)
	}
	e, err := newPathEdit(Route{StripPrefix: "/api"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, target string) {
		if !validTarget("GET", target) {
			return
		}
		for i := range len(target) {
			if target[i] <= ' ' || target[i] >= 0x7f {
				return // no door lets it in
			}
		}
		got, err := e.apply(target)
		if err != nil {
			return
		}
		want := normalPath(target)
		if rest, ok := cutPath(want, "/api"); ok {
			want = atLeastSlash(rest)
		}
		if normalPath(got) != want || !validTarget("GET", got) {
			t.Errorf("%q becomes %q, which means %q and not %q", target, got, normalPath(got), want)
		}
		for i := range len(got) {
			if got[i] <= ' ' || got[i] >= 0x7f {
				t.Errorf("%q becomes %q", target, got)
			}
		}
	})
}

// No target names a file outside of the folder, or a hidden one.
func FuzzFileName(f *testing.F) {
	for _, s := range []string{"/", "/a/b.css?x", "/../x", "/%2e%2e/x", "/.git/config", "/a/..%2f..%2fx", "/%00", "/.well-known/x", "/a\\..\\b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		name, _, ok := fileName(target)
		if !ok {
			return
		}
		if !filepath.IsLocal(name) || strings.IndexByte(name, 0) >= 0 {
			t.Errorf("%q is file %q", target, name)
		}
		for segment := range strings.SplitSeq(name, "/") {
			if name != "." && strings.HasPrefix(segment, ".") && segment != ".well-known" {
				t.Errorf("%q is file %q", target, name)
			}
		}
	})
}

// What is no variable stays as it is, and what is gets filled in.
func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"", "{client}", "{", "{{method}}", `{"a":{}}`, "{nothing}", "a{path}b{query}c"} {
		f.Add(s)
	}
	ex := &exchange{method: "GET", target: "/p?q", scheme: "https", host: "a.example", peer: newPeer(netip.MustParseAddr("192.0.2.1")), id: "id", user: "user"}
	f.Fuzz(func(t *testing.T, text string) {
		tm, err := newTemplate(text)
		if err != nil {
			return
		}
		got := tm.fill(ex)
		// The parts, one after the other, are the text with its variables named.
		var again strings.Builder
		for _, p := range tm.parts {
			again.WriteString(p.text)
			rest := text[again.Len():]
			again.WriteString(rest[:strings.IndexByte(rest, '}')+1])
		}
		again.WriteString(tm.text)
		if again.String() != text {
			t.Errorf("%q was taken for %q", text, again.String())
		}
		if len(tm.parts) == 0 && got != text {
			t.Errorf("%q becomes %q", text, got)
		}
	})
}

// Whatever a proxy says, what is passed on is a list of addresses, and who asks
// is one of them.
func FuzzForwardedFor(f *testing.F) {
	for _, s := range []string{"", "1.1.1.1", "1.1.1.1, 10.2.2.2:80", "[2001:db8::1]:80, x", ",,,", "::ffff:1.1.1.1", "fe80::1%eth0"} {
		f.Add(s, "id")
	}
	id := newIdentity(Config{TrustedProxies: prefixes("10.0.0.0/8"), RequestID: "X-Request-ID"})
	f.Fuzz(func(t *testing.T, said, request string) {
		ex := &exchange{method: "GET", target: "/", scheme: "http", peer: newPeer(netip.MustParseAddr("10.1.1.1")),
			fields: fields{{Name: "X-Forwarded-For", Value: said}, {Name: "X-Request-ID", Value: request}}}
		id.identify(ex)
		list := ex.via
		if list == "" {
			list = ex.peer.text
		}
		for i, a := range strings.Split(list, ", ") {
			addr, err := netip.ParseAddr(a)
			if err != nil || addr.Zone() != "" || i == 0 && addr != ex.peer.addr {
				t.Errorf("%q becomes %q for %v: %v", said, list, ex.peer.addr, err)
			}
		}
		if !http1.IsToken(strings.ReplaceAll(ex.id, "/", "")) || len(ex.id) > 128 {
			t.Errorf("the request id is %q", ex.id)
		}
	})
}

// A cookie that is read is one that stands in the field.
func FuzzCookie(f *testing.F) {
	f.Add("a=b; srv=x; c", "srv")
	f.Fuzz(func(t *testing.T, said, name string) {
		if !http1.IsToken(name) {
			return
		}
		if v := cookie(fields{{Name: "cookie", Value: said}}, name); v != "" && !strings.Contains(said, name+"="+v) {
			t.Errorf("%q has no cookie %s=%s", said, name, v)
		}
		if strings.ContainsAny(said, "; \t\r\n\v\f\u0085\u00a0") {
			return
		}
		if got := cookie(fields{{Name: "Cookie", Value: "x=y; " + name + "=" + said + "; z"}}, name); got != said && name != "x" && strings.TrimSpace(said) == said {
			t.Errorf("%q is read as %q", said, got)
		}
	})
}
