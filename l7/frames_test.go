package l7

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
)

// h2 is one HTTP/2 connection.
type h2 struct{ conn *http.ClientConn }

func http2Client(t *testing.T, addr netip.AddrPort) h2 {
	t.Helper()
	transport := client(t, addr, protocolHTTP2).Transport.(*http.Transport)
	conn, err := transport.NewClientConn(t.Context(), "https", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return h2{conn}
}

func (c h2) get(t *testing.T) string { return c.path(t, "/") }

func (c h2) path(t *testing.T, path string) string {
	req, _ := http.NewRequest("GET", "https://a"+path, nil)
	resp, err := c.conn.RoundTrip(req)
	if err != nil {
		t.Errorf("HTTP/2: %v", err)
		return ""
	}
	return body(t, resp)
}

// untilUnusable waits until the connection takes no more requests.
func (c h2) untilUnusable(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(patience); c.conn.Available() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the connection takes requests still")
		}
	}
}

// The types and flags of frames (RFC 9113, section 6), and the setting of the
// window for each stream.
const (
	frameData, frameHeaders, frameReset, frameSettings, frameGoAway, frameContinuation = 0, 1, 3, 4, 7, 9

	flagEndStream, flagEndHeaders = 1, 4

	settingInitialWindow = 4
)

// frame is one frame of HTTP/2.
type frame struct {
	kind, flags byte
	stream      uint32
	payload     []byte
}

// bytes returns f as the wire has it (section 4.1).
func (f frame) bytes() []byte {
	n := len(f.payload)
	b := []byte{byte(n >> 16), byte(n >> 8), byte(n), f.kind, f.flags}
	return append(binary.BigEndian.AppendUint32(b, f.stream), f.payload...)
}

func readFrame(r io.Reader) (frame, error) {
	var head [9]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	f := frame{kind: head[3], flags: head[4], stream: binary.BigEndian.Uint32(head[5:])}
	f.payload = make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	_, err := io.ReadFull(r, f.payload)
	return f, err
}

// untilGoAway reads the frames of an HTTP/2 connection up to GOAWAY and returns
// its error code (RFC 9113, section 6.8).
func untilGoAway(t *testing.T, r io.Reader) uint32 {
	t.Helper()
	for {
		f, err := readFrame(r)
		if err != nil {
			t.Fatalf("no GOAWAY: %v", err)
		}
		if f.kind == frameGoAway {
			return binary.BigEndian.Uint32(f.payload[4:])
		}
	}
}

// preface is what a client begins with; settings are its own.
func preface(settings []byte) []byte {
	return append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame{kind: frameSettings, payload: settings}.bytes()...)
}

// http2Frames connects by HTTP/2 and says its preface.
func http2Frames(t *testing.T, addr netip.AddrPort, settings []byte) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, r := dial(t, addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocolHTTP2}})
	write(t, c, preface(settings))
	return c, r
}

func write(t *testing.T, w io.Writer, b []byte) {
	t.Helper()
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
}

// ask is a request without a body; nameValues follow :method and :scheme.
func ask(stream uint32, nameValues ...string) []byte {
	return frame{frameHeaders, flagEndHeaders | flagEndStream, stream, headBlock(nameValues...)}.bytes()
}

func headBlock(nameValues ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for pair := range slices.Chunk(append([]string{":method", "GET", ":scheme", "https"}, nameValues...), 2) {
		// Sensitive fields are written in full, each time. A buffer takes all.
		_ = e.WriteField(hpack.HeaderField{Name: pair[0], Value: pair[1], Sensitive: true})
	}
	return b.Bytes()
}

// answerFrames reads frames until a stream ends and returns its status and
// body; "reset" as the status of one that was reset.
func answerFrames(t *testing.T, r io.Reader) (status, body string) {
	t.Helper()
	head := hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == ":status" {
			status = f.Value
		}
	})
	for {
		f, err := readFrame(r)
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		switch f.kind {
		case frameReset:
			return "reset", ""
		case frameHeaders:
			_, _ = head.Write(f.payload)
		case frameData:
			body += string(f.payload)
		default:
			continue
		}
		if f.flags&flagEndStream != 0 {
			return status, body
		}
	}
}
