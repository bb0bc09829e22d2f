package l7

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// http2Peer is a client that says exactly what a test wants said.
type http2Peer struct {
	*http2.Framer
	t     *testing.T
	conn  net.Conn
	block bytes.Buffer
	enc   *hpack.Encoder
	dec   *hpack.Decoder
	got   []hpack.HeaderField
	// answers are what has come of the streams.
	answers map[uint32]*http2Answered
	end     string // of the connection, once it has ended
	settled int    // settings that were acknowledged
	pings   int
	last    uint32 // stream, as GOAWAY says
	windows map[uint32]uint32
}

// http2Answered is what has come of a stream.
type http2Answered struct {
	interim  []string
	head     []hpack.HeaderField
	body     string
	trailers []hpack.HeaderField
	ended    bool
	reset    string
}

func (a *http2Answered) get(name string) string {
	for _, f := range append(a.head, a.trailers...) {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// clear2 makes a service "web" that speaks HTTP/2 without TLS, in front of one
// server.
func clear2(t *testing.T, server string, change func(c *Config)) (*rig, netip.AddrPort) {
	t.Helper()
	r := newRig(t)
	r.pool("p", server)
	addr := r.addr()
	yes := true
	cfg := Config{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", HTTP2: HTTP2Config{Enabled: &yes}}
	if change != nil {
		change(&cfg)
	}
	r.apply(cfg)
	return r, addr
}

// http2Dial connects and says the preface, with these settings.
func http2Dial(t *testing.T, addr netip.AddrPort, settings ...http2.Setting) *http2Peer {
	t.Helper()
	c, _ := dial(t, addr, nil)
	p := http2PeerOn(t, c)
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := p.WriteSettings(settings...); err != nil {
		t.Fatal(err)
	}
	return p
}

func http2PeerOn(t *testing.T, c net.Conn) *http2Peer {
	p := &http2Peer{Framer: http2.NewFramer(c, c), t: t, conn: c, answers: make(map[uint32]*http2Answered), windows: make(map[uint32]uint32)}
	p.AllowIllegalWrites = true
	p.enc = hpack.NewEncoder(&p.block)
	p.dec = hpack.NewDecoder(4096, func(f hpack.HeaderField) { p.got = append(p.got, f) })
	return p
}

// fields encodes a block of fields, given as names and values.
func (p *http2Peer) fields(nameValues ...string) []byte {
	p.block.Reset()
	for i := 0; i+1 < len(nameValues); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: nameValues[i], Value: nameValues[i+1]})
	}
	return append([]byte(nil), p.block.Bytes()...)
}

// head sends a head of those fields and none else.
func (p *http2Peer) head(id uint32, end bool, nameValues ...string) {
	_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.fields(nameValues...), EndHeaders: true, EndStream: end})
}

// ask sends the head of a GET for /, or what method and path say, with fields.
func (p *http2Peer) ask(id uint32, end bool, method, path string, nameValues ...string) {
	p.head(id, end, append([]string{":method", method, ":scheme", "http", ":authority", "a", ":path", path}, nameValues...)...)
}

// read takes the next frame; it reports false if the connection has ended.
func (p *http2Peer) read() bool {
	if p.end != "" {
		return false
	}
	f, err := p.ReadFrame()
	if err != nil {
		p.end = "closed"
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			p.end = "open"
		}
		return false
	}
	a := p.answers[f.Header().StreamID]
	if a == nil {
		a = &http2Answered{}
		p.answers[f.Header().StreamID] = a
	}
	switch f := f.(type) {
	case *http2.HeadersFrame:
		p.got = nil
		if _, err := p.dec.Write(f.HeaderBlockFragment()); err != nil {
			p.t.Errorf("stream %d: %v", f.StreamID, err)
		}
		_ = p.dec.Close()
		switch {
		case a.head != nil:
			a.trailers = p.got
		case len(p.got) > 0 && p.got[0].Name == ":status" && p.got[0].Value[0] == '1':
			a.interim = append(a.interim, p.got[0].Value)
		default:
			a.head = p.got
		}
		a.ended = a.ended || f.StreamEnded()
	case *http2.DataFrame:
		a.body += string(f.Data())
		a.ended = a.ended || f.StreamEnded()
	case *http2.RSTStreamFrame:
		a.reset = f.ErrCode.String()
	case *http2.GoAwayFrame:
		p.last = f.LastStreamID
		if f.ErrCode != http2.ErrCodeNo {
			p.end = "goaway " + f.ErrCode.String()
			return false
		}
	case *http2.SettingsFrame:
		if f.IsAck() {
			p.settled++
		}
	case *http2.PingFrame:
		if f.IsAck() {
			p.pings++
		} else {
			_ = p.WritePing(true, f.Data)
		}
	case *http2.WindowUpdateFrame:
		p.windows[f.StreamID] += f.Increment
	}
	return true
}

// answer reads until a stream has ended.
func (p *http2Peer) answer(id uint32) *http2Answered {
	for {
		if a := p.answers[id]; a != nil && (a.ended || a.reset != "") {
			return a
		}
		if !p.read() {
			return &http2Answered{reset: p.end}
		}
	}
}

// outcome says in short what became of a stream: its status, how it was reset, or
// how the connection ended.
func (p *http2Peer) outcome(id uint32) string {
	a := p.answer(id)
	if a.ended {
		return a.get(":status")
	}
	if strings.HasPrefix(a.reset, "goaway") || a.reset == "closed" || a.reset == "open" {
		return a.reset
	}
	return "reset " + a.reset
}

// ends reads until the connection ends, and says how.
func (p *http2Peer) ends() string {
	for p.read() {
	}
	return p.end
}

// until reads until cond holds.
func (p *http2Peer) until(what string, cond func() bool) {
	p.t.Helper()
	for !cond() {
		if !p.read() {
			p.t.Fatalf("never happened: %s; the connection is %s", what, p.end)
		}
	}
}

// quiet reports what comes within a moment; "" for nothing.
func (p *http2Peer) quiet() string {
	_ = p.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	defer p.conn.SetReadDeadline(time.Now().Add(patience))
	f, err := p.ReadFrame()
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		return ""
	}
	return fmt.Sprint(f, err)
}
