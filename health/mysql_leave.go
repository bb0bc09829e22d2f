package health

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
)

// leaveAs is the user that a check without a user asks to log in as. It need
// not exist, and had better not. MySQL takes no more than 16 characters from
// 5.6 downwards.
const leaveAs = "applianctl_check"

// leaveSteps bounds how many packets of the server a login may take.
const leaveSteps = 4

// cachedPassword is what caching_sha2_password says of a password that it knows.
const cachedPassword = 3

// invalidAuthorization is the SQLSTATE of a login that was refused.
const invalidAuthorization = "28000"

// handshake is a connection from its beginning until the login is decided. A
// server counts every connection that ends before that, however politely, and
// refuses the whole host, the clients behind it included, after
// max_connect_errors of them. So a handshake is not broken off, not even when
// the server is silent: end keeps it. docs/health-mysql.md has the measurements.
type handshake struct {
	conn     *boundConn
	stream   net.Conn // conn, or TLS above it
	packets  packetReader
	tls      mysqlTLS
	greeted  bool
	greeting greeting
	// asked says that a login has been asked for, decided that it has been
	// granted or refused.
	asked, decided bool
}

// newHandshake returns the handshake of a new connection, which is to go on by TLS
// unless client is nil.
func newHandshake(conn *boundConn, client *tlsClient) *handshake {
	return &handshake{conn: conn, stream: conn, packets: packetReader{r: conn}, tls: mysqlTLS{client: client}}
}

// read reads the greeting.
func (h *handshake) read() error {
	_, payload, err := h.packets.next()
	if err != nil {
		return err
	}
	h.greeted = true
	h.greeting, err = parseGreeting(payload)
	return err
}

// end ends a handshake that failed of err, or puts its end off to an *unfinished
// that it returns: the server was silent, and may yet speak.
func (h *handshake) end(err error) error {
	if h.decided || h.tls.lost || !timedOut(err) {
		_ = h.conn.Close()
		return err
	}
	return &unfinished{err, func(ctx context.Context) {
		defer func() { _ = h.conn.Close() }()
		h.conn.rebind(ctx)
		switch {
		case h.asked:
			_ = h.seeThrough()
		case h.greeted || h.read() == nil:
			_ = h.leave()
		}
	}}
}

// leave ends a connection that was greeted so that the server does not hold it
// against this node. It does not count a login that was refused, so leave asks
// to log in as a user that does not exist, without a password, in the clear where
// TLS has not begun.
//
// The error tells that the login was not decided, or was refused in a way that
// counts. The caller closes the connection.
func (h *handshake) leave() error {
	h.asked = true
	head := loginHeadFor(h.greeting)
	if h.tls.shift > 0 {
		head = h.tls.head // what has been agreed on
	}
	if err := writePacket(h.stream, 1+h.tls.shift, loginOfNobody(head, h.greeting.Plugin)); err != nil {
		return err
	}
	return h.seeThrough()
}

// seeThrough goes on until the login that was asked for is decided.
func (h *handshake) seeThrough() error {
	plugin := h.greeting.Plugin
	for range leaveSteps {
		sequence, payload, err := h.packets.next()
		if err != nil {
			return err
		}
		switch payload[0] {
		case mysqlError:
			err := parseRefusal(payload)
			var refused *refusal
			if errors.As(err, &refused) && refused.State == invalidAuthorization {
				return nil
			}
			return err
		case mysqlOK: // a real user, or an account for everybody: say goodbye with COM_QUIT
			return writePacket(h.stream, 0, []byte{1})
		case mysqlSwitch:
			name, _, _ := bytes.Cut(payload[1:], []byte{0})
			plugin = string(name)
		case mysqlMore:
			if bytes.Equal(payload, []byte{mysqlMore, cachedPassword}) {
				continue // the decision follows
			}
		default:
			return errGarbled
		}
		if err := writePacket(h.stream, sequence+1, wrongAnswer(plugin)); err != nil {
			return err
		}
	}
	return errors.New("the login does not end")
}

// loginHead is the length of the fixed part of the protocol's HandshakeResponse41,
// in bytes: capabilities, the longest packet, character set, and what is reserved.
const loginHead = 4 + 4 + 1 + 23

// loginHeadFor returns the fixed part of a login request that needs as little of a
// server as possible.
func loginHeadFor(g greeting) []byte {
	const (
		maxPacket = 1 << 24
		utf8      = 33
	)
	capabilities := uint32(clientLongPassword|clientProtocol41|clientSecureConnection|clientPluginAuth) & g.Capabilities
	p := binary.LittleEndian.AppendUint32(nil, capabilities|clientProtocol41)
	p = binary.LittleEndian.AppendUint32(p, maxPacket)
	p = append(p, utf8)
	return append(p, make([]byte, loginHead-len(p))...)
}

// loginOfNobody returns the payload of a HandshakeResponse41 with that head, for a
// user who does not exist and has no password.
func loginOfNobody(head []byte, plugin string) []byte {
	p := append([]byte(nil), head...)
	p = append(p, leaveAs...)
	p = append(p, 0, 0) // the end of the name, and a password of length 0
	capabilities := binary.LittleEndian.Uint32(head)
	if capabilities&clientPluginAuth != 0 {
		p = append(p, plugin...)
		p = append(p, 0)
	}
	if capabilities&clientConnectAttrs != 0 {
		p = append(p, 0) // none
	}
	return p
}

// wrongAnswer returns what a client without a password answers when the server
// asks to log in by plugin. A server asks by the plugin of some account, to
// hide which accounts exist, and takes an answer of a length that the plugin
// does not know for an error of the protocol, which counts.
func wrongAnswer(plugin string) []byte {
	switch plugin {
	case "", "mysql_native_password", "mysql_old_password":
		return nil
	case "client_ed25519": // a signature
		return make([]byte, 64)
	default: // caching_sha2_password and others take the password as a C string
		return []byte{0}
	}
}
