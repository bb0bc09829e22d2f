package l7

import (
	"io"
	"time"

	"appliance/l7/http1"
)

// answer is what an upstream got from a server. Whoever got it closes it.
type answer struct {
	status int
	fields fields // good until next is called
	// trailer says that the head announces trailers; trailers are those that
	// came, once next has returned io.EOF.
	trailer  bool
	trailers fields

	head   http1.Response
	conn   *serverConn // nil once it has been released
	in     *inbox      // then: what fields, trailers and the last part are views of
	ex     *exchange
	left   int64 // of a body of known length
	chunks http1.Chunks
	done   bool
}

// begin takes over from the connection, which has read the head.
func (a *answer) begin(c *serverConn, ex *exchange) {
	a.conn, a.in, a.ex = c, nil, ex
	a.status, a.fields = a.head.Status, a.head.Fields
	a.trailers = a.trailers[:0]
	a.trailer = a.head.Chunked && a.fields.has("Trailer")
	a.left, a.chunks = a.head.Length, http1.Chunks{}
	a.done = a.left == 0
}

// ready reports whether next returns at once.
func (a *answer) ready() bool { return a.done || a.conn.in.r < a.conn.in.w }

// next returns the next part of the body, which is good until the following
// call; it may be empty. io.EOF comes with the last part or after it.
func (a *answer) next() ([]byte, error) {
	if a.done {
		return nil, io.EOF
	}
	in := a.conn.in
	if in.r == in.w {
		if err := a.more(); err != nil {
			if err == io.EOF && !a.head.Chunked && a.left < 0 {
				a.done = true
				return nil, io.EOF
			}
			return nil, broken(err)
		}
		in = a.conn.in
	}
	if a.head.Chunked {
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

func (a *answer) nextChunk(in *inbox) ([]byte, error) {
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
func (a *answer) more() error {
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

// release gives the connection to others if the exchange with the server is over:
// its client may take long to read what is left.
func (a *answer) release() {
	if a.done && a.ex.out.upload.settled() {
		a.end()
	}
}

// close ends the exchange with the server.
func (a *answer) close() {
	a.end()
	if a.in != nil {
		putInbox(a.in)
		a.in = nil
	}
}

// end keeps the connection if both sides have said all they had to say.
func (a *answer) end() {
	c, ex := a.conn, a.ex
	if c == nil {
		return
	}
	whole := ex.out.upload.end(c, ex)
	if ex.body != nil && ex.whole == nil && ex.expect && !ex.out.upload.started() {
		whole = false // the server may wait for the body still
	}
	keep := whole && a.done && !a.head.Close && a.status != 101 && c.in.r == c.in.w
	a.conn, a.in, c.in = nil, c.in, nil
	if !ex.hold.take(nil) || !keep {
		c.tcp.Close()
		return
	}
	c.up.keep(c, ex.now)
}

// stream returns the connection of an upgraded exchange.
func (a *answer) stream() io.ReadWriteCloser {
	c := a.conn
	_ = c.tcp.SetDeadline(time.Time{}) // fails only if closed
	early := append([]byte(nil), c.in.b[c.in.r:c.in.w]...)
	c.drop() // an idle stream needs no buffer
	return &serverStream{c.tcp, early}
}

// serverStream is the connection of an upgraded exchange.
type serverStream struct {
	streamConn
	early []byte // what was read behind the head
}

func (s *serverStream) Read(p []byte) (int, error) {
	if len(s.early) > 0 {
		n := copy(p, s.early)
		s.early = s.early[n:]
		return n, nil
	}
	return s.streamConn.Read(p)
}
