package integration

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sys/unix"

	"appliance/internal/lab"
)

// Both ports lead to the same servers; one's check logs in, the other's has
// nothing to log in with.
const mysqlConfig = nodesConfig + `
[[l4]]
name   = "mysql"
listen = ["192.168.15.3:3306"]
pool   = "mysql"

[[l4]]
name   = "anonymous"
listen = ["192.168.15.3:3307"]
pool   = "anonymous"

[pool.mysql]
balance = "least_conn"
servers = [{ name = "web1", address = "172.16.1.51:3306" },
           { name = "web2", address = "172.16.1.52:3306" },
           { name = "web3", address = "172.16.1.53:3306" }]
check   = { type = "mysql", user = "lb", password_file = "mysql.password", query = "SELECT @@read_only", expect = "0",
            ` + quickCheck + ` }

[pool.anonymous]
balance = "least_conn"
servers = [{ name = "web1", address = "172.16.1.51:3306" },
           { name = "web2", address = "172.16.1.52:3306" },
           { name = "web3", address = "172.16.1.53:3306" }]
check   = { type = "mysql", ` + quickCheck + ` }
`

// Clients of MariaDB reach any of three servers through one address, and none
// of them notices a server that is stopped, or that hangs, once the checks have.
func TestMySQL(t *testing.T) {
	t.Parallel()
	client := need(t, "mariadb", "mariadb-client")
	p := newPair(t, mysqlConfig)
	dbs := mysqlStart(p, nil)
	p.start()
	p.waitUp("mysql", "web1", "web2", "web3")

	cmd := p.Client.Command(client, "--no-defaults", "-h", "192.168.15.3", "-P", "3306", "-u", "app", "-N", "-B", "-e", "SELECT @@hostname")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(cmd.Env, "MYSQL_PWD=of the clients")
	if err := p.Client.Run(p.within(time.Minute), cmd); err != nil || !strings.HasPrefix(out.String(), "web") {
		t.Errorf("mariadb: %v: %q, want the name of a server", err, out.String())
	}
	mysqlLeastConnections(t, p)

	ask := func(address string) *asking {
		return startAsking(t, func(ctx context.Context) (string, error) { return mysqlQuery(ctx, p.Client, address) })
	}
	loads := map[string]*asking{"mysql": ask("192.168.15.3:3306"), "anonymous": ask("192.168.15.3:3307")}
	p.waitUsed(loads, "web1", "web2", "web3")
	p.loses("web2", loads, dbs[1].stop)
	dbs[1].start()
	p.waitUsed(loads, "web1", "web2", "web3")
	// A frozen server still accepts connections: the kernel does it.
	p.loses("web3", loads, dbs[2].freeze)
	dbs[2].thaw()
	p.waitUsed(loads, "web1", "web2", "web3")
}

// mysqlLeastConnections shows that a new connection goes to the server with the
// fewest: in turn, it would come to the busy one.
func mysqlLeastConnections(t *testing.T, p *pair) {
	t.Helper()
	held := make(map[string]driver.Conn)
	open := func() (server string, conn driver.Conn) {
		conn, err := mysqlThrough(p.Client, "192.168.15.3:3306").Connect(p.within(10 * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if server, err = mysqlAsk(t.Context(), conn, "SELECT @@hostname"); err != nil {
			t.Fatal(err)
		}
		return server, conn
	}
	eventually(t, 10*time.Second, "no connection is left of before", func() bool {
		sum := int64(0)
		for _, name := range []string{"web1", "web2", "web3"} {
			sum += int64(p.server(p.LB01, "mysql", name).Current)
		}
		return sum == 0
	})
	for range 3 {
		server, conn := open()
		held[server] = conn
	}
	if len(held) != 3 {
		t.Fatalf("three connections lead to %d servers, want 3", len(held))
	}
	for _, server := range []string{"web2", "web3"} {
		held[server].Close()
	}
	eventually(t, 10*time.Second, "two connections have ended", func() bool {
		return p.server(p.LB01, "mysql", "web2").Current+p.server(p.LB01, "mysql", "web3").Current == 0
	})
	for range 6 {
		server, conn := open()
		if server == "web1" {
			t.Error("a connection leads to web1, which has one, and not to web2 or web3, which have none")
		}
		conn.Close()
		eventually(t, 10*time.Second, "the connection has ended", func() bool {
			return p.server(p.LB01, "mysql", server).Current == 0
		})
	}
	held["web1"].Close()
}

// mysqlErrors is max_connect_errors of the servers that count them.
const mysqlErrors = 10

// A server refuses a host after max_connect_errors connections that did not log
// in properly, and behind the appliance that would be all clients. A thousand
// checks are no reason to, with a user and without.
func TestMySQLChecksDoNotBlock(t *testing.T) {
	t.Parallel()
	// New checks begin at once, and the server counts one that it is too slow
	// for: so many, and not all at the same time, but none of them in a hurry.
	const checks, step = 200, 20
	p := newPair(t, mysqlManyChecks(step))
	mysqlNames(p)
	pem, options := mysqlCertificate(t)
	dbs := mysqlStart(p, append(options, fmt.Sprint("--max-connect-errors=", mysqlErrors), "--performance-schema=ON", "--max-connections=1000"))
	// lb02 would do the same once more.
	if err := p.LB01.StartAppliance(); err != nil {
		t.Fatal(err)
	}
	p.waitActive(p.LB01)
	for n := 2 * step; n <= checks; n += step {
		p.reload(p.LB01, mysqlManyChecks(n))
	}
	mysqlShowUnblocked(p, dbs[0], "with a user", "check10000",
		"SELECT TOTAL_CONNECTIONS FROM performance_schema.hosts WHERE HOST = 'lb01'")
	mysqlShowUnblocked(p, dbs[1], "without a user", "check20000",
		"SELECT COUNT_AUTHENTICATION_ERRORS + COUNT_AUTH_PLUGIN_ERRORS FROM performance_schema.host_cache WHERE HOST = 'lb01'")
	mysqlShowPatient(p, dbs[:2])
	mysqlShowTLS(p, dbs[2], pem)
	mysqlShowSocket(p, dbs[0])
}

// mysqlCertificate makes a certificate, and returns its file and the options of a
// server that has it.
func mysqlCertificate(t *testing.T) (file string, options []string) {
	t.Helper()
	cert, key := newCertificate(t, "db.example.com")
	dir := t.TempDir()
	file = filepath.Join(dir, "cert.pem")
	for path, text := range map[string][]byte{file: cert, filepath.Join(dir, "key.pem"): key} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file, []string{"--ssl-cert=" + file, "--ssl-key=" + filepath.Join(dir, "key.pem")}
}

// mysqlShowTLS checks a server by TLS: as a user that may not come without, and
// without a user. A certificate that does not pass fails the check. None of it is
// held against the node.
func mysqlShowTLS(p *pair, db *mysqlServer, pem string) {
	p.t.Helper()
	before := db.connectErrors("lb01")
	other, _ := newCertificate(p.t, "db.example.com")
	foreign := filepath.Join(p.t.TempDir(), "other.pem")
	if err := os.WriteFile(foreign, other, 0o600); err != nil {
		p.t.Fatal(err)
	}
	const login = `, user = "lbtls", password_file = "mysql.password"`
	tls := func(ca string) string {
		return `, tls = true, verify = true, server_name = "db.example.com", ca_file = "` + ca + `"`
	}
	config := nodesConfig
	for i, pool := range []struct{ name, keys string }{
		{"named", tls(pem) + login + `, query = "SELECT 1"`},
		{"nameless", tls(pem)},
		{"clear", login},
		{"foreign", tls(foreign) + login},
		{"foreign-nameless", tls(foreign)},
	} {
		config += fmt.Sprintf(`
[pool.%s]
servers = ["%s"]
check   = { type = "mysql", interval = "100ms", timeout = "100ms"%s }
[[l4]]
name   = "%[1]s"
listen = ["192.168.15.3:%[4]d"]
pool   = "%[1]s"
`, pool.name, db.address, pool.keys, 3306+i)
	}
	p.reload(p.LB01, config)
	p.waitUp("named", db.address.String())
	p.waitUp("nameless", db.address.String())
	for pool, words := range map[string]string{
		"clear":            "Access denied for user 'lbtls'",
		"foreign":          "the certificate does not pass: certificate signed by unknown authority",
		"foreign-nameless": "the certificate does not pass: certificate signed by unknown authority",
	} {
		// On a machine that stood still one may have come to no answer in between.
		eventually(p.t, time.Minute, "the checks of pool "+pool+" fail: "+words, func() bool {
			s := p.server(p.LB01, pool, db.address.String())
			return s.Health == "down" && s.ChecksFailed >= 3*mysqlErrors && strings.HasPrefix(s.Check, words)
		})
	}
	// One may have been broken off in the handshake, on a machine that stood still.
	if counted := db.connectErrors("lb01") - before; counted > mysqlErrors/2 {
		p.t.Errorf("the server counted %d errors of checks by TLS", counted)
	}
}

// mysqlShowSocket checks a server by its unix socket, and leads a client there.
func mysqlShowSocket(p *pair, db *mysqlServer) {
	p.t.Helper()
	address := "unix:" + db.socket
	p.reload(p.LB01, nodesConfig+fmt.Sprintf(`
[pool.socket]
servers = [%q]
check   = { type = "mysql", interval = "100ms", user = "lb", password_file = "mysql.password", query = "SELECT 1" }
[pool.nameless]
servers = [%[1]q]
check   = { type = "mysql", interval = "100ms" }
[[l4]]
name   = "socket"
listen = ["192.168.15.3:3306"]
pool   = "socket"
[[l4]]
name   = "nameless"
listen = ["192.168.15.3:3307"]
pool   = "nameless"
`, address))
	for _, pool := range []string{"socket", "nameless"} {
		p.waitUp(pool, address)
	}
	for _, port := range []string{"3306", "3307"} {
		if server, err := mysqlQuery(p.within(10*time.Second), p.Client, "192.168.15.3:"+port); err != nil || server != db.host.Name {
			p.t.Errorf("a client of the unix socket: answer of %q, %v; want %s", server, err, db.host.Name)
		}
	}
	db.stop()
	eventually(p.t, time.Minute, "the server is down", func() bool { return p.server(p.LB01, "socket", address).Health == "down" })
	db.start()
	p.waitUp("socket", address)
}

// mysqlShowPatient freezes two servers for three times as long as checks that
// break off would need to be blocked, and shows that none was counted.
func mysqlShowPatient(p *pair, dbs []*mysqlServer) {
	p.t.Helper()
	const quick = `interval = "100ms", timeout = "100ms"`
	p.reload(p.LB01, nodesConfig+`
[pool.named]
servers = ["172.16.1.51:3306"]
check   = { type = "mysql", `+quick+`, user = "lb", password_file = "mysql.password" }
[pool.nameless]
servers = ["172.16.1.52:3306"]
check   = { type = "mysql", `+quick+` }
[[l4]]
name   = "named"
listen = ["192.168.15.3:3306"]
pool   = "named"
[[l4]]
name   = "nameless"
listen = ["192.168.15.3:3307"]
pool   = "nameless"
`)
	pools := []string{"named", "nameless"}
	for i, db := range dbs {
		p.waitUp(pools[i], db.address.String())
	}
	before := make([]int, len(dbs))
	failed := make([]uint64, len(dbs))
	for i, db := range dbs {
		before[i] = db.connectErrors("lb01")
		failed[i] = p.server(p.LB01, pools[i], db.address.String()).ChecksFailed
		db.freeze()
	}
	for i, db := range dbs {
		eventually(p.t, time.Minute, "the checks of pool "+pools[i]+" fail", func() bool {
			s := p.server(p.LB01, pools[i], db.address.String())
			return s.Health == "down" && s.ChecksFailed >= failed[i]+3*mysqlErrors
		})
		if s := p.server(p.LB01, pools[i], db.address.String()); !strings.HasPrefix(s.Check, "no answer for ") {
			p.t.Errorf("pool %s: the frozen server's last check is %q", pools[i], s.Check)
		}
	}
	for i, db := range dbs {
		db.thaw()
		p.waitUp(pools[i], db.address.String())
		if counted := db.connectErrors("lb01"); counted != before[i] {
			p.t.Errorf("pool %s: the server counted %d errors while it was frozen, want none", pools[i], counted-before[i])
		}
		if _, err := mysqlQuery(p.within(10*time.Second), p.LB01.Host, db.address.String()); err != nil {
			p.t.Errorf("pool %s: lb01 after that: %v", pools[i], err)
		}
	}
}

// mysqlManyChecks returns an appliance.toml with so many checks of web1 that log
// in, for services at the ports from 10000, and of web2 that do not, from 20000.
func mysqlManyChecks(each int) string {
	var text strings.Builder
	text.WriteString(nodesConfig)
	for i, login := range []string{`, user = "lb", password_file = "mysql.password", query = "SELECT 1"`, ""} {
		for n := range each {
			port := 10000*(i+1) + n
			fmt.Fprintf(&text, `
[[l4]]
name    = "check%d"
listen  = ["192.168.15.3:%d"]
servers = ["172.16.1.%d:3306"]
check   = { type = "mysql", interval = "%dms", timeout = "2s"%s }
`, port, port, 51+i, 2000+n, login) // equal checks would be one
		}
	}
	return text.String()
}

// mysqlShowUnblocked waits until lb01 has done a thousand checks of a server and
// shows that the server holds nothing against it, although it would: it refuses
// a host that has done no more than to connect. count asks the server how many
// checks it has seen; service is one that leads to it.
func mysqlShowUnblocked(p *pair, db *mysqlServer, mode, service, count string) {
	p.t.Helper()
	const wanted = 1000
	done, counted := 0, 0
	eventually(p.t, 2*time.Minute, fmt.Sprint(wanted, " checks ", mode), func() bool {
		done, counted = db.number(count), db.connectErrors("lb01")
		return done >= wanted || counted >= mysqlErrors
	})
	p.t.Logf("%d checks %s: %d connection errors", done, mode, counted)
	// A few may have been broken off, on a machine that stood still.
	if counted > mysqlErrors/2 {
		p.t.Errorf("%d checks %s: %d connection errors", done, mode, counted)
	}
	if _, err := mysqlQuery(p.within(10*time.Second), p.LB01.Host, db.address.String()); err != nil {
		p.t.Errorf("lb01 after %d checks %s: %v", done, mode, err)
	}

	naive := p.Servers[2].Host
	for range mysqlErrors {
		mysqlConnectAndClose(p.t, naive, db.address)
	}
	eventually(p.t, 10*time.Second, "the server has counted the errors", func() bool {
		return db.connectErrors(naive.Name) >= mysqlErrors
	})
	_, err := mysqlQuery(p.within(10*time.Second), naive, db.address.String())
	if refusal, ok := errors.AsType[*mysql.MySQLError](err); !ok || refusal.Number != 1129 {
		p.t.Errorf("after %d connections that did not log in: %v, want \"Host ... is blocked\"", mysqlErrors, err)
	}
	p.waitUp(service, db.address.String())
	through := "192.168.15.3:" + strings.TrimPrefix(service, "check")
	if server, err := mysqlQuery(p.within(10*time.Second), p.Client, through); err != nil || server != db.host.Name {
		p.t.Errorf("a client through lb01: answer of %q, %v; want %s", server, err, db.host.Name)
	}
}

// mysqlNames gives the servers a file with the names of those who connect: a
// server counts the errors of hosts whose name it can find.
func mysqlNames(p *pair) {
	p.t.Helper()
	path := filepath.Join(p.t.TempDir(), "hosts")
	names := "127.0.0.1 localhost\n172.16.1.11 lb01\n172.16.1.12 lb02\n172.16.1.53 web3\n"
	if err := os.WriteFile(path, []byte(names), 0o644); err != nil {
		p.t.Fatal(err)
	}
	for _, s := range p.Servers {
		err := s.Host.Do(func() error { return unix.Mount(path, "/etc/hosts", "", unix.MS_BIND, "") })
		if err != nil {
			p.t.Fatal(err)
		}
	}
}

// mysqlConnectAndClose does what a check of type tcp does, but reads the
// greeting, so that the server is past accepting when the connection closes.
func mysqlConnectAndClose(t *testing.T, from *lab.Host, to netip.AddrPort) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := from.Dial(ctx, to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(make([]byte, 1024)); err != nil {
		t.Fatalf("reading the greeting: %v", err)
	}
}
