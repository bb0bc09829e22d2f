package health

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// protocolHTTP2 is what HTTP/2 is called in a TLS handshake.
const protocolHTTP2 = "h2"

// http2Version is what the version is called in the file.
const http2Version = "2"

// Why a server's answer is none of HTTP/2.
var (
	errNotHTTP2   = errors.New("the answer is not HTTP/2")
	errNoHTTP2    = errors.New("the server does not choose HTTP/2 in the TLS handshake")
	errWrongHTTP2 = errors.New("the answer breaks the rules of HTTP/2")
)

// http2Window is how much of a body a server sends that is never told to go on
// (RFC 9113, section 6.9.2), in bytes.
const http2Window = 65535

// http2Frame is the most that a frame may have, in bytes, unless the other side says
// otherwise (RFC 9113, section 6.5.2).
const http2Frame = 16 << 10

// http2Answer is what came of a request by HTTP/2.
type http2Answer struct {
	status int
	fields []hpack.HeaderField // of the head and the trailers
	body   []byte              // as far as the window goes
}

// field returns the last value of a field, or "".
func (a *http2Answer) field(name string) string {
	for i := len(a.fields) - 1; i >= 0; i-- {
		if a.fields[i].Name == name {
			return a.fields[i].Value
		}
	}
	return ""
}

// http2Text returns all that a client sends on a new connection to ask request: a
// preface, and the one request with its body. It is the same each time.
func http2Text(request *http.Request, scheme string, body []byte) []byte {
	var text, block bytes.Buffer
	text.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&text, nil)
	encoder := hpack.NewEncoder(&block)
	put := func(name, value string) { _ = encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) } // into memory: never fails
	put(":method", request.Method)
	put(":scheme", scheme)
	put(":authority", request.Host)
	put(":path", request.URL.RequestURI())
	for name, values := range request.Header {
		for _, value := range values {
			put(strings.ToLower(name), value)
		}
	}
	_ = framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}, http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHTTPAnswer})
	first, rest := block.Bytes(), []byte(nil)
	if len(first) > http2Frame {
		first, rest = first[:http2Frame], first[http2Frame:]
	}
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndHeaders: rest == nil, EndStream: body == nil})
	for len(rest) > 0 {
		n := min(len(rest), http2Frame)
		_ = framer.WriteContinuation(1, n == len(rest), rest[:n])
		rest = rest[n:]
	}
	if body != nil {
		_ = framer.WriteData(1, true, body)
	}
	return text.Bytes()
}

// askHTTP2 sends text, by way of reader, and returns the answer. With an error there
// may be a status and a part of the body all the same.
func askHTTP2(conn net.Conn, reader *bufio.Reader, text []byte) (http2Answer, error) {
	var a http2Answer
	if _, err := conn.Write(text); err != nil {
		return a, err
	}
	// Twice as much as may be of use: frames are not only for the one stream.
	bounded := &io.LimitedReader{R: conn, N: 2 * maxHTTPAnswer}
	reader.Reset(bounded)
	framer := http2.NewFramer(conn, reader)
	framer.SetReuseFrames()
	framer.SetMaxReadFrameSize(http2Frame)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.MaxHeaderListSize = maxHTTPAnswer
	for first := true; ; first = false {
		f, err := framer.ReadFrame()
		if err != nil {
			return a, http2Error(err, first, bounded.N == 0)
		}
		if settings, ok := f.(*http2.SettingsFrame); first && (!ok || settings.IsAck()) {
			return a, errNotHTTP2
		}
		done, err := a.take(framer, f)
		if err != nil {
			return a, err
		}
		if done || len(a.body) >= http2Window {
			if !done {
				_ = framer.WriteRSTStream(1, http2.ErrCodeCancel)
			}
			_ = framer.WriteGoAway(0, http2.ErrCodeNo, nil) // the answer is here, whatever becomes of this
			return a, nil
		}
	}
}

// take takes a frame, and reports whether the answer is whole.
func (a *http2Answer) take(framer *http2.Framer, f http2.Frame) (done bool, err error) {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			err = framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			err = framer.WritePing(true, f.Data)
		}
	case *http2.GoAwayFrame:
		if f.LastStreamID < 1 || f.ErrCode != http2.ErrCodeNo {
			err = fmt.Errorf("the server takes no request: %s", f.ErrCode)
		}
	case *http2.RSTStreamFrame:
		if f.StreamID == 1 {
			err = fmt.Errorf("the server has reset the request: %s", f.ErrCode)
		}
	case *http2.MetaHeadersFrame:
		return a.takeHead(f)
	case *http2.DataFrame:
		if f.StreamID == 1 && a.status != 0 {
			a.body = append(a.body, f.Data()...)
			return f.StreamEnded(), nil
		}
	}
	return false, err
}

// takeHead takes a head, or trailers.
func (a *http2Answer) takeHead(f *http2.MetaHeadersFrame) (done bool, err error) {
	if f.StreamID != 1 {
		return false, nil
	}
	if f.Truncated {
		return false, errLongHead
	}
	if a.status != 0 { // trailers
		a.fields = append(a.fields, f.Fields...)
		return f.StreamEnded(), nil
	}
	status, err := strconv.Atoi(f.PseudoValue("status"))
	if err != nil || status < 100 || status > 999 {
		return false, errWrongHTTP2
	}
	if status/100 == 1 {
		return false, nil
	}
	a.status = status
	a.fields = append(a.fields, f.Fields...)
	return f.StreamEnded(), nil
}

// http2Error returns why a frame could not be read: the connection broke, which err
// tells, or what came is none.
func http2Error(err error, first, tooLong bool) error {
	var broken net.Error
	switch {
	case errors.As(err, &broken):
		return err
	case first && !errors.Is(err, io.EOF):
		return errNotHTTP2
	case tooLong:
		return errLongHead
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return err
	}
	return errWrongHTTP2
}

// agreed returns an error if the two sides have not agreed on HTTP/2.
func agreed(conn net.Conn) error {
	if t, ok := conn.(*tls.Conn); ok && t.ConnectionState().NegotiatedProtocol != protocolHTTP2 {
		return errNoHTTP2
	}
	return nil
}
