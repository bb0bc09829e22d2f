package l7

import (
	"bufio"
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
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// authority signs certificates of clients.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t, cert, key}
}

// file writes the authority's certificate to a file.
func (a *authority) file() string {
	return writeFile(a.t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})))
}

// client returns a certificate of a client.
func (a *authority) client(serial int64, subject pkix.Name) *tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: subject, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// revoke returns a list of revoked certificates in PEM.
func (a *authority) revoke(serials ...int64) string {
	a.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	for _, s := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

// Clients are asked for certificates; servers learn who they are from the
// appliance alone.
func TestClientCertificates(t *testing.T) {
	good, other := newAuthority(t, "good"), newAuthority(t, "other")
	r := newRig(t)
	var verdict string
	r.pool("p", web(t, func(w http.ResponseWriter, req *http.Request) {
		fmt.Fprintf(w, "%q %q %q", req.Header["X-Who"], req.Header["X-Serial"], req.Header["X-Cert"])
	}))
	r.pool("gate", web(t, func(_ http.ResponseWriter, req *http.Request) { verdict = req.Header.Get("X-Who") }))
	path := filepath.Join(t.TempDir(), "access.log")
	crl := writeFile(t, good.revoke(7))
	addr := r.addr()
	cfg := Config{
		Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", AccessLog: &AccessLog{Path: path},
		TLS: &TLS{Certificates: []Certificate{makeCert(t, "blog.example.com")}, ClientCA: good.file(), ClientCRL: crl},
		Rules: Rules{
			RequestHeaders: &HeaderRules{Set: map[string]string{"X-Who": "{cert_subject}", "X-Serial": "{cert_serial}", "X-Cert": "{cert_der}"}},
			ForwardAuth:    &ForwardAuth{Pool: "gate"},
		},
	}
	r.apply(cfg)
	line := logLines(t, r, path)
	ann := good.client(10, pkix.Name{CommonName: "Ann", Organization: []string{"a, b"}})
	ask := func(cert *tls.Certificate, cache tls.ClientSessionCache) (answer string, resumed bool, err error) {
		t.Helper()
		config := &tls.Config{InsecureSkipVerify: true, ServerName: "blog.example.com", NextProtos: []string{protocolHTTP1}, ClientSessionCache: cache}
		if cert != nil {
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil } // asked for or not
		}
		c, err := tls.Dial("tcp", addr.String(), config)
		if err != nil {
			return "", false, err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nX-Who: me\r\nx-serial: 1\r\nX-Cert: x\r\nConnection: close\r\n\r\n")
		b, err := io.ReadAll(c)
		_, answer, _ = strings.Cut(string(b), "\r\n\r\n")
		return answer, c.ConnectionState().DidResume, err
	}

	cache := tls.NewLRUClientSessionCache(1)
	for _, again := range []bool{false, true} {
		got, resumed, err := ask(ann, cache)
		want := fmt.Sprintf(`["CN=Ann,O=a\\, b"] ["a"] [%q]`, certDER(&x509.Certificate{Raw: ann.Certificate[0]}))
		if err != nil || got != want || resumed != again || verdict != `CN=Ann,O=a\, b` {
			t.Errorf("got %s, %v, resumed %v, the gate was told %q", got, err, resumed, verdict)
		}
		if l := line(); l.End != "done" || l.Resumed != again {
			t.Errorf("%+v", l)
		}
	}
	for _, one := range []struct {
		name string
		cert *tls.Certificate
		want string
	}{
		{"none", nil, "didn't provide a certificate"},
		{"of somebody else", other.client(10, pkix.Name{CommonName: "Ann"}), "unknown authority"},
		{"revoked", good.client(7, pkix.Name{CommonName: "Bob"}), "the client's certificate, CN=Bob, is revoked"},
	} {
		if got, _, err := ask(one.cert, nil); err == nil {
			t.Errorf("%s: %s", one.name, got)
		}
		if l := line(); l.End != "tls_failed" || !strings.Contains(l.Problem, one.want) {
			t.Errorf("%s: %+v", one.name, l)
		}
	}

	// A reload makes another decision, also of those who have been here before.
	kept, in := dial(t, addr, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*ann}, NextProtos: []string{protocolHTTP1}})
	io.WriteString(kept, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	body(t, answerTo(t, in, "GET"))
	line()
	if err := os.WriteFile(crl, []byte(good.revoke(7, 10)), 0o600); err != nil {
		t.Fatal(err)
	}
	r.apply(cfg)
	_ = kept.SetReadDeadline(time.Now().Add(patience))
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("the connection of one who is revoked is kept: %v", err)
	}
	if got, _, err := ask(ann, cache); err == nil {
		t.Errorf("revoked, and resumed: %s", got)
	}
	if l := line(); !strings.Contains(l.Problem, "revoked") {
		t.Errorf("%+v", l)
	}
	old := cfg
	cfg.TLS = &TLS{Certificates: old.TLS.Certificates, ClientCA: other.file(), ClientAuth: ClientAuthOptional}
	r.apply(cfg)
	if got, _, err := ask(ann, cache); err == nil {
		t.Errorf("of another authority, and resumed: %s", got)
	}
	if l := line(); l.End != "tls_failed" {
		t.Errorf("%+v", l)
	}
	if got, _, err := ask(nil, nil); err != nil || got != "[] [] []" || verdict != "" {
		t.Errorf("without a certificate: %s, %v, the gate was told %q", got, err, verdict)
	}
	line()

	// HTTP/2 does the same.
	h2 := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, Certificates: []tls.Certificate{*other.client(255, pkix.Name{CommonName: "Zoe\r\nX-Evil: 1"})},
	}}}
	defer h2.CloseIdleConnections()
	resp, err := h2.Get("https://" + addr.String())
	if err != nil {
		t.Fatal(err)
	}
	if got := body(t, resp); resp.ProtoMajor != 2 || !strings.HasPrefix(got, `["CN=Zoe\\r\\nX-Evil: 1"] ["ff"] `) {
		t.Errorf("%s", got)
	}
}

func TestClientCertificateFiles(t *testing.T) {
	a, other := newAuthority(t, "a"), newAuthority(t, "other")
	client := a.client(2, pkix.Name{CommonName: "x"})
	leaf := writeFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: client.Certificate[0]})))
	for _, one := range []struct {
		name string
		cfg  TLS
		want string // "": no fault
	}{
		{"good", TLS{ClientCA: a.file(), ClientCRL: writeFile(t, a.revoke(1))}, ""},
		{"no file", TLS{ClientCA: "/none"}, "tls.client_ca: open /none: no such file or directory"},
		{"no certificate", TLS{ClientCA: writeFile(t, "x")}, "no certificate in the file"},
		{"of no authority", TLS{ClientCA: leaf}, "the certificate of CN=x is not that of an authority"},
		{"no list", TLS{ClientCA: a.file(), ClientCRL: writeFile(t, "x")}, "tls.client_crl: "},
		{"another's list", TLS{ClientCA: a.file(), ClientCRL: writeFile(t, other.revoke(1))}, "the list of CN=other is signed by none of client_ca"},
	} {
		t.Run(one.name, func(t *testing.T) {
			got := ""
			one.cfg.checkClientFiles(func(key, message string) { got += key + ": " + message })
			if one.want == "" && got != "" || !strings.Contains(got, one.want) {
				t.Errorf("%q, want %q", got, one.want)
			}
		})
	}
}

// What only a certificate says, a client cannot say otherwise.
func TestClientCertificateRules(t *testing.T) {
	base := Config{Name: "web", Listen: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:443")}, Pool: "p"}
	with := func(change func(c *Config)) Config {
		c := base
		c.TLS = &TLS{Certificates: []Certificate{{"a", "b"}}, ClientCA: "ca.pem"}
		change(&c)
		return c
	}
	set := &HeaderRules{Set: map[string]string{"X-Who": "{cert_name}"}}
	for name, one := range map[string]struct {
		cfg  Config
		want string
	}{
		"good":          {with(func(c *Config) { c.RequestHeaders = set }), ""},
		"no CA":         {with(func(c *Config) { c.RequestHeaders = set; c.TLS.ClientCA = "" }), "request_headers.set.X-Who: clients are not asked"},
		"mode alone":    {with(func(c *Config) { c.TLS.ClientCA, c.TLS.ClientAuth = "", "optional" }), "tls.client_auth: who may sign"},
		"list alone":    {with(func(c *Config) { c.TLS.ClientCA, c.TLS.ClientCRL = "", "x" }), "tls.client_crl: a list"},
		"unknown mode":  {with(func(c *Config) { c.TLS.ClientAuth = "maybe" }), "tls.client_auth: unknown value"},
		"added":         {with(func(c *Config) { c.RequestHeaders = &HeaderRules{Add: set.Set} }), "request_headers.add.X-Who: a client could"},
		"by underscore": {with(func(c *Config) { c.RequestHeaders = set; c.Underscores = UnderscoresPass }), ""},
		"added user":    {with(func(c *Config) { c.RequestHeaders = &HeaderRules{Add: map[string]string{"X-User": "{user}"}} }), "request_headers.add.X-User: a client could"},
	} {
		got := ""
		one.cfg.Validate(func(key, message string) { got += key + ": " + message + "\n" })
		if one.want == "" && got != "" || !strings.HasPrefix(got, one.want) {
			t.Errorf("%s: %q, want %q", name, got, one.want)
		}
	}
}

// No route passes on what a client says in the field of its certificate or its name,
// whatever rules of its own it has, nor in one that servers take for it.
func TestProvedFieldsOnAllRoutes(t *testing.T) {
	cfg := Config{
		Underscores: UnderscoresPass,
		Rules:       Rules{RequestHeaders: &HeaderRules{Set: map[string]string{"X-Who": "{cert_name}", "X-Other": "{client}"}}},
		Routes:      []Route{{Rules: Rules{RequestHeaders: &HeaderRules{Set: map[string]string{"X-Serial": "no {cert_serial}", "X-User": "{user}"}}}}},
	}
	id := newIdentity(cfg)
	ex := request(pairs("x-who", "me", "A", "b", "X-Serial", "1", "X.Who", "me", "X_User", "root", "X-Other", "c")...)
	before := slices.Clone(ex.fields)
	if ok := id.identify(ex); !ok || !slices.Equal(lines(ex.fields), []string{"A: b", "X-Other: c"}) {
		t.Errorf("%v, %q", ok, lines(ex.fields))
	}
	if !slices.Equal(before, fields(pairs("x-who", "me", "A", "b", "X-Serial", "1", "X.Who", "me", "X_User", "root", "X-Other", "c"))) {
		t.Error("the slice was changed")
	}
}

// Who is not let in any more by a reload brings no further request, be it by a
// connection that was there before, or by a handshake that had begun.
func TestReloadOfWhoIsLetIn(t *testing.T) {
	good := newAuthority(t, "good")
	cfg := Config{
		Name: "web", Pool: "p",
		TLS: &TLS{Certificates: []Certificate{makeCert(t, "blog.example.com")}, ClientCA: good.file()},
	}
	ann, bob := good.client(10, pkix.Name{CommonName: "Ann"}), good.client(11, pkix.Name{CommonName: "Bob"})
	for _, proto := range []string{protocolHTTP1, protocolHTTP2} {
		r := newRig(t)
		r.pool("p", named(t, "yes"))
		cfg.Listen = []netip.AddrPort{r.addr()}
		was := cfg
		tlsWas := *cfg.TLS
		was.TLS = &tlsWas
		r.apply(was)
		type one struct {
			who   string
			c     net.Conn
			begun chan struct{} // the handshake has
			goOn  chan struct{}
			done  chan struct{}
		}
		begin := func(who string, cert *tls.Certificate, waits bool) *one {
			o := &one{who: who, begun: make(chan struct{}), goOn: make(chan struct{}), done: make(chan struct{})}
			if !waits {
				close(o.goOn)
			}
			raw, _ := dial(t, cfg.Listen[0], nil)
			c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, ServerName: "blog.example.com", NextProtos: []string{proto},
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					close(o.begun)
					<-o.goOn
					return cert, nil
				}})
			o.c = c
			go func() {
				defer close(o.done)
				if err := c.Handshake(); err != nil {
					t.Error(err)
				}
				if proto == protocolHTTP2 {
					io.WriteString(c, http2.ClientPreface)
					_ = http2.NewFramer(c, nil).WriteSettings()
				}
			}()
			<-o.begun
			if !waits {
				<-o.done
			}
			return o
		}
		clients := []*one{begin("Ann", ann, false), begin("Ann", ann, true), begin("Bob", bob, false), begin("Bob", bob, true)}
		r.until("the handshakes", func() bool { return r.engine.Active(nil) == 4 })
		now := *cfg.TLS
		now.ClientCRL = writeFile(t, good.revoke(11))
		cfg := was
		cfg.TLS = &now
		r.apply(cfg)
		for i, o := range clients {
			if i%2 == 1 {
				close(o.goOn)
				<-o.done
			}
			got := ""
			if proto == protocolHTTP1 {
				io.WriteString(o.c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				if resp, err := http.ReadResponse(bufio.NewReader(o.c), nil); err != nil {
					got = "closed"
				} else {
					got = strconv.Itoa(resp.StatusCode)
				}
			} else {
				p := http2PeerOn(t, o.c)
				p.ask(1, true, "GET", "/")
				got = p.outcome(1)
			}
			if want := map[string]string{"Ann": "200", "Bob": "403"}[o.who]; got != want {
				t.Errorf("%s: %d, %s: %s, want %s", proto, i, o.who, got, want)
			}
			o.c.Close()
		}
	}
}
