package http1

import "bytes"

// Field is one line of a head or a trailer.
type Field struct{ Name, Value string }

// MaxFields bounds the fields of one head.
const MaxFields = 256

// End returns the length of the head at the beginning of b, with its empty
// line; 0 if that has not come yet. from says how many bytes of b an earlier
// call has searched. Lines that end with LF alone end a head too, so that the
// parser gets to refuse them.
func End(b []byte, from int) int {
	for i := max(from-2, 0); ; {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return 0
		}
		i += n + 1
		rest := b[i:]
		if len(rest) > 0 && rest[0] == '\n' {
			return i + 1
		}
		if len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n' {
			return i + 2
		}
	}
}

// line cuts the first line off b, without its CR LF.
func line(b []byte) (first, rest []byte, err error) {
	i := bytes.IndexByte(b, '\n')
	if i < 1 || b[i-1] != '\r' {
		return nil, nil, errLine
	}
	return b[:i-1], b[i+1:], nil
}

// framing is what the fields of a head say about the body and the connection.
type framing struct {
	length      int64 // -1: there is no Content-Length
	chunked     bool
	close, keep bool // options of Connection
	host        string
	hosts       int
	expect      bool
}

// parseFields parses the lines of b, which ends with an empty one, appends the
// fields but Host to fs, and notes in m what concerns the framing.
func parseFields(fs []Field, b []byte, m *framing) ([]Field, error) {
	*m = framing{length: -1}
	start := len(fs)
	for {
		var name, value []byte
		var err error
		if name, value, b, err = parseField(b); err != nil || name == nil {
			return fs, err
		}
		n, v := view(name), view(value)
		isHost, err := m.note(n, v)
		if err != nil {
			return fs, err
		}
		if isHost {
			continue
		}
		if len(fs)-start >= MaxFields {
			return fs, errTooMany
		}
		fs = append(fs, Field{n, v})
	}
}

// parseField parses the first line of b; name is nil if that is empty.
func parseField(b []byte) (name, value, rest []byte, err error) {
	i := 0
	for i < len(b) && kinds[b[i]]&inToken != 0 {
		i++
	}
	switch {
	case i == len(b):
		return nil, nil, nil, errLine
	case i == 0 && b[0] == '\r':
		if len(b) < 2 || b[1] != '\n' {
			return nil, nil, nil, errLine
		}
		return nil, nil, b[2:], nil
	case b[i] == '\n':
		return nil, nil, nil, errLine
	case i == 0 && (b[0] == ' ' || b[0] == '\t'):
		return nil, nil, nil, errFolded // RFC 9112, section 5.2
	case i == 0:
		return nil, nil, nil, errName
	case b[i] == '\r':
		return nil, nil, nil, errNoColon
	case b[i] != ':':
		return nil, nil, nil, errName // also white space before the colon: RFC 9112, section 5.1
	}
	name = b[:i]
	from := i + 1
	for i = from; i < len(b) && kinds[b[i]]&inValue != 0; {
		i++
	}
	switch {
	case i+1 < len(b) && b[i] == '\r' && b[i+1] == '\n':
		return name, trim(b[from:i]), b[i+2:], nil
	case i == len(b) || b[i] == '\n':
		return nil, nil, nil, errLine
	}
	return nil, nil, nil, errValue
}

// note takes down what one field says about the framing, and whether it is Host.
func (m *framing) note(name, value string) (isHost bool, err error) {
	switch len(name) {
	case len("host"):
		if fold(name, "host") {
			m.hosts++
			m.host = value
			if m.hosts > 1 {
				return true, errHosts
			}
			return true, nil
		}
	case len("expect"):
		// RFC 9110, section 10.1.1: other expectations do not exist any more.
		if fold(name, "expect") && fold(value, "100-continue") {
			m.expect = true
		}
	case len("connection"):
		if fold(name, "connection") {
			m.options(value)
		}
	case len("content-length"):
		if fold(name, "content-length") {
			return false, m.contentLength(value)
		}
		if alike(name, "content-length") {
			return false, errLikeness
		}
	case len("transfer-encoding"):
		if fold(name, "transfer-encoding") {
			return false, m.transferEncoding(value)
		}
		if alike(name, "transfer-encoding") {
			return false, errLikeness
		}
	}
	return false, nil
}

// options reads the connection options that concern the connection itself.
func (m *framing) options(value string) {
	for len(value) > 0 {
		var option string
		option, value = cutList(value)
		switch len(option) {
		case len("close"):
			m.close = m.close || fold(option, "close")
		case len("keep-alive"):
			m.keep = m.keep || fold(option, "keep-alive")
		}
	}
}

// cutList cuts the first element off a comma-separated list.
func cutList(list string) (first, rest string) {
	for i := range len(list) {
		if list[i] == ',' {
			return trimString(list[:i]), list[i+1:]
		}
	}
	return trimString(list), ""
}

func trimString(s string) string {
	for len(s) > 0 && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for len(s) > 0 && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// contentLength reads the length of a body (RFC 9110, section 8.6). Two of them
// are refused even if they are equal.
func (m *framing) contentLength(value string) error {
	if m.length >= 0 {
		return errLengths
	}
	n, ok := ParseLength(value)
	if !ok {
		return errLength
	}
	m.length = n
	return nil
}

// transferEncoding reads the codings of a body (RFC 9112, section 6.1). There
// is one that we know, and it stands alone.
func (m *framing) transferEncoding(value string) error {
	switch {
	case m.chunked || value == "":
		return errCodings
	case fold(value, "chunked"):
		m.chunked = true
		return nil
	}
	last, chunks := "", 0
	for rest := value; len(rest) > 0; {
		last, rest = cutList(rest)
		if fold(last, "chunked") {
			chunks++
		}
	}
	if chunks > 0 && (chunks > 1 || !fold(last, "chunked")) {
		return errCodings
	}
	return errCoding
}

// check refuses what is contradictory in a message of HTTP/1.minor.
func (m *framing) check(minor int) error {
	switch {
	case m.chunked && m.length >= 0:
		return errBoth // RFC 9112, section 6.1: an attempt to smuggle
	case m.chunked && minor == 0:
		return errOldCoding
	}
	return nil
}
