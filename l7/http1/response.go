package http1

// Response is the head of an answer. Its strings are views of the bytes that it
// was parsed from. The zero value is ready; used again it keeps its slice.
type Response struct {
	Status int // 100 to 999
	// Minor is 0 for HTTP/1.0, 1 for HTTP/1.1 and what may come after it.
	Minor int
	// Fields are those of the head, in the order of the wire.
	Fields []Field
	// Length is that of the body as far as it was sent: what follows the head.
	// -1: it comes in chunks if Chunked, else it ends with the connection.
	Length  int64
	Chunked bool
	// HasLength says that there is a Content-Length, which an answer to HEAD
	// may have without a body.
	HasLength bool
	// Close says that the connection cannot be used again.
	Close bool
}

// Parse parses a head of the length that End has found, of the answer to a
// request of that method. The error is an *Error, whose status is not meant for
// the server.
func (r *Response) Parse(head []byte, method string) error {
	*r = Response{Fields: r.Fields[:0]}
	first, rest, err := line(head)
	if err != nil {
		return err
	}
	if err := r.statusLine(first); err != nil {
		return err
	}
	var m framing
	if r.Fields, err = parseFields(r.Fields, rest, &m); err != nil {
		return err
	}
	if err := m.check(r.Minor); err != nil {
		return err
	}
	r.HasLength = m.length >= 0
	r.Close = m.close || r.Minor == 0 && !m.keep
	r.frame(&m, method)
	return nil
}

// frame decides what follows the head (RFC 9112, section 6.3).
func (r *Response) frame(m *framing, method string) {
	switch {
	case method == "HEAD" || r.Status < 200 || r.Status == 204 || r.Status == 304:
		r.Length = 0
		if r.Status == 204 && (m.chunked || m.length > 0) {
			r.Close = true // what it may not announce it may send all the same, as the beginning of the next answer
		}
	case m.chunked:
		r.Length, r.Chunked = -1, true
	case m.length >= 0:
		r.Length = m.length
	default:
		r.Length, r.Close = -1, true
	}
}

// statusLine parses "HTTP/1.1 200 OK" (RFC 9112, section 4). Servers without a
// reason often leave out the space before it as well.
func (r *Response) statusLine(b []byte) error {
	if len(b) < len("HTTP/1.1 200") || b[8] != ' ' || len(b) > 12 && b[12] != ' ' {
		return errStatusLine
	}
	var err error
	if r.Minor, err = version(b[:8], errStatusLine); err != nil {
		return err
	}
	code := b[9:12]
	if !digit(code[0]) || !digit(code[1]) || !digit(code[2]) || code[0] == '0' || !only(b[12:], inValue) {
		return errStatusLine
	}
	r.Status = 100*int(code[0]-'0') + 10*int(code[1]-'0') + int(code[2]-'0')
	return nil
}
