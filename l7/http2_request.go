package l7

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2/hpack"

	"appliance/l7/http1"
)

// http2Head collects the fields of a head, or of trailers, as they are decoded.
// It is used again for the next one of the connection.
type http2Head struct {
	most int64 // what a head may have

	stream   uint32 // that the block is for; 0: none is being read
	end      bool   // and that nothing follows on
	began    time.Time
	frames   int
	bytes    int64
	size     int64 // RFC 9113, section 6.5.2
	tooLarge bool
	wrong    error // the first mistake

	method, scheme, authority, path, protocol string
	seen                                      uint8 // of them
	fields                                    fields
	host                                      string
	hosts                                     int
	length                                    int64 // -1: there is no Content-Length
	cookies                                   int
	expect                                    bool
}

// Which pseudo-header fields have been seen.
const (
	seenMethod = 1 << iota
	seenScheme
	seenAuthority
	seenPath
	seenProtocol
)

func (h *http2Head) init(most int64) { h.most = most }

// begin makes ready for another head.
func (h *http2Head) begin(stream uint32, end bool) {
	fs := h.fields[:0]
	*h = http2Head{most: h.most, stream: stream, end: end, began: time.Now(), fields: fs, length: -1}
}

// Why a head is malformed (RFC 9113, sections 8.1.1 to 8.3.1).
var (
	errPseudo     = errors.New("a pseudo-header field is unknown, doubled or behind others")
	errPseudoLack = errors.New("a pseudo-header field is missing, or one is there that may not be")
	errNoName     = errors.New("a field's name is no token in lower case")
	errBadValue   = errors.New("a field's value has what it may not have")
	errHopField   = errors.New("a field is for one connection of HTTP/1 only")
	errMisleading = errors.New("a field's name passes for that of another one")
	errLength     = errors.New("the content-length is no number, doubled, or not that of the body")
	errTwoHosts   = errors.New("there are two hosts")
	errScheme     = errors.New("the scheme is not that of HTTP")
	errTrailers   = errors.New("the trailers have a pseudo-header field")
)

// add takes a field that has been decoded.
func (h *http2Head) add(f hpack.HeaderField) {
	if !h.counts(f) {
		return
	}
	if strings.HasPrefix(f.Name, ":") {
		h.wrong = h.pseudo(f.Name, f.Value)
		return
	}
	h.wrong = h.field(f.Name, f.Value)
}

// counts counts a field, and reports whether it has to be looked at.
func (h *http2Head) counts(f hpack.HeaderField) bool {
	if h.size += int64(f.Size()); h.size > h.most || len(h.fields) >= http1.MaxFields {
		h.tooLarge = true
	}
	return !h.tooLarge && h.wrong == nil
}

// pseudo takes a pseudo-header field. All of them come first, once each.
func (h *http2Head) pseudo(name, value string) error {
	bit, to := uint8(0), (*string)(nil)
	switch name {
	case ":method":
		bit, to = seenMethod, &h.method
	case ":scheme":
		bit, to = seenScheme, &h.scheme
	case ":authority":
		bit, to = seenAuthority, &h.authority
	case ":path":
		bit, to = seenPath, &h.path
	case ":protocol":
		bit, to = seenProtocol, &h.protocol
	}
	if bit == 0 || h.seen&bit != 0 || len(h.fields) > 0 || h.hosts > 0 {
		return errPseudo
	}
	if !http1.ValidValue(value) {
		return errBadValue
	}
	h.seen |= bit
	*to = value
	return nil
}

func (h *http2Head) field(name, value string) error {
	if !http1.IsToken(name) {
		return errNoName
	}
	for i := range len(name) {
		if c := name[i]; c >= 'A' && c <= 'Z' {
			return errNoName
		}
	}
	if !http1.ValidValue(value) {
		return errBadValue
	}
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return errHopField
	case "te":
		if !strings.EqualFold(value, "trailers") {
			return errHopField
		}
	case "host":
		h.hosts++
		h.host = value
		return nil
	case "content-length":
		n, ok := http1.ParseLength(value)
		if !ok || h.length >= 0 {
			return errLength
		}
		h.length = n
	case "cookie":
		h.cookies++
	case "expect":
		h.expect = h.expect || strings.EqualFold(value, "100-continue")
	}
	if http1.Misleading(name) {
		return errMisleading
	}
	h.fields = append(h.fields, field{Name: name, Value: value})
	return nil
}

// trailers checks a head that has to be trailers.
func (h *http2Head) trailers() error {
	if h.wrong == nil && h.seen != 0 {
		return errTrailers
	}
	return h.wrong
}

// request checks a head that has to be that of a request.
func (h *http2Head) request() error {
	if h.wrong != nil {
		return h.wrong
	}
	wanted := uint8(seenMethod | seenScheme | seenPath)
	switch {
	case h.method == http.MethodConnect && h.seen&seenProtocol == 0:
		// RFC 9113, section 8.5
		if h.seen != seenMethod|seenAuthority {
			return errPseudoLack
		}
	case h.method == http.MethodConnect:
		wanted |= seenProtocol | seenAuthority // RFC 8441, section 4
		if h.length >= 0 {
			return errLength // what follows is no body, and a server of HTTP/1 would wait for one
		}
		fallthrough
	default:
		if h.seen&wanted != wanted || h.method != http.MethodConnect && h.seen&seenProtocol != 0 {
			return errPseudoLack
		}
		if h.scheme != "http" && h.scheme != "https" {
			return errScheme
		}
		if !http1.ValidTarget(h.path) {
			return errBadValue
		}
	}
	if !http1.IsToken(h.method) {
		return errBadValue
	}
	// RFC 9113, section 8.3.1: what differs is a request that servers read in
	// different ways.
	if h.hosts > 1 || h.hosts == 1 && h.seen&seenAuthority != 0 && !strings.EqualFold(h.host, h.authority) {
		return errTwoHosts
	}
	if h.end && h.length > 0 {
		return errLength
	}
	return nil
}

// open makes of the connection's head an exchange, which begins soon. c.mu is
// held.
func (st *http2Stream) open(c *http2Conn, id uint32) error {
	h := &c.head
	if err := h.request(); err != nil {
		return err
	}
	st.conn, st.id, st.window = c, id, c.initial
	st.ended, st.gone, st.tunnel, st.began = h.end, false, false, time.Now()
	st.answer.begin(st, h.method)
	st.body.begin(st, h.length)

	ex := &st.ex
	ex.reset()
	ex.method, ex.target, ex.scheme, ex.host = h.method, h.path, "http", h.authority
	if c.secure {
		ex.scheme = "https"
	}
	if h.seen&seenAuthority == 0 {
		ex.host = h.host
	}
	st.fields, h.fields = h.fields, st.fields
	if h.cookies > 1 {
		st.joinCookies()
	}
	ex.mayLackHost = false
	ex.trail.began, ex.trail.protocol = h.began, protocolName2
	ex.answer, ex.client, ex.room, ex.now = &st.answer, nil, &c.room, st.began
	// The reader alone knows what its peer knows: the exchange gets a copy.
	c.peer.forwardedField(ex.host, ex.scheme)
	st.peer = *c.peer
	ex.peer = &st.peer
	switch {
	case h.method == http.MethodConnect && strings.EqualFold(h.protocol, "websocket"):
		st.webSocket()
	case h.method == http.MethodConnect:
		ex.body, ex.length = nil, 0
	case !h.end && h.length != 0:
		ex.body, ex.length = &st.body, h.length
		ex.expect = h.expect
	}
	ex.fields = st.fields
	return nil
}

// joinCookies makes one field of those that a client has sent in pieces, so that
// they can be compressed (RFC 9113, section 8.2.3).
func (st *http2Stream) joinCookies() {
	st.scratch = st.scratch[:0]
	for _, f := range st.fields {
		if f.Name == "cookie" {
			if len(st.scratch) > 0 {
				st.scratch = append(st.scratch, "; "...)
			}
			st.scratch = append(st.scratch, f.Value...)
		}
	}
	st.fields = append(st.fields.without("cookie"), field{Name: "cookie", Value: string(st.scratch)})
}

// begin begins the exchange. What has come of the body meanwhile is a body that
// came with its head if it is all of it and small.
func (st *http2Stream) begin() {
	c := st.conn
	ex := &st.ex
	c.mu.Lock()
	if b := &st.body; ex.body != nil && st.ended && len(b.lines) == 0 && len(b.buf) <= wholeMost {
		ex.whole, ex.expect = b.buf, false
		if ex.length < 0 && len(b.buf) > 0 {
			ex.length = int64(len(b.buf))
			ex.fields = append(ex.fields, field{Name: "content-length", Value: strconv.Itoa(len(b.buf))})
			st.fields = ex.fields
		}
		if len(b.buf) == 0 {
			ex.body, ex.whole, ex.length = nil, nil, 0
		}
		c.take(int64(len(b.buf)))
		b.r = len(b.buf) // it is in other hands
		c.startFlush()
	}
	c.mu.Unlock()
	c.tasks.Add(1)
	c.server.door.engine.workers.serve(st)
}

// wholeMost is the largest body that is sent in one piece with its head.
const wholeMost = 16 << 10
