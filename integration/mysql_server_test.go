package integration

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"appliance/internal/lab"
)

// mysqlPasswordFile is the password of the checks, on each node.
const mysqlPasswordFile = "/run/appliance/mysql.password"

// mysqlUsers are made by each server's start: lb is for the checks and has no
// privileges, lbtls is one that may come by TLS alone, app is for the clients.
const mysqlUsers = `
CREATE USER IF NOT EXISTS lb@'172.16.1.%' IDENTIFIED BY 'of the checks';
CREATE USER IF NOT EXISTS lb@localhost IDENTIFIED BY 'of the checks';
CREATE USER IF NOT EXISTS lbtls@'172.16.1.%' IDENTIFIED BY 'of the checks' REQUIRE SSL;
CREATE USER IF NOT EXISTS app@'172.16.1.%' IDENTIFIED BY 'of the clients';
CREATE USER IF NOT EXISTS app@localhost IDENTIFIED BY 'of the clients';
`

// mysqlServer is a MariaDB server at port 3306 of a host.
type mysqlServer struct {
	t       *testing.T
	host    *lab.Host
	address netip.AddrPort
	args    []string
	log     string // the path of its log
	socket  string // the path of its unix socket, which all hosts see
	process *lab.Process
	admin   *sql.DB // by the unix socket
}

// mysqlStart starts a MariaDB server on each server host, which end with the
// test, and writes the password file of the nodes.
func mysqlStart(p *pair, options []string) []*mysqlServer {
	p.t.Helper()
	install := need(p.t, "mariadb-install-db", "mariadb-server")
	program := need(p.t, "mariadbd", "mariadb-server")
	for _, n := range p.Nodes() {
		if err := n.WriteFile(mysqlPasswordFile, []byte("of the checks\n")); err != nil {
			p.t.Fatal(err)
		}
	}
	dir := p.t.TempDir()
	blank, users := filepath.Join(dir, "blank"), filepath.Join(dir, "users.sql")
	if err := os.WriteFile(users, []byte(strings.TrimSpace(mysqlUsers)), 0o600); err != nil {
		p.t.Fatal(err)
	}
	// Small files, for they are copied, and much room in the kernel for
	// connections that a frozen server does not accept. Temporary tables are named
	// by the process, and hosts of other tests have processes of the same number.
	common := []string{"--no-defaults", "--user=root", "--tmpdir=" + p.t.TempDir(), "--innodb-log-file-size=4M", "--innodb-buffer-pool-size=16M", "--back-log=2000"}
	_, err := p.Servers[0].Host.Output(p.within(2*time.Minute), install, append(common,
		"--datadir="+blank, "--auth-root-authentication-method=normal", "--skip-test-db")...)
	if err != nil {
		p.t.Fatal(err)
	}
	var dbs []*mysqlServer
	for _, s := range p.Servers {
		s.Kill() // the laboratory's own server has the port
		data := filepath.Join(dir, s.Name())
		if err := os.CopyFS(data, os.DirFS(blank)); err != nil {
			p.t.Fatal(err)
		}
		socket := mysql.NewConfig()
		socket.User, socket.Net, socket.Addr = "root", "unix", data+".sock"
		socket.Logger = &mysql.NopLogger{}
		connector, err := mysql.NewConnector(socket)
		if err != nil {
			p.t.Fatal(err)
		}
		db := &mysqlServer{
			t:       p.t,
			host:    s.Host,
			address: netip.AddrPortFrom(s.Address, 3306),
			log:     data + ".log",
			socket:  data + ".sock",
			admin:   sql.OpenDB(connector),
		}
		db.args = append(append([]string{program}, common...), "--datadir="+data, "--socket="+db.socket,
			"--bind-address="+s.Address.String(), "--port=3306", "--init-file="+users,
			"--innodb-flush-log-at-trx-commit=0", "--pid-file="+data+".pid")
		db.args = append(db.args, options...)
		db.run()
		p.t.Cleanup(func() {
			db.admin.Close()
			killTree(db.process)
		})
		dbs = append(dbs, db)
	}
	for _, db := range dbs {
		db.waitReady()
	}
	return dbs
}

func (db *mysqlServer) run() {
	db.t.Helper()
	log, err := os.OpenFile(db.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		db.t.Fatal(err)
	}
	defer log.Close()
	cmd := db.host.Command(db.args[0], db.args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if db.process, err = db.host.Start(cmd); err != nil {
		db.t.Fatal(err)
	}
}

func (db *mysqlServer) waitReady() {
	db.t.Helper()
	eventually(db.t, time.Minute, "MariaDB on "+db.host.Name+" answers", func() bool {
		select {
		case <-db.process.Done():
			text, _ := os.ReadFile(db.log)
			db.t.Fatalf("MariaDB on %s has ended: %v; it said:\n%s", db.host.Name, db.process.Err(), text)
		default:
		}
		return db.admin.PingContext(db.t.Context()) == nil
	})
}

func (db *mysqlServer) start() {
	db.t.Helper()
	db.run()
	db.waitReady()
}

// stop stops the server as its administrator does.
func (db *mysqlServer) stop() {
	db.t.Helper()
	if err := db.process.Signal(syscall.SIGTERM); err != nil {
		db.t.Fatal(err)
	}
	select {
	case <-db.process.Done():
	case <-time.After(time.Minute):
		db.t.Fatalf("MariaDB on %s does not stop", db.host.Name)
	}
}

func (db *mysqlServer) freeze() {
	db.t.Helper()
	if err := db.process.Stop(); err != nil {
		db.t.Fatal(err)
	}
}

func (db *mysqlServer) thaw() {
	db.t.Helper()
	if err := db.process.Continue(); err != nil {
		db.t.Fatal(err)
	}
}

// number returns what an administrator's query gives, 0 if that is no row.
func (db *mysqlServer) number(query string) int {
	db.t.Helper()
	var n int
	err := db.admin.QueryRowContext(db.t.Context(), query).Scan(&n)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		db.t.Fatal(err)
	}
	return n
}

// connectErrors returns how many errors the server has ever counted against a
// host.
func (db *mysqlServer) connectErrors(host string) int {
	db.t.Helper()
	return db.number("SELECT COUNT_HANDSHAKE_ERRORS FROM performance_schema.host_cache WHERE HOST = '" + host + "'")
}

// mysqlThrough returns what connects from a host to an address as a client.
func mysqlThrough(from *lab.Host, address string) driver.Connector {
	settings := mysql.NewConfig()
	settings.User, settings.Passwd, settings.Addr = "app", "of the clients", address
	settings.Logger = &mysql.NopLogger{}
	settings.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		return from.DialContext(ctx, network, address)
	}
	connector, err := mysql.NewConnector(settings)
	if err != nil {
		panic(err) // the settings are constant
	}
	return connector
}

// mysqlQuery asks for the server's name by a connection of its own. It does not
// use database/sql, which would try again what failed.
func mysqlQuery(ctx context.Context, from *lab.Host, address string) (server string, err error) {
	conn, err := mysqlThrough(from, address).Connect(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return mysqlAsk(ctx, conn, "SELECT @@hostname")
}

// mysqlAsk returns the only text that a query gives.
func mysqlAsk(ctx context.Context, conn driver.Conn, query string) (string, error) {
	rows, err := conn.(driver.QueryerContext).QueryContext(ctx, query, nil)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	row := make([]driver.Value, 1)
	if err := rows.Next(row); err != nil {
		return "", err
	}
	return string(row[0].([]byte)), nil
}
