package l7

import (
	"io"
	"time"
)

// upgrade sends the answer 101 and hands the connection over.
func (c *http1Conn) upgrade(head fields) (io.ReadWriteCloser, error) {
	w := c.work
	if err := w.answer.switchTo(head); err != nil {
		return nil, err
	}
	if err := c.tcp.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	early := append([]byte(nil), w.in.b[w.in.r:w.in.w]...)
	w.in.r = w.in.w
	return &clientStream{c, early}, nil
}

// clientStream is the connection of an upgraded exchange.
type clientStream struct {
	conn  *http1Conn
	early []byte // what was read behind the head
}

func (s *clientStream) Read(p []byte) (int, error) {
	if len(s.early) > 0 {
		n := copy(p, s.early)
		s.early = s.early[n:]
		return n, nil
	}
	return s.conn.read(p)
}

// Write fails if the client takes nothing for the time that it has.
func (s *clientStream) Write(p []byte) (int, error) {
	if err := s.conn.armWrite(time.Now()); err != nil {
		return 0, err
	}
	return s.conn.write(p, 0)
}

// CloseWrite tells the client that nothing more comes.
func (s *clientStream) CloseWrite() error {
	return s.conn.rw.(interface{ CloseWrite() error }).CloseWrite()
}

func (s *clientStream) Close() error { return s.conn.rw.Close() }
