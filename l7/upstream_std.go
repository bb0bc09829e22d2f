package l7

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxIdlePerServer bounds the kept connections to one server.
	maxIdlePerServer = 1024
	// keepIdle is how long a connection is kept without use. A server that
	// closes earlier is noticed; the fewer such moments, the better.
	keepIdle = 30 * time.Second
	// waitForContinue bounds the wait for a server's 100 before the body is
	// sent all the same (RFC 9110, section 10.1.1).
	waitForContinue = time.Second
	// maxAnswerHead bounds the head of an answer, in bytes.
	maxAnswerHead = 1 << 20
)

// upstreamSettings are what a stdUpstream is made from; comparable.
type upstreamSettings struct {
	connect  time.Duration // to connect to one server
	response time.Duration // for the head of an answer and each further part, and for the server to take more of a request
}

// stdUpstream carries exchanges by HTTP/1.1 with http.Transport. After retire
// no connection is kept any longer than its exchange.
type stdUpstream struct {
	settings  upstreamSettings
	transport *http.Transport
	inFlight  atomic.Int64
	retired   atomic.Bool
}

var _ upstream = (*stdUpstream)(nil)

func newStdUpstream(set upstreamSettings) *stdUpstream {
	dialer := net.Dialer{Timeout: set.connect}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &stdUpstream{settings: set, transport: &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, &connectError{err: err}
			}
			return &serverConn{c.(*net.TCPConn), set.response}, nil
		},
		DisableCompression:     true, // bodies are passed as they are
		MaxIdleConnsPerHost:    maxIdlePerServer,
		IdleConnTimeout:        keepIdle,
		ResponseHeaderTimeout:  set.response,
		ExpectContinueTimeout:  waitForContinue,
		MaxResponseHeaderBytes: maxAnswerHead,
		Protocols:              protocols,
	}}
}

// retire closes the idle connections, and those in use once they become idle.
func (u *stdUpstream) retire() {
	u.retired.Store(true)
	u.transport.CloseIdleConnections()
}

// end counts the end of an exchange.
func (u *stdUpstream) end() {
	if u.inFlight.Add(-1) == 0 && u.retired.Load() {
		u.transport.CloseIdleConnections()
	}
}

// roundTrip is described at the interface upstream.
func (u *stdUpstream) roundTrip(ctx context.Context, address string, ex *exchange, interim func(status int, head fields)) (*answer, error) {
	u.inFlight.Add(1)
	var relay interimRelay
	trace, connected := relay.trace(interim), false
	trace.GotConn = func(httptrace.GotConnInfo) { connected = true } // called by RoundTrip itself
	ctx, cut := context.WithCancelCause(httptrace.WithClientTrace(ctx, trace))
	end := func() {
		cut(nil)
		u.end()
	}
	resp, err := u.transport.RoundTrip(newRequest(ctx, address, ex))
	relay.stop()
	if err != nil {
		end()
		if ce := (*connectError)(nil); connected && errors.As(err, &ce) {
			return nil, &connectError{err: ce.err, maybeSent: true}
		}
		return nil, err
	}
	if resp.StatusCode < 100 {
		resp.Body.Close()
		end()
		return nil, fmt.Errorf("status %03d is none", resp.StatusCode)
	}
	a := &answer{
		status:   resp.StatusCode,
		fields:   fromHeader(resp.Header),
		trailers: func() fields { return fromHeader(resp.Trailer) },
	}
	// The transport has moved the announcement of trailers out of the header.
	for name := range resp.Trailer {
		a.fields = append(a.fields, field{"Trailer", name})
	}
	body := &answerBody{ReadCloser: resp.Body, end: sync.OnceFunc(end)}
	if rw, ok := resp.Body.(io.ReadWriteCloser); ok {
		a.body = &serverStream{body, rw}
	} else {
		a.body = &patientBody{ReadCloser: body, ctx: ctx, cut: cut, patience: u.settings.response}
	}
	return a, nil
}

// newRequest returns ex as net/http wants it, for the server at address.
func newRequest(ctx context.Context, address string, ex *exchange) *http.Request {
	req := &http.Request{
		Method:        ex.method,
		URL:           requestURL(address, ex.target),
		Host:          ex.host,
		Header:        toHeader(ex.fields),
		ContentLength: ex.length,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
	}
	if ex.fields.has("Expect") {
		// Otherwise the transport would, to keep the connection, ask the client
		// for the body and send it even when the server has refused it.
		req.Close = true
	}
	if !ex.fields.has("User-Agent") {
		req.Header["User-Agent"] = nil // or net/http would add its own
	}
	if ex.body != nil {
		body := &requestBody{Reader: ex.body}
		if names := trailerNames(ex); len(names) > 0 {
			req.Trailer = make(http.Header)
			for _, n := range names {
				req.Trailer[textproto.CanonicalMIMEHeaderKey(n)] = nil
			}
			body.atEOF = func() {
				for _, f := range trailerFields(ex.trailers()) {
					req.Trailer[f.name] = append(req.Trailer[f.name], f.value)
				}
			}
		}
		req.Body = body
	}
	return req.WithContext(ctx)
}

// trailerNames returns the announced trailers that may be passed on.
func trailerNames(ex *exchange) []string {
	var names []string
	for _, n := range ex.trailerNames {
		if validTrailer(n) {
			names = append(names, n)
		}
	}
	return names
}

// requestURL returns a URL that connects to address and whose request line is
// target, byte for byte.
func requestURL(address, target string) *url.URL {
	u := &url.URL{Scheme: "http", Host: address}
	switch {
	case !strings.HasPrefix(target, "//"):
		u.Opaque = target
	default:
		// An opaque part that begins so would be taken for an authority.
		path, query, found := strings.Cut(target, "?")
		u.RawPath, u.RawQuery, u.ForceQuery = path, query, found && query == ""
		u.Path, _ = url.PathUnescape(path)
	}
	return u
}

// interimRelay passes interim answers on until it is stopped. The transport
// calls it from a goroutine that may outlast the exchange.
type interimRelay struct {
	mu      sync.Mutex
	stopped bool
}

func (r *interimRelay) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
}

func (r *interimRelay) trace(interim func(status int, head fields)) *httptrace.ClientTrace {
	return &httptrace.ClientTrace{Got1xxResponse: func(status int, head textproto.MIMEHeader) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		// 100 makes the transport read the body, which makes the door ask the
		// client for it: passing it on once more would be one too many.
		if !r.stopped && status != http.StatusContinue {
			interim(status, fromHeader(http.Header(head)))
		}
		return nil
	}}
}

// requestBody is what the transport reads. The transport's wish to close it is
// ignored: another server may still get it, and its owner is the door.
type requestBody struct {
	io.Reader
	atEOF func() // may be nil
}

func (b *requestBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF && b.atEOF != nil {
		b.atEOF()
		b.atEOF = nil
	}
	return n, err
}

func (b *requestBody) Close() error { return nil }

// answerBody calls end when it is closed.
type answerBody struct {
	io.ReadCloser
	end func()
}

func (b *answerBody) Close() error {
	err := b.ReadCloser.Close()
	b.end()
	return err
}

// serverStream is the connection of an upgraded exchange.
type serverStream struct {
	*answerBody
	rw io.ReadWriteCloser
}

func (s *serverStream) Write(p []byte) (int, error) { return s.rw.Write(p) }

func (s *serverStream) CloseWrite() error {
	if half, ok := s.rw.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return http.ErrNotSupported
}

// serverConn is a connection to a server. A server that takes nothing for the
// time stall fails the write, so that it does not hold the request for ever.
type serverConn struct {
	*net.TCPConn
	stall time.Duration
}

func (c *serverConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.TCPConn.Write(p)
}

// ReadFrom hides the promoted one, which would write without a deadline.
func (c *serverConn) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{c}, r)
}

func fromHeader(h http.Header) fields {
	out := make(fields, 0, len(h)+2)
	for name, values := range h {
		for _, v := range values {
			out = append(out, field{name, v})
		}
	}
	return out
}

func toHeader(f fields) http.Header {
	h := make(http.Header, len(f)+1)
	for _, l := range f {
		name := textproto.CanonicalMIMEHeaderKey(l.name)
		h[name] = append(h[name], l.value)
	}
	return h
}
