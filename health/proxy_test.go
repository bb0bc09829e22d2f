package health

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"

	"appliance/internal/proxyproto"
)

// behindProxy is a server that wants a PROXY header before anything else, as all do
// that are told who the client is; without one it says nothing. It reads no byte
// more than that.
func behindProxy(version string, handle func(net.Conn)) func(net.Conn) {
	want := proxyproto.AppendV2(nil, proxyproto.Header{})
	if version == "v1" {
		want = []byte("PROXY UNKNOWN\r\n")
	}
	return func(c net.Conn) {
		came := make([]byte, len(want))
		if _, err := io.ReadFull(c, came); err == nil && string(came) == string(want) {
			handle(c)
		}
	}
}

// Servers that expect a PROXY header are checked with one that tells of no client:
// without it they would all seem dead.
func TestChecksBeginWithAProxyHeader(t *testing.T) {
	web, _ := certificate(t, year, "web.example.com")
	secure := func(handle func(net.Conn)) func(net.Conn) {
		return func(c net.Conn) {
			encrypted := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{web}})
			if encrypted.Handshake() == nil {
				handle(encrypted)
				_ = encrypted.Close()
			}
		}
	}
	pong := func(c net.Conn) {
		if line, err := bufio.NewReader(c).ReadString('G'); err == nil && strings.Contains(line, "PING") {
			_, _ = io.WriteString(c, "+PONG\r\n")
		}
	}
	page := answerOnce("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	for name, test := range map[string]struct {
		handle func() func(net.Conn)
		check  Config
		want   string
	}{
		"tcp":          {func() func(net.Conn) { return silent }, Config{Type: TCP}, "up: connection accepted"},
		"tcp, asking":  {func() func(net.Conn) { return pong }, Config{Type: TCP, Send: "PING", Expect: "PONG"}, `up: answered "+PONG"`},
		"tcp, hearing": {func() func(net.Conn) { return say("hello") }, Config{Type: TCP, Expect: "hello"}, `up: answered "hello"`},
		"tls":          {func() func(net.Conn) { return secure(silent) }, Config{Type: TLS}, "up: TLS 1.3 handshake"},
		"http":         {func() func(net.Conn) { return page }, Config{Type: HTTP}, "up: status 200"},
		"https":        {func() func(net.Conn) { return secure(page) }, Config{Type: HTTPS}, "up: status 200"},
		"mysql":        {func() func(net.Conn) { return greet(nil, denied) }, Config{Type: MySQL}, "up: greeted by version"},
		"mysql, user":  {func() func(net.Conn) { return greet(nil, denied) }, Config{Type: MySQL, User: "lb"}, "down: Access denied"},
		"postgres":     {func() func(net.Conn) { return replay(nil, pgAuth(pgAuthMD5, "salt")) }, Config{Type: Postgres}, "up: accepts logins"},
		"redis":        {func() func(net.Conn) { return pong }, Config{Type: Redis}, "up: answered PONG"},
		"smtp":         {func() func(net.Conn) { return talk(nil, "220 mail ESMTP\r\n", "250 mail\r\n", "221 bye\r\n") }, Config{Type: SMTP}, "up: greeted"},
		"ssh":          {func() func(net.Conn) { return func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-x\r\n") } }, Config{Type: SSH}, "up: greeted"},
	} {
		for _, version := range []string{"v1", "v2"} {
			t.Run(name+", "+version, func(t *testing.T) {
				test.check.SendProxy, test.check.Timeout = version, ample
				if got := verdictOf(t, serve(t, behindProxy(version, test.handle())), test.check); !strings.HasPrefix(got, test.want) {
					t.Errorf("%s, want %s", got, test.want)
				}
			})
		}
	}
}
