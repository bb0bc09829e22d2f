package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"appliance/internal/lab"
)

// l4ServersConfig has services and servers of every kind of address.
const l4ServersConfig = nodesConfig + `
[[vrrp]]
name              = "VI_6"
virtual_router_id = 56
interface         = "eth0"
addresses         = ["fe80::56", "fd15::3/64"]
advert_interval   = "200ms"
preempt           = false

[[l4]]
name   = "six"
listen = ["[fd15::3]:7001", "192.168.15.3:7001"]
pool   = "six"

[[l4]]
name       = "few"
listen     = ["[fd15::3]:7002"]
pool       = "six"
per_client = { max_connections = 1 }

[[l4]]
name     = "datagrams"
listen   = ["[fd15::3]:7001", "192.168.15.3:7001"]
protocol = "udp"
servers  = ["[fd16::51]:7001"]

[[l4]]
name   = "app"
listen = ["192.168.15.3:7003"]
pool   = "app"

[pool.six]
servers = [{ name = "web1", address = "[fd16::51]:7001" }]
check   = { type = "tcp" }

[pool.app]
servers = [{ name = "gunicorn", address = "unix:/run/app.sock" }]
check   = { type = "http", path = "/health", interval = "200ms", timeout = "200ms", fall = 1, rise = 1 }
`

// l4App is a web application of a few lines.
const l4App = `
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'you asked ' + environ['PATH_INFO'].encode()]
`

// Servers are reached by IPv6 from clients of both kinds, by TCP and UDP; one is an
// application behind a unix socket of the node. A flood of handshakes that nobody
// ends keeps no client out.
func TestServersOfL4(t *testing.T) {
	t.Parallel()
	gunicorn := need(t, "gunicorn", "gunicorn")
	p := newPair(t, l4ServersConfig)
	for i, n := range p.Nodes() {
		p.on(n.Host, "ip", "address", "add", fmt.Sprintf("fd15::1%d/64", i+1), "dev", lab.LAN, "nodad")
		p.on(n.Host, "ip", "address", "add", fmt.Sprintf("fd16::1%d/64", i+1), "dev", lab.SRV, "nodad")
		p.on(n.Host, "ip", "route", "add", "fd17::/64", "dev", lab.LAN)
	}
	web := p.Servers[0].Host
	p.on(web, "ip", "address", "add", "fd16::51/64", "dev", "eth0", "nodad")
	for _, a := range []string{"fd15::64/64", "fd15::65/64", "fd17::64/64"} {
		p.on(p.Client, "ip", "address", "add", a, "dev", lab.LAN, "nodad")
	}
	l4EchoBoth(t, web, netip.MustParseAddrPort("[fd16::51]:7001"))
	if err := p.LB01.WriteFile("/run/app.py", []byte(l4App)); err != nil {
		t.Fatal(err)
	}
	startApp := func() *lab.Process {
		t.Helper()
		app, err := p.LB01.Start(p.LB01.Command(gunicorn, "--bind", "unix:/run/app.sock", "--chdir", "/run", "--workers", "1", "app"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { killTree(app) })
		return app
	}
	app := startApp()
	p.start()
	p.waitUp("six", "web1")
	p.waitUp("app", "gunicorn")

	six, four := netip.MustParseAddrPort("[fd15::3]:7001"), netip.MustParseAddrPort("192.168.15.3:7001")
	t.Run("TCP", func(t *testing.T) {
		for _, to := range []netip.AddrPort{six, four} {
			l4Echo(t, l4DialFrom(t, p.Client, "", to), 1<<20)
		}
	})
	t.Run("one client is a /64", func(t *testing.T) {
		few := netip.MustParseAddrPort("[fd15::3]:7002")
		first := l4DialFrom(t, p.Client, "fd15::64", few)
		l4Echo(t, first, 10)
		neighbour, err := l4TryFrom(p.Client, "fd15::65", few)
		if err == nil { // the reset may come as early as in connect
			defer neighbour.Close()
			_, err = neighbour.Read(make([]byte, 1))
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a second connection from the /64 ended with %v, want a reset", err)
		}
		l4Echo(t, l4DialFrom(t, p.Client, "fd17::64", few), 10)
		first.Close()
		eventually(t, 10*time.Second, "the /64 may again", func() bool { return p.service(p.LB01, "few").Current <= 1 })
		l4Echo(t, l4DialFrom(t, p.Client, "fd15::65", few), 10)
	})
	t.Run("datagrams", func(t *testing.T) {
		for _, to := range []netip.AddrPort{four, six} {
			l4Datagrams(t, p.Client, to)
		}
	})
	t.Run("application on a unix socket", func(t *testing.T) {
		get := func() (string, error) {
			transport := &http.Transport{DialContext: p.Client.DialContext, DisableKeepAlives: true}
			response, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get("http://192.168.15.3:7003/page")
			if err != nil {
				return "", err
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			return string(body), err
		}
		if got, err := get(); err != nil || got != "you asked /page" {
			t.Errorf("the application answers %q, %v", got, err)
		}
		killTree(app)
		// A check under way is broken off, and the next one is refused.
		eventually(t, 10*time.Second, "the application is down, and refuses", func() bool {
			s := p.server(p.LB01, "app", "gunicorn")
			return s.Health == "down" && strings.Contains(s.Check, "refused") && s.Address == "unix:/run/app.sock"
		})
		if got, err := get(); err == nil {
			t.Errorf("an application that is gone answers %q", got)
		}
		startApp()
		p.waitUp("app", "gunicorn")
		if got, err := get(); err != nil || got != "you asked /page" {
			t.Errorf("the application that is back answers %q, %v", got, err)
		}
	})
	t.Run("flood of handshakes", func(t *testing.T) {
		before := p.service(p.LB01, "six")
		old := l4DialFrom(t, p.Client, "", four)
		s := p.newForgedSender()
		random := rand.New(rand.NewPCG(1, 2))
		const rounds, each = 10, 2000
		for range rounds {
			for range each {
				from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, 15, byte(128 + random.IntN(100))}), uint16(1024+random.IntN(60000)))
				s.send(synFrame(net.HardwareAddr{0x02, 0, 192, 168, 15, 11}, net.HardwareAddr{0x02, 0, 192, 168, 15, 99}, from, four, random.Uint32()))
			}
			l4Echo(t, old, 100)
			began := time.Now()
			c := l4DialFrom(t, p.Client, "", four)
			l4Echo(t, c, 100)
			c.Close()
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("a new connection in the flood took %s", took)
			}
		}
		text, err := p.LB01.Output(p.within(10*time.Second), "cat", "/proc/net/netstat")
		if err != nil {
			t.Fatal(err)
		}
		if sent := netstat(t, text, "TcpExt", "SyncookiesSent"); sent == 0 {
			t.Error("the flood did not fill the queue of handshakes")
		}
		if now := p.service(p.LB01, "six"); now.Total != before.Total+rounds+1 || now.Fault != "" {
			t.Errorf("%d connections and the fault %q, want %d and none", now.Total-before.Total, now.Fault, rounds+1)
		}
		p.waitActive(p.LB01)
	})
}

// l4EchoBoth has a host send back what it gets, by TCP and UDP.
func l4EchoBoth(t *testing.T, on *lab.Host, at netip.AddrPort) {
	t.Helper()
	l, err := on.Listen(at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	u, err := on.ListenUDP(at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, from, err := u.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = u.WriteToUDPAddrPort(b[:n], from)
		}
	}()
}

// l4DialFrom connects a host with a service from one of its addresses; empty for
// any. The connection ends with the test.
func l4DialFrom(t *testing.T, on *lab.Host, from string, to netip.AddrPort) net.Conn {
	t.Helper()
	c, err := l4TryFrom(on, from, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// l4TryFrom does the same; the caller closes the connection.
func l4TryFrom(on *lab.Host, from string, to netip.AddrPort) (c net.Conn, err error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	err = on.Do(func() (err error) {
		c, err = d.Dial("tcp", to.String())
		return err
	})
	return c, err
}

// l4Echo sends bytes and wants them back.
func l4Echo(t *testing.T, c net.Conn, n int) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	sent := bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n]
	go func() { _, _ = c.Write(sent) }()
	got := make([]byte, n)
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%s: %d bytes do not come back: %v", c.RemoteAddr(), n, err)
	}
}

// l4Datagrams has datagrams of many sizes echoed, on a socket that takes answers
// from the service's address alone.
func l4Datagrams(t *testing.T, on *lab.Host, to netip.AddrPort) {
	t.Helper()
	var c net.Conn
	if err := on.Do(func() (err error) {
		c, err = net.Dial("udp", to.String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := make([]byte, 64<<10)
	for _, size := range []int{10, 0, 1, 1400, 20000, 65507} {
		sent := bytes.Repeat([]byte{byte(size)}, size)
		eventually(t, 20*time.Second, fmt.Sprintf("%s: a datagram of %d bytes comes back", to, size), func() bool {
			if _, err := c.Write(sent); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			n, err := c.Read(got)
			return err == nil && bytes.Equal(got[:n], sent)
		})
	}
}

// netstat returns a counter of /proc/net/netstat.
func netstat(t *testing.T, text, group, name string) (n int64) {
	t.Helper()
	var names, values []string
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] == group+":" {
			names, values = values, fields
		}
	}
	for i := range names {
		if names[i] == name {
			if _, err := fmt.Sscan(values[i], &n); err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("%s has no %s", group, name)
	return 0
}
