package l7

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func request(fs ...field) *exchange {
	return &exchange{
		method: "GET", target: "/", scheme: "https", host: "blog.example.com:8443",
		peer: newPeer(netip.MustParseAddr("192.0.2.7")), fields: fs,
		upgrade: func(fields) (io.ReadWriteCloser, error) { return nil, nil },
	}
}

// pairs returns fields from their names and values in turn.
func pairs(nameValues ...string) fields {
	var out fields
	for i := 0; i < len(nameValues); i += 2 {
		out = append(out, field{Name: nameValues[i], Value: nameValues[i+1]})
	}
	return out
}

func lines(f fields) []string {
	var out []string
	for _, l := range f {
		out = append(out, l.Name+": "+l.Value)
	}
	slices.Sort(out)
	return out
}

// ours are the fields that every request gets.
var ours = []string{
	`Forwarded: for=192.0.2.7;host="blog.example.com:8443";proto=https`,
	"X-Forwarded-For: 192.0.2.7",
	"X-Forwarded-Host: blog.example.com:8443",
	"X-Forwarded-Proto: https",
	"X-Real-IP: 192.0.2.7",
}

func TestRequestFields(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   fields
		want []string // besides ours
	}{
		{"plain ones pass", pairs("Accept", "a", "Accept", "b", "x_custom", "1", "User-Agent", "u"),
			[]string{"Accept: a", "Accept: b", "x_custom: 1", "User-Agent: u"}},
		{"spoofed ones are dropped", pairs("X-Forwarded-For", "1.1.1.1", "x-forwarded-for", "1.1.1.1", "X_Forwarded_For", "1.1.1.1", "X-Forwarded_For", "1.1.1.1", "X.Forwarded.For", "1.1.1.1", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "evil", "X-Forwarded-Port", "1", "X-Forwarded-Server", "evil", "X-Forwarded-Ssl", "on", "X-Real-IP", "1.1.1.1", "X_REAL_IP", "1.1.1.1", "Forwarded", "for=1.1.1.1", "FORWARDED", "for=1.1.1.1", "Proxy", "evil:80", "X-Client-IP", "1.1.1.1", "True-Client-Ip", "1.1.1.1", "X-Cluster-Client-IP", "1.1.1.1", "client_ip", "1.1.1.1", "X-Original-Forwarded-For", "1.1.1.1", "Front-End-Https", "on", "X-Original-URL", "/admin", "X-Rewrite-URL", "/admin", "X-Scheme", "https", "X-Host", "evil", "X-Original-Host", "evil", "x-http-host-override", "evil", "X-Url-Scheme", "https", "X-Originating-IP", "1.1.1.1", "X-Remote-IP", "1.1.1.1", "X_Remote_Addr", "1.1.1.1"), nil},
		{"likenesses pass", pairs("X-Forwarding", "1", "X-Forwarded-", "1", "Forwarded-To", "1", "Proxy-Thing", "1", "XForwardedFor", "1"),
			[]string{"X-Forwarding: 1", "X-Forwarded-: 1", "Forwarded-To: 1", "Proxy-Thing: 1", "XForwardedFor: 1"}},
		{"those of one provider pass", pairs("CF-Connecting-IP", "1.1.1.1"), []string{"CF-Connecting-IP: 1.1.1.1"}},
		{"hop by hop", pairs("Connection", "keep-alive, X-Mine", "connection", "x-other", "Keep-Alive", "5", "X-Mine", "1", "X-Other", "1", "Proxy-Connection", "close", "Proxy-Authorization", "x", "Transfer-Encoding", "chunked", "Trailer", "X-T"), nil},
		{"Connection cannot take ours away", pairs("Connection", "X-Forwarded-For, Forwarded, X-Real-IP, X-Forwarded-Proto"), nil},
		{"TE without trailers", pairs("TE", "gzip;q=0.5"), nil},
		{"TE with trailers", pairs("TE", "gzip, trailers;q=1"), []string{"TE: trailers", "Connection: TE"}},
		{"WebSocket", pairs("Connection", "keep-alive, upgrade", "Upgrade", "websocket"),
			[]string{"Connection: Upgrade", "Upgrade: websocket"}},
		{"Upgrade not named in Connection", pairs("Upgrade", "websocket"), nil},
		{"HTTP/2 in the clear", pairs("Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "HTTP2-Settings", "x"), nil},
		{"HTTP/2 among others", pairs("Connection", "Upgrade", "Upgrade", "websocket, HTTP/2.0"), nil},
	} {
		want := append(slices.Clone(tc.want), ours...)
		slices.Sort(want)
		if got := lines(requestFields(nil, request(tc.in...))); !slices.Equal(got, want) {
			t.Errorf("%s:\ngot  %q\nwant %q", tc.name, got, want)
		}
	}

	ex := request(field{Name: "Connection", Value: "Upgrade"}, field{Name: "Upgrade", Value: "websocket"})
	ex.upgrade, ex.host = nil, ""
	got := lines(requestFields(nil, ex))
	if slices.ContainsFunc(got, func(l string) bool { return strings.Contains(l, "pgrade") || strings.Contains(l, "Host") }) {
		t.Errorf("without upgrade and host: %q", got)
	}
}

// A head in which Connection names very many of very many fields is no work
// worth speaking of.
func TestManyConnectionOptions(t *testing.T) {
	const n = 60000
	in := pairs("Connection", strings.Repeat("b,", n)+"C")
	for range n {
		in = append(in, field{Name: "a", Value: ""})
	}
	began := time.Now()
	out := requestFields(nil, request(append(in, field{Name: "c", Value: ""})...))
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
	if len(out) != n+len(ours) || out.has("c") {
		t.Errorf("%d fields", len(out))
	}
}

func TestAnswerFields(t *testing.T) {
	in := pairs("Connection", "close, X-Mine", "X-Mine", "1", "Keep-Alive", "1", "Date", "d", "Server", "s", "Set-Cookie", "a", "Set-Cookie", "b", "Proxy-Authenticate", "x", "Upgrade", "h2", "X-Forwarded-For", "x")
	want := []string{"Date: d", "Server: s", "Set-Cookie: a", "Set-Cookie: b", "X-Forwarded-For: x"}
	if got := lines(answerFields(nil, in)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTrailerFields(t *testing.T) {
	in := pairs("X-Sum", "1", "Content-Length", "5", "X-Forwarded-For", "1.1.1.1", "x_real_ip", "1.1.1.1", "Transfer-Encoding", "chunked", "Set-Cookie", "a", "Grpc-Status", "0")
	if got, want := lines(trailerFields(in)), []string{"Grpc-Status: 0", "X-Sum: 1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestForwarded(t *testing.T) {
	for _, tc := range []struct{ client, host, want string }{
		{"192.0.2.7", "blog.example.com", "for=192.0.2.7;host=blog.example.com;proto=http"},
		{"192.0.2.7", "", "for=192.0.2.7;proto=http"},
		{"2001:db8::7", "[::1]:80", `for="[2001:db8::7]";host="[::1]:80";proto=http`},
		{"192.0.2.7", `a"b\c`, `for=192.0.2.7;host="a\"b\\c";proto=http`},
	} {
		if got := forwarded(netip.MustParseAddr(tc.client), tc.host, "http"); got != tc.want {
			t.Errorf("got %s, want %s", got, tc.want)
		}
	}
	ex := request()
	ex.peer = newPeer(netip.MustParseAddr("::ffff:192.0.2.7"))
	if got := requestFields(nil, ex).get("X-Forwarded-For"); got != "192.0.2.7" {
		t.Errorf("a mapped address is told as %s", got)
	}
	ex.peer = newPeer(netip.MustParseAddr("fe80::1%eth0"))
	if got := requestFields(nil, ex).get("Forwarded"); !strings.HasPrefix(got, `for="[fe80::1]"`) {
		t.Errorf("an address with a zone is told as %s", got)
	}
}

// FuzzForwarded reads back what appendTokenOrQuoted has written: whatever the host
// is, it stays one value of one element.
func FuzzForwarded(f *testing.F) {
	for _, s := range []string{"blog.example.com:80", `"`, `\`, `a";for=1.1.1.1`, ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		text := forwarded(netip.MustParseAddr("2001:db8::1"), host, "http")
		rest, ok := strings.CutPrefix(text, `for="[2001:db8::1]"`)
		if !ok {
			t.Fatal(text)
		}
		if rest, ok = strings.CutSuffix(rest, ";proto=http"); !ok {
			t.Fatal(text)
		}
		if rest == "" && host == "" {
			return
		}
		if rest, ok = strings.CutPrefix(rest, ";host="); !ok {
			t.Fatal(text)
		}
		if got, ok := unquote(rest); !ok || got != host {
			t.Fatalf("%q was written as %s, which reads as %q", host, rest, got)
		}
	})
}

// unquote reads a token or a quoted-string that takes up all of s.
func unquote(s string) (string, bool) {
	if !strings.HasPrefix(s, `"`) {
		return s, !strings.ContainsAny(s, "\";,= \t\\")
	}
	var out []byte
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return string(out), i == len(s)-1
		case '\\':
			if i++; i == len(s) {
				return "", false
			}
		}
		out = append(out, s[i])
	}
	return "", false
}

// What a field is for cannot be taken away by naming it in Connection: without its
// length a body would be the next request.
func TestConnectionDoesNotNameTheLength(t *testing.T) {
	seen := make(chan string, 1)
	_, addr := simple(t, raw(t, func(c *net.TCPConn, r *bufio.Reader) {
		seen <- readHead(r)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: content-length, close\r\nContent-Length: 2\r\n\r\nok")
	}))
	resp := say(t, addr, "POST / HTTP/1.1\r\nHost: a\r\nConnection: X, Content-LENGTH\r\nX: y\r\nContent-Length: 5\r\n\r\nhello")
	if head := <-seen; !strings.Contains(head, "Content-Length: 5\r\n") || strings.Contains(head, "X: y") {
		t.Errorf("the server got %q", head)
	}
	if got := body(t, resp); got != "ok" || resp.ContentLength != 2 {
		t.Errorf("the client got %q of %d", got, resp.ContentLength)
	}
}
