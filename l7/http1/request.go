package http1

// Request is the head of a request. Its strings are views of the bytes that it
// was parsed from. The zero value is ready; used again it keeps its slice.
type Request struct {
	Method string
	// Target is in origin form ("/path?query"), "*", or what a client sent that
	// is neither; of an absolute form the scheme and host are cut off.
	Target string
	// Host is the authority of a target in absolute form, else the value of
	// Host; HasHost says whether there was either.
	Host    string
	HasHost bool
	// Minor is 0 for HTTP/1.0, 1 for HTTP/1.1 and what may come after it.
	Minor int
	// Fields are those of the head but Host, in the order of the wire.
	Fields []Field
	// Length is that of the body, -1 if it comes in chunks, 0 if there is none.
	Length int64
	// HasLength says that there is a Content-Length.
	HasLength bool
	// Close says that the client sends no other request on the connection, or
	// is of HTTP/1.0 and does not ask to keep it.
	Close bool
	// Expect says that the client waits for 100 before it sends the body.
	Expect bool
}

// Chunked reports whether the body comes in chunks.
func (r *Request) Chunked() bool { return r.Length < 0 }

// Parse parses a head of the length that End has found. The error is an *Error.
func (r *Request) Parse(head []byte) error {
	*r = Request{Fields: r.Fields[:0]}
	first, rest, err := line(head)
	if err != nil {
		return err
	}
	if err := r.firstLine(first); err != nil {
		return err
	}
	var m framing
	if r.Fields, err = parseFields(r.Fields, rest, &m); err != nil {
		return err
	}
	if err := m.check(r.Minor); err != nil {
		return err
	}
	if m.hosts == 0 && r.Minor > 0 {
		return errNoHost // RFC 9112, section 3.2
	}
	if !r.HasHost {
		r.Host, r.HasHost = m.host, m.hosts > 0
	}
	r.Length, r.HasLength = max(m.length, 0), m.length >= 0
	if m.chunked {
		r.Length = -1
	}
	r.Close = m.close || r.Minor == 0 && !m.keep
	r.Expect = m.expect && r.Minor > 0 && r.Length != 0
	return nil
}

// firstLine parses "GET /path HTTP/1.1" (RFC 9112, section 3), with one space
// at either place.
func (r *Request) firstLine(b []byte) error {
	i := 0
	for i < len(b) && kinds[b[i]]&inToken != 0 {
		i++
	}
	if i == 0 || i == len(b) || b[i] != ' ' {
		if i < len(b) && b[i] != ' ' {
			return errMethod
		}
		return errRequestLine
	}
	r.Method = view(b[:i])
	b = b[i+1:]
	for i = 0; i < len(b) && kinds[b[i]]&inTarget != 0; {
		i++
	}
	if i < len(b) && b[i] != ' ' {
		return errTarget
	}
	if i == 0 || i == len(b) {
		return errRequestLine
	}
	target := b[:i]
	minor, err := version(b[i+1:], errRequestLine)
	if err != nil {
		return err
	}
	r.Minor = minor
	r.setTarget(target)
	return nil
}

// version returns the minor version of "HTTP/1.x".
func version(b []byte, malformed *Error) (int, error) {
	if len(b) != len("HTTP/1.1") || string(b[:5]) != "HTTP/" || b[6] != '.' || !digit(b[5]) || !digit(b[7]) {
		return 0, malformed
	}
	if b[5] != '1' {
		return 0, errVersion
	}
	return min(int(b[7]-'0'), 1), nil
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// setTarget takes a target apart: an absolute form names the host, whatever the
// Host field says (RFC 9112, section 3.2.2).
func (r *Request) setTarget(b []byte) {
	r.Target = view(b)
	if b[0] == '/' {
		return
	}
	rest := b
	switch {
	case len(b) > 7 && fold(view(b[:7]), "http://"):
		rest = b[7:]
	case len(b) > 8 && fold(view(b[:8]), "https://"):
		rest = b[8:]
	default:
		return
	}
	end := 0
	for end < len(rest) && rest[end] != '/' && rest[end] != '?' && rest[end] != '#' {
		end++
	}
	if end == 0 {
		return
	}
	r.Host, r.HasHost = view(rest[:end]), true
	switch {
	case end == len(rest):
		r.Target = "/"
	case rest[end] == '/':
		r.Target = view(rest[end:])
	default: // "http://a?b", which nobody sends, may cost an allocation
		r.Target = "/" + view(rest[end:])
	}
}
