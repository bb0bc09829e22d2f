package health

import (
	"bytes"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mysqlByTLS is a server that offers TLS, wants it, and decides logins like this;
// it hears what comes behind the handshake.
func mysqlByTLS(c tls.Certificate, heard chan<- []byte, decide func(say func(string), hear func() []byte)) func(net.Conn) {
	return func(conn net.Conn) {
		greeting := mariadb
		greeting.Capabilities |= clientSSL
		_ = writePacket(conn, 0, greeting.encode())
		sequence, request, err := (&packetReader{r: conn}).next()
		if err != nil || sequence != 1 || len(request) != loginHead || request[1]&(clientSSL>>8) == 0 {
			_ = writePacket(conn, 2, []byte("\xff\x00\x00this is no request for TLS"))
			return
		}
		encrypted := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{c}, ClientAuth: tls.RequestClientCert})
		packets := packetReader{r: encrypted}
		hear := func() []byte {
			next, payload, err := packets.next()
			if err != nil || next != sequence+1 {
				return nil
			}
			sequence = next
			heard <- payload
			return payload
		}
		say := func(payload string) {
			sequence++
			_ = writePacket(encrypted, sequence, []byte(payload))
		}
		if hear() != nil {
			decide(say, hear)
		}
		sequence = 255 // commands begin with 0
		hear()
		silent(encrypted)
		close(heard)
	}
}

func TestMySQLByTLS(t *testing.T) {
	good, ca := certificate(t, year, "db.example.com")
	other, _ := certificate(t, year, "db.example.com")
	old, _ := certificate(t, 48*time.Hour, "db.example.com")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	verified := Config{Type: MySQL, TLS: true, Verify: true, CAFile: ca, ServerName: "db.example.com"}
	missing, ours := verified, verified
	missing.CAFile = filepath.Join(t.TempDir(), "missing.pem")
	ours.Cert, ours.Key = missing.CAFile, missing.CAFile
	user := func(c Config) Config {
		c.User, c.PasswordFile = "lb", secret
		return c
	}
	grants := func(say func(string), _ func() []byte) { say(welcome) }
	denies := func(say func(string), _ func() []byte) { say(denied) }
	sha2 := func(say func(string), hear func() []byte) {
		say("\xfecaching_sha2_password\x00" + strings.Repeat("r", 20) + "\x00")
		hear()
		say("\x01\x04") // the server does not know the password yet, and asks for it
		if string(hear()) == "secret\x00" {
			say(welcome)
		} else {
			say(denied)
		}
	}
	tests := map[string]struct {
		certificate tls.Certificate
		decide      func(func(string), func() []byte)
		check       Config
		want        string
		last        string // of what the server hears
	}{
		"a user":                  {good, grants, user(verified), "up: logged in", "\x01"},
		"a user, denied":          {good, denies, user(verified), "down: Access denied for user 'applianctl_check' (error 1045)", "lb"},
		"a user, asked in full":   {good, sha2, user(verified), "up: logged in", "\x01"},
		"a user, of another":      {other, denies, user(verified), "down: the certificate does not pass: certificate signed by unknown authority", leaveAs},
		"a user, of anybody":      {other, grants, user(Config{Type: MySQL, TLS: true}), "up: logged in", "\x01"},
		"without a user":          {good, denies, verified, "up: greeted by version 10.11.6-MariaDB", leaveAs},
		"without one, of another": {other, denies, verified, "down: the certificate does not pass: certificate signed by unknown authority", leaveAs},
		"no authorities":          {good, denies, user(missing), "down: ", leaveAs},
		"no certificate of ours":  {good, denies, user(ours), "down: ", leaveAs},
		"expires":                 {old, denies, Config{Type: MySQL, TLS: true}, "up: greeted by version 10.11.6-MariaDB; warning: the certificate of db.example.com expires", leaveAs},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			heard := make(chan []byte, 10)
			test.check.Timeout = ample
			got := verdictOf(t, serve(t, mysqlByTLS(test.certificate, heard, test.decide)), test.check)
			if !strings.HasPrefix(got, test.want) {
				t.Errorf("%s, want %s", got, test.want)
			}
			var last []byte
			for payload := range heard {
				last = payload
				if strings.Contains(test.want, "does not pass") && bytes.Contains(payload, []byte("lb\x00")) {
					t.Errorf("the user is told to who does not pass: %q", payload)
				}
			}
			if !strings.Contains(string(last), test.last) {
				t.Errorf("the server hears %q last, want %q in it", last, test.last)
			}
		})
	}
}

// A server without TLS hears of no user, and an end that it does not count.
func TestMySQLWithoutTLS(t *testing.T) {
	for name, user := range map[string]string{"a user": "lb", "without a user": ""} {
		t.Run(name, func(t *testing.T) {
			heard := make(chan []byte, 10)
			address := serve(t, greet(heard, denied))
			got := verdictOf(t, address, Config{Type: MySQL, TLS: true, User: user, Timeout: ample})
			if got != "down: "+errNoMySQLTLS.Error() {
				t.Error(got)
			}
			if login := <-heard; !bytes.Contains(login, []byte(leaveAs+"\x00")) {
				t.Errorf("the server hears %q, want a login of %s", login, leaveAs)
			}
		})
	}
}
