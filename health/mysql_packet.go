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

// packetReader reads the packets of a server. When one is cut off by a deadline,
// what came of it is kept, and the next call goes on from there.
type packetReader struct {
	r    io.Reader
	have []byte
}

// next reads one packet: its sequence number and its payload, which is never
// empty and no longer than maxMySQLPacket.
func (p *packetReader) next() (sequence byte, payload []byte, err error) {
	if err := p.fill(4); err != nil {
		return 0, nil, err
	}
	head := p.have
	length := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	if length == 0 || length > maxMySQLPacket {
		return 0, nil, errGarbled
	}
	if err := p.fill(4 + length); err != nil {
		return 0, nil, err
	}
	sequence, payload = p.have[3], p.have[4:]
	p.have = nil
	return sequence, payload, nil
}

// fill reads until there are n bytes. The buffer grows with what arrives, not
// with what is promised.
func (p *packetReader) fill(n int) error {
	for len(p.have) < n {
		p.have = slices.Grow(p.have, min(n-len(p.have), 512))
		room := p.have[len(p.have):min(n, cap(p.have))]
		read, err := p.r.Read(room)
		p.have = p.have[:len(p.have)+read]
		switch {
		case read > 0:
		case errors.Is(err, io.EOF) && len(p.have) > 0:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
	}
	return nil
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
