package integration

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"appliance/internal/control"
	"appliance/internal/lab"
)

const l4PeersConfig = nodesConfig + `
[[l4]]
name   = "told"
listen = ["192.168.15.3:7001"]
pool   = "told"

[[l4]]
name   = "told1"
listen = ["192.168.15.3:7003"]
pool   = "told1"

[[l4]]
name   = "behind"
listen = ["192.168.15.3:7002"]
pool   = "told"
accept_proxy = { from = ["192.168.15.100/32"] }

[[l4]]
name    = "dns"
listen  = ["192.168.15.3:5353"]
protocol = "udp"
servers = ["172.16.1.52:53"]

[pool.told1]
send_proxy = "v1"
servers    = [{ name = "nginx", address = "172.16.1.51:8001" }]
check      = { type = "tcp", expect = "client" }

[pool.told]
send_proxy = "v2"
servers    = [{ name = "nginx", address = "172.16.1.51:8001" }]
check      = { type = "tcp", expect = "client" }
`

// nginxTelling answers each connection with what the PROXY header says of it.
const nginxTelling = `
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; pid /run/told.pid; error_log stderr crit;
events {}
stream {
	server {
		listen 172.16.1.51:8001 proxy_protocol;
		return "client $proxy_protocol_addr:$proxy_protocol_port asked $proxy_protocol_server_addr:$proxy_protocol_server_port\n";
	}
}
`

// nginxBefore is a proxy before the pair, on the client's host.
const nginxBefore = `
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; pid /run/before.pid; error_log stderr crit;
events {}
stream {
	server {
		listen 127.0.0.1:9001;
		proxy_protocol on;
		proxy_pass 192.168.15.3:7002;
	}
}
`

// The PROXY protocol is spoken with nginx on both sides, and DNS is carried to a
// dnsmasq whose answers come from the virtual address. What is carried is listed
// and cut by command.
func TestPeersOfL4(t *testing.T) {
	t.Parallel()
	nginx := need(t, "nginx", "nginx")
	dnsmasq := need(t, "dnsmasq", "dnsmasq-base")
	p := newPair(t, l4PeersConfig)
	run := func(h *lab.Host, path, config string, args ...string) *lab.Process {
		t.Helper()
		if err := h.WriteFile(path, []byte(config)); err != nil {
			t.Fatal(err)
		}
		process, err := h.Start(h.Command(args[0], args[1:]...))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { killTree(process) })
		return process
	}
	web1, web2 := p.Servers[0].Host, p.Servers[1].Host
	told := run(web1, "/run/told.conf", nginxTelling, nginx, "-c", "/run/told.conf", "-p", "/run", "-e", "stderr")
	run(web2, "/run/dns.conf", "", dnsmasq, "-k", "-C", "/run/dns.conf", "-u", "root", "-p", "53", "-a", "172.16.1.52", "--bind-interfaces",
		"-R", "-h", "--no-ping", "--pid-file=/run/dns.pid", "--address=/blog.example.com/192.0.2.99")
	waitAccepting(t, web1, netip.MustParseAddrPort("172.16.1.51:8001"), told)
	p.start()
	p.waitUp("told", "nginx") // by a check that nginx answers after a header only
	p.waitUp("told1", "nginx")
	before := run(p.Client, "/run/before.conf", nginxBefore, nginx, "-c", "/run/before.conf", "-p", "/run", "-e", "stderr")
	waitAccepting(t, p.Client, netip.MustParseAddrPort("127.0.0.1:9001"), before)

	read := func(to string) (own, said string) {
		t.Helper()
		c, err := p.Client.Dial(p.within(10*time.Second), netip.MustParseAddrPort(to))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		text, err := io.ReadAll(c)
		if err != nil {
			t.Fatalf("%s: %v after %q", to, err, text)
		}
		return c.LocalAddr().String(), string(text)
	}
	own, said := read("192.168.15.3:7001")
	if want := fmt.Sprintf("client %s asked 192.168.15.3:7001\n", own); said != want {
		t.Errorf("through the pair the server was told %q, want %q", said, want)
	}
	own, said = read("192.168.15.3:7003")
	if want := fmt.Sprintf("client %s asked 192.168.15.3:7003\n", own); said != want {
		t.Errorf("by version 1 the server was told %q, want %q", said, want)
	}
	// By way of the proxy before it, the client is the one that nginx saw.
	own, said = read("127.0.0.1:9001")
	if want := fmt.Sprintf("client %s asked 127.0.0.1:9001\n", own); said != want {
		t.Errorf("through both proxies the server was told %q, want %q", said, want)
	}

	if got := l4Resolve(t, p, "blog.example.com."); got != "192.0.2.99" {
		t.Errorf("blog.example.com is %s, want 192.0.2.99", got)
	}

	// One connection that stays: it is listed, and ends by command.
	c, err := p.Client.Dial(p.within(10*time.Second), netip.MustParseAddrPort("192.168.15.3:7002"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	var listed string
	eventually(t, 10*time.Second, "the connection is listed", func() bool {
		_, listed = p.applianctl(p.LB01, "show", "sessions")
		return strings.Contains(listed, c.LocalAddr().String())
	})
	line := listed[:strings.Index(listed, c.LocalAddr().String())]
	fields := strings.Fields(line[strings.LastIndex(line, "\n")+1:])
	if len(fields) < 3 || fields[1] != "behind" || fields[2] != "reading" {
		t.Errorf("the connection is listed as %q", fields)
	}
	if code, out := p.applianctl(p.LB01, "cut", fields[0]); code != 0 || out != "1 connections cut\n" {
		t.Errorf("cut: %d, %s", code, out)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("the connection that was cut reads %v, want a reset", err)
	}
	if code, out := p.applianctl(p.LB01, "cut", fields[0]); code == 0 {
		t.Errorf("cut again: %d, %s", code, out)
	}
	for _, what := range []string{"services", "servers"} {
		if code, out := p.applianctl(p.LB01, "show", what); code != 0 || !strings.Contains(out, "told") {
			t.Errorf("show %s: %d\n%s", what, code, out)
		}
	}
	var dns control.Service
	for _, s := range p.status(p.LB01).Services {
		if s.Name == "dns" {
			dns = s
		}
	}
	if dns.Total == 0 || dns.BytesIn == 0 || dns.BytesOut == 0 {
		t.Errorf("the DNS service has counted %+v", dns)
	}
}

// l4Resolve asks the pair for an address from the client, on a socket that takes
// answers from the virtual address alone.
func l4Resolve(t *testing.T, p *pair, name string) string {
	t.Helper()
	var c *net.UDPConn
	if err := p.Client.Do(func() (err error) {
		c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("192.168.15.3:5353")))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	question := dnsmessage.Message{
		Header: dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{
			Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	b, err := question.Pack()
	if err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 1500)
	var n int
	eventually(t, 20*time.Second, "dnsmasq answers", func() bool {
		_, _ = c.Write(b)
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		n, err = c.Read(answer)
		return err == nil
	})
	var got dnsmessage.Message
	if err := got.Unpack(answer[:n]); err != nil || len(got.Answers) != 1 {
		t.Fatalf("the answer is %+v, %v", got, err)
	}
	a, ok := got.Answers[0].Body.(*dnsmessage.AResource)
	if !ok {
		t.Fatalf("the answer is %v", got.Answers[0])
	}
	return netip.AddrFrom4(a.A).String()
}
