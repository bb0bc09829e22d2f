package health

import (
	"encoding/binary"
	"errors"
)

// errNoMySQLTLS says that a server does not know TLS, or not now.
var errNoMySQLTLS = errors.New("the server offers no TLS")

// mysqlTLS is the TLS of a handshake.
type mysqlTLS struct {
	client  *tlsClient // nil without TLS
	warning string     // about the certificates
	head    []byte     // of the login request, which has asked for TLS
	shift   byte       // by how much the request for TLS has moved the numbers of the packets on
	lost    bool       // TLS did not come about, and nothing more can be said
}

// offered returns an error if TLS is wanted and the server does not offer it. It
// has not been told a password then.
func (h *handshake) offered() error {
	if h.tls.client != nil && h.greeting.Capabilities&clientSSL == 0 {
		h.tls.client = nil
		return errNoMySQLTLS
	}
	return nil
}

// secure goes on by TLS. It asks for that by the head of the login request which
// is to follow (the protocol's SSLRequest). A certificate that does not pass ends
// the check, but politely: the server hears that somebody else wants to log in,
// without a password.
func (h *handshake) secure(head []byte) error {
	head = append([]byte(nil), head[:loginHead]...)
	wantTLS(head)
	h.asked, h.tls.lost = true, true
	if err := writePacket(h.conn, 1, head); err != nil {
		return err
	}
	encrypted, warning, untrusted, err := h.tls.client.handshakeAnyhow(h.conn)
	if err != nil {
		return err
	}
	h.stream, h.packets = encrypted, packetReader{r: encrypted}
	h.tls.warning, h.tls.head, h.tls.shift, h.tls.lost = warning, head, 1, false
	if untrusted != nil {
		_ = h.leave()
		h.decided = true
	}
	return untrusted
}

// wantTLS adds to a login request that it is made by TLS.
func wantTLS(request []byte) {
	binary.LittleEndian.PutUint32(request, binary.LittleEndian.Uint32(request)|clientSSL)
}
