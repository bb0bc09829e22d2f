package health

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/endpoint"
)

// thenTLS is a server that talks in the clear, as plain does, and goes on behind a
// handshake if that is true.
func thenTLS(c tls.Certificate, plain func(net.Conn) bool, then func(net.Conn)) func(net.Conn) {
	return func(conn net.Conn) {
		if !plain(conn) {
			silent(conn)
			return
		}
		encrypted := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{c}})
		if encrypted.Handshake() == nil {
			then(encrypted)
			_ = encrypted.Close()
		}
	}
}

// swap hears a message after each of these words, but not after the last.
func swap(words ...string) func(net.Conn) bool {
	return func(c net.Conn) bool {
		for i, w := range words {
			if _, err := io.WriteString(c, w); err != nil {
				return false
			}
			if i == len(words)-1 {
				break
			}
			if _, err := c.Read(make([]byte, 4096)); err != nil {
				return false
			}
		}
		return true
	}
}

// Checks that have TLS beneath them, or ask for it first: they pass, they judge the
// certificate, and they do not go on in the clear.
func TestChecksWithTLS(t *testing.T) {
	good, ca := certificate(t, year, "db.example.com")
	old, _ := certificate(t, 48*time.Hour, "db.example.com")
	verified := func(kind Type) Config {
		return Config{Type: kind, TLS: true, Verify: true, CAFile: ca, ServerName: "db.example.com"}
	}
	any := func(kind Type) Config { return Config{Type: kind, TLS: true} }
	atOnce := func(net.Conn) bool { return true }
	const hello, ready = "220 mail.example.com ESMTP\r\n", "250-mail\r\n250 STARTTLS\r\n"
	starttls := swap(hello, ready, "220 go ahead\r\n")
	smtp := func(c net.Conn) { replay(nil, ready, "221 bye\r\n")(c) }
	redis := func(c net.Conn) { replay(nil, "+PONG\r\n")(c) }
	// What asks for TLS is read, and answered by a byte.
	ssl := func(answer string) func(net.Conn) bool { return swap("", answer) }
	postgres := func(c net.Conn) { replay(nil, pgAuth(pgAuthMD5, "salt"))(c) }
	for name, test := range map[string]struct {
		handle  func(net.Conn)
		check   Config
		timeout time.Duration
		want    string
	}{
		"redis":                     {thenTLS(good, atOnce, redis), verified(Redis), ample, "up: answered PONG"},
		"redis, expiring":           {thenTLS(old, atOnce, redis), any(Redis), ample, "up: answered PONG; warning: the certificate of db.example.com expires"},
		"redis, of another":         {thenTLS(old, atOnce, redis), verified(Redis), ample, "down: the certificate does not pass:"},
		"redis in the clear":        {replay(nil, "-ERR unknown command\r\n"), any(Redis), ample, "down: " + errNotTLS.Error()},
		"postgres":                  {thenTLS(good, ssl("S"), postgres), verified(Postgres), ample, "up: accepts logins"},
		"postgres, of another":      {thenTLS(old, ssl("S"), postgres), verified(Postgres), ample, "down: the certificate does not pass:"},
		"postgres in the clear":     {thenTLS(good, ssl("N"), postgres), any(Postgres), ample, "down: the server does not speak TLS"},
		"postgres that is none":     {thenTLS(good, ssl("H"), postgres), any(Postgres), ample, "down: " + errNotPostgres.Error()},
		"postgres, silent":          {silent, any(Postgres), short, "down: no answer within 150ms"},
		"smtp":                      {thenTLS(good, starttls, smtp), verified(SMTP), ample, "up: greeted: mail.example.com ESMTP"},
		"smtp, of another":          {thenTLS(old, starttls, smtp), verified(SMTP), ample, "down: the certificate does not pass:"},
		"smtp in the clear":         {talk(nil, hello, "250 mail\r\n", "502 unknown\r\n"), any(SMTP), ample, `down: greeted, STARTTLS failed: answered "502 unknown", want 220`},
		"smtp with words put in":    {thenTLS(good, swap(hello, ready, "220 go\r\n250 injected\r\n"), smtp), any(SMTP), ample, "down: " + errNotSMTP.Error()},
		"smtp that forgets the way": {thenTLS(good, starttls, replay(nil, "503 no\r\n")), any(SMTP), ample, `down: encrypted, EHLO failed: answered "503 no", want 250`},
	} {
		t.Run(name, func(t *testing.T) {
			test.check.Timeout = test.timeout
			if got := verdictOf(t, serve(t, test.handle), test.check); !strings.HasPrefix(got, test.want) {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

// What the checker does with a check by TLS, again and again.
func TestCheckerByTLS(t *testing.T) {
	good, _ := certificate(t, year, "db.example.com")
	checker := NewChecker(zerolog.Nop(), func(Target, Result) {})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- checker.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	var all []Target
	for kind, answer := range map[Type]func(net.Conn){
		TLS: silent, HTTPS: func(c net.Conn) { say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(c) },
	} {
		check := Config{Type: kind, Interval: 20 * time.Millisecond, Timeout: 20 * time.Millisecond}
		all = append(all, check.For(endpoint.IP(serveTLS(t, good, nil, answer))))
	}
	checker.Set(all)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(ample); ; <-tick.C {
		results, enough := checker.Results(), 0
		for _, r := range results {
			if r.Passed >= 3 {
				enough++
			}
		}
		if enough == len(all) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("found %+v, want three that passed of each", results)
		}
	}
}
