package health

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// maxPostgresAnswer bounds all that a server says to one check, in bytes.
const maxPostgresAnswer = 1 << 20

var errNotPostgres = errors.New("the answer is not the PostgreSQL protocol")

// Messages of the protocol, version 3, by their first byte.
const (
	pgAuthentication = 'R'
	pgError          = 'E'
	pgReady          = 'Z'
	pgDataRow        = 'D'
	pgPassword       = 'p'
	pgQuery          = 'Q'
	pgTerminate      = 'X'
)

// Ways to log in, and the steps of SASL, by which an Authentication message
// begins.
const (
	pgAuthOK           = 0
	pgAuthCleartext    = 3
	pgAuthMD5          = 5
	pgAuthSASL         = 10
	pgAuthSASLContinue = 11
	pgAuthSASLFinal    = 12
)

// postgresReader reads the messages of a server.
type postgresReader struct {
	r    io.Reader
	left int // of maxPostgresAnswer
}

// next reads one message: its kind and its body. The body grows with what
// arrives, not with what is promised.
func (p *postgresReader) next() (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		return 0, nil, err
	}
	length := int64(binary.BigEndian.Uint32(head[1:])) - 4
	if head[0] < 'A' || head[0] > 'z' || length < 0 || length > int64(p.left) {
		return 0, nil, errNotPostgres
	}
	p.left -= len(head) + int(length)
	body, err = io.ReadAll(io.LimitReader(p.r, length))
	if err == nil && int64(len(body)) < length {
		err = io.ErrUnexpectedEOF
	}
	return head[0], body, err
}

// pgMessage returns a message of the client.
func pgMessage(kind byte, body []byte) []byte {
	m := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body))+4)
	return append(m, body...)
}

// pgStartup returns the first message, which has no kind.
func pgStartup(user, database string) []byte {
	const version = 3 << 16
	body := binary.BigEndian.AppendUint32(nil, version)
	add := func(key, value string) {
		body = append(append(append(append(body, key...), 0), value...), 0)
	}
	add("user", user)
	if database != "" {
		add("database", database)
	}
	add("application_name", "applianctl")
	body = append(body, 0)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))+4), body...)
}

// pgSSLRequest returns the message that asks for TLS, which has no kind either.
func pgSSLRequest() []byte {
	const code = 80877103
	return binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, code)
}

// pgRefusal is an error of a server.
type pgRefusal struct {
	Code    string // SQLSTATE, five characters
	Message string
}

// Error returns the server's words and its code.
func (r *pgRefusal) Error() string {
	return fmt.Sprintf("%s (%s)", printable(r.Message), printable(r.Code))
}

// parsePgError reads the body of an error; the result is a *pgRefusal, or
// errNotPostgres when the body is none.
func parsePgError(body []byte) error {
	var r pgRefusal
	for len(body) > 0 && body[0] != 0 {
		value, rest, ok := bytes.Cut(body[1:], []byte{0})
		if !ok {
			return errNotPostgres
		}
		switch body[0] {
		case 'C':
			r.Code = string(value)
		case 'M':
			r.Message = string(value)
		}
		body = rest
	}
	if r.Code == "" || r.Message == "" {
		return errNotPostgres
	}
	return &r
}

// parseAuthentication reads the body of an Authentication message: the way or
// the step, and what belongs to it.
func parseAuthentication(body []byte) (way uint32, data []byte, err error) {
	if len(body) < 4 {
		return 0, nil, errNotPostgres
	}
	return binary.BigEndian.Uint32(body), body[4:], nil
}

// firstColumn returns the first column of a DataRow as text.
func firstColumn(body []byte) (string, error) {
	if len(body) < 2 || binary.BigEndian.Uint16(body) == 0 {
		return "", errors.New("it returns no columns")
	}
	if len(body) < 6 {
		return "", errNotPostgres
	}
	length := int32(binary.BigEndian.Uint32(body[2:]))
	switch rest := body[6:]; {
	case length == -1:
		return "NULL", nil
	case length < 0 || int(length) > len(rest):
		return "", errNotPostgres
	default:
		return string(rest[:length]), nil
	}
}
