package health

import (
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
)

// maxPgMessages bounds how many messages a server may send before it is ready.
const maxPgMessages = 200

// postgresSession is one connection of a check.
type postgresSession struct {
	w       io.Writer
	packets postgresReader
	scram   *scramCache
}

// login asks to log in and goes on until the server is ready for a query.
func (s *postgresSession) login(user, database, password string) error {
	if _, err := s.w.Write(pgStartup(user, database)); err != nil {
		return err
	}
	var exchange *scramExchange
	for range maxPgMessages {
		kind, body, err := s.packets.next()
		if err != nil {
			return err
		}
		switch kind {
		case pgError:
			return parsePgError(body)
		case pgReady:
			return nil
		case pgAuthentication:
			var answer []byte
			if answer, exchange, err = s.authenticate(body, exchange, user, password); err != nil {
				return err
			}
			if answer == nil {
				continue
			}
			if _, err := s.w.Write(pgMessage(pgPassword, answer)); err != nil {
				return err
			}
		}
	}
	return errNotPostgres
}

// authenticate answers one Authentication message; nil says nothing. exchange is
// that of SASL, once it has begun.
func (s *postgresSession) authenticate(body []byte, exchange *scramExchange, user, password string) (
	answer []byte, next *scramExchange, err error,
) {
	way, data, err := parseAuthentication(body)
	if err != nil {
		return nil, nil, err
	}
	switch way {
	case pgAuthOK:
		if exchange != nil && !exchange.proven {
			return nil, nil, errors.New("the server does not prove that it knows the password")
		}
		return nil, exchange, nil
	case pgAuthCleartext:
		return append([]byte(password), 0), nil, nil
	case pgAuthMD5:
		if len(data) != 4 {
			return nil, nil, errNotPostgres
		}
		return append([]byte(pgMD5(user, password, data)), 0), nil, nil
	case pgAuthSASL:
		if !slices.Contains(strings.Split(string(data), "\x00"), scramMechanism) {
			return nil, nil, fmt.Errorf("the server does not log in by %s", scramMechanism)
		}
		exchange = newScramExchange(password, rand.Text(), s.scram)
		return exchange.first(), exchange, nil
	case pgAuthSASLContinue, pgAuthSASLFinal:
		if exchange == nil {
			return nil, nil, errNotPostgres
		}
		if way == pgAuthSASLFinal {
			return nil, exchange, exchange.verify(data)
		}
		answer, err = exchange.final(data)
		return answer, exchange, err
	}
	return nil, nil, fmt.Errorf("the server asks to log in in a way that the check does not know (%d)", way)
}

// pgMD5 returns what the server wants of a password by MD5 (PostgreSQL, message
// flow): it is what there is, not what is good.
func pgMD5(user, password string, salt []byte) string {
	inner := md5.Sum([]byte(password + user))
	outer := md5.Sum(append([]byte(hex.EncodeToString(inner[:])), salt...))
	return "md5" + hex.EncodeToString(outer[:])
}

// query returns the first column of the first row that a query gives.
func (s *postgresSession) query(text string) (value string, err error) {
	if _, err := s.w.Write(pgMessage(pgQuery, append([]byte(text), 0))); err != nil {
		return "", err
	}
	found := false
	var refused error
	for {
		kind, body, err := s.packets.next()
		switch {
		case err != nil && found:
			return value, nil // the rest of a long answer does not matter
		case err != nil:
			return "", err
		case kind == pgError:
			refused = parsePgError(body)
		case kind == pgDataRow && !found:
			if value, err = firstColumn(body); err != nil {
				return "", err
			}
			found = true
		case kind == pgReady && refused != nil:
			return "", refused
		case kind == pgReady && !found:
			return "", errors.New("it returned no row")
		case kind == pgReady:
			return value, nil
		}
	}
}

// preparePostgres returns a probe that logs in where the check names a user, and
// runs its query. Otherwise it passes when the target is ready for logins: it
// asks for one, and any answer will do but that it cannot now.
func preparePostgres(target Target) (probe, error) {
	cache, client := new(scramCache), clientOf(target)
	return func(ctx context.Context) (finding, error) {
		check := target.Check
		password, err := readPassword(check.PasswordFile)
		if err != nil {
			return finding{}, err
		}
		bound, err := dial(ctx, target)
		if err != nil {
			return finding{}, err
		}
		var conn net.Conn = bound
		defer func() { _ = conn.Close() }()
		warning := ""
		if client != nil {
			if err := pgWantTLS(bound); err != nil {
				return finding{}, err
			}
			encrypted, of, err := client.handshake(bound)
			if err != nil {
				return finding{}, err
			}
			conn, warning = encrypted, of
		}
		s := &postgresSession{w: conn, packets: postgresReader{r: conn, left: maxPostgresAnswer}, scram: cache}
		var words string
		if check.User == "" {
			words, err = s.ready()
		} else {
			words, err = s.check(check, password)
		}
		return finding{words, warning}, err
	}, nil
}

// pgWantTLS asks a server to go on encrypted, before anything else.
func pgWantTLS(conn io.ReadWriter) error {
	if _, err := conn.Write(pgSSLRequest()); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	switch answer[0] {
	case 'S':
		return nil
	case 'N', pgError: // the second one is older than the request
		return errors.New("the server does not speak TLS")
	}
	return errNotPostgres
}

// check logs in and runs the query of a check, if it has one.
func (s *postgresSession) check(check Config, password string) (string, error) {
	if err := s.login(check.User, check.Database, password); err != nil {
		return "", err
	}
	defer func() { _, _ = s.w.Write(pgMessage(pgTerminate, nil)) }()
	if check.Query == "" {
		return "logged in", nil
	}
	value, err := s.query(check.Query)
	if err != nil {
		return "", &stageError{"logged in, query failed", err}
	}
	if check.Expect != "" && value != check.Expect {
		return "", fmt.Errorf("logged in, query answered %q, want %q", printable(value), check.Expect)
	}
	return "logged in, query answered " + printable(value), nil
}

// ready passes when the server asks for a password, lets everybody in, or
// refuses the login as such. That it starts, stops or is full is a failure, and
// has another code.
func (s *postgresSession) ready() (string, error) {
	if _, err := s.w.Write(pgStartup(leaveAs, "")); err != nil {
		return "", err
	}
	for range maxPgMessages {
		kind, body, err := s.packets.next()
		if err != nil {
			return "", err
		}
		switch kind {
		case pgAuthentication:
			if way, _, err := parseAuthentication(body); err != nil {
				return "", err
			} else if way == pgAuthOK {
				_, _ = s.w.Write(pgMessage(pgTerminate, nil))
			}
			return "accepts logins", nil
		case pgError:
			err := parsePgError(body)
			var refused *pgRefusal
			if errors.As(err, &refused) && refusesLogin(refused.Code) {
				return "accepts logins", nil
			}
			return "", err
		}
	}
	return "", errNotPostgres
}

// refusesLogin reports whether an SQLSTATE is about who logs in: invalid
// authorization, or a database that does not exist.
func refusesLogin(code string) bool {
	return strings.HasPrefix(code, "28") || strings.HasPrefix(code, "3D")
}
