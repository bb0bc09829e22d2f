package l7

import (
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
)

// A WebSocket to a server by HTTP/2 is an extended CONNECT (RFC 8441): its stream is
// the tunnel. What clients and the pipeline know is the upgrade of HTTP/1.1, so that is
// what it looks like to them.

// webSocketAccept returns the proof that a server has understood a key (RFC 6455,
// section 4.2.2).
func webSocketAccept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// connectBlock returns the head of an extended CONNECT as a block of fields, nil if
// the request is for no WebSocket.
func (u *upstream) connectBlock(ex *exchange) []byte {
	if !strings.EqualFold(fields(ex.out.request).get("Upgrade"), "websocket") {
		return nil
	}
	b := u.appendPseudo(nil, ex, http.MethodConnect)
	b = appendHeaderField(b, ":protocol", "websocket")
	for i := range ex.out.request {
		f := &ex.out.request[i]
		switch k := kindOf(f.Name); {
		case k == kindConnection, k == kindUpgrade, k == kindHop:
		case strings.EqualFold(f.Name, "Sec-WebSocket-Key"): // RFC 8441, section 5
		default:
			b = appendHeaderField(b, f.Name, f.Value)
		}
	}
	return b
}

// opened makes the answer to an extended CONNECT, if it opens the tunnel, that to an
// upgrade.
func (st *muxStream) opened() {
	if !st.connects || st.status < 200 || st.status > 299 {
		return
	}
	key := fields(st.ex.out.request).get("Sec-WebSocket-Key")
	st.status, st.length = http.StatusSwitchingProtocols, -1
	st.fields = append(st.fields.without("Sec-WebSocket-Accept"),
		field{Name: "Connection", Value: "Upgrade"}, field{Name: "Upgrade", Value: "websocket"},
		field{Name: "Sec-WebSocket-Accept", Value: webSocketAccept(key)})
}

// muxTunnel is the stream of a WebSocket.
type muxTunnel struct {
	st     *muxStream
	part   []byte
	upload upload // for sendBody
}

// stream returns the tunnel of an upgraded exchange.
func (st *muxStream) stream() io.ReadWriteCloser { return &muxTunnel{st: st} }

func (t *muxTunnel) Read(p []byte) (int, error) {
	st := t.st
	for len(t.part) == 0 {
		part, err, wait := st.take()
		switch {
		case wait:
			<-st.wake // there is always somebody who ends that: the server, or Close
		case err != nil:
			return 0, err
		}
		t.part = part
	}
	n := copy(p, t.part)
	t.part = t.part[n:]
	return n, nil
}

func (t *muxTunnel) Write(p []byte) (int, error) {
	if err := t.st.sendBody(&t.upload, p, false); err != nil {
		return 0, err
	}
	return len(p), nil
}

// CloseWrite tells the server that nothing more comes.
func (t *muxTunnel) CloseWrite() error { return t.st.sendBody(&t.upload, nil, true) }

// Close ends reading and writing. It may be called at any time, and by anybody.
func (t *muxTunnel) Close() error {
	t.st.breakOff()
	return nil
}
