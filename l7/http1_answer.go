package l7

import (
	"net/http"
	"time"

	"appliance/l7/http1"
)

// http1Answer writes an answer to a client that speaks HTTP/1. What is small
// waits in out for what follows, so that most answers are one write.
type http1Answer struct {
	conn *http1Conn
	req  *http1.Request
	out  []byte

	left     int64 // of the body; -1 if that is not known
	chunked  bool
	close    bool // the connection ends with this answer
	finished bool
}

// copyMost is the largest part of a body that is copied to be sent together with
// what waits.
const copyMost = 4 << 10

// begin makes ready for the answer to req.
func (a *http1Answer) begin(req *http1.Request) {
	a.req, a.out = req, a.out[:0]
	a.left, a.chunked, a.close, a.finished = 0, false, false, false
}

// WriteHead is described at answerWriter.
func (a *http1Answer) WriteHead(status int, head fields) error {
	if status < 200 {
		return a.interim(status, head)
	}
	a.close = a.req.Close || !a.conn.server.keepsNext() || a.req.Method == http.MethodConnect || !a.conn.work.body.whole() ||
		a.conn.work.ex.malformed
	a.out = http1.AppendStatusLine(a.out, status, http.StatusText(status))
	facts := headFacts{length: -1}
	for i := range head {
		f := &head[i]
		ok, err := facts.note(status, f)
		if err != nil {
			return err
		}
		if ok {
			a.out = http1.AppendField(a.out, f.Name, f.Value)
		}
	}
	a.left = facts.length
	if !facts.dated {
		// RFC 9110, section 6.6.1
		a.out = http1.AppendField(a.out, "Date", a.conn.server.date.text(time.Now()))
	}
	switch {
	case a.req.Method == http.MethodHead || status == http.StatusNoContent || status == http.StatusNotModified:
		a.left = 0
	case a.left >= 0:
	case a.req.Minor == 0:
		a.close = true // which is the end of the answer
	default:
		a.chunked = true
		a.out = append(a.out, "Transfer-Encoding: chunked\r\n"...)
	}
	switch {
	case a.close:
		a.out = append(a.out, "Connection: close\r\n"...)
	case a.req.Minor == 0:
		a.out = append(a.out, "Connection: keep-alive\r\n"...)
	}
	a.out = append(a.out, crlf...)
	return nil
}

// interim sends an interim answer, but not by HTTP/1.0, which has none (RFC
// 9110, section 15.2).
func (a *http1Answer) interim(status int, head fields) error {
	if a.req.Minor == 0 {
		return nil
	}
	a.out = http1.AppendStatusLine(a.out, status, http.StatusText(status))
	a.out = append(http1.AppendFields(a.out, head), crlf...)
	return a.Flush()
}

// switchTo sends the answer 101.
func (a *http1Answer) switchTo(head fields) error {
	a.finished, a.close = true, true
	return a.interim(http.StatusSwitchingProtocols, head)
}

// Write is described at answerWriter.
func (a *http1Answer) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if a.left >= 0 {
		if int64(len(p)) > a.left {
			return 0, errAborted
		}
		a.left -= int64(len(p))
	}
	most := copyMost
	if a.conn.secure {
		most = 2 * copyMost // a record more costs more than a copy
	}
	if len(p) <= most && len(a.out)+len(p) <= workMost-64 {
		if a.chunked {
			a.out = http1.AppendChunkSize(a.out, len(p))
		}
		a.out = append(a.out, p...)
		if a.chunked {
			a.out = append(a.out, crlf...)
		}
		return len(p), nil
	}
	var err error
	if a.chunked {
		a.out = http1.AppendChunkSize(a.out, len(p))
		err = a.send(a.out, p, crlf)
	} else {
		err = a.send(a.out, p, nil)
	}
	a.out = a.out[:0]
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// send sends what is in the parts, by one system call without TLS.
func (a *http1Answer) send(parts ...[]byte) error {
	c := a.conn
	if err := c.armWrite(time.Now()); err != nil {
		return err
	}
	if !c.secure {
		return writeParts(c.raw, parts...)
	}
	for _, p := range parts {
		if len(p) > 0 {
			if _, err := c.rw.Write(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// Flush is described at answerWriter.
func (a *http1Answer) Flush() error { return a.flush(0) }

// flush is Flush with flags for writeSocket.
func (a *http1Answer) flush(flags int) error {
	if len(a.out) == 0 {
		return nil
	}
	c := a.conn
	out := a.out
	a.out = a.out[:0]
	if c.fd >= 0 && c.secure {
		below := belowTLS(c.rw)
		below.piece, below.stuck = true, false
		_, err := c.rw.Write(out)
		below.piece = false
		c.waited = c.waited || below.stuck
		return err
	}
	if c.fd >= 0 {
		// Nearly always all of it goes out, without the ways of package net.
		n, err := writeSocket(uintptr(c.fd), out, flags)
		if err == nil && n == len(out) {
			return nil
		}
		if err == nil {
			out = out[n:]
		}
	}
	if err := c.armWrite(time.Now()); err != nil {
		return err
	}
	_, err := c.write(out, flags)
	return err
}

// Finish is described at answerWriter.
func (a *http1Answer) Finish(trailers fields) error {
	if a.left > 0 {
		return errAborted
	}
	if a.chunked {
		a.out = append(a.out, "0\r\n"...)
		a.out = append(http1.AppendFields(a.out, trailers), crlf...)
	}
	if err := a.Flush(); err != nil {
		return err
	}
	a.finished = true
	return nil
}
