package l7

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ServeHTTP turns a request into an exchange and carries it out.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(connKey{}).(*conn)
	if !c.begin() {
		panic(http.ErrAbortHandler)
	}
	defer c.end()

	r.Header.Del("Host") // HTTP/2 has it beside r.Host
	a := &stdAnswer{w: w, control: http.NewResponseController(w), request: r}
	ex := &exchange{
		method:  r.Method,
		target:  originForm(r.RequestURI),
		scheme:  "http",
		host:    r.Host,
		fields:  fromHeader(r.Header),
		length:  r.ContentLength,
		client:  c.peer,
		answer:  a,
		upgrade: a.upgrade,
	}
	if r.TLS != nil {
		ex.scheme = "https"
	}
	ex.mayLackHost = !r.ProtoAtLeast(1, 1)
	if r.ProtoMajor != 1 || ex.mayLackHost {
		ex.upgrade = nil // HTTP/1.0 has none either: RFC 9110, section 7.8
	}
	if r.ProtoMajor != 1 {
		a.patience = c.stall // conn.Write cannot see that one stream stands still
	}
	// By HTTP/2 there is always a Body, its length alone tells.
	if r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0 {
		if r.ProtoMajor == 1 {
			_ = a.control.EnableFullDuplex() // no error: it is net/http's own writer
		}
		a.body = &stdBody{body: r.Body, control: a.control, patience: c.stall}
		defer a.body.end()
		ex.body = a.body
		for name := range r.Trailer {
			ex.trailerNames = append(ex.trailerNames, name)
		}
		ex.trailers = func() fields { return fromHeader(r.Trailer) }
	}

	if err := d.service.pipeline.serve(r.Context(), d.service.state.Load(), ex); err != nil {
		if a.untilClose {
			c.reset() // an orderly close would be the orderly end of the answer
		}
		// For net/http this is the way to break off: it closes the connection,
		// or resets the stream.
		panic(http.ErrAbortHandler)
	}
}

// originForm returns the target of a request without scheme and authority,
// which a client may send too (RFC 9112, section 3.2.2). What has not both of
// them stays as it is.
func originForm(target string) string {
	scheme, rest, ok := strings.Cut(target, "://")
	if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return target
	}
	i := strings.IndexAny(rest, "/?#")
	switch {
	case i == 0 || rest == "":
		return target
	case i < 0:
		return "/"
	case rest[i] != '/':
		return "/" + rest[i:]
	}
	return rest[i:]
}

// stdAnswer writes an answer with net/http.
type stdAnswer struct {
	w        http.ResponseWriter
	control  *http.ResponseController
	request  *http.Request
	body     *stdBody      // nil if the request has none
	patience time.Duration // for an HTTP/2 client to take what is written; 0: conn's affair

	length     int64 // of the answer's body, -1 if unknown
	written    int64
	untilClose bool // the end of the connection is the end of the answer
}

// WriteHead is described at answerWriter.
func (a *stdAnswer) WriteHead(status int, head fields) error {
	if status < 200 {
		return a.writeInterim(status, head)
	}
	h := a.w.Header()
	for _, f := range head {
		name := textproto.CanonicalMIMEHeaderKey(f.name)
		h[name] = append(h[name], f.value)
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or net/http would guess
	}
	if a.request.ProtoMajor == 1 && !a.another() {
		h["Connection"] = []string{"close"}
	}
	a.length = contentLength(h)
	a.untilClose = a.length < 0 && !a.request.ProtoAtLeast(1, 1)
	a.w.WriteHeader(status)
	if a.length < 0 && a.request.Method != http.MethodHead && status != http.StatusNoContent && status != http.StatusNotModified {
		return a.control.Flush() // the body may be long in coming
	}
	return nil
}

// another reports whether the connection may carry another request after this
// one. The rest of a body that nobody has read must never be taken for the next
// request. Nor may what follows a request with a Content-Length beside its
// Transfer-Encoding (RFC 9112, section 6.1): net/http drops the length without
// a word, so every request in chunks is treated like that.
func (a *stdAnswer) another() bool {
	return len(a.request.TransferEncoding) == 0 && (a.body == nil || a.body.whole())
}

// writeInterim sends an interim answer, unless by HTTP/1.0, which has none (RFC
// 9110, section 15.2), or to a client that waits for 100: net/http sends that
// when the body is read, on another goroutine, and its buffer has no lock.
func (a *stdAnswer) writeInterim(status int, head fields) error {
	if !a.request.ProtoAtLeast(1, 1) || a.request.Header.Get("Expect") != "" {
		return nil
	}
	h := a.w.Header()
	for _, f := range head {
		h.Add(f.name, f.value)
	}
	a.w.WriteHeader(status)
	clear(h)
	return nil
}

// contentLength returns the value of Content-Length, -1 if there is none.
func contentLength(h http.Header) int64 {
	n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// Write is described at answerWriter.
func (a *stdAnswer) Write(p []byte) (int, error) {
	a.arm()
	n, err := a.w.Write(p)
	a.written += int64(n)
	if a.written == a.length {
		return n, err // this goes out with the end, after the handler, and the time for it runs on
	}
	if err == nil {
		err = a.control.Flush()
	}
	a.disarm()
	return n, err
}

// arm gives an HTTP/2 client that opens no window until its patience is over;
// then the stream is reset.
func (a *stdAnswer) arm() {
	if a.patience > 0 {
		_ = a.control.SetWriteDeadline(time.Now().Add(a.patience)) // net/http's own writer has it
	}
}

// disarm lets the server take its time for the next part.
func (a *stdAnswer) disarm() {
	if a.patience > 0 {
		_ = a.control.SetWriteDeadline(time.Time{})
	}
}

// Finish is described at answerWriter.
func (a *stdAnswer) Finish(trailers fields) error {
	h := a.w.Header()
	for _, f := range trailers {
		h.Add(http.TrailerPrefix+f.name, f.value)
	}
	return nil
}

// upgrade is described at exchange.
func (a *stdAnswer) upgrade(head fields) (io.ReadWriteCloser, error) {
	nc, rw, err := a.control.Hijack()
	if err != nil {
		return nil, err
	}
	early, _ := rw.Reader.Peek(rw.Reader.Buffered())
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = toHeader(head).Write(&b)
	b.WriteString("\r\n")
	if _, err := nc.Write(b.Bytes()); err != nil {
		nc.Close()
		return nil, err
	}
	return &clientStream{nc, io.MultiReader(bytes.NewReader(bytes.Clone(early)), nc)}, nil
}

// clientStream is the connection of an upgraded exchange.
type clientStream struct {
	net.Conn
	reader io.Reader // what net/http had read already, then Conn
}

func (s *clientStream) Read(p []byte) (int, error) { return s.reader.Read(p) }

// CloseWrite tells the client that nothing more comes.
func (s *clientStream) CloseWrite() error {
	return s.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

// stdBody is the body of a request. A client that sends nothing for the time
// patience fails the read.
type stdBody struct {
	body     io.Reader
	patience time.Duration

	reading sync.Mutex // held while body is read

	mu      sync.Mutex // guards control against use after the exchange
	control *http.ResponseController
	ended   bool // the exchange has
	eof     bool
	failed  bool // reading has
}

func (b *stdBody) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if !b.arm(time.Now().Add(b.patience)) {
		return 0, &bodyError{http.ErrBodyReadAfterClose}
	}
	n, err := b.body.Read(p)
	if err == nil {
		return n, nil
	}
	b.stopped(err)
	if err == io.EOF {
		return n, io.EOF
	}
	return n, &bodyError{err}
}

// arm sets the deadline for reading; false if the exchange has ended.
func (b *stdBody) arm(deadline time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		_ = b.control.SetReadDeadline(deadline) // an error shows in reading
	}
	return !b.ended
}

// stopped notes how reading stopped. If the body is complete the deadline must
// not hit what net/http reads next, be it only to notice that the client is
// gone.
func (b *stdBody) stopped(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.eof, b.failed = err == io.EOF, err != io.EOF
	if b.eof && !b.ended {
		_ = b.control.SetReadDeadline(time.Time{})
	}
}

// whole reports whether the body was read to its end.
func (b *stdBody) whole() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.eof
}

// end ends the body's part in the exchange. Who reads it still, because the
// server answered early, is interrupted. net/http then reads some of the rest,
// so that the client gets to see the answer, but not for ever.
func (b *stdBody) end() {
	linger := b.finish()
	b.reading.Lock() // no reader is left
	defer b.reading.Unlock()
	if linger {
		_ = b.control.SetReadDeadline(time.Now().Add(lingerTime))
	}
}

// finish makes all reading fail, unless the body is complete, and reports
// whether something is left that may be worth waiting for.
func (b *stdBody) finish() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	if !b.eof {
		_ = b.control.SetReadDeadline(time.Unix(1, 0))
	}
	return !b.eof && !b.failed
}

// lingerTime bounds how long the rest of a body is read that nobody wants.
const lingerTime = 5 * time.Second
