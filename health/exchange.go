package health

import (
	"context"
	"errors"
	"io"
	"net"
	"os"

	"appliance/internal/endpoint"
)

// exchange is the check of a server that is asked at once, if at all, and judged
// by what comes back. It knows neither sockets nor time: a batch carries it out.
type exchange struct {
	address endpoint.Endpoint
	send    []byte // what is said first; may be empty
	most    int    // bounds the answer, in bytes
	// judge judges all that the server has said so far. ended tells why no more
	// will come: io.EOF, errFull, errPieces, or what broke the connection or ran out of time;
	// nil as long as more may come, which judge waits for by returning errMore.
	// Without a judge the connection is enough. The answer is not to be kept.
	judge func(answer []byte, ended error) (finding, error)
}

var (
	// errMore says that an answer is not complete yet.
	errMore = errors.New("the answer is not complete")
	// errFull says that an answer is as long as it may be.
	errFull = errors.New("the answer is too long")
	// errPieces says that a server costs more than its check is worth.
	errPieces = errors.New("the answer comes in too many pieces")
)

// pieceSize is how much of an answer is read at a time, in bytes.
const pieceSize = 8 << 10

// maxJudged bounds how much is judged of an answer that comes in pieces, in bytes:
// with each, all of it is judged again. Packets of an Ethernet that come one by one
// take less than half of it for the longest answer.
const maxJudged = 4 << 20

// hearing is an answer while it comes.
type hearing struct {
	answer []byte // what has come before the last piece
	judged int    // bytes, all that came before with each piece
}

// room returns how many more bytes an answer may have.
func (h *hearing) room(x *exchange) int { return x.most - len(h.answer) }

// take judges the answer with one more piece, which is not kept, after which the
// connection has ended or not. The error is errMore if more is to come.
func (h *hearing) take(x *exchange, piece []byte, ended error) (finding, error) {
	full := len(piece) == h.room(x)
	if len(h.answer) > 0 {
		h.answer = append(h.answer, piece...)
		piece = h.answer
	}
	if full && ended == nil {
		ended = errFull
	}
	found, err := x.judge(piece, ended)
	if err != errMore {
		return found, err
	}
	if h.judged += len(piece); h.judged > maxJudged {
		// What has come may do, as it does where only the status counts.
		if found, err = x.judge(piece, errPieces); err != nil {
			return finding{}, errPieces
		}
		return found, nil
	}
	if len(h.answer) == 0 {
		h.answer = append(h.answer, piece...)
	}
	return finding{}, errMore
}

// over carries out an exchange over a connection, which has a deadline.
func (x *exchange) over(conn net.Conn) (finding, error) {
	if _, err := conn.Write(x.send); err != nil {
		return finding{}, err
	}
	var h hearing
	buffer := make([]byte, pieceSize)
	for {
		n, err := conn.Read(buffer[:min(h.room(x), len(buffer))])
		found, err := h.take(x, buffer[:n], err)
		if err != errMore {
			return found, err
		}
	}
}

// alone carries out an exchange on a connection to target that no batch has, over TLS
// unless client is nil.
func (x *exchange) alone(ctx context.Context, target Target, client *tlsClient) (finding, error) {
	conn, warning, err := dialSecured(ctx, target, client)
	if err != nil {
		return finding{}, err
	}
	defer func() { _ = conn.Close() }()
	found, err := x.over(conn)
	found.warning = warning
	return found, err
}

// way is how a check is carried out: as an exchange, in a batch, or by a probe.
type way struct {
	exchange *exchange
	probe    probe
}

// once carries out the check, until ctx ends.
func (w way) once(ctx context.Context) (finding, error) {
	if w.exchange == nil {
		return w.probe(ctx)
	}
	var o outcome
	b := batch{report: func(all []outcome) { o = all[0] }}
	deadline, _ := ctx.Deadline()
	b.run(ctx, []part{{exchange: w.exchange, deadline: deadline}})
	return o.finding, o.err
}

// soFar reads what has come of an answer.
type soFar struct {
	answer []byte
	ended  error
	short  bool // more has to come
}

// Read returns the rest of the answer, and then the reason why there is no more.
func (s *soFar) Read(p []byte) (int, error) {
	n := copy(p, s.answer)
	s.answer = s.answer[n:]
	switch {
	case n > 0:
		return n, nil
	case s.ended == nil:
		s.short = true
		return 0, errMore
	case s.ended == errFull:
		return 0, io.EOF
	}
	return 0, s.ended
}

// ranOut is how an exchange ends whose time is over.
var ranOut error = os.ErrDeadlineExceeded
