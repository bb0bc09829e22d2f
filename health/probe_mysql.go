package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
)

// maxMySQLPacket bounds one packet of a server, in bytes. What a check asks
// for is far smaller.
const maxMySQLPacket = 1 << 20

// errGarbled says that a server does not keep to the protocol.
var errGarbled = errors.New("the answer is not the MySQL protocol")

// probeMySQL logs in where the check names a user. Otherwise it passes when
// the target greets.
func probeMySQL(ctx context.Context, target Target) (string, error) {
	if target.Check.User != "" {
		return probeLogin(ctx, target)
	}
	conn, err := dial(ctx, target.Address)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	_, payload, err := readPacket(conn)
	if err != nil {
		return "", err
	}
	greeting, err := parseGreeting(payload)
	if err != nil {
		return "", err
	}
	reason := "greeted by version " + printable(greeting.readableVersion())
	if err := leave(conn, greeting); err != nil {
		// The server is fine, but the administrator has to know before it
		// starts to refuse this node.
		reason = fmt.Sprintf("%s; give the check a user: the server may count checks without one as errors (%s)",
			reason, inWords(err, target.Check.EffectiveTimeout()))
	}
	return reason, nil
}

// readPacket reads one packet: its sequence number and its payload, which is
// never empty and no longer than maxMySQLPacket.
func readPacket(r io.Reader) (sequence byte, payload []byte, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	length := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	if length == 0 || length > maxMySQLPacket {
		return 0, nil, errGarbled
	}
	// The buffer grows with what arrives, not with what is promised.
	payload, err = io.ReadAll(io.LimitReader(r, int64(length)))
	if err == nil && len(payload) < length {
		err = io.ErrUnexpectedEOF
	}
	return head[3], payload, err
}

// packet returns payload, shorter than 16 MiB, with the head of a packet.
func packet(sequence byte, payload []byte) []byte {
	n := len(payload)
	return slices.Concat([]byte{byte(n), byte(n >> 8), byte(n >> 16), sequence}, payload)
}

// writePacket sends one packet.
func writePacket(conn net.Conn, sequence byte, payload []byte) error {
	_, err := conn.Write(packet(sequence, payload))
	return err
}
