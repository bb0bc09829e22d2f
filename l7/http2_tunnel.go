package l7

import "golang.org/x/net/http2"

// http2Tunnel is the stream of a WebSocket.
type http2Tunnel struct{ st *http2Stream }

func (t *http2Tunnel) Read(p []byte) (int, error) { return t.st.body.Read(p) }

// Write fails if the client takes nothing for the time that it has.
func (t *http2Tunnel) Write(p []byte) (int, error) {
	if err := t.st.answer.send(p, false); err != nil {
		return 0, err
	}
	c := t.st.conn
	c.mu.Lock()
	c.unlockAndFlush()
	return len(p), nil
}

// CloseWrite tells the client that nothing more comes.
func (t *http2Tunnel) CloseWrite() error {
	t.st.answer.code = http2.ErrCodeNo
	return t.st.answer.Finish(nil)
}

// Close ends reading and writing. What was not ended before is reset when the
// exchange ends. It may be called at any time, and by anybody.
func (t *http2Tunnel) Close() error {
	t.st.body.stop()
	c := t.st.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	t.st.answer.closed = true
	t.st.answer.wakeUp()
	return nil
}
