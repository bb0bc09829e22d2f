package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// outbox is how many messages wait to be written. Heartbeats and reports are not
// among them: of those only the newest counts.
const outbox = 64

// farewellTime is how long the other end gets to take a goodbye.
const farewellTime = 250 * time.Millisecond

// bye is the last message of a session.
type bye struct {
	// Final: the sender stops, and will not be back in this life.
	Final  bool   `json:"final"`
	Reason string `json:"reason"`
}

// end says how a session came to its end.
type end struct {
	session *session
	bye     *bye // the other end's, nil if it said none
	silent  bool // nothing was heard for too long
	err     error
}

// session is one connection to another node, after the greetings.
type session struct {
	neighbour *neighbour
	wire      *wire
	conn      *tls.Conn
	dialed    bool   // by this node
	instance  string // of the other one
	greeting  []byte // what is written first

	out     chan frame
	news    chan struct{} // there may be something new to report
	asked   atomic.Bool   // the other node wants a report, new or not
	leaving chan bye      // the last message, then the end
	over    chan struct{} // closed when reading has ended

	pending pending
	serving serving
}

func newSession(n *neighbour, w *wire, conn *tls.Conn, h hello, dialed bool) *session {
	w.patience.Store(int64(lostAfter(h.pace())))
	return &session{
		neighbour: n, wire: w, conn: conn, dialed: dialed, instance: h.Instance,
		out:     make(chan frame, outbox),
		news:    make(chan struct{}, 1),
		leaving: make(chan bye, 1),
		over:    make(chan struct{}),
		serving: serving{slots: make(chan struct{}, maxCalls), cancels: make(map[uint64]context.CancelFunc)},
	}
}

// run is the life of a session. It returns how that ended, with everything it
// started ended.
func (s *session) run() end {
	ctx, stop := context.WithCancel(context.Background())
	written := make(chan struct{})
	go s.write(written)
	e := s.read(ctx)
	close(s.over)
	s.conn.NetConn().Close()
	stop()
	s.pending.end()
	<-written
	s.serving.running.Wait()
	return e
}

// poke says that there may be something new to report.
func (s *session) poke() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// leave says goodbye and ends the session.
func (s *session) leave(b bye) {
	select {
	case s.leaving <- b:
	default: // it is leaving already
	}
}

// post has a message written. A link that is not taken from is no place to wait.
func (s *session) post(k kind, message any) error {
	body, err := json.Marshal(message)
	if err != nil {
		return err
	}
	return s.put(k, body)
}

// put does the same with a body as it is.
func (s *session) put(k kind, body []byte) error {
	if len(body) > maxFrame {
		return fmt.Errorf("%w: %d bytes", errTooLarge, len(body))
	}
	select {
	case s.out <- frame{k, body}:
		return nil
	case <-s.over:
		return ErrNoLink
	default:
		return fmt.Errorf("the peer link to %s is congested", s.neighbour.name)
	}
}

// write writes until the session is over.
func (s *session) write(written chan<- struct{}) {
	defer close(written)
	beat := time.NewTicker(s.neighbour.mesh.cfg.Heartbeat)
	defer beat.Stop()
	buf, reported := s.greeting, []byte(nil)
	buf, reported = s.appendReport(buf, reported, true)
	for {
		if len(buf) > 0 {
			s.conn.SetWriteDeadline(time.Now().Add(lostAfter(s.neighbour.mesh.cfg.Heartbeat)))
			if _, err := s.conn.Write(buf); err != nil {
				s.conn.NetConn().Close() // which ends the reading
				return
			}
		}
		buf = buf[:0]
		select {
		case f := <-s.out:
			// A call is judged by what this node has said of itself.
			select {
			case <-s.news:
				buf, reported = s.appendReport(buf, reported, s.asked.Swap(false))
			default:
			}
			buf = f.append(buf)
		case <-s.news:
			buf, reported = s.appendReport(buf, reported, s.asked.Swap(false))
		case <-beat.C:
			if buf, reported = s.appendReport(buf, reported, false); len(buf) == 0 {
				buf = frame{kind: kindBeat}.append(buf)
			}
		case b := <-s.leaving:
			s.farewell(buf, b)
			return
		case <-s.over:
			return
		}
	}
}

// appendReport appends a report to buf if it says something new or force is set.
// It returns what the other node will have been told.
func (s *session) appendReport(buf, reported []byte, force bool) (out, now []byte) {
	body, err := json.Marshal(s.neighbour.mesh.report())
	if err == nil && len(body) > maxFrame {
		err = fmt.Errorf("%w: %d bytes", errTooLarge, len(body))
	}
	if err != nil {
		s.neighbour.mesh.complain("report", s.neighbour.name, "a report cannot be sent", err)
		return buf, reported
	}
	if bytes.Equal(body, reported) && !force {
		return buf, reported
	}
	return frame{kindReport, body}.append(buf), body
}

// farewell writes what waits and the goodbye, and leaves the reading to end when
// the other end has closed: a connection that is closed while something unread
// waits is reset, and the goodbye would be lost.
func (s *session) farewell(buf []byte, b bye) {
	for {
		select {
		case f := <-s.out:
			buf = f.append(buf)
			continue
		default:
		}
		break
	}
	body, _ := json.Marshal(b)
	buf = frame{kindBye, body}.append(buf)
	s.wire.patience.Store(0)
	s.conn.SetDeadline(time.Now().Add(farewellTime))
	if _, err := s.conn.Write(buf); err != nil || s.conn.CloseWrite() != nil {
		s.conn.NetConn().Close()
	}
}

// read reads until the connection ends.
func (s *session) read(ctx context.Context) end {
	for {
		f, err := readFrame(s.conn, maxFrame)
		if err == nil {
			var last *bye
			if last, err = s.take(ctx, f); last != nil {
				return end{session: s, bye: last}
			}
		}
		if err != nil {
			return end{session: s, silent: errors.Is(err, os.ErrDeadlineExceeded), err: err}
		}
	}
}

// take acts on one frame. It returns the other end's goodbye if f is that.
func (s *session) take(ctx context.Context, f frame) (*bye, error) {
	var err error
	switch f.kind {
	case kindReport:
		var r Report
		if err = json.Unmarshal(f.body, &r); err == nil {
			// A call that comes after it is not carried out before it is known.
			heard := make(chan struct{})
			select {
			case s.neighbour.reports <- reported{s, r, heard}:
				<-heard
			case <-s.neighbour.done:
			}
		}
	case kindAsk:
		s.asked.Store(true)
		s.poke()
	case kindCall:
		var c call
		if err = json.Unmarshal(f.body, &c); err == nil {
			s.serve(ctx, c)
		}
	case kindReply:
		var r reply
		if err = json.Unmarshal(f.body, &r); err == nil {
			s.pending.answer(r)
		}
	case kindCancel:
		var c cancel
		if err = json.Unmarshal(f.body, &c); err == nil {
			s.serving.cancel(c.ID)
		}
	case kindBulk:
		if give := s.neighbour.mesh.bulk; give != nil {
			give(s.neighbour.name, f.body)
		}
	case kindBye:
		var b bye
		if err = json.Unmarshal(f.body, &b); err == nil {
			return &b, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("a frame of kind %d cannot be read: %w", f.kind, err)
	}
	return nil, nil
}

// wire is a TCP connection that is given up after a silence.
type wire struct {
	net.Conn
	// patience is for how long nothing may be heard; 0 for as long as the
	// deadline that others have set.
	patience atomic.Int64
}

// heldUp is by how much a deadline must have been missed for this process to
// have been held up: then what has arrived meanwhile is heard first.
const heldUp = 50 * time.Millisecond

// Read reads, and fails with os.ErrDeadlineExceeded after too long a silence.
func (w *wire) Read(p []byte) (int, error) {
	patience := time.Duration(w.patience.Load())
	if patience == 0 {
		return w.Conn.Read(p)
	}
	for {
		by := time.Now().Add(patience)
		if err := w.Conn.SetReadDeadline(by); err != nil {
			return 0, err
		}
		n, err := w.Conn.Read(p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(by) < heldUp {
			return n, err
		}
		patience = min(patience, lostMin)
	}
}
