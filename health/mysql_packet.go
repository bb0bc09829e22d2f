package health

import (
	"errors"
	"io"
	"net"
	"slices"
)

// maxMySQLPacket bounds one packet of a server, in bytes. What a check asks
// for is far smaller.
const maxMySQLPacket = 1 << 20

// errGarbled says that a server does not keep to the protocol.
var errGarbled = errors.New("the answer is not the MySQL protocol")

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
