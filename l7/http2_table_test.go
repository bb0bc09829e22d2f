package l7

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// What is malformed is reset (RFC 9113, section 8.1.1), and no server sees it.
func TestHTTP2Heads(t *testing.T) {
	seen := make(chan *http.Request, 1)
	_, addr := clear2(t, web(t, func(w http.ResponseWriter, r *http.Request) { seen <- r }), nil)
	p := http2Dial(t, addr)
	const malformed = "reset PROTOCOL_ERROR"
	id := uint32(1)
	many := []string{}
	for i := range 257 {
		many = append(many, fmt.Sprint("x", i), "")
	}
	for _, tc := range []struct {
		name   string
		pseudo []string // in the place of the usual ones; "-" for none
		head   []string
		want   string
	}{
		{"usual", nil, nil, "200"},
		{"all that HTTP/2 has", nil, []string{"te", "trailers", "cookie", "a=1", "x-y", "z\x80", "content-length", "0"}, "200"},
		{"no value", nil, []string{"x", ""}, "200"},
		{"upper case", nil, []string{"X-Y", "z"}, malformed},
		{"blank in a name", nil, []string{"x y", "z"}, malformed},
		{"no name", nil, []string{"", "z"}, malformed},
		{"colon in a name", nil, []string{"x:y", "z"}, malformed},
		{"CR LF in a name", nil, []string{"x\r\ny", "z"}, malformed},
		{"beyond ASCII in a name", nil, []string{"x\xe4", "z"}, malformed},
		{"CR LF in a value", nil, []string{"x", "y\r\nevil: z"}, malformed},
		{"LF in a value", nil, []string{"x", "y\nevil: z"}, malformed},
		{"NUL in a value", nil, []string{"x", "y\x00z"}, malformed},
		{"DEL in a value", nil, []string{"x", "y\x7fz"}, malformed},
		{"blank before a value", nil, []string{"x", " y"}, malformed},
		{"tab behind a value", nil, []string{"x", "y\t"}, malformed},
		{"connection", nil, []string{"connection", "close"}, malformed},
		{"keep-alive", nil, []string{"keep-alive", "1"}, malformed},
		{"proxy-connection", nil, []string{"proxy-connection", "close"}, malformed},
		{"transfer-encoding", nil, []string{"transfer-encoding", "chunked"}, malformed},
		{"upgrade", nil, []string{"upgrade", "websocket"}, malformed},
		{"te of another kind", nil, []string{"te", "gzip"}, malformed},
		{"te of several kinds", nil, []string{"te", "trailers, gzip"}, malformed},
		{"passes for content-length", nil, []string{"content_length", "5"}, malformed},
		{"passes for transfer-encoding", nil, []string{"transfer_encoding", "chunked"}, malformed},
		{"content-length is no number", nil, []string{"content-length", "+0"}, malformed},
		{"content-length is negative", nil, []string{"content-length", "-1"}, malformed},
		{"content-length is a list", nil, []string{"content-length", "0, 0"}, malformed},
		{"content-length twice", nil, []string{"content-length", "0", "content-length", "0"}, malformed},
		{"content-length without a body", nil, []string{"content-length", "1"}, malformed},
		{"pseudo behind a field", nil, []string{"x", "y", ":method", "POST"}, malformed},
		{"pseudo unknown", nil, []string{":x", "y"}, malformed},
		{"pseudo of an answer", nil, []string{":status", "200"}, malformed},
		{"two methods", nil, []string{":method", "GET"}, malformed},
		{"two paths", nil, []string{":path", "/"}, malformed},
		{"no method", []string{":method", "-"}, nil, malformed},
		{"no scheme", []string{":scheme", "-"}, nil, malformed},
		{"no path", []string{":path", "-"}, nil, malformed},
		{"path is empty", []string{":path", ""}, nil, malformed},
		{"path has a blank", []string{":path", "/ HTTP/1.1"}, nil, malformed},
		{"path has CR LF", []string{":path", "/ HTTP/1.1\r\nx: y"}, nil, malformed},
		{"path is no path", []string{":path", "x"}, nil, "400"},
		{"path is a star", []string{":path", "*"}, nil, "400"},
		{"path has a fragment", []string{":path", "/#x"}, nil, "400"},
		{"star for OPTIONS", []string{":method", "OPTIONS", ":path", "*"}, nil, "200"},
		{"scheme of something else", []string{":scheme", "ftp"}, nil, malformed},
		{"scheme of TLS", []string{":scheme", "https"}, nil, "200"},
		{"method is no token", []string{":method", "GET /evil"}, nil, malformed},
		{"method has CR LF", []string{":method", "GET\r\nx:"}, nil, malformed},
		{"authority has CR LF", []string{":authority", "a\r\nx: y"}, nil, malformed},
		{"authority has a user", []string{":authority", "u@a"}, nil, "400"},
		{"authority is empty", []string{":authority", ""}, nil, "400"},
		{"no authority", []string{":authority", "-"}, nil, "400"},
		{"host instead", []string{":authority", "-"}, []string{"host", "a"}, "200"},
		{"host is the same", []string{":authority", "a"}, []string{"host", "A"}, "200"},
		{"host is another", []string{":authority", "a"}, []string{"host", "b"}, malformed},
		{"two hosts", []string{":authority", "-"}, []string{"host", "a", "host", "a"}, malformed},
		{"CONNECT", []string{":method", "CONNECT", ":scheme", "-", ":path", "-"}, nil, "501"},
		{"CONNECT with a path", []string{":method", "CONNECT"}, nil, malformed},
		{"CONNECT to nowhere", []string{":method", "CONNECT", ":scheme", "-", ":path", "-", ":authority", "-"}, nil, malformed},
		{"CONNECT for something else", []string{":method", "CONNECT", ":protocol", "connect-udp"}, nil, "501"},
		{"path has a malformed escape", []string{":path", "/%zz"}, nil, "400"},
		{"a protocol without CONNECT", []string{":protocol", "websocket"}, nil, malformed},
		{"too many fields", nil, many, "431"},
		{"too large", nil, []string{"x", strings.Repeat("x", 40<<10), "y", strings.Repeat("y", 40<<10)}, "431"},
	} {
		pseudo := []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}
		for i := 0; i < len(tc.pseudo); i += 2 {
			at := slices.Index(pseudo, tc.pseudo[i])
			switch {
			case at < 0:
				pseudo = append(pseudo, tc.pseudo[i:i+2]...)
			case tc.pseudo[i+1] == "-":
				pseudo = slices.Delete(pseudo, at, at+2)
			default:
				pseudo[at+1] = tc.pseudo[i+1]
			}
		}
		head := append(pseudo, tc.head...)
		block := p.fields(head...)
		first := block[:min(len(block), 16<<10)]
		_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndHeaders: len(first) == len(block), EndStream: true})
		for rest := block[len(first):]; len(rest) > 0; {
			part := rest[:min(len(rest), 16<<10)]
			rest = rest[len(part):]
			_ = p.WriteContinuation(id, len(rest) == 0, part)
		}
		got := p.outcome(id)
		if got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
		select {
		case <-seen:
			if got != "200" {
				t.Errorf("%s: the server saw it", tc.name)
			}
		default:
			if got == "200" {
				t.Errorf("%s: no server saw it", tc.name)
			}
		}
		if p.end != "" {
			t.Fatalf("%s: the connection is over: %s", tc.name, p.end)
		}
		id += 2
	}
}

// A body is what its length says, and comes before the trailers.
func TestHTTP2Bodies(t *testing.T) {
	_, addr := clear2(t, web(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
		w.Header().Set("X-Trailer", r.Trailer.Get("X"))
		w.Write(b)
	}), nil)
	data := func(s string, end bool) func(p *http2Peer) {
		return func(p *http2Peer) { _ = p.WriteData(1, end, []byte(s)) }
	}
	padded := func(s string, pad int, end bool) func(p *http2Peer) {
		return func(p *http2Peer) { _ = p.WriteDataPadded(1, end, []byte(s), make([]byte, pad)) }
	}
	trailers := func(end bool, nameValues ...string) func(p *http2Peer) {
		return func(p *http2Peer) { p.head(1, end, nameValues...) }
	}
	type frames []func(p *http2Peer)
	for _, tc := range []struct {
		name string
		head []string
		then frames
		want string
		body string
	}{
		{"with its length", []string{"content-length", "5"}, frames{data("hello", true)}, "200", "hello"},
		{"with its length, in parts", []string{"content-length", "5"}, frames{data("he", false), data("", false), data("llo", false), data("", true)}, "200", "hello"},
		{"without a length", nil, frames{data("hello", true)}, "200", "hello"},
		{"padded", nil, frames{padded("hel", 200, false), padded("lo", 1, true)}, "200", "hello"},
		{"none", nil, frames{data("", true)}, "200", ""},
		{"none, as said", []string{"content-length", "0"}, frames{data("", true)}, "200", ""},
		{"with trailers", nil, frames{data("hello", false), trailers(true, "x", "y")}, "200", "hello"},
		{"trailers alone", nil, frames{trailers(true, "x", "y")}, "200", ""},
		{"too short", []string{"content-length", "6"}, frames{data("hello", true)}, "reset PROTOCOL_ERROR", ""},
		{"too short before trailers", []string{"content-length", "6"}, frames{data("hello", false), trailers(true, "x", "y")}, "reset PROTOCOL_ERROR", ""},
		{"too long", []string{"content-length", "4"}, frames{data("hello", true)}, "reset PROTOCOL_ERROR", ""},
		{"too long, and not ended", []string{"content-length", "4"}, frames{data("hello", false)}, "reset PROTOCOL_ERROR", ""},
		{"though there is none", []string{"content-length", "0"}, frames{data("hello", true)}, "reset PROTOCOL_ERROR", ""},
		{"trailers that do not end it", nil, frames{trailers(false, "x", "y")}, "reset PROTOCOL_ERROR", ""},
		{"trailers with a pseudo-header field", nil, frames{trailers(true, ":path", "/")}, "reset PROTOCOL_ERROR", ""},
		{"trailers in upper case", nil, frames{trailers(true, "X", "y")}, "reset PROTOCOL_ERROR", ""},
		{"trailers with CR LF", nil, frames{trailers(true, "x", "y\r\nz")}, "reset PROTOCOL_ERROR", ""},
		{"trailers twice", nil, frames{trailers(false, "x", "y"), trailers(true, "x", "y")}, "reset PROTOCOL_ERROR", ""},
	} {
		p := http2Dial(t, addr)
		p.ask(1, false, "POST", "/", tc.head...)
		for _, f := range tc.then {
			f(p)
		}
		if got := p.outcome(1); got != tc.want {
			if got != "200" || tc.name != "though there is none" { // the answer may be there before the body
				t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
			}
			continue
		}
		if a := p.answer(1); a.ended && (a.body != tc.body || strings.HasPrefix(tc.name, "with trailers") != (a.get("x-trailer") == "y")) && tc.name != "trailers alone" {
			t.Errorf("%s: %+v", tc.name, a)
		}
		// The connection lives on.
		p.ask(3, true, "GET", "/")
		if got := p.outcome(3); got != "200" {
			t.Errorf("%s: after it %s", tc.name, got)
		}
		p.conn.Close()
	}
}

// What breaks the protocol ends the connection, or the stream, with the right
// word (RFC 9113, sections 5 and 6).
func TestHTTP2Frames(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	_, addr := clear2(t, web(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		io.WriteString(w, "hello")
	}), nil)
	const (
		protocol    = "goaway PROTOCOL_ERROR"
		size        = "goaway FRAME_SIZE_ERROR"
		flow        = "goaway FLOW_CONTROL_ERROR"
		compression = "goaway COMPRESSION_ERROR"
	)
	raw := func(kind http2.FrameType, flags http2.Flags, stream uint32, payload ...byte) func(p *http2Peer) {
		return func(p *http2Peer) { _ = p.WriteRawFrame(kind, flags, stream, payload) }
	}
	get := func(id uint32) func(p *http2Peer) { return func(p *http2Peer) { p.ask(id, true, "GET", "/") } }
	post := func(id uint32) func(p *http2Peer) { return func(p *http2Peer) { p.ask(id, false, "POST", "/") } }
	type frames []func(p *http2Peer)
	for _, tc := range []struct {
		name string
		send frames
		want string
	}{
		{"a request", frames{get(1)}, "200"},
		{"an unknown frame", frames{raw(0xbe, 0xff, 7, 1, 2, 3), get(1)}, "200"},
		{"PRIORITY of a stream to come", frames{raw(http2.FramePriority, 0, 9, 0, 0, 0, 0, 16), get(1)}, "200"},
		{"PRIORITY of wrong size", frames{raw(http2.FramePriority, 0, 1, 0, 0, 0, 0)}, size},
		{"PRIORITY of the connection", frames{raw(http2.FramePriority, 0, 0, 0, 0, 0, 0, 16)}, protocol},
		{"DATA of the connection", frames{raw(http2.FrameData, 0, 0, 1)}, protocol},
		{"DATA of a stream to come", frames{raw(http2.FrameData, 0, 1, 1)}, protocol},
		{"DATA padded too much", frames{post(1), raw(http2.FrameData, http2.FlagDataPadded, 1, 9, 1)}, protocol},
		{"DATA padded with nothing", frames{post(1), raw(http2.FrameData, http2.FlagDataPadded, 1)}, protocol},
		{"DATA behind the end", frames{func(p *http2Peer) { p.ask(1, true, "POST", "/") }, raw(http2.FrameData, 0, 1, 1)}, "reset STREAM_CLOSED"},
		{"HEADERS behind the end", frames{func(p *http2Peer) { p.ask(1, true, "POST", "/") }, func(p *http2Peer) { p.head(1, true, "x", "y") }}, "reset STREAM_CLOSED"},
		{"HEADERS of the connection", frames{get(0)}, protocol},
		{"HEADERS of an even stream", frames{get(2)}, protocol},
		{"HEADERS of a stream that is over", frames{get(5), func(p *http2Peer) { p.outcome(5) }, get(5)}, "goaway STREAM_CLOSED"},
		{"HEADERS of a stream that was skipped", frames{get(5), get(3)}, "goaway STREAM_CLOSED"},
		{"HEADERS padded too much", frames{raw(http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersEndHeaders, 1, 9, 0x82)}, protocol},
		{"HEADERS with an index of nothing", frames{raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, 0xfe)}, compression},
		{"HEADERS with index 0", frames{raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, 0x80)}, compression},
		{"HEADERS that are cut", frames{raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, 0x00, 0x05, 'x')}, compression},
		{"HEADERS with too large a table", frames{raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, 0x3f, 0xe2, 0xff, 0x03)}, compression},
		{"CONTINUATION of nothing", frames{raw(http2.FrameContinuation, http2.FlagContinuationEndHeaders, 1, 0x82)}, protocol},
		{"CONTINUATION of another stream", frames{raw(http2.FrameHeaders, 0, 1, 0x82), raw(http2.FrameContinuation, http2.FlagContinuationEndHeaders, 3, 0x82)}, protocol},
		{"a frame amid a head", frames{raw(http2.FrameHeaders, 0, 1, 0x82), raw(http2.FramePing, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8)}, protocol},
		{"RST_STREAM of a stream to come", frames{raw(http2.FrameRSTStream, 0, 1, 0, 0, 0, 8)}, protocol},
		{"RST_STREAM of the connection", frames{raw(http2.FrameRSTStream, 0, 0, 0, 0, 0, 8)}, protocol},
		{"RST_STREAM of wrong size", frames{post(1), raw(http2.FrameRSTStream, 0, 1, 0, 0, 8)}, size},
		{"SETTINGS of a stream", frames{raw(http2.FrameSettings, 0, 1)}, protocol},
		{"SETTINGS of wrong size", frames{raw(http2.FrameSettings, 0, 0, 1)}, size},
		{"SETTINGS acknowledged with more", frames{raw(http2.FrameSettings, http2.FlagSettingsAck, 0, 0, 4, 0, 0, 0, 0)}, size},
		{"SETTINGS: ENABLE_PUSH 2", frames{raw(http2.FrameSettings, 0, 0, 0, 2, 0, 0, 0, 2)}, protocol},
		{"SETTINGS: INITIAL_WINDOW_SIZE beyond", frames{raw(http2.FrameSettings, 0, 0, 0, 4, 0x80, 0, 0, 0)}, flow},
		{"SETTINGS: MAX_FRAME_SIZE below", frames{raw(http2.FrameSettings, 0, 0, 0, 5, 0, 0, 0, 1)}, protocol},
		{"SETTINGS: unknown", frames{raw(http2.FrameSettings, 0, 0, 0xbe, 0xef, 0, 0, 0, 1), get(1)}, "200"},
		{"SETTINGS: HEADER_TABLE_SIZE 0", frames{raw(http2.FrameSettings, 0, 0, 0, 1, 0, 0, 0, 0), get(1)}, "200"},
		{"PUSH_PROMISE", frames{post(1), raw(http2.FramePushPromise, http2.FlagPushPromiseEndHeaders, 1, 0, 0, 0, 2, 0x82)}, protocol},
		{"PING of wrong size", frames{raw(http2.FramePing, 0, 0, 1)}, size},
		{"PING of a stream", frames{raw(http2.FramePing, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8)}, protocol},
		{"GOAWAY", frames{raw(http2.FrameGoAway, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), get(1)}, "200"},
		{"GOAWAY of a stream", frames{raw(http2.FrameGoAway, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0)}, protocol},
		{"WINDOW_UPDATE of nothing", frames{raw(http2.FrameWindowUpdate, 0, 0, 0, 0, 0, 0)}, protocol},
		{"WINDOW_UPDATE of nothing for a stream", frames{post(1), raw(http2.FrameWindowUpdate, 0, 1, 0, 0, 0, 0)}, "reset PROTOCOL_ERROR"},
		{"WINDOW_UPDATE of wrong size", frames{raw(http2.FrameWindowUpdate, 0, 0, 0, 0, 1)}, size},
		{"WINDOW_UPDATE of a stream to come", frames{raw(http2.FrameWindowUpdate, 0, 1, 0, 0, 0, 1)}, protocol},
		{"WINDOW_UPDATE beyond", frames{raw(http2.FrameWindowUpdate, 0, 0, 0x7f, 0xff, 0xff, 0xff)}, flow},
		{"WINDOW_UPDATE of a stream beyond", frames{post(1), raw(http2.FrameWindowUpdate, 0, 1, 0x7f, 0xff, 0xff, 0xff)}, "reset FLOW_CONTROL_ERROR"},
		{"SETTINGS that open a window beyond", frames{post(1), raw(http2.FrameWindowUpdate, 0, 1, 0x7f, 0xff, 0, 0), raw(http2.FrameSettings, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff)}, flow},
		{"a frame that is too large", frames{raw(http2.FrameData, 0, 1, make([]byte, 16<<10+1)...)}, size},
	} {
		p := http2Dial(t, addr)
		for _, f := range tc.send {
			f(p)
		}
		if got := p.outcome(1); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
		p.conn.Close()
	}

	// More than a window lets through. Nobody takes any of it: the server has not
	// asked for it.
	for _, tc := range []struct {
		name            string
		streams, frames int
		want            string
	}{{"a stream's window", 1, 17, "reset FLOW_CONTROL_ERROR"}, {"the connection's window", 5, 16, flow}} {
		p := http2Dial(t, addr)
		for i := range tc.streams {
			id := uint32(2*i + 1)
			p.ask(id, false, "POST", "/", "expect", "100-continue")
			for range tc.frames {
				_ = p.WriteData(id, false, make([]byte, 16<<10)) // fails when the connection has ended
			}
		}
		if got := p.outcome(1); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
		p.conn.Close()
	}
}

// Who does not begin as a client has to is not served.
func TestHTTP2Prefaces(t *testing.T) {
	_, addr := secure(t, named(t, "x"))
	for name, tc := range map[string]struct{ text, want string }{
		"garbage":             {"garbage garbage garbage garbage", "goaway PROTOCOL_ERROR"},
		"HTTP/1":              {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "goaway PROTOCOL_ERROR"},
		"no settings":         {http2.ClientPreface + "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678", "goaway PROTOCOL_ERROR"},
		"settings of another": {http2.ClientPreface + "\x00\x00\x00\x04\x01\x00\x00\x00\x00", "goaway PROTOCOL_ERROR"},
	} {
		c, _ := dial(t, addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocolHTTP2}})
		p := http2PeerOn(t, c)
		io.WriteString(c, tc.text)
		if got := p.ends(); got != tc.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}
