package l7

import (
	"crypto/rand"
	"encoding/base64"
	"io"
	"net/http"
	"strings"

	"golang.org/x/net/http2"
)

// webSocket makes of an extended CONNECT what a server of HTTP/1.1 knows (RFC
// 8441, section 5). The key is ours, for HTTP/2 has none.
func (st *http2Stream) webSocket() {
	var key [16]byte
	_, _ = rand.Read(key[:]) // never fails
	st.key = base64.StdEncoding.EncodeToString(key[:])
	ex := &st.ex
	ex.method = http.MethodGet
	st.fields = append(st.fields.without("sec-websocket-key"),
		field{Name: "Connection", Value: "Upgrade"}, field{Name: "Upgrade", Value: "websocket"},
		field{Name: "Sec-WebSocket-Key", Value: st.key})
	st.tunnel = true
	st.answer.tunnel = true
	ex.upgrade = st.accept
}

// accept sends the answer to a WebSocket's request once the server has agreed,
// and hands the stream over.
func (st *http2Stream) accept(head fields) (io.ReadWriteCloser, error) {
	a := &st.answer
	a.tunnel = false
	if head.get("Sec-WebSocket-Accept") != webSocketAccept(st.key) {
		err := a.WriteHead(http.StatusBadGateway, nil)
		if err == nil {
			err = a.Finish(nil)
		}
		if err == nil {
			err = errAborted
		}
		return nil, err
	}
	var kept fields
	for _, f := range head {
		if k := kindOf(f.Name); k != kindConnection && k != kindUpgrade && !strings.EqualFold(f.Name, "Sec-WebSocket-Accept") {
			kept = append(kept, f)
		}
	}
	if err := a.WriteHead(http.StatusOK, kept); err != nil {
		return nil, err
	}
	a.left = -1
	return &http2Tunnel{st}, a.Flush()
}

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
