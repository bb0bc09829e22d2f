package l7

import (
	"io"
	"time"

	"appliance/l7/http1"
)

// answer is what an upstream got from a server. Whoever got it closes it. All
// methods are for one goroutine.
type answer interface {
	// head returns what came first.
	head() *answerHead
	// ready reports whether next returns at once.
	ready() bool
	// next returns the next part of the body, which is good until the following
	// call; it may be empty. io.EOF comes with the last part or after it.
	next() ([]byte, error)
	// splice carries a large rest of the body to the client in the kernel, behind
	// what waits to be sent, if that can be done.
	splice(to answerWriter) error
	// release gives the connection to others if the exchange with the server is
	// over: its client may take long to read what is left.
	release()
	// stream returns the connection of an upgraded exchange.
	stream() io.ReadWriteCloser
	// close ends the exchange with the server.
	close()
}

// answerHead is the head of an answer, and its trailers.
type answerHead struct {
	status int
	fields fields // good until next is called
	// trailer says that the head announces trailers; trailers are those that
	// came, once next has returned io.EOF.
	trailer  bool
	trailers fields
}

// http1Reply is an answer by HTTP/1.
type http1Reply struct {
	answerHead
	parsed http1.Response
	conn   *serverConn // nil once it has been released
	in     *inbox      // then: what fields, trailers and the last part are views of
	ex     *exchange
	left   int64 // of a body of known length
	chunks http1.Chunks
	done   bool
}

// begin takes over from the connection, which has read the head.
func (a *http1Reply) begin(c *serverConn, ex *exchange) {
	a.conn, a.in, a.ex = c, nil, ex
	a.status, a.fields = a.parsed.Status, a.parsed.Fields
	a.trailers = a.trailers[:0]
	a.trailer = a.parsed.Chunked && a.fields.has("Trailer")
	a.left, a.chunks = a.parsed.Length, http1.Chunks{}
	a.done = a.left == 0
	c.large = false
}

// head is described at answer, as are the other methods of it.
func (a *http1Reply) head() *answerHead { return &a.answerHead }

func (a *http1Reply) ready() bool { return a.done || a.conn.in.r < a.conn.in.w }

func (a *http1Reply) next() ([]byte, error) {
	if a.done {
		return nil, io.EOF
	}
	in := a.conn.in
	if in.r == in.w {
		if err := a.more(); err != nil {
			if err == io.EOF && !a.parsed.Chunked && a.left < 0 {
				a.done = true
				return nil, io.EOF
			}
			return nil, broken(err)
		}
		in = a.conn.in
	}
	if a.parsed.Chunked {
		return a.nextChunk(in)
	}
	part := in.b[in.r:in.w]
	if a.left >= 0 {
		part = part[:min(int64(len(part)), a.left)]
		a.left -= int64(len(part))
		a.done = a.left == 0
	}
	in.r += len(part)
	if a.done {
		return part, io.EOF
	}
	return part, nil
}

func (a *http1Reply) nextChunk(in *inbox) ([]byte, error) {
	n, data, err := a.chunks.Next(in.b[in.r:in.w])
	in.r += n
	if err != nil || len(data) > 0 || !a.chunks.Trailer() {
		return data, err
	}
	for {
		var n int
		if a.trailers, n, err = http1.ParseTrailer(a.trailers[:0], in.b[in.r:in.w]); err != nil {
			return nil, err
		}
		if n > 0 {
			in.r += n
			a.done = true
			return nil, io.EOF
		}
		if err := a.more(); err != nil {
			return nil, broken(err)
		}
		in = a.conn.in
	}
}

// more reads more of the body.
func (a *http1Reply) more() error {
	if in := a.conn.in; in != nil {
		in.room()
	}
	a.ex.now = time.Now()
	return a.conn.more(a.ex, a.conn.up.settings.response)
}

// broken returns err, which for the end of a body in its midst is not io.EOF.
func broken(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (a *http1Reply) release() {
	if a.done && a.ex.out.upload.settled() {
		a.end()
	}
}

func (a *http1Reply) close() {
	a.end()
	if a.in != nil {
		putInbox(a.in)
		a.in = nil
	}
}

// end keeps the connection if both sides have said all they had to say.
func (a *http1Reply) end() {
	c, ex := a.conn, a.ex
	if c == nil {
		return
	}
	whole := ex.out.upload.finish(ex)
	if ex.body != nil && ex.whole == nil && ex.expect && !ex.out.upload.started() {
		whole = false // the server may wait for the body still
	}
	keep := whole && a.done && !a.parsed.Close && a.status != 101 && c.in.r == c.in.w && (c.tls == nil || c.silentTLS())
	a.conn, a.in, c.in = nil, c.in, nil
	if !ex.hold.take(nil) || !keep {
		c.close()
		return
	}
	c.up.keep(c, ex.now)
}

func (a *http1Reply) stream() io.ReadWriteCloser {
	c := a.conn
	_ = c.tcp.SetDeadline(time.Time{}) // fails only if closed
	c.writeBy = time.Time{}
	early := append([]byte(nil), c.in.b[c.in.r:c.in.w]...)
	c.drop() // an idle stream needs no buffer
	return &serverStream{c, early}
}

// serverStream is the connection of an upgraded exchange.
type serverStream struct {
	conn  *serverConn
	early []byte // what was read behind the head
}

func (s *serverStream) Read(p []byte) (int, error) {
	if len(s.early) > 0 {
		n := copy(p, s.early)
		s.early = s.early[n:]
		return n, nil
	}
	if s.conn.tls != nil {
		return s.conn.tls.Read(p)
	}
	return readConn(s.conn.raw, p)
}

// Write fails if the server takes nothing for the time that it has.
func (s *serverStream) Write(p []byte) (int, error) {
	if err := s.conn.armWrite(time.Now()); err != nil {
		return 0, err
	}
	return s.conn.writeAll(p)
}

// CloseWrite tells the server that nothing more comes.
func (s *serverStream) CloseWrite() error {
	return s.conn.rw.(interface{ CloseWrite() error }).CloseWrite()
}

func (s *serverStream) Close() error { return s.conn.rw.Close() }
