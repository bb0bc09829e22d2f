package integration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"appliance/internal/lab"
)

// A certificate that was replaced is shown to new clients, also if the file's
// text is the same. Clients notice nothing, be they connected or new. A session with
// one node goes on with the other one, that has the same secret.
func TestReloadCertificate(t *testing.T) {
	t.Parallel()
	oldCert, oldKey := newCertificate(t, "blog.example")
	newCert, newKey := newCertificate(t, "blog.example")
	text := linkedConfig(t, `interval = "500ms", timeout = "250ms"`, `interval = "1s", timeout = "1s"`, `listen = ["192.168.15.3:80"]`, `listen = ["192.168.15.3:443"]
tls    = { certificates = [{ cert = "blog.pem", key = "blog.key" }] }`)
	p := newPair(t, text)
	write := func(cert, key []byte) {
		t.Helper()
		for _, n := range p.Nodes() {
			for path, data := range map[string][]byte{"/run/appliance/blog.pem": cert, "/run/appliance/blog.key": key} {
				if err := n.WriteFile(path, data); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	write(oldCert, oldKey)
	p.start()
	load := p.startReloadLoad("https://192.168.15.3/")
	kept := p.newBrowser(reloadTrust(t, oldCert))
	kept.get("https://192.168.15.3/")

	write(newCert, newKey)
	p.newBrowser(reloadTrust(t, oldCert)).get("https://192.168.15.3/") // in force until the reload
	for i, reload := range []func(*lab.Node, string){p.reload, p.reloadBySignal} {
		for _, n := range p.Nodes() {
			reload(n, text)
			load.more(100)
		}
		if i == 0 {
			p.newBrowser(reloadTrust(t, newCert)).get("https://192.168.15.3/")
			kept.get("https://192.168.15.3/")
		}
	}
	if n := kept.dials.Load(); n != 1 {
		t.Errorf("the kept client had to connect %d times", n)
	}
	stranger := p.newBrowser(reloadTrust(t, oldCert))
	if response, err := stranger.client.Get("https://192.168.15.3/"); err == nil {
		response.Body.Close()
		t.Error("the old certificate is still shown to new clients")
	}

	// The pair of two halves is refused, and the good one stays.
	write(oldCert, newKey)
	if code, output := p.applianctl(p.LB01, "reload"); code != 1 || !strings.Contains(output, "does not match") {
		t.Errorf("reload with a key that does not match: exit code %d: %s", code, output)
	}
	p.newBrowser(reloadTrust(t, newCert)).get("https://192.168.15.3/")

	load.end()

	sessions := &tls.Config{InsecureSkipVerify: true, ServerName: "blog.example", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	if p.resumes(sessions) || !p.resumes(sessions) {
		t.Error("a second connection to lb01 does not go on with the session of the first")
	}
	p.failover(p.LB01)
	p.waitActive(p.LB02)
	if !p.resumes(sessions) {
		t.Error("a session with lb01 does not go on with lb02")
	}
}

// resumes asks for a page on a new connection, and reports whether that went on
// with a session that the client had before.
func (p *pair) resumes(config *tls.Config) bool {
	p.t.Helper()
	tcp, err := p.Client.DialContext(p.within(20*time.Second), "tcp", "192.168.15.3:443")
	if err != nil {
		p.t.Fatal(err)
	}
	c := tls.Client(tcp, config)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: blog.example\r\nConnection: close\r\n\r\n"); err != nil {
		p.t.Fatal(err)
	}
	if text, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 200 ") { // the tickets have come by then
		p.t.Fatalf("%q, %v", text, err)
	}
	return c.ConnectionState().DidResume
}

// reloadLoad asks for a page all the time, on kept connections and new ones.
type reloadLoad struct {
	t        *testing.T
	stop     context.CancelFunc
	clients  sync.WaitGroup
	answered atomic.Int64
	mu       sync.Mutex
	failed   []error
}

func (p *pair) startReloadLoad(url string) *reloadLoad {
	ctx, stop := context.WithCancel(context.Background())
	l := &reloadLoad{t: p.t, stop: stop}
	p.t.Cleanup(stop)
	for i := range 6 {
		transport := &http.Transport{
			DialContext:       p.Client.DialContext,
			DisableKeepAlives: i%2 == 0,
			ForceAttemptHTTP2: i > 3,
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		}
		l.clients.Go(func() {
			defer transport.CloseIdleConnections()
			client := http.Client{Transport: transport, Timeout: 20 * time.Second}
			for ctx.Err() == nil {
				l.ask(&client, url)
				time.Sleep(2 * time.Millisecond) // leaves the CPU to the others
			}
		})
	}
	return l
}

func (l *reloadLoad) ask(client *http.Client, url string) {
	response, err := client.Get(url)
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			err = errors.New(response.Status)
		}
	}
	if err == nil {
		l.answered.Add(1)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = append(l.failed, err)
}

// more waits for n requests more to be answered.
func (l *reloadLoad) more(n int64) {
	l.t.Helper()
	from := l.answered.Load()
	eventually(l.t, time.Minute, "the clients are answered", func() bool { return l.answered.Load() >= from+n })
}

// end fails the test if a request has failed.
func (l *reloadLoad) end() {
	l.t.Helper()
	l.stop()
	l.clients.Wait()
	l.t.Logf("%d requests were answered meanwhile", l.answered.Load())
	if len(l.failed) > 0 || l.answered.Load() < 100 {
		l.t.Errorf("%d requests were answered, %d failed, first: %v", l.answered.Load(), len(l.failed), errors.Join(l.failed[:min(1, len(l.failed))]...))
	}
}

// reloadTrust accepts one certificate, and shows no session of before.
func reloadTrust(t *testing.T, cert []byte) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(cert) {
		t.Fatal("no certificate")
	}
	return &tls.Config{RootCAs: pool, ServerName: "blog.example"}
}
