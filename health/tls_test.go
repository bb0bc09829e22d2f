package health

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/endpoint"
)

// certificate makes a certificate that signs itself, for names, which expires
// after the given time, and returns it with the path of a file with it in PEM.
func certificate(t *testing.T, expires time.Duration, names ...string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(expires),
		BasicConstraintsValid: true, IsCA: true,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, path
}

// serveTLS is serve behind a handshake; names hears which names are asked for.
func serveTLS(t *testing.T, c tls.Certificate, names chan<- string, handle func(net.Conn)) netip.AddrPort {
	config := &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if names != nil {
			names <- hello.ServerName
		}
		return &c, nil
	}}
	return serve(t, func(conn net.Conn) {
		encrypted := tls.Server(conn, config)
		if encrypted.Handshake() == nil {
			handle(encrypted)
			_ = encrypted.Close()
		}
	})
}

const year = 365 * 24 * time.Hour

func TestTLS(t *testing.T) {
	good, ca := certificate(t, year, "web.example.com", "127.0.0.1")
	named, namedCA := certificate(t, year, "web.example.com")
	soon, _ := certificate(t, 3*24*time.Hour+time.Hour, "soon.example.com")
	late, _ := certificate(t, -time.Hour, "late.example.com")
	_, otherCA := certificate(t, year, "other.example.com")
	date := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.DateOnly) }
	const up = "up: TLS 1.3 handshake"
	tests := map[string]struct {
		certificate tls.Certificate
		check       Config
		want        string
	}{
		"any certificate": {good, Config{}, up},
		"verified":        {good, Config{Verify: true, CAFile: ca}, up},
		"verified name":   {named, Config{Verify: true, CAFile: namedCA, ServerName: "web.example.com"}, up},
		"no such address": {named, Config{Verify: true, CAFile: namedCA}, "down: the certificate does not pass: cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs"},
		"wrong name":      {named, Config{Verify: true, CAFile: namedCA, ServerName: "shop.example.com"}, "down: the certificate does not pass: certificate is valid for web.example.com, not shop.example.com"},
		"wrong authority": {good, Config{Verify: true, CAFile: otherCA}, "down: the certificate does not pass: certificate signed by unknown authority"},
		"the system's":    {good, Config{Verify: true}, "down: the certificate does not pass: certificate signed by unknown authority"},
		"expires soon":    {soon, Config{}, up + "; warning: the certificate of soon.example.com expires on " + date(3*24*time.Hour+time.Hour) + ", in 3 days"},
		"not so soon":     {soon, Config{ExpiryWarningDays: 3}, up},
		"has expired":     {late, Config{}, up + "; warning: the certificate of late.example.com expired on " + date(-time.Hour)},
		"no authorities":  {good, Config{Verify: true, CAFile: "no/such/file"}, "down: no/such/file: no such file or directory"},
		"odd authorities": {good, Config{Verify: true, CAFile: os.Args[0]}, "down: " + os.Args[0] + ": no certificate in it"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			check := test.check
			check.Type, check.Timeout = TLS, ample
			if got := verdictOf(t, serveTLS(t, test.certificate, nil, silent), check); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

func TestTLSAsksForAName(t *testing.T) {
	c, _ := certificate(t, year, "web.example.com")
	names := make(chan string, 1)
	address := serveTLS(t, c, names, say("HTTP/1.1 204 No Content\r\n\r\n"))
	for _, test := range []struct {
		check Config
		want  string
	}{
		{Config{Type: TLS}, ""},
		{Config{Type: TLS, ServerName: "a.example.com"}, "a.example.com"},
		{Config{Type: HTTPS, Host: "b.example.com:8443"}, "b.example.com"},
		{Config{Type: HTTPS, Host: "b.example.com", ServerName: "a.example.com"}, "a.example.com"},
		{Config{Type: HTTPS}, ""},
	} {
		test.check.Timeout = ample
		verdictOf(t, address, test.check)
		if got := <-names; got != test.want {
			t.Errorf("%+v asks for %q, want %q", test.check, got, test.want)
		}
	}
}

func TestTLSServersThatMisbehave(t *testing.T) {
	tests := map[string]struct {
		handle  func(net.Conn)
		timeout time.Duration
		want    string
	}{
		"silent":         {silent, short, "down: no answer within 150ms"},
		"closes at once": {func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) }, ample, "down: connection closed by the server"},
		"speaks SSH":     {say("SSH-2.0-OpenSSH_9.2\r\n"), ample, "down: " + errNotTLS.Error()},
		"half a record":  {say("\x16\x03\x03\x10\x00\x02"), short, "down: no answer within 150ms"},
		"an alert":       {say("\x15\x03\x03\x00\x02\x02\x28"), ample, "down: remote error: tls: handshake failure"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, kind := range []Type{TLS, HTTPS} {
				if got := verdictOf(t, serve(t, test.handle), Config{Type: kind, Timeout: test.timeout}); got != test.want {
					t.Errorf("%s: %s, want %s", kind, got, test.want)
				}
			}
		})
	}
}

func TestHTTPS(t *testing.T) {
	c, ca := certificate(t, 24*time.Hour+time.Hour, "127.0.0.1")
	answer := "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready"
	warning := "; warning: the certificate of 127.0.0.1 expires on " + time.Now().Add(25*time.Hour).UTC().Format(time.DateOnly) + ", in 1 day"
	for _, test := range []struct {
		check Config
		want  string
	}{
		{Config{Expect: "ready"}, "up: status 200" + warning},
		{Config{Expect: "ready", Verify: true, CAFile: ca}, "up: status 200" + warning},
		{Config{Expect: "steady"}, `down: status 200, but the body has no "steady"`},
		{Config{Status: "204"}, "down: status 200, want 204"},
		{Config{Verify: true}, "down: the certificate does not pass: certificate signed by unknown authority"},
	} {
		test.check.Type, test.check.Timeout = HTTPS, ample
		if got := verdictOf(t, serveTLS(t, c, nil, say(answer)), test.check); got != test.want {
			t.Errorf("%+v: %s, want %s", test.check, got, test.want)
		}
	}
}

func TestHTTPBody(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\n"
	long := strings.Repeat("x", 100<<10)
	tests := map[string]struct {
		answer string
		check  Config
		want   string
	}{
		"has it":          {head + "Content-Length: 5\r\n\r\nready", Config{Expect: "read"}, "up: status 200"},
		"matches":         {head + "Content-Length: 5\r\n\r\nready", Config{ExpectRegexp: "^re.dy$"}, "up: status 200"},
		"has not":         {head + "Content-Length: 5\r\n\r\nready", Config{Expect: "steady"}, `down: status 200, but the body has no "steady"`},
		"only in a head":  {head + "X: ready\r\nContent-Length: 0\r\n\r\n", Config{Expect: "ready"}, `down: status 200, but the body has no "ready"`},
		"in chunks":       {head + "Transfer-Encoding: chunked\r\n\r\n2\r\nre\r\n3\r\nady\r\n0\r\n\r\n", Config{Expect: "ready"}, "up: status 200"},
		"broken chunks":   {head + "Transfer-Encoding: chunked\r\n\r\n2\r\nre\r\nx\r\nady\r\n0\r\n\r\n", Config{Expect: "ready"}, "down: " + errNotHTTP.Error()},
		"far behind":      {head + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(long)+5) + long + "ready", Config{Expect: "ready"}, `down: status 200, but the body has no "ready"`},
		"before the end":  {head + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(long)+5) + "ready" + long, Config{Expect: "ready"}, "up: status 200"},
		"stalls":          {head + "Content-Length: 9\r\n\r\nabc", Config{Expect: "ready"}, "down: no answer within 150ms"},
		"stalls after it": {head + "Content-Length: 9\r\n\r\nready", Config{Expect: "ready"}, "up: status 200"},
		"wrong status":    {"HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\nready", Config{Expect: "ready"}, "down: status 500, want 200-399"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			check := test.check
			check.Type, check.Timeout = HTTP, ample
			if strings.Contains(name, "stalls") || strings.HasPrefix(name, "wrong") {
				check.Timeout = short
			}
			if got := verdictOf(t, serve(t, say(test.answer)), check); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

func TestHTTPHeaders(t *testing.T) {
	var headers Headers
	if err := headers.UnmarshalTable(map[string]string{"X-B": "two", "X-A": "one: 1", "User-Agent": "probe"}); err != nil {
		t.Fatal(err)
	}
	requests := make(chan string, 1)
	address := serve(t, func(c net.Conn) {
		buf := make([]byte, 4096)
		n, _ := c.Read(buf)
		requests <- string(buf[:n])
		_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
	})
	verdictOf(t, address, Config{Type: HTTP, Headers: headers, Timeout: ample})
	request := <-requests
	for _, want := range []string{"\r\nX-A: one: 1\r\n", "\r\nX-B: two\r\n", "\r\nUser-Agent: probe\r\n"} {
		if !strings.Contains(request, want) {
			t.Errorf("no %q in %q", want, request)
		}
	}
	for name, value := range map[string]string{
		"Host": "a", "content-length": "1", "Connection": "close", "A B": "x", "": "x", "X": "a\nb", "Ünder": "x",
	} {
		if err := new(Headers).UnmarshalTable(map[string]string{name: value}); err == nil {
			t.Errorf("the header %q: %q is taken", name, value)
		}
	}
}

func FuzzHTTPAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nready\r\n0\r\n\r\n"))
	want, err := newPattern(Config{Expect: "ready"})
	if err != nil {
		f.Fatal(err)
	}
	request, err := newRequest(Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		status, body, err := readAnswer(&soFar{answer: answer, ended: io.EOF}, bufio.NewReader(nil), request, want)
		if err == nil && (status < 0 || status > 999 || len(body) > len(answer)) {
			t.Errorf("status %d with a body of %d bytes", status, len(body))
		}
	})
}

// What checks by TLS is closed twice, by TLS and by who opened it; and servers that ask
// get to see our certificate, whatever the checker binds connections to.
func TestTLSOfTheChecker(t *testing.T) {
	server, ca := certificate(t, year, "127.0.0.1")
	pair, cert := certificate(t, year, "lb.example.com")
	keyDER, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}
	address := serve(t, func(conn net.Conn) {
		encrypted := tls.Server(conn, config)
		_ = encrypted.Handshake()
		_, _ = io.Copy(io.Discard, encrypted)
	})
	changes := make(chan string, 8)
	c := NewChecker(zerolog.Nop(), func(target Target, r Result) { changes <- target.Check.Cert + " " + r.State.String() })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	shown := Config{Type: TLS, Verify: true, CAFile: ca, Cert: cert, Key: key, Interval: ample, Timeout: ample}
	hidden := shown
	hidden.Cert, hidden.Key = "", ""
	c.Set([]Target{shown.For(endpoint.IP(address)), hidden.For(endpoint.IP(address))})
	seen := []string{<-changes, <-changes}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, want := range []string{cert + " up", " down"} {
		if !slices.Contains(seen, want) {
			t.Errorf("%q, want %q among them", seen, want)
		}
	}
}
