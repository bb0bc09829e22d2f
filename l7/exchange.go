package l7

import (
	"io"
	"iter"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"appliance/internal/pool"
	"appliance/l7/http1"
)

// field is one line of a head or a trailer.
type field = http1.Field

// fields are the lines of a head in the order of the wire. Names are compared
// without regard to case. A slice is not changed after it was handed on.
type fields []field

// get returns the value of the first field of that name, or "".
func (f fields) get(name string) string {
	for i := range f {
		if strings.EqualFold(f[i].Name, name) {
			return f[i].Value
		}
	}
	return ""
}

// has reports whether there is a field of that name.
func (f fields) has(name string) bool {
	for i := range f {
		if strings.EqualFold(f[i].Name, name) {
			return true
		}
	}
	return false
}

// count returns how many fields there are of that name.
func (f fields) count(name string) (n int) {
	for i := range f {
		if strings.EqualFold(f[i].Name, name) {
			n++
		}
	}
	return n
}

// set gives all fields of that name that value.
func (f fields) set(name, value string) {
	for i := range f {
		if strings.EqualFold(f[i].Name, name) {
			f[i].Value = value
		}
	}
}

// tokens yields the elements of a comma-separated field, without parameters,
// as Connection, TE and Upgrade have them (RFC 9110, section 5.6.1).
func (f fields) tokens(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range f {
			if !strings.EqualFold(f[i].Name, name) {
				continue
			}
			for rest, more := f[i].Value, true; more; {
				var t string
				t, rest, more = strings.Cut(rest, ",")
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

// exchange is one request and the place for its answer. A door makes it and
// fills in the first part; the rest is for the pipeline and the upstream. All
// strings may be views of a buffer that the door uses again afterwards.
type exchange struct {
	method string
	target string // "/path?query" as it was sent, but see plainTarget, or "*"; see validTarget
	scheme string // "http" or "https"
	host   string // as it was sent, with its port if any; "" if there is none
	fields fields // without Host

	// mayLackHost says that the client's wire allows requests without a host:
	// HTTP/1.0 (RFC 9112, section 3.2).
	mayLackHost bool
	// lengthOrTrailers says that its answers have no trailers if they have a length:
	// HTTP/1.
	lengthOrTrailers bool

	// body is nil if the request has none. Reading it may outlast the exchange
	// and fails from then on.
	body   requestBody
	length int64  // of the body, in bytes; -1: known at its end
	whole  []byte // the body, if all of it is there; then body is not read
	// expect says that the client waits until its body is asked for.
	expect bool
	// talks says that a body of unknown length may be half of a conversation: its
	// server has begun to answer, or it is a call of gRPC to one that knows those.
	talks atomic.Bool

	peer   *peer // who asks
	answer answerWriter

	// upgrade sends the answer 101 with this head and hands the connection
	// over; the caller closes it. Nil: the client's wire has no such thing, or
	// the request has a body.
	upgrade func(head fields) (io.ReadWriteCloser, error)

	// room is for what waits here of its answer; nil: the door leaves that to the
	// windows of servers.
	room *answerRoom

	// client is asked now and then whether it has left, while there is nothing
	// else to do. Nil: the door calls interrupt by itself.
	client interface{ gone() bool }

	// now is the time, as exactly as an exchange that does not wait for long can
	// know it without asking for it at every step.
	now time.Time

	// What the pipeline says about the exchange.
	server *pool.Server // that the request is sent to
	count  *counters
	rules  *rules     // that are in force for the request; nil: none
	from   *pool.Pool // that server is of
	up     *upstream  // of that pool
	// granted are fields that the server gets besides those of the client, which
	// by Connection could have others removed.
	granted fields
	// identity is what says which fields of the client are not believed; nil: before
	// it was asked, and in questions of our own.
	identity *identity
	id       string                    // of the request; "": it has none
	user     string                    // who has shown a password; "": nobody
	via      string                    // the client and the proxies it came by; "": it came by itself
	failed   atomic.Pointer[bodyError] // the client's body could not be read
	// malformed says that it should not have been sent: by HTTP/1 nothing more is
	// believed that comes on its connection.
	malformed bool

	out   outgoing
	hold  hold
	trail trail
}

// outgoing is what the pipeline and the upstream make of an exchange. It is
// used again for the next one, so that its slices need not grow again.
type outgoing struct {
	request fields // as the server gets it
	target  string // that the server is asked for
	host    string // and its host; "": the server's address
	head    fields // of the answer, as the client gets it
	wire    []byte // the request's head in bytes, by HTTP/1 with the body that came with it
	answer  http1Reply
	upload  upload
	line    []byte // of the access log
}

// reset makes an exchange ready for another request.
func (ex *exchange) reset() {
	ex.method, ex.target, ex.host, ex.fields = "", "", "", nil
	ex.body, ex.length, ex.whole, ex.expect = nil, 0, nil, false
	ex.malformed, ex.identity = false, nil
	ex.room = nil
	ex.upgrade, ex.server, ex.from, ex.up = nil, nil, nil, nil
	ex.id, ex.user, ex.via, ex.granted = "", "", "", nil
	if ex.failed.Load() != nil {
		ex.failed.Store(nil)
	}
	ex.hold.mu.Lock()
	defer ex.hold.mu.Unlock()
	ex.hold.interrupted = false
}

// requestBody is the body of a request, on its way from the client.
type requestBody interface {
	// Read is that of io.Reader. A read that fails because of the client
	// returns a *bodyError. The last data may come together with io.EOF.
	io.Reader
	// invite asks a client for the body that waits to be asked.
	invite() error
	// trailers returns the trailers that came, once Read has returned io.EOF.
	trailers() fields
	// stop makes a Read that waits fail, and all later ones.
	stop()
}

// answerWriter takes the answer to an exchange. The wire decides about framing;
// connection fields are the door's business.
type answerWriter interface {
	// WriteHead takes the head: of interim answers (1xx but 101) any number,
	// which are sent at once, then of the final one. Content-Length, if it is
	// among the fields, holds.
	WriteHead(status int, head fields) error
	// Write takes some of the body.
	Write(p []byte) (int, error)
	// Flush sends what was taken and may not have been sent yet.
	Flush() error
	// Finish ends the answer and sends all of it. An answer that is not
	// finished is a broken one, and the client gets to see that.
	Finish(trailers fields) error
}

// hold is the connection to a server that an exchange holds now, its stream there,
// or a question of its own that has to be answered first.
type hold struct {
	mu          sync.Mutex
	conn        interface{ breakOff() }
	interrupted bool
}

// take notes that the exchange holds c (nil: none any more). It reports false
// if the exchange has been interrupted.
func (h *hold) take(c interface{ breakOff() }) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conn = c
	return !h.interrupted
}

// interrupt makes the exchange fail soon: there is nobody to answer any more. It
// may be called from any goroutine.
func (ex *exchange) interrupt() {
	ex.hold.mu.Lock()
	defer ex.hold.mu.Unlock()
	ex.hold.interrupted = true
	if ex.hold.conn != nil {
		ex.hold.conn.breakOff()
	}
}

// breakOff ends a question that another exchange has put, with that one.
func (ex *exchange) breakOff() { ex.interrupt() }

// over reports whether the exchange has been interrupted.
func (ex *exchange) over() bool {
	ex.hold.mu.Lock()
	defer ex.hold.mu.Unlock()
	return ex.hold.interrupted
}

// sent counts n bytes of the body that went to the server.
func (ex *exchange) sent(n int) {
	ex.count.bytesIn.Add(int64(n))
	ex.trail.in += int64(n)
	ex.server.AddBytes(int64(n), 0)
}

// received counts n bytes of a body that came from the server and went to the
// client.
func (ex *exchange) received(n int64) {
	ex.server.AddBytes(0, n)
	ex.gave(n)
}

// gave counts n bytes of a body that went to the client.
func (ex *exchange) gave(n int64) {
	ex.count.bytesOut.Add(n)
	ex.trail.out += n
}

// peer is the other end of a client's connection. One exchange at a time uses it.
type peer struct {
	addr netip.Addr // the real one, without zone
	text string     // the same, for people and fields
	// proxy is the address of the trusted proxy that said who the client is; "":
	// the client is who connected.
	proxy   string
	session *session // of TLS; nil: there is none
	counted bool     // the connection is, among those of its client

	// What Forwarded was for the last host, for most clients ask for one.
	host, scheme, forwarded string
}

func newPeer(addr netip.Addr) *peer {
	addr = plainAddr(addr)
	return &peer{addr: addr, text: addr.String()}
}

// forwardedField returns the value of the field Forwarded for that host.
func (p *peer) forwardedField(host, scheme string) string {
	if p.forwarded == "" || p.host != host || p.scheme != scheme {
		p.host, p.scheme = strings.Clone(host), scheme
		p.forwarded = forwarded(p.addr, p.host, scheme)
	}
	return p.forwarded
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
