package l4

import (
	"encoding/binary"
	"errors"
	"strings"
)

// errMore says that the bytes are the begin of a ClientHello.
var errMore = errors.New("the ClientHello is not complete")

// errNoTLS says that the bytes are none.
var errNoTLS = errors.New("this is no ClientHello")

// The numbers of RFC 8446 and RFC 6066 that matter here.
const (
	recordHandshake = 22
	clientHello     = 1
	extServerName   = 0
	nameHost        = 0
	maxRecord       = 1 << 14
)

// serverName returns the host name that a TLS client asks for (RFC 6066,
// section 3) in the ClientHello at the begin of b, in lower case; it is empty if
// the client names none. The error is errMore as long as more bytes may help.
// Nothing else of the message is judged: that is up to the server.
func serverName(b []byte) (string, error) {
	message, err := handshake(b)
	if err != nil {
		return "", err
	}
	r := reader{b: message}
	r.skip(2 + 32)     // legacy_version, random
	r.skip(r.uint8())  // legacy_session_id
	r.skip(r.uint16()) // cipher_suites
	r.skip(r.uint8())  // legacy_compression_methods
	if len(r.b) == 0 && !r.short {
		return "", nil // no extensions, as before TLS 1.2
	}
	extensions := reader{b: r.take(r.uint16())}
	for len(extensions.b) > 0 && !extensions.short {
		kind := extensions.uint16()
		body := reader{b: extensions.take(extensions.uint16())}
		if kind != extServerName || extensions.short {
			continue
		}
		names := reader{b: body.take(body.uint16())}
		for len(names.b) > 0 && !names.short {
			kind, name := names.uint8(), names.take(names.uint16())
			if kind == nameHost && !names.short && len(name) > 0 {
				return strings.ToLower(strings.TrimSuffix(string(name), ".")), nil
			}
		}
		return "", errNoTLS
	}
	if r.short || extensions.short {
		return "", errNoTLS
	}
	return "", nil
}

// handshake returns the body of the ClientHello at the begin of b, which may be
// spread over several records (RFC 8446, section 5.1).
func handshake(b []byte) ([]byte, error) {
	var message []byte
	whole := b
	for own := false; ; {
		if len(b) > 0 && b[0] != recordHandshake || len(b) > 1 && b[1] != 3 {
			return nil, errNoTLS
		}
		if len(b) < 5 {
			return nil, errMore
		}
		size := int(binary.BigEndian.Uint16(b[3:]))
		if size == 0 || size > maxRecord {
			return nil, errNoTLS
		}
		piece := b[5:min(len(b), 5+size)]
		switch {
		case message == nil:
			message = piece // usually all: nothing is copied
		case !own:
			// Once, or many small records would cost the square of their number.
			message = append(append(make([]byte, 0, len(whole)), message...), piece...)
			own = true
		default:
			message = append(message, piece...)
		}
		if len(message) > 0 && message[0] != clientHello {
			return nil, errNoTLS
		}
		if len(message) >= 4 {
			want := 4 + (int(message[1])<<16 | int(message[2])<<8 | int(message[3]))
			if want > maxRecord {
				return nil, errNoTLS
			}
			if len(message) >= want {
				return message[4:want], nil
			}
		}
		if len(b) < 5+size {
			return nil, errMore
		}
		b = b[5+size:]
	}
}

// reader takes apart a message of TLS. Once there was less than was asked for,
// short is set and everything is empty.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.b, r.short = nil, true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) skip(n int) { r.take(n) }

func (r *reader) uint8() int {
	if b := r.take(1); b != nil {
		return int(b[0])
	}
	return 0
}

func (r *reader) uint16() int {
	if b := r.take(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}
