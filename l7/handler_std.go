package l7

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ServeHTTP turns a request by HTTP/2 into an exchange and carries it out.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(connKey{}).(*conn)
	if !c.begin() {
		panic(http.ErrAbortHandler)
	}
	defer c.end()

	r.Header.Del("Host") // HTTP/2 has it beside r.Host
	control := http.NewResponseController(w)
	ex := &exchange{
		method: r.Method,
		now:    time.Now(),
		target: r.RequestURI,
		scheme: "https",
		host:   r.Host,
		fields: fromHeader(r.Header),
		peer:   newPeer(c.peer),
		answer: &stdAnswer{w: w, control: control, request: r, patience: c.stall},
	}
	// There is always a Body, its length alone tells.
	if r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0 {
		body := &stdBody{request: r, control: control, patience: c.stall}
		defer body.end()
		ex.body, ex.length = body, r.ContentLength
		ex.expect = r.Header.Get("Expect") != ""
		if len(r.Trailer) > 0 {
			var names []string
			for name := range r.Trailer {
				names = append(names, name)
			}
			ex.fields = append(ex.fields, field{Name: "Trailer", Value: strings.Join(names, ", ")})
		}
	}
	stop := context.AfterFunc(r.Context(), ex.interrupt)
	defer stop()
	if err := d.service.pipeline.serve(r.Context(), d.service.state.Load(), ex); err != nil {
		// For net/http this is the way to break off: it resets the stream.
		panic(http.ErrAbortHandler)
	}
}

func fromHeader(h http.Header) fields {
	out := make(fields, 0, len(h)+2)
	for name, values := range h {
		for _, v := range values {
			out = append(out, field{Name: name, Value: v})
		}
	}
	return out
}

// stdAnswer writes an answer with net/http.
type stdAnswer struct {
	w        http.ResponseWriter
	control  *http.ResponseController
	request  *http.Request
	patience time.Duration // for a client to take what is written

	length  int64 // of the answer's body, -1 if unknown
	written int64
}

// WriteHead is described at answerWriter.
func (a *stdAnswer) WriteHead(status int, head fields) error {
	if status < 200 && a.request.Header.Get("Expect") != "" {
		// net/http sends 100 when the body is read, on another goroutine, and its
		// buffer has no lock.
		return nil
	}
	h := a.w.Header()
	add(h, "", head)
	if status < 200 {
		a.w.WriteHeader(status)
		clear(h)
		return nil
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or net/http would guess
	}
	a.length = contentLength(h)
	a.w.WriteHeader(status)
	if a.length < 0 && a.request.Method != http.MethodHead && status != http.StatusNoContent && status != http.StatusNotModified {
		return a.control.Flush() // the body may be long in coming
	}
	return nil
}

// add adds fields to h. net/http writes them later than it gets them, when what
// they are views of may have been overwritten.
func add(h http.Header, prefix string, fs fields) {
	for _, f := range fs {
		h.Add(strings.Clone(prefix+f.Name), strings.Clone(f.Value))
	}
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
	_ = a.control.SetWriteDeadline(time.Now().Add(a.patience)) // net/http's own writer has it
	n, err := a.w.Write(p)
	a.written += int64(n)
	if a.written == a.length {
		return n, err // this goes out with the end, after the handler, and the time for it runs on
	}
	if err == nil {
		err = a.control.Flush()
	}
	_ = a.control.SetWriteDeadline(time.Time{}) // the server may take its time for the next part
	return n, err
}

// Flush is described at answerWriter; Write does it.
func (a *stdAnswer) Flush() error {
	if a.written > 0 || a.length <= 0 {
		return nil
	}
	return a.control.Flush()
}

// Finish is described at answerWriter.
func (a *stdAnswer) Finish(trailers fields) error {
	add(a.w.Header(), http.TrailerPrefix, trailers)
	return nil
}

// stdBody is the body of a request. A client that sends nothing for the time
// patience fails the read.
type stdBody struct {
	request  *http.Request
	patience time.Duration

	reading sync.Mutex // held while the body is read

	mu      sync.Mutex // guards control against use after the exchange
	control *http.ResponseController
	ended   bool // nobody reads on
	eof     bool
}

// invite is described at requestBody: net/http asks by itself.
func (b *stdBody) invite() error { return nil }

// trailers is described at requestBody.
func (b *stdBody) trailers() fields { return fromHeader(b.request.Trailer) }

func (b *stdBody) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if !b.arm(time.Now().Add(b.patience)) {
		return 0, &bodyError{http.ErrBodyReadAfterClose}
	}
	n, err := b.request.Body.Read(p)
	if err == nil {
		return n, nil
	}
	if err == io.EOF {
		b.complete()
		return n, io.EOF
	}
	return n, &bodyError{err}
}

// arm sets the deadline for reading; false if nobody is to read on.
func (b *stdBody) arm(deadline time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		_ = b.control.SetReadDeadline(deadline) // an error shows in reading
	}
	return !b.ended
}

// complete notes that all has come. The deadline must not hit what net/http
// reads next, be it only to notice that the client is gone.
func (b *stdBody) complete() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.eof = true
	if !b.ended {
		_ = b.control.SetReadDeadline(time.Time{})
	}
}

// stop is described at requestBody.
func (b *stdBody) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	if !b.eof {
		_ = b.control.SetReadDeadline(time.Unix(1, 0))
	}
}

// end waits until nobody reads the body any more.
func (b *stdBody) end() {
	b.stop()
	b.reading.Lock()
	defer b.reading.Unlock()
}
