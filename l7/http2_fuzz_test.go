package l7

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"appliance/internal/pool"
)

// Whatever a client sends, the connection comes to its end and leaves nothing
// behind.
func FuzzHTTP2Frames(f *testing.F) {
	var seed bytes.Buffer
	fr := http2.NewFramer(&seed, nil)
	fr.AllowIllegalWrites = true
	add := func(write func()) {
		seed.Reset()
		_ = fr.WriteSettings()
		write()
		f.Add(bytes.Clone(seed.Bytes()))
	}
	get := headBlock(":authority", "a", ":path", "/")
	add(func() {
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: get, EndHeaders: true, EndStream: true})
		_ = fr.WriteWindowUpdate(1, 7)
		_ = fr.WritePing(false, [8]byte{})
	})
	add(func() {
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: get, EndHeaders: true})
		_ = fr.WriteDataPadded(1, false, []byte("hello"), []byte{0, 0})
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0, 1, 'x', 1, 'y'}, EndHeaders: true, EndStream: true})
		_ = fr.WriteRSTStream(1, http2.ErrCodeCancel)
	})
	add(func() {
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: get[:3], PadLength: 3, Priority: http2.PriorityParam{StreamDep: 3}})
		_ = fr.WriteContinuation(3, true, get[3:])
		_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
		_ = fr.WriteGoAway(7, http2.ErrCodeNo, nil)
	})

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	e, addr, yes := New(zerolog.Nop()), l.Addr().(*net.TCPAddr).AddrPort(), true
	pools := map[string]*pool.Pool{"p": pool.New(pool.Config{Name: "p", Servers: []pool.ServerConfig{{Address: benchServer(f, benchSized)}}})}
	change, err := e.Stage([]Config{{Name: "web", Listen: []netip.AddrPort{addr}, Pool: "p", HTTP2: HTTP2Config{Enabled: &yes}}}, pools, nil)
	if err != nil {
		f.Fatal(err)
	}
	benchServe(f, e, l, change)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		go func() {
			_, _ = io.WriteString(c, http2.ClientPreface)
			_, _ = c.Write(b)
			_ = c.(*net.TCPConn).CloseWrite()
		}()
		dec := hpack.NewDecoder(4096, nil)
		in := http2.NewFramer(io.Discard, c)
		in.ReadMetaHeaders = dec
		for {
			if _, err := in.ReadFrame(); err != nil {
				if ne, ok := err.(net.Error); ok && ne.Timeout() {
					t.Fatal("the connection does not end")
				}
				if _, ok := err.(http2.ConnectionError); ok {
					t.Fatalf("we have sent what is no frame: %v", err)
				}
				break
			}
		}
	})
}

// A head that is let in means to a server of HTTP/1 what the client has said, and
// nothing else.
func FuzzHTTP2Head(f *testing.F) {
	for _, s := range []string{
		"\n:method\nGET\n:scheme\nhttp\n:authority\na\n:path\n/x?y", "\n:method\nGET\n:scheme\nhttp\n:path\n/\nhost\na\nx\ny",
		"\n:method\nPOST\n:scheme\nhttps\n:authority\na\n:path\n/\ncontent-length\n5\ncookie\na=b\ncookie\nc=d",
		"\n:method\nCONNECT\n:protocol\nwebsocket\n:scheme\nhttps\n:authority\na\n:path\n/",
		"|:method|GET|:scheme|http|:authority|a|:path|/ HTTP/1.1\r\nx: y|x|y\r\nz: 1", "\n:method\nOPTIONS\n:scheme\nhttp\n:authority\na\n:path\n*",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if s == "" {
			return
		}
		parts := strings.Split(s[1:], s[:1]) // the first character parts the others
		c := &http2Conn{server: &server{set: doorSettings{maxHeader: 64 << 10, limits: http2Limits{window: 1 << 20}}}, peer: newPeer(netip.MustParseAddr("192.0.2.1"))}
		c.head.init(64 << 10)
		c.head.begin(1, true)
		for i := 0; i+1 < len(parts); i += 2 {
			c.head.add(hpack.HeaderField{Name: parts[i], Value: parts[i+1]})
		}
		st := &http2Stream{}
		if c.head.tooLarge || st.open(c, 1) != nil || st.ex.method == http.MethodConnect {
			return
		}
		ex := &st.ex
		if _, ok := normalHost(ex.host); !ok || !validTarget(ex.method, ex.target) {
			return // the pipeline refuses it
		}
		ex.out.request = requestFields(ex.out.request[:0], ex)
		ex.out.target, ex.out.host = ex.target, ex.host
		wire := requestHead(nil, ex)
		r := bufio.NewReader(bytes.NewReader(wire))
		req, err := http.ReadRequest(r)
		if err != nil {
			// What it refuses and we pass on it refuses without harm: it cannot be read
			// in another way.
			if strings.Count(string(wire), "\r\n\r\n") != 1 {
				t.Errorf("%q becomes %q: %v", s, wire, err)
			}
			return
		}
		if req.Method != ex.method || req.RequestURI != ex.target || r.Buffered() > 0 && !strings.HasPrefix(s, "5") || len(req.TransferEncoding) > 0 {
			t.Errorf("%q becomes %q: %s %s, and %d bytes behind", s, wire, req.Method, req.RequestURI, r.Buffered())
		}
		n := 0
		for _, values := range req.Header {
			n += len(values)
		}
		if most := len(ex.out.request); n > most {
			t.Errorf("%q becomes %q: %d fields, want %d", s, wire, n, most)
		}
	})
}

// What is compressed says to others what it said to us.
func FuzzHTTP2Fields(f *testing.F) {
	f.Add("Content-Type", "text/plain", 200)
	f.Add("X", strings.Repeat("x", 300), 418)
	f.Add(strings.Repeat("Y", 200), "", 999)
	f.Fuzz(func(t *testing.T, name, value string, status int) {
		if status < 100 || status > 999 || name == "" {
			return
		}
		block := appendHeaderField(appendStatus(appendTableSize(nil), status), name, value)
		var got []hpack.HeaderField
		d := hpack.NewDecoder(4096, func(f hpack.HeaderField) { got = append(got, f) })
		if _, err := d.Write(block); err != nil {
			t.Fatalf("%q: %v", block, err)
		}
		if err := d.Close(); err != nil || len(got) != 2 {
			t.Fatalf("%v, %v", got, err)
		}
		lower := []byte(name)
		for i := range lower {
			lower[i] = lowerCase(lower[i])
		}
		if got[0].Value != strconv.Itoa(status) || got[1].Name != string(lower) || got[1].Value != value {
			t.Errorf("%q %q %d: %v", name, value, status, got)
		}
	})
}
