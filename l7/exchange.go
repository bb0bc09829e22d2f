package l7

import (
	"io"
	"iter"
	"net/netip"
	"strings"
)

// field is one line of a head or a trailer.
type field struct{ name, value string }

// fields are the lines of a head in the order of the wire. Names are compared
// without regard to case. A slice is not changed after it was handed on.
type fields []field

// get returns the value of the first field of that name, or "".
func (f fields) get(name string) string {
	for v := range f.values(name) {
		return v
	}
	return ""
}

// has reports whether there is a field of that name.
func (f fields) has(name string) bool {
	for range f.values(name) {
		return true
	}
	return false
}

// values yields the values of all fields of that name.
func (f fields) values(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, l := range f {
			if strings.EqualFold(l.name, name) && !yield(l.value) {
				return
			}
		}
	}
}

// tokens yields the elements of a comma-separated field, without parameters,
// as Connection, TE and Upgrade have them (RFC 9110, section 5.6.1).
func (f fields) tokens(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for v := range f.values(name) {
			for t := range strings.SplitSeq(v, ",") {
				t, _, _ = strings.Cut(t, ";")
				if t = strings.TrimSpace(t); t != "" && !yield(t) {
					return
				}
			}
		}
	}
}

// hasToken reports whether one of the elements of that field is token.
func (f fields) hasToken(name, token string) bool {
	for t := range f.tokens(name) {
		if strings.EqualFold(t, token) {
			return true
		}
	}
	return false
}

// exchange is one request and the place for its answer. A door makes it; the
// pipeline hands a changed copy to the upstream.
type exchange struct {
	method string
	target string // "/path?query" exactly as it was sent, or "*"; see validTarget
	scheme string // "http" or "https"
	host   string // as it was sent, with its port if any; "" if there is none
	fields fields // without Host

	// mayLackHost says that the client's wire allows requests without a host:
	// HTTP/1.0 (RFC 9112, section 3.2).
	mayLackHost bool

	// body is nil if the request has none. A read that fails because of the
	// client returns a *bodyError. Reading it may outlast the exchange and
	// fails from then on.
	body   io.Reader
	length int64 // of the body, in bytes; -1: known at its end

	// trailerNames are the trailers that the head announces; trailers returns
	// those that came, once body has returned io.EOF. Nil: none.
	trailerNames []string
	trailers     func() fields

	client netip.Addr // the real peer
	answer answerWriter

	// upgrade sends the answer 101 with this head and hands the connection
	// over; the caller closes it. Nil: the client's wire has no such thing. It
	// must not be called for a request with a body, which would be read by two.
	upgrade func(head fields) (io.ReadWriteCloser, error)
}

// answerWriter takes the answer to an exchange. The wire decides about framing;
// connection fields are the door's business.
type answerWriter interface {
	// WriteHead sends the head: of interim answers (1xx but 101) any number,
	// then of the final one. Content-Length, if it is among the fields, holds.
	WriteHead(status int, head fields) error
	// Write sends some of the body without waiting for more.
	Write(p []byte) (int, error)
	// Finish ends the answer. An answer that is not finished is a broken one,
	// and the client gets to see that.
	Finish(trailers fields) error
}

// answer is what an upstream got from a server.
type answer struct {
	status int
	fields fields

	// body is never nil, and closed by who got the answer. Of an answer 101 it
	// is an io.ReadWriteCloser: the connection.
	body io.ReadCloser

	// trailers returns what followed the body, once body has returned io.EOF.
	trailers func() fields
}

// bodyError says that the client's request body could not be read.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "read the request's body: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// connectError says that no connection to the server could be made.
type connectError struct {
	err error
	// maybeSent says that a kept connection was tried before and broke, so that
	// the server may have seen the request.
	maybeSent bool
}

func (e *connectError) Error() string { return "connect: " + e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }
