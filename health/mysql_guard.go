package health

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"

	"github.com/go-sql-driver/mysql"
)

// mysqlGuard stands between the driver and a server. It passes on whole
// packets, and only those that the driver reads without harm: the driver
// trusts a server with the lengths and counts it sends. It also keeps the
// reason of a broken connection, which the driver does not tell.
//
// It does not close the connection: whoever called the driver does, when that
// is done with it. TLS is its work too, so that it sees the packets in it; the
// driver, which knows nothing of that, is shown the numbers that packets have
// without.
type mysqlGuard struct {
	net.Conn
	*handshake
	pending []byte // of the last packet, not yet read
	phase   mysqlPhase
	failed  error // the first error of the connection
}

func newMySQLGuard(conn *boundConn, client *tlsClient) *mysqlGuard {
	return &mysqlGuard{Conn: conn, handshake: newHandshake(conn, client)}
}

// Close does nothing. The driver calls it from a goroutine of its own when the
// context ends, and the connection, which is bound to that, needs no help.
func (g *mysqlGuard) Close() error { return nil }

// mysqlPhase tells which packet a server is to send next.
type mysqlPhase int

const (
	phaseGreeting mysqlPhase = iota
	phaseLogin
	phaseCommand // the first packet of the answer to a command
	phaseRows
)

// Read passes on what is left of a packet, or the next one.
func (g *mysqlGuard) Read(p []byte) (int, error) {
	if len(g.pending) == 0 {
		sequence, payload, err := g.packets.next()
		if err == nil {
			err = g.admit(payload)
		}
		if err != nil {
			g.fail(err)
			return 0, err
		}
		if g.phase == phaseLogin {
			sequence -= g.tls.shift
		}
		g.pending = packet(sequence, payload)
	}
	n := copy(p, g.pending)
	g.pending = g.pending[n:]
	return n, nil
}

// Write sends what the driver says. A packet with the sequence number 0 is a
// command; the driver writes whole packets.
func (g *mysqlGuard) Write(p []byte) (int, error) {
	if err := g.say(p); err != nil {
		g.fail(err)
		return 0, err
	}
	return len(p), nil
}

func (g *mysqlGuard) say(p []byte) error {
	if len(p) < 4 || p[3] == 0 {
		g.phase = phaseCommand
		_, err := g.stream.Write(p)
		return err
	}
	sequence, payload := p[3], append([]byte(nil), p[4:]...)
	if !g.asked && g.tls.client != nil {
		if len(payload) < loginHead {
			return errGarbled
		}
		if err := g.secure(payload); err != nil {
			return err
		}
		wantTLS(payload)
	}
	g.asked = true
	return writePacket(g.stream, sequence+g.tls.shift, payload)
}

// fail keeps the first error.
func (g *mysqlGuard) fail(err error) {
	if g.failed == nil {
		g.failed = err
	}
}

// explain returns the reason behind err, an error of the driver.
func (g *mysqlGuard) explain(err error) error {
	var said *mysql.MySQLError
	if errors.As(err, &said) {
		return &refusal{Code: said.Number, Message: said.Message}
	}
	if g.failed != nil {
		return g.failed
	}
	return err
}

// admit judges the next packet of the server and moves on to the next phase.
func (g *mysqlGuard) admit(payload []byte) error {
	if payload[0] == mysqlError {
		if err := parseRefusal(payload); errors.Is(err, errGarbled) {
			return err
		}
		g.decided = true
		return nil // the driver tells what it says
	}
	switch g.phase {
	case phaseGreeting:
		g.phase, g.greeted = phaseLogin, true
		var err error
		if g.greeting, err = parseGreeting(payload); err != nil {
			return err
		}
		return g.offered()
	case phaseLogin:
		g.decided = g.decided || payload[0] == mysqlOK
		return admitLogin(payload)
	case phaseCommand:
		g.phase = phaseRows
		// The number of columns, for which the driver makes room at once. One
		// that takes more than two bytes is far beyond what a server can have.
		if payload[0] == 0xfd || payload[0] == 0xfe {
			return errGarbled
		}
	}
	return nil
}

// admitLogin judges a packet of the login other than an error.
func admitLogin(payload []byte) error {
	ok := false
	switch payload[0] {
	case mysqlOK: // no rows affected, no id inserted, status, warnings
		ok = len(payload) >= 7 && payload[1] == 0 && payload[2] == 0
	case mysqlMore:
		ok = len(payload) > 1 && rsaOrNone(payload[1:])
	case mysqlSwitch: // the name of a plugin, and 20 random bytes or more
		_, random, _ := bytes.Cut(payload[1:], []byte{0})
		ok = len(payload) == 1 || len(bytes.TrimSuffix(random, []byte{0})) >= 20
	}
	if !ok {
		return errGarbled
	}
	return nil
}

// rsaOrNone reports whether data holds a public key of the only kind that the
// driver knows, or none.
func rsaOrNone(data []byte) bool {
	block, _ := pem.Decode(data)
	if block == nil {
		return true
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return false
	}
	_, ok := key.(*rsa.PublicKey)
	return ok
}
