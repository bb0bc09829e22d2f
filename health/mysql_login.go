package health

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// maxPassword bounds a password file, in bytes.
const maxPassword = 4 << 10

// probeLogin passes when the target lets the check's user in and, where the
// check has a query, answers it with the row that is expected.
func probeLogin(ctx context.Context, target Target, client *tlsClient) (finding, error) {
	password, err := readPassword(target.Check.PasswordFile)
	if err != nil {
		return finding{}, err
	}
	conn, err := dial(ctx, target)
	if err != nil {
		return finding{}, err
	}
	guard := newMySQLGuard(conn, client)
	words, err := login(ctx, target.Check, password, guard)
	return finding{words, guard.tls.warning}, err
}

// login carries out a check with a user over the connection of guard, which it
// closes, unless the error is an *unfinished.
func login(ctx context.Context, check Config, password string, guard *mysqlGuard) (reason string, err error) {
	settings := mysql.NewConfig()
	if guard.tls.client != nil {
		settings.Net = "unix" // as safe for a password in the clear
	}
	settings.User, settings.Passwd = check.User, password
	settings.Logger = &mysql.NopLogger{} // its errors come back as the reason
	settings.DialFunc = func(context.Context, string, string) (net.Conn, error) { return guard, nil }
	defer func() {
		// The driver indexes what the server sent without looking at its length
		// in places. All it holds belongs to this one connection, so nothing
		// broken survives.
		if recover() != nil {
			reason, err = "", errGarbled
		}
		if err == nil {
			_ = guard.conn.Close()
			return
		}
		if errors.Is(guard.failed, errNoMySQLTLS) {
			_ = guard.leave()
		}
		var rest *unfinished
		if errors.As(guard.end(cmp.Or(guard.failed, err)), &rest) {
			err = rest
		}
	}()
	connector, err := mysql.NewConnector(settings)
	if err != nil {
		return "", err
	}
	db, err := connector.Connect(ctx)
	if err != nil {
		return "", guard.explain(err)
	}
	defer func() { _ = db.Close() }() // says goodbye with COM_QUIT
	if check.Query == "" {
		return "logged in", nil
	}
	value, err := firstValue(ctx, db, check.Query)
	if err != nil {
		return "", &stageError{"logged in, query failed", guard.explain(err)}
	}
	if check.Expect != "" && value != check.Expect {
		return "", fmt.Errorf("logged in, query answered %q, want %q", printable(value), check.Expect)
	}
	return "logged in, query answered " + printable(value), nil
}

// firstValue runs query and returns the first column of its first row as text.
func firstValue(ctx context.Context, conn driver.Conn, query string) (string, error) {
	rows, err := conn.(driver.QueryerContext).QueryContext(ctx, query, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = rows.Close() }()
	row := make([]driver.Value, len(rows.Columns()))
	if len(row) == 0 {
		return "", errors.New("it returns no rows")
	}
	if err := rows.Next(row); errors.Is(err, io.EOF) {
		return "", errors.New("it returned no row")
	} else if err != nil {
		return "", err
	}
	switch v := row[0].(type) {
	case nil:
		return "NULL", nil
	case []byte:
		return string(v), nil
	default:
		return fmt.Sprint(v), nil
	}
}

// readPassword returns the content of the file at path without the newline at
// its end; without a path there is no password. The file is read each time, so
// that a new password counts at once. Only regular files will do: any other
// kind could keep the check waiting beyond its timeout.
func readPassword(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	about, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !about.Mode().IsRegular() || about.Size() > maxPassword {
		return "", ownError(path + ": not a file with a password")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(string(text), "\n"), nil
}
