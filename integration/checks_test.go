package integration

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"appliance/internal/control"
	"appliance/internal/lab"
)

// checked is a real server on web1, a check that it passes and one that it does
// not.
type checked struct {
	name  string
	port  int
	start func(c *checks) (*lab.Process, string) // and the path of its log
	check string
	// passed begins the result of the check. wrong is a check that the server
	// fails although it is well, and because a part of its result.
	passed, wrong, because string

	process *lab.Process
	log     string
}

// checks is what the test of all checks has at hand.
type checks struct {
	*pair
	server *lab.Host
	dir    string // that every user may read
	// cert and key are of shop.example.com, in PEM, for a day.
	cert, key []byte
}

// serverPort is the interface of a server.
const serverPort = "eth0"

const checkedPassword = "of the checks"

func checkedServers() []*checked {
	const query = `\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04blog\x07example\x03com\x00\x00\x01\x00\x01`
	return []*checked{
		{
			name: "tcp", port: 6379, start: (*checks).redis,
			check: `type = "tcp", send = "PING\r\n", expect_regexp = "^-NOAUTH "`, passed: `answered "-NOAUTH `,
			wrong: `type = "tcp", send = "PING\r\n", expect = "PONG"`, because: `want "PONG"`,
		},
		{
			name: "redis", port: 6379,
			check: `type = "redis", password_file = "check.password", role = "master"`, passed: "answered PONG as master",
			wrong: `type = "redis", password_file = "check.password", role = "slave"`, because: "its role is master, want slave",
		},
		{
			name: "redis-tls", port: 6380,
			check: `type = "redis", password_file = "check.password", tls = true, server_name = "shop.example.com", verify = true, ca_file = "check.pem"`, passed: "answered PONG",
			wrong: `type = "redis", password_file = "check.pem", tls = true`, because: "WRONGPASS",
		},
		{
			name: "tls", port: 8443, start: (*checks).tls,
			check: `type = "tls", server_name = "shop.example.com"`, passed: "TLS 1.3 handshake",
			wrong: `type = "tls", verify = true, server_name = "shop.example.com"`, because: "certificate signed by unknown authority",
		},
		{
			name: "https", port: 8443,
			check: `type = "https", server_name = "shop.example.com", verify = true, ca_file = "check.pem", expect = "TLSv1.3"`, passed: "status 200",
			wrong: `type = "https", expect = "out of stock"`, because: `the body has no "out of stock"`,
		},
		{
			name: "http", port: 8000, start: (*checks).http,
			check: `type = "http", path = "/state", headers = { X-Check = "1" }, expect_regexp = "^all is w.ll$"`, passed: "status 200",
			wrong: `type = "http", path = "/missing"`, because: "status 404, want 200-399",
		},
		{
			name: "postgres", port: 5432, start: (*checks).postgres,
			check: `type = "postgres", user = "lb", password_file = "check.password", database = "postgres", query = "SELECT pg_is_in_recovery()", expect = "f"`, passed: "logged in, query answered f",
			wrong: `type = "postgres", user = "old", password_file = "check.password", database = "postgres", query = "SELECT pg_is_in_recovery()", expect = "t"`, because: `query answered "f", want "t"`,
		},
		{
			name: "postgres-tls", port: 5432,
			check: `type = "postgres", user = "lb", password_file = "check.password", database = "postgres", query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", expect = "t", tls = true, server_name = "shop.example.com", verify = true, ca_file = "check.pem"`, passed: "logged in, query answered t",
			wrong: `type = "postgres", user = "lb", password_file = "check.pem", tls = true`, because: "password authentication failed",
		},
		{
			name: "postgres-anonymous", port: 5432,
			check: `type = "postgres"`, passed: "accepts logins",
			wrong: `type = "postgres", user = "lb", password_file = "check.pem"`, because: "password authentication failed",
		},
		{
			name: "smtp", port: 25, start: (*checks).smtp,
			check: `type = "smtp"`, passed: "greeted: mail.example.com ESMTP",
			wrong: `type = "smtp", port = 22`, because: "the answer is not SMTP",
		},
		{
			name: "smtp-tls", port: 587, start: (*checks).startTLS, // OpenSMTPD 6.8 does not get on with OpenSSL 3
			check: `type = "smtp", tls = true, server_name = "shop.example.com", verify = true, ca_file = "check.pem"`, passed: "greeted: ",
			wrong: `type = "smtp", tls = true, port = 25`, because: "greeted, STARTTLS failed: answered ",
		},
		{
			name: "ssh", port: 22, start: (*checks).ssh,
			check: `type = "ssh"`, passed: "greeted by SSH-2.0-OpenSSH",
			wrong: `type = "ssh", expect = "dropbear"`, because: `want "dropbear"`,
		},
		{
			name: "dns", port: 53, start: (*checks).dns,
			check: `type = "dns", query = "blog.example.com", expect = "192.0.2.80"`, passed: "answered 192.0.2.80",
			wrong: `type = "dns", query = "blog.example.com", expect = "192.0.2.81"`, because: "answered 192.0.2.80, want 192.0.2.81",
		},
		{
			name: "udp", port: 53,
			check: `type = "udp", send = '` + query + `', expect = '\x12\x34'`, passed: "answered ",
			wrong: `type = "udp", send = '` + query + `', expect = '\xff\xff'`, because: "want ",
		},
	}
}

// Every kind of check, on the server that it is made for: it passes, it does not
// pass a wrong answer, and it finds a server that hangs and one that is gone.
func TestEveryKindOfCheck(t *testing.T) {
	t.Parallel()
	all := checkedServers()
	if !sshUsersMapped() {
		if os.Getenv("CI") == "true" {
			t.Fatal("PostgreSQL does not run as root, and this sandbox has no other user")
		}
		t.Skip("PostgreSQL does not run as root, and this sandbox has no other user; run the tests as root")
	}
	p := newPair(t, checksConfig(all))
	dir, err := os.MkdirTemp("", "checks-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &checks{pair: p, server: p.Servers[0].Host, dir: dir}
	c.cert, c.key = newCertificate(t, "shop.example.com")
	c.write("check.password", checkedPassword+"\n")
	c.write("check.pem", string(c.cert))
	c.startAll(all)
	if err := p.LB01.StartAppliance(); err != nil {
		t.Fatal(err)
	}
	p.waitActive(p.LB01)

	for _, s := range all {
		c.wants(s.name, "up", s.passed)
		c.wants(s.name+"-wrong", "down", s.because)
	}
	c.wants("icmp", "up", "echo answered")
	c.wants("icmp6", "up", "echo answered")
	if s := p.server(p.LB01, "tls", "172.16.1.51:8443"); !strings.Contains(s.CheckWarning, "the certificate of shop.example.com expires on ") {
		t.Errorf("a certificate of a day is not warned of: %+v", s)
	}
	c.showsManners(all)
	c.showsEjection()

	for _, s := range all {
		c.signal(s, syscall.SIGSTOP)
	}
	if err := p.Cut(p.Servers[1].Host, serverPort, lab.Silent); err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		c.wants(s.name, "down", "no answer within 400ms")
	}
	c.wants("icmp", "down", "")
	for _, s := range all {
		c.signal(s, syscall.SIGCONT)
	}
	if err := p.Heal(p.Servers[1].Host, serverPort); err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		c.wants(s.name, "up", s.passed)
	}
	c.wants("icmp", "up", "echo answered")
	for _, s := range all {
		if s.process != nil {
			killTree(s.process)
		}
	}
	for _, s := range all {
		c.wants(s.name, "down", "connection refused")
	}
}

// checksConfig returns an appliance.toml with two pools for each server, one
// with the check that it passes and one with the other.
func checksConfig(all []*checked) string {
	var text strings.Builder
	text.WriteString(nodesConfig)
	pool := func(name, address, check string) {
		fmt.Fprintf(&text, `
[pool.%s]
servers = [%q]
check   = { %s, interval = "400ms", fast_interval = "200ms", timeout = "400ms", fall = 2 }
`, name, address, check)
	}
	for _, s := range all {
		address := fmt.Sprint("172.16.1.51:", s.port)
		pool(s.name, address, s.check)
		pool(s.name+"-wrong", address, s.wrong)
	}
	pool("icmp", "172.16.1.52:80", `type = "icmp"`)
	pool("icmp6", "[::1]:80", `type = "icmp"`)
	text.WriteString(`
[pool.gray]
servers = [{ name = "web2", address = "172.16.1.52:81" }, { name = "web3", address = "172.16.1.53:80" }]
outlier = { consecutive_failures = 3, base = "2s" }
[[l4]]
name   = "gray"
listen = ["192.168.15.3:81"]
pool   = "gray"
`)
	return text.String()
}

// showsEjection shows that a server whose connections fail is passed over, that
// no client notices, and that it gets its chance again. Nothing checks it.
func (c *checks) showsEjection() {
	c.t.Helper()
	connect := func() {
		c.t.Helper()
		conn, err := c.Client.Dial(c.within(10*time.Second), c.targets(81)[0])
		if err != nil {
			c.t.Fatalf("a client of pool gray: %v", err)
		}
		conn.Close()
	}
	web2 := func() control.Server { return c.pair.server(c.LB01, "gray", "web2") }
	eventually(c.t, 20*time.Second, "web2 is ejected", func() bool { connect(); return web2().EjectedUntil != nil })
	ejected := web2()
	if ejected.ConnectErrors != 3 || ejected.Ejections != 1 || ejected.Health != "up" {
		c.t.Errorf("web2 is ejected: %+v, want after 3 errors", ejected)
	}
	for range 10 {
		connect()
	}
	if now := web2(); now.EjectedUntil != nil && now.EjectedUntil.Equal(*ejected.EjectedUntil) && now.Total != ejected.Total {
		c.t.Errorf("web2 is ejected and gets connections: %+v", now)
	}
	web := c.Servers[1].Host
	site := c.file("empty", "")
	process, err := web.Start(web.Command(need(c.t, "python3", "python3"), "-m", "http.server", "--bind", "172.16.1.52", "--directory", filepath.Dir(site), "81"))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { killTree(process) })
	waitAccepting(c.t, web, netip.MustParseAddrPort("172.16.1.52:81"), process)
	eventually(c.t, 30*time.Second, "web2 gets connections again", func() bool {
		connect()
		now := web2()
		return now.EjectedUntil == nil && now.Total >= now.ConnectErrors+3
	})
}

// write puts a file beside the configuration of lb01.
func (c *checks) write(name, text string) {
	c.t.Helper()
	if err := c.LB01.WriteFile("/run/appliance/"+name, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// startAll starts the servers, and returns when all of them accept connections.
func (c *checks) startAll(all []*checked) {
	c.t.Helper()
	for _, s := range all {
		if s.start == nil {
			continue
		}
		s.process, s.log = s.start(c)
		c.t.Cleanup(func() { killTree(s.process) })
	}
	for _, s := range all {
		if s.process == nil || s.name == "dns" {
			continue
		}
		address := netip.AddrPortFrom(netip.MustParseAddr("172.16.1.51"), uint16(s.port))
		waitAccepting(c.t, c.server, address, s.process)
	}
}

// run starts a program on web1, and returns it with the path of its log.
func (c *checks) run(name string, args ...string) (*lab.Process, string) {
	c.t.Helper()
	path := filepath.Join(c.t.TempDir(), filepath.Base(name)+".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	cmd := c.server.Command(name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, log, log
	process, err := c.server.Start(cmd)
	if err != nil {
		c.t.Fatal(err)
	}
	return process, path
}

// wants waits until the only server of a pool is in a state for a reason.
func (c *checks) wants(pool, state, reason string) {
	c.t.Helper()
	last := ""
	deadline := time.Now().Add(30 * time.Second)
	for {
		for _, candidate := range c.status(c.LB01).Pools {
			if candidate.Name != pool {
				continue
			}
			s := candidate.Servers[0]
			if last = s.Health + ", " + s.Check; s.Health == state && strings.Contains(s.Check, reason) {
				return
			}
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("pool %s is %q, want %s, %q", pool, last, state, reason)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// signal sends a signal to a server and to its children in its group.
func (c *checks) signal(s *checked, signal syscall.Signal) {
	c.t.Helper()
	if s.process == nil {
		return
	}
	if err := syscall.Kill(-s.process.PID(), signal); err != nil {
		c.t.Fatalf("%s: %v", s.name, err)
	}
}

// withoutSessionsOf returns a log of OpenSMTPD without what it says of sessions
// with a client. Each of its lines begins with the session that it is of.
func withoutSessionsOf(log, client string) string {
	theirs := make(map[string]bool)
	var kept strings.Builder
	for line := range strings.Lines(log) {
		session, said, _ := strings.Cut(line, " ")
		if strings.HasPrefix(said, "smtp connected address="+client+" ") {
			theirs[session] = true
		}
		if !theirs[session] {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// showsManners fails the test if a server took a check that passes for trouble.
func (c *checks) showsManners(all []*checked) {
	c.t.Helper()
	for _, s := range all {
		if s.log == "" {
			continue
		}
		var text string
		read := func() {
			log, err := os.ReadFile(s.log)
			if err != nil {
				c.t.Fatal(err)
			}
			text = string(log)
			if s.name == "smtp" {
				text = withoutSessionsOf(text, "172.16.1.51") // waitAccepting's: it does not wait for the greeting
			}
		}
		read()
		for _, want := range map[string][]string{
			"smtp": {"disconnected reason=quit"},
			"ssh":  {"Received disconnect from 172.16.1.11 port ", ": health check [preauth]"},
		}[s.name] {
			eventually(c.t, 20*time.Second, fmt.Sprintf("%q is in the log of %s", want, s.name), func() bool {
				read()
				return strings.Contains(text, want)
			})
		}
		if s.name == "ssh" {
			continue // hears the smtp check that takes it for what it is not
		}
		for _, trouble := range []string{"error:", "unexpected EOF", "incomplete startup packet", "Traceback"} {
			if strings.Contains(text, trouble) {
				c.t.Errorf("%q in the log of %s:\n%s", trouble, s.name, text)
			}
		}
	}
}

func (c *checks) redis() (*lab.Process, string) {
	pem := c.pem("redis.pem")
	return c.run(need(c.t, "redis-server", "redis-server"), "--port", "6379", "--bind", "172.16.1.51", "--save", "",
		"--tls-port", "6380", "--tls-cert-file", pem, "--tls-key-file", pem, "--tls-auth-clients", "no",
		"--requirepass", checkedPassword, "--dir", c.dir)
}

func (c *checks) tls() (*lab.Process, string) {
	pem := c.pem("shop.pem")
	return c.run(need(c.t, "openssl", "openssl"), "s_server", "-accept", "172.16.1.51:8443", "-cert", pem, "-key", pem, "-www", "-quiet")
}

// pem writes a file with the certificate and its key, and returns its path.
func (c *checks) pem(name string) string {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.WriteFile(path, append(append([]byte(nil), c.cert...), c.key...), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

func (c *checks) http() (*lab.Process, string) {
	site := filepath.Join(c.dir, "site")
	if err := os.Mkdir(site, 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(site, "state"), []byte("all is well"), 0o644); err != nil {
		c.t.Fatal(err)
	}
	return c.run(need(c.t, "python3", "python3"), "-m", "http.server", "--bind", "172.16.1.51", "--directory", site, "8000")
}

func (c *checks) smtp() (*lab.Process, string) {
	config := filepath.Join(c.dir, "smtpd.conf")
	text := "listen on 172.16.1.51 port 25 hostname mail.example.com\n" +
		"action \"keep\" maildir \"" + c.dir + "/mail\"\nmatch from local for local action \"keep\"\n"
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		c.t.Fatal(err)
	}
	return c.run(need(c.t, "smtpd", "opensmtpd"), "-d", "-f", config)
}

func (c *checks) startTLS() (*lab.Process, string) {
	pem := c.pem("smtp.pem")
	return c.run(need(c.t, "aiosmtpd", "python3-aiosmtpd"), "--nosetuid", "--listen", "172.16.1.51:587", "--tlscert", pem, "--tlskey", pem)
}

func (c *checks) ssh() (*lab.Process, string) {
	return sshStart(c.pair, c.server, need(c.t, "sshd", "openssh-server"))
}

func (c *checks) dns() (*lab.Process, string) {
	return c.run(need(c.t, "dnsmasq", "dnsmasq-base"), "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv",
		"--no-hosts", "--bind-interfaces", "--listen-address=172.16.1.51", "--port=53", "--user=root", "--group=root",
		"--pid-file=", "--address=/blog.example.com/192.0.2.80")
}

// postgres starts a server with two users, one for each way to log in.
func (c *checks) postgres() (*lab.Process, string) {
	c.t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		need(c.t, "postgres", "postgresql")
	}
	bin := filepath.Dir(found[0])
	asPostgres := []string{need(c.t, "setpriv", "util-linux"), "--reuid=postgres", "--regid=postgres", "--clear-groups"}
	data := filepath.Join(c.dir, "postgres")
	if err := os.Mkdir(data, 0o700); err != nil {
		c.t.Fatal(err)
	}
	c.output(nil, "chown", "postgres:", data)
	c.output(nil, asPostgres[0], append(asPostgres[1:], bin+"/initdb", "--no-sync", "--auth=scram-sha-256",
		"--pwfile="+c.file("postgres.password", "of the administrator\n"), "-D", data)...)
	users := "CREATE USER lb PASSWORD '" + checkedPassword + "';\n" +
		"SET password_encryption = 'md5';\nCREATE USER old PASSWORD '" + checkedPassword + "';\n"
	c.output(strings.NewReader(users), asPostgres[0], append(asPostgres[1:], bin+"/postgres", "--single", "-D", data, "postgres")...)
	pem := c.pem("postgres.pem")
	c.output(nil, "chown", "postgres:", pem)
	hba := c.file("pg_hba.conf", "host all old 172.16.1.0/24 md5\nhost all all 172.16.1.0/24 scram-sha-256\n")
	return c.run(asPostgres[0], append(asPostgres[1:], bin+"/postgres", "-D", data, "-h", "172.16.1.51", "-p", "5432",
		"-c", "ssl=on", "-c", "ssl_cert_file="+pem, "-c", "ssl_key_file="+pem, "-c", "unix_socket_directories=", "-c", "hba_file="+hba, "-c", "fsync=off")...)
}

// file writes a file that every user may read, and returns its path.
func (c *checks) file(name, text string) string {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// output runs a program outside of any host, to prepare something.
func (c *checks) output(input *strings.Reader, name string, args ...string) {
	c.t.Helper()
	cmd := exec.CommandContext(c.within(time.Minute), name, args...)
	cmd.Dir = "/"
	if input != nil {
		cmd.Stdin = input
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}
