package l7

import (
	"bufio"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/net/http2"

	"appliance/internal/pool"
)

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, t := range texts {
		list = append(list, netip.MustParsePrefix(t))
	}
	return list
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestIdentity(t *testing.T) {
	id := newIdentity(Config{TrustedProxies: prefixes("10.0.0.9/8", "2001:db8::/32"), RequestID: "X-Request-ID"})
	for _, tc := range []struct {
		peer   string
		fields fields
		want   string // client, X-Forwarded-For, scheme, whether the id was believed
	}{
		{"192.0.2.1", fields{{Name: "X-Forwarded-For", Value: "1.1.1.1"}, {Name: "X-Forwarded-Proto", Value: "https"}, {Name: "X-Request-ID", Value: "said"}}, "192.0.2.1 192.0.2.1 http false"},
		{"10.1.1.1", nil, "10.1.1.1 10.1.1.1 http false"},
		{"10.1.1.1", fields{{Name: "x-forwarded-for", Value: "1.1.1.1"}, {Name: "X-Forwarded-Proto", Value: "https"}, {Name: "x-request-id", Value: "said"}}, "1.1.1.1 1.1.1.1, 10.1.1.1 https true"},
		{"10.1.1.1", fields{{Name: "X-Forwarded-For", Value: "6.6.6.6, 1.1.1.1:443"}, {Name: "X-Forwarded-For", Value: "10.2.2.2"}}, "1.1.1.1 1.1.1.1, 10.2.2.2, 10.1.1.1 http false"},
		{"10.1.1.1", fields{{Name: "X-Forwarded-For", Value: "unknown, 10.2.2.2"}}, "10.2.2.2 10.2.2.2, 10.1.1.1 http false"},
		{"10.1.1.1", fields{{Name: "X-Forwarded-For", Value: "1.1.1.1, evil"}, {Name: "X-Forwarded-Proto", Value: "gopher"}, {Name: "X-Request-ID", Value: "a b"}}, "10.1.1.1 10.1.1.1 http false"},
		{"2001:db8::1", fields{{Name: "X-Forwarded-For", Value: "[2001:db9::2]:80"}}, "2001:db9::2 2001:db9::2, 2001:db8::1 http false"},
	} {
		ex := &exchange{method: "GET", target: "/", scheme: "http", fields: tc.fields, peer: newPeer(netip.MustParseAddr(tc.peer))}
		if !id.identify(ex) {
			t.Errorf("%v: refused", tc.fields)
		}
		ex.out.request = requestFields(nil, ex)
		id.tellID(ex)
		if got := fmt.Sprint(ex.peer.text, " ", ex.out.request.get("X-Forwarded-For"), " ", ex.out.request.get("X-Forwarded-Proto"), " ", ex.id == "said"); got != tc.want {
			t.Errorf("%s %v: %s, want %s", tc.peer, tc.fields, got, tc.want)
		}
		if said := ex.out.request.get("X-Request-ID"); said != ex.id || len(said) != 32 && said != "said" {
			t.Errorf("the request id is %q", said)
		}
	}
}

func TestUnderscores(t *testing.T) {
	for policy, want := range map[Underscores]string{"": "200 []", UnderscoresDrop: "200 []", UnderscoresPass: "200 [x]", UnderscoresRefuse: "400 []"} {
		r := newRig(t)
		r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) { w.Header()["Got"] = r.Header["X_user"] }))
		addr := r.addr()
		r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Underscores: policy})
		resp, _ := askFor(t, addr, "/", "X_User: x", "X-User: y")
		if got := fmt.Sprint(resp.StatusCode, " ", resp.Header["Got"]); got != want {
			t.Errorf("%q: %s, want %s", policy, got, want)
		}
	}
}

func TestNetworks(t *testing.T) {
	for _, tc := range []struct {
		allow, deny []netip.Prefix
		want        int
	}{
		{nil, prefixes("127.0.0.2/32"), 200},
		{nil, prefixes("127.0.0.1/8"), 403},
		{prefixes("10.0.0.0/8"), nil, 403},
		{prefixes("10.0.0.0/8", "127.0.0.0/24"), nil, 200},
		{prefixes("127.0.0.0/8"), prefixes("127.0.0.1/32"), 403},
		{nil, prefixes("::ffff:127.0.0.1/104"), 403},
	} {
		_, addr := ruledService(t, Config{Pool: "p", Rules: Rules{Allow: tc.allow, Deny: tc.deny}})
		if resp, _ := askFor(t, addr, "/"); resp.StatusCode != tc.want {
			t.Errorf("allow %v, deny %v: %s", tc.allow, tc.deny, resp.Status)
		}
	}
}

func TestPerClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClients(&PerClient{Rate: 2, Burst: 3, MaxRequests: 4})
		one, same, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("2001:db8:0:1::1")
		enter := func(a netip.Addr, want bool) {
			t.Helper()
			if wait, ok := c.enter(a, time.Now()); ok != want || !ok && wait <= 0 {
				t.Errorf("%v: %v, wait %s", a, ok, wait)
			}
		}
		enter(one, true)
		enter(same, true)
		enter(one, true)
		enter(one, false) // the burst is used up
		enter(other, true)
		time.Sleep(500 * time.Millisecond)
		enter(one, true)
		enter(one, false)
		time.Sleep(10 * time.Second)
		enter(one, false) // four are under way
		c.leave(same)
		enter(one, true)
	})
}

func TestLimitsOfAService(t *testing.T) {
	_, addr := ruledService(t, Config{
		Routes: []Route{{Paths: []string{"/a"}, Pool: "p"}, {Paths: []string{"/c"}, Pool: "p", Rules: Rules{PerClient: &PerClient{MaxRequests: 5}}}},
		Rules:  Rules{PerClient: &PerClient{Rate: 1, Burst: 2}},
	})
	codes := make(map[string]int)
	for range 30 {
		resp, _ := askFor(t, addr, "/a")
		codes[fmt.Sprint(resp.StatusCode, resp.Header.Get("Retry-After"))]++
		if resp, _ := askFor(t, addr, "/c"); resp.StatusCode != 200 {
			t.Errorf("a route with bounds of its own: %s", resp.Status)
		}
	}
	if codes["200"] < 2 || codes["4291"] == 0 || codes["200"]+codes["4291"] != 30 {
		t.Errorf("the answers are %v", codes)
	}
}

// The rules hold by HTTP/2 as they do by HTTP/1.
func TestRulesByHTTP2(t *testing.T) {
	r := newRig(t)
	r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s", b, r.Host, r.Header.Get("X-A"))
	}))
	r.pool("auth", web(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cookie") != "in" {
			w.WriteHeader(http.StatusForbidden)
		}
		w.Header().Set("X-A", "granted")
	}))
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", TLS: &TLS{Certificates: []Certificate{makeCert(t, "a.example")}},
		Rules: Rules{MaxBodySize: 5, ForwardAuth: &ForwardAuth{Pool: "auth", Headers: []string{"X-A"}},
			ResponseHeaders: &HeaderRules{Set: map[string]string{"X-B": "{method} {path}"}}}})
	c := client(t, addr, protocolHTTP2)
	for _, tc := range []struct {
		cookie string
		body   io.Reader
		want   string
	}{
		{"in", strings.NewReader("hello"), "200 hello a.example granted"},
		{"in", strings.NewReader("hello!"), "413 413 Request Entity Too Large\n"},
		{"in", io.MultiReader(strings.NewReader("hello")), "200 hello a.example granted"},
		{"in", io.MultiReader(strings.NewReader("hello!")), "413 413 Request Entity Too Large\n"},
		{"out", nil, "403 "},
	} {
		req, err := http.NewRequest("POST", "https://a.example/x", tc.body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Cookie", tc.cookie)
		req.Header.Set("X-A", "forged")
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(resp.StatusCode, " ", body(t, resp)); got != tc.want || resp.Header.Get("X-B") != "POST /x" {
			t.Errorf("%q, %v; want %q", got, resp.Header, tc.want)
		}
	}
}

// The routes of a service count together, and over a reload where the bounds and
// what they are for stay the same.
func TestSharedLimits(t *testing.T) {
	pools := map[string]*pool.Pool{"p": pool.New(pool.Config{Name: "p"})}
	own := func(rate int) Rules { return Rules{PerClient: &PerClient{Rate: rate}} }
	build := func(routes ...Route) *table {
		t.Helper()
		tb, err := newTable(Config{Name: "web", Pool: "p", Routes: routes, Rules: own(7)}, pools)
		if err != nil {
			t.Fatal(err)
		}
		return tb
	}
	of := func(tb *table, target string) *clients {
		return tb.find("", &exchange{method: "GET", target: target}).rules.clients
	}
	a, b := Route{Paths: []string{"/a"}, Pool: "p"}, Route{Paths: []string{"/b"}, Pool: "p", Rules: own(1)}
	before := build(a, b)
	if of(before, "/") == nil || of(before, "/") != of(before, "/a") || of(before, "/") == of(before, "/b") {
		t.Error("the routes do not count together")
	}
	after := build(Route{Paths: []string{"/new"}, Pool: "p"}, b, a)
	after.inherit(before)
	for _, target := range []string{"/", "/a", "/b"} {
		if of(after, target) != of(before, target) {
			t.Errorf("%s begins anew", target)
		}
	}
	if of(after, "/new") != of(before, "/") {
		t.Error("a new route does not count with the others")
	}
	b.Rules = own(2)
	last := build(a, b)
	last.inherit(after)
	if of(last, "/a") != of(before, "/a") || of(last, "/b") == of(before, "/b") {
		t.Error("other bounds go on counting, or the same do not")
	}
}

func TestBodySize(t *testing.T) {
	seen := make(chan string, 10)
	r := newRig(t)
	r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err == nil {
			seen <- string(b)
		}
	}))
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Rules: Rules{MaxBodySize: 5}})
	for request, want := range map[string]int{
		"Content-Length: 5\r\n\r\nhello":                                      200,
		"Content-Length: 6\r\n\r\nhello!":                                     413,
		"Content-Length: 6\r\nExpect: 100-continue\r\n\r\n":                   413,
		"Content-Length: 1000000\r\n\r\nhello":                                413,
		"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n":           200,
		"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n": 413,
	} {
		resp := say(t, addr, "POST / HTTP/1.1\r\nHost: a\r\n"+request)
		if body(t, resp); resp.StatusCode != want {
			t.Errorf("%q: %s, want %d", request, resp.Status, want)
		}
	}
	close(seen)
	for text := range seen {
		if text != "hello" {
			t.Errorf("the server saw %q", text)
		}
	}
}

func TestBasicAuth(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("right"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	odd := sha1.Sum([]byte("x\x00y"))
	file := writeFile(t, "# users\nann:"+string(hash)+"\nbob:{SHA}jQ4GUpWjChQxLDnLyNTDWaHuYYA=\n"+ // of "right:er"
		"odd:{SHA}"+base64.StdEncoding.EncodeToString(odd[:])+"\n\n")
	_, addr := ruledService(t, Config{Pool: "p", Rules: Rules{BasicAuth: &BasicAuth{UsersFile: file, Realm: `a "b"`}, RequestHeaders: &HeaderRules{Set: map[string]string{"X-A": "{user}"}}}})
	for said, want := range map[string]string{
		"":                   "401 []",
		"Bearer x":           "401 []",
		"Basic !":            "401 []",
		"ann:right":          "200 [ann]",
		"ann:right ":         "401 []",
		"ann:":               "401 []",
		"eve:right":          "401 []",
		":":                  "401 []",
		"ann:jQ4GUpWjChQxLD": "401 []",
		"odd:x\x00y":         "401 []",
		"odd\x00x:y":         "401 []",
		"ann\n:right":        "401 []",
	} {
		if strings.Contains(said, ":") {
			said = "bAsIc " + base64.StdEncoding.EncodeToString([]byte(said))
		}
		for range 2 { // the second time what was right is known
			resp, _ := askFor(t, addr, "/", "Authorization: "+said)
			if got := fmt.Sprint(resp.StatusCode, " ", resp.Header["Got-X-A"]); got != want {
				t.Errorf("%q: %s, want %s", said, got, want)
			}
			if resp.StatusCode == 401 && resp.Header.Get("WWW-Authenticate") != `Basic realm="a \"b\"", charset="UTF-8"` {
				t.Errorf("the challenge is %q", resp.Header.Get("WWW-Authenticate"))
			}
		}
	}
	right := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("ann:right"))
	if resp, _ := askFor(t, addr, "/", right, "Authorization: Basic cm9vdDp4"); resp.StatusCode != 401 {
		t.Errorf("two names: %s", resp.Status)
	}
	for text, want := range map[string]string{"": "no user", "ann\n": "line 1", "ann:$apr1$x$y\n": "htpasswd -B", ":x": "line 1"} {
		if _, err := loadUsers(writeFile(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if !matchesHash("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "password") || matchesHash("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "passwort") {
		t.Error("a password hashed by SHA-1 is not compared well")
	}
}

func TestForwardAuth(t *testing.T) {
	r := newRig(t)
	r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %q %q%s", b, r.Header["X-User"], r.Header["X-Group"], r.Header.Get("X.User")) // which some take for the same
	}))
	r.pool("auth", web(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "GET" || r.RequestURI != "/verify?x" || r.Host != "a.example" || r.ContentLength != 0 ||
			r.Header.Get("X-Forwarded-Method") != "POST" || r.Header.Get("X-Forwarded-Uri") != "/page?q" || r.Header.Get("X-Forwarded-For") != "127.0.0.1" {
			t.Errorf("asked by %s %s %v", r.Method, r.RequestURI, r.Header)
		}
		switch r.Header.Get("Cookie") {
		case "in":
			w.Header().Set("X-User", "ann")
			w.Header().Set("X-Other", "no")
			io.WriteString(w, "ignored")
		case "broken":
			w.WriteHeader(500)
		default:
			w.Header().Set("Location", "https://login.example/")
			w.WriteHeader(302)
			io.WriteString(w, "moved")
		}
	}))
	r.pool("dead", closed(t))
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p",
		Rules:  Rules{ForwardAuth: &ForwardAuth{Pool: "auth", Path: "/verify?x", Headers: []string{"X-User", "X-Group"}}},
		Routes: []Route{{Paths: []string{"/dead"}, Pool: "p", Rules: Rules{ForwardAuth: &ForwardAuth{Pool: "dead"}}}}})
	ask := func(target, cookie string) string {
		resp := say(t, addr, "POST "+target+" HTTP/1.1\r\nHost: a.example\r\nCookie: "+cookie+"\r\nConnection: X-User\r\nX-User: root\r\nX.User: root\r\nX-Group: root\r\nContent-Length: 4\r\n\r\nbody")
		text := body(t, resp)
		return fmt.Sprint(resp.StatusCode, resp.Header.Get("Location"), " ", text)
	}
	if got := ask("/page?q", "in"); got != `200 body ["ann"] []` {
		t.Errorf("who may pass gets %q", got)
	}
	if got := ask("/page?q", "out"); got != "302https://login.example/ moved" {
		t.Errorf("who may not gets %q", got)
	}
	for target, cookie := range map[string]string{"/page?q": "broken", "/dead": "in"} {
		if got := ask(target, cookie); !strings.HasPrefix(got, "502 ") {
			t.Errorf("without a verdict: %q", got)
		}
	}
}

func TestSticky(t *testing.T) {
	r := newRig(t)
	var servers []string
	for i := range 3 {
		servers = append(servers, web(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, i) }))
	}
	r.pool("p", servers...)
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Rules: Rules{Sticky: &Sticky{Cookie: "srv", KeyFile: writeFile(t, "0123456789abcdef\n"), MaxAge: time.Hour}}})
	resp, first := askFor(t, addr, "/")
	set := resp.Header.Get("Set-Cookie")
	value, attributes, _ := strings.Cut(set, ";")
	if !strings.HasPrefix(value, "srv=") || len(value) != 36 || attributes != " Path=/; Max-Age=3600; HttpOnly; SameSite=Lax" {
		t.Fatalf("the cookie is %q", set)
	}
	for range 5 {
		if resp, text := askFor(t, addr, "/", "Cookie: a=b; "+value+"; c=d"); text != first || resp.Header.Get("Set-Cookie") != "" {
			t.Errorf("server %s instead of %s, %v", text, first, resp.Header)
		}
	}
	// Who makes one up gets another.
	for _, forged := range []string{"srv=" + servers[0], "srv=" + strings.Repeat("0", 32), "srv=", "srv"} {
		if resp, _ := askFor(t, addr, "/", "Cookie: "+forged); resp.Header.Get("Set-Cookie") == "" {
			t.Errorf("%s was believed", forged)
		}
	}
	// A server that is drained gets no more; its clients move, and stay there.
	n := strings.Index("012", first)
	if err := r.pools["p"].SetAdmin(servers[n], pool.Drain); err != nil {
		t.Fatal(err)
	}
	resp, second := askFor(t, addr, "/", "Cookie: "+value)
	moved, _, _ := strings.Cut(resp.Header.Get("Set-Cookie"), ";")
	if second == first || moved == value || moved == "" {
		t.Errorf("still server %s, cookie %q", second, moved)
	}
	for range 3 {
		if _, text := askFor(t, addr, "/", "Cookie: "+moved); text != second {
			t.Errorf("server %s instead of %s", text, second)
		}
	}
}

func TestHashBy(t *testing.T) {
	r := newRig(t)
	cfg := pool.Config{Name: "p", Balance: pool.SourceHash}
	for i := range 4 {
		cfg.Servers = append(cfg.Servers, pool.ServerConfig{Address: web(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, i) })})
	}
	r.pools["p"] = pool.New(cfg)
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Routes: []Route{
		{Paths: []string{"/h"}, Pool: "p", Rules: Rules{HashBy: &HashBy{Header: "X-User"}}},
		{Paths: []string{"/c"}, Pool: "p", Rules: Rules{HashBy: &HashBy{Cookie: "id"}}},
		{Paths: []string{"/host"}, Pool: "p", Rules: Rules{HashBy: &HashBy{Header: "host"}}},
	}})
	used := map[string]bool{}
	for i := range 40 {
		by := body(t, say(t, addr, fmt.Sprintf("GET /host HTTP/1.1\r\nHost: h%d\r\n\r\n", i)))
		again := body(t, say(t, addr, fmt.Sprintf("GET /host HTTP/1.1\r\nHost: H%d:80\r\n\r\n", i)))
		if used[by] = true; by != again {
			t.Errorf("host %d is at servers %s and %s", i, by, again)
		}
	}
	if len(used) < 3 {
		t.Errorf("only servers %v are used by host", used)
	}
	clear(used)
	for i := range 40 {
		_, by := askFor(t, addr, "/h", fmt.Sprint("X-User: u", i))
		_, again := askFor(t, addr, "/h", fmt.Sprint("x-user: u", i))
		_, cookie := askFor(t, addr, "/c", fmt.Sprint("Cookie: a=b; id=u", i))
		if used[by] = true; by != again || by != cookie {
			t.Errorf("user %d is at servers %s, %s and %s", i, by, again, cookie)
		}
	}
	if len(used) < 3 {
		t.Errorf("only servers %v are used", used)
	}
}

// Trailers say nothing that a field of the head could not.
func TestTrailersThatAreNotBelieved(t *testing.T) {
	seen := make(chan string, 1)
	r := newRig(t)
	r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		seen <- fmt.Sprint(r.Trailer)
	}))
	r.pool("auth", web(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-User", "ann") }))
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p",
		Rules: Rules{ForwardAuth: &ForwardAuth{Pool: "auth", Headers: []string{"X-User", "X-Group"}}, RequestHeaders: &HeaderRules{Set: map[string]string{"X-Who": "{cert_name}"}}}})
	resp := say(t, addr, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Who, X-User, X-Group, A_B, X-Sum\r\n\r\n"+
		"1\r\nx\r\n0\r\nX-Who: me\r\nX-User: root\r\nX-Group: root\r\nA_B: c\r\nX.Who: me\r\nX-Sum: 1\r\n\r\n")
	if body(t, resp); resp.StatusCode != 200 {
		t.Error(resp.Status)
	}
	if got := <-seen; strings.Contains(got, "me") || strings.Contains(got, "root") || strings.Contains(got, "c]") || !strings.Contains(got, "X-Sum:[1]") {
		t.Errorf("the server got %s", got)
	}
}

// A field that a rule sets or removes cannot be slipped past it: under a name that
// some servers take for the same, or as a trailer.
func TestRuledFieldsAreTheRules(t *testing.T) {
	for underscores, want := range map[Underscores]string{
		UnderscoresDrop: "map[X-Id:[*] X-User:[x-user]] map[X-Sum:[5]]",
		UnderscoresPass: "map[X-Id:[*] X-User:[x-user] X_other:[5]] map[X-Sum:[5]]",
	} {
		seen := make(chan string, 1)
		r := newRig(t)
		r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			got := make(http.Header)
			for name, values := range r.Header {
				switch {
				case name == "X-Id" && len(values) == 1 && len(values[0]) == 32:
					got[name] = []string{"*"}
				case !strings.HasPrefix(name, "X-Forwarded-") && name != "X-Real-Ip" && name[0] == 'X':
					got[name] = values
				}
			}
			for name, values := range r.Trailer {
				if len(values) == 0 { // it was announced, no more
					delete(r.Trailer, name)
				}
			}
			seen <- fmt.Sprint(got, " ", r.Trailer)
		}))
		addr := r.addr()
		r.apply(Config{
			Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Underscores: underscores, RequestID: "X-ID",
			Rules: Rules{RequestHeaders: &HeaderRules{Set: map[string]string{"X-User": "x-user"}, Remove: []string{"X-Admin"}}},
		})
		resp := say(t, addr, "POST / HTTP/1.1\r\nHost: a\r\nX_User: 1\r\nX.User: 2\r\nx-user: 3\r\nX~Admin: 4\r\nX_Id: 5\r\nx.id: 6\r\nX_other: 5\r\nTransfer-Encoding: chunked\r\n"+
			"Trailer: X-User, X-Admin, X-Id, X.Id, X-Sum\r\n\r\n1\r\na\r\n0\r\nx-user: 7\r\nX.Admin: 8\r\nX-Id: 9\r\nX.Id: 9\r\nX-Sum: 5\r\n\r\n")
		body(t, resp)
		if got := <-seen; got != want {
			t.Errorf("%s: the server saw %s, want %s", underscores, got, want)
		}
	}
}

// A client that leaves while its permission is asked for leaves nothing behind.
func TestForwardAuthOfOneWhoLeaves(t *testing.T) {
	asked, leave := make(chan struct{}), make(chan struct{})
	r := newRig(t)
	r.pool("p", web(t, func(w http.ResponseWriter, r *http.Request) { t.Error("it got through") }))
	r.pool("auth", raw(t, func(c *net.TCPConn, in *bufio.Reader) {
		readHead(in)
		close(asked)
		<-leave
		io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
	}))
	addr := r.addr()
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", Rules: Rules{ForwardAuth: &ForwardAuth{Pool: "auth"}}})
	c, _ := dial(t, addr, nil)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-asked
	c.Close()
	close(leave)
	r.until("the end", func() bool { return r.stats("web").Current == 0 })
}

// The same by HTTP/2.
func TestForwardAuthOfAStreamThatIsGivenUp(t *testing.T) {
	asked, leave := make(chan struct{}), make(chan struct{})
	r := newRig(t)
	r.pool("p", closed(t))
	r.pool("auth", raw(t, func(c *net.TCPConn, in *bufio.Reader) {
		readHead(in)
		close(asked)
		<-leave
	}))
	defer close(leave)
	addr, yes := r.addr(), true
	r.apply(Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", HTTP2: HTTP2Config{Enabled: &yes}, Rules: Rules{ForwardAuth: &ForwardAuth{Pool: "auth"}}})
	p := http2Dial(t, addr)
	p.ask(1, true, "GET", "/")
	<-asked
	_ = p.WriteRSTStream(1, http2.ErrCodeCancel)
	r.until("the end", func() bool { return r.stats("web").Current == 0 })
}

// What is remembered of servers does not grow with the addresses that a name has had.
func TestServersThatMoveAllTheTime(t *testing.T) {
	p := pool.New(pool.Config{Name: "p", Servers: []pool.ServerConfig{{Name: "s", Address: "192.0.2.1:1"}}})
	s := &sticky{key: []byte("0123456789abcdef")}
	u := newUpstream(upstreamSettings{}, &transport{tls: &tls.Config{}})
	first := s.value(p, p.Servers()[0])
	for i := range 3 * maxNames {
		address := fmt.Sprintf("192.0.%d.%d:1", i/250, i%250)
		p.Update(pool.Config{Name: "p", Servers: []pool.ServerConfig{{Name: "s", Address: address}}}, nil)
		if got := s.value(p, p.Servers()[0]); got != first {
			t.Fatalf("at %s the value is %s", address, got)
		}
		u.tlsConfig(u.destination(p.Servers()[0]))
	}
	n := 0
	s.names.Range(func(any, any) bool { n++; return true })
	if n > maxNames || len(u.configs) > maxConfigs {
		t.Errorf("%d values, %d configurations", n, len(u.configs))
	}
}
