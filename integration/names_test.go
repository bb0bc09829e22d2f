package integration

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"appliance/internal/lab"
)

const namesConfig = nodesConfig + `
[[l7]]
name   = "web"
listen = ["192.168.15.3:80"]
pool   = "app"
error_pages = { 404 = "/run/404.html" }

[[l4]]
name   = "raw"
listen = ["192.168.15.3:7001"]
pool   = "app"

[pool.app]
servers = ["app1.internal:80"]
check   = { type = "http", interval = "200ms", timeout = "200ms", rise = 1 }
`

// namesConversation is one connection on which requests are made one after the
// other.
type namesConversation struct {
	t *testing.T
	c io.ReadWriter
	r *bufio.Reader
}

func (p *pair) converse(to string) *namesConversation {
	p.t.Helper()
	c, err := p.Client.Dial(p.within(10*time.Second), netip.MustParseAddrPort(to))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	return &namesConversation{p.t, c, bufio.NewReader(c)}
}

// ask returns which server answers a request, or the status.
func (c *namesConversation) ask() string {
	c.t.Helper()
	fmt.Fprint(c.c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		return resp.Status
	}
	return strings.TrimSpace(string(body))
}

// A server by its host's name is down while nobody knows the name, which keeps
// neither a start nor a reload; it follows the name to another address, and
// connections that it has go on where they are.
func TestServersByName(t *testing.T) {
	t.Parallel()
	dnsmasq := need(t, "dnsmasq", "dnsmasq-base")
	p := newPair(t, namesConfig)
	for _, s := range p.Servers {
		name := s.Host.Name
		s.SetHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, name) }))
	}
	const page = "/run/404.html"
	for _, n := range p.Nodes() {
		if err := n.WriteFile(page, []byte("nothing here")); err != nil {
			t.Fatal(err)
		}
		if err := n.WriteFile("/run/resolv.conf", []byte("nameserver 172.16.1.52\noptions timeout:1 attempts:1\n")); err != nil {
			t.Fatal(err)
		}
		if err := n.Do(func() error { return unix.Mount("/run/resolv.conf", "/etc/resolv.conf", "", unix.MS_BIND, "") }); err != nil {
			t.Fatal(err)
		}
	}
	p.start()
	is := func(n *lab.Node, name, health, address, check string) {
		t.Helper()
		var last string
		eventually(t, 30*time.Second, fmt.Sprintf("%s: %s is %s at %s: %s", n.Name, name, health, address, check), func() bool {
			s := p.server(n, "app", name)
			last = fmt.Sprintf("%s at %s: %s", s.Health, s.Address, s.Check)
			return s.Health == health && s.Address == address && strings.Contains(s.Check, check)
		})
		t.Log(last)
	}
	const app1 = "app1.internal:80"
	is(p.LB01, app1, "down", app1, "name server 172.16.1.52")
	if got := p.converse("192.168.15.3:80").ask(); !strings.HasPrefix(got, "503") {
		t.Errorf("without a server the answer is %s", got)
	}

	web2 := p.Servers[1].Host
	hosts := func(text string) {
		t.Helper()
		if err := os.WriteFile(web2.Path("/run/names"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	hosts("172.16.1.51 app1.internal\n")
	names, err := web2.Start(web2.Command(dnsmasq, "-k", "-C", "/dev/null", "-u", "root", "-a", "172.16.1.52", "--bind-interfaces",
		"-R", "-h", "--addn-hosts=/run/names", "--local=/internal/", "--local-ttl=1", "--pid-file=/run/names.pid"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { killTree(names) })
	for _, n := range p.Nodes() {
		is(n, app1, "up", "172.16.1.51:80", "status 200")
	}
	l7, l4 := p.converse("192.168.15.3:80"), p.converse("192.168.15.3:7001")
	for what, c := range map[string]*namesConversation{"L7": l7, "L4": l4} {
		if got := c.ask(); got != "web1" {
			t.Errorf("%s: %s answers, want web1", what, got)
		}
	}

	hosts("172.16.1.53 app1.internal\n")
	if err := names.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	is(p.LB01, app1, "up", "172.16.1.53:80", "status 200")
	p.tells(p.LB01, "host", "app1.internal", "172.16.1.53")
	if got := l4.ask(); got != "web1" {
		t.Errorf("the connection that was there is answered by %s, want web1", got)
	}
	if got := l7.ask(); got != "web3" {
		t.Errorf("a new request is answered by %s, want web3", got)
	}
	if got := p.converse("192.168.15.3:7001").ask(); got != "web3" {
		t.Errorf("a new connection is answered by %s, want web3", got)
	}

	// A name that nobody knows keeps no reload, and no other server.
	p.reload(p.LB01, strings.Replace(namesConfig, `["app1.internal:80"]`, `["app1.internal:80", "app2.internal:80"]`, 1))
	is(p.LB01, "app2.internal:80", "down", "app2.internal:80", "app2.internal: the name has no address")
	is(p.LB01, app1, "up", "172.16.1.53:80", "status 200")
	if got := l7.ask(); got != "web3" {
		t.Errorf("after the reload %s answers, want web3", got)
	}
	hosts("172.16.1.53 app1.internal\n172.16.1.52 app2.internal\n")
	if err := names.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	is(p.LB01, "app2.internal:80", "up", "172.16.1.52:80", "status 200")

	// A change that cannot be followed at once, because a file of the configuration is
	// not there, is followed later.
	if err := os.Remove(p.LB01.Path(page)); err != nil {
		t.Fatal(err)
	}
	hosts("172.16.1.51 app1.internal\n172.16.1.52 app2.internal\n")
	if err := names.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the change cannot be followed", func() bool {
		return strings.Contains(p.LB01.Log(), "servers stay at the addresses that they had")
	})
	if err := p.LB01.WriteFile(page, []byte("nothing here")); err != nil {
		t.Fatal(err)
	}
	is(p.LB01, app1, "up", "172.16.1.51:80", "status 200")
}
