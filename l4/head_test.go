package l4

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"appliance/internal/pool"
	"appliance/internal/proxyproto"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// tellProxy is a server that reads a PROXY header and one line, and answers with
// both.
func tellProxy(c *net.TCPConn) {
	in := bufio.NewReader(c)
	var got []byte
	for {
		b, err := in.ReadByte()
		if err != nil {
			return
		}
		got = append(got, b)
		if h, n, err := proxyproto.Parse(got); err == nil && n == len(got) {
			line, _ := in.ReadString('\n')
			fmt.Fprintf(c, "%s %s %s", h.Source, h.Destination, line)
			return
		}
	}
}

// A server that is told who the client is hears of the client's own address,
// through any number of proxies, and of every byte behind the header.
func TestProxyHeadersArePassedOn(t *testing.T) {
	for _, version := range []string{"v1", "v2"} {
		h := newHouse(t)
		server := backend(t, tellProxy)
		p := pool.New(pool.Config{Name: "web", SendProxy: version, Servers: []pool.ServerConfig{{Address: server.String()}}})
		other := netip.MustParseAddrPort("127.0.0.22:0")
		h.load([]Config{
			{Name: "plain", Listen: []netip.AddrPort{entrance}, Pool: "web"},
			{Name: "behind", Listen: []netip.AddrPort{other}, Pool: "web", AcceptProxy: &AcceptProxy{From: loopback}},
		}, p)
		c := h.dial(entrance)
		say(t, c, "hello\n")
		expect(t, c, fmt.Sprintf("%s %s hello\n", c.LocalAddr(), c.RemoteAddr()))

		told := proxyproto.Header{Source: netip.MustParseAddrPort("192.0.2.9:999"), Destination: netip.MustParseAddrPort("198.51.100.1:443")}
		for _, header := range [][]byte{proxyproto.AppendV1(nil, told), proxyproto.AppendV2(nil, told)} {
			c := h.dial(other)
			for _, b := range append(header, "hel"...) { // in pieces of one byte
				if _, err := c.Write([]byte{b}); err != nil {
					t.Fatal(err)
				}
			}
			say(t, c, "lo\n")
			expect(t, c, "192.0.2.9:999 198.51.100.1:443 hello\n")
		}
		// A proxy's own connection, such as its health check, is its own.
		c = h.dial(other)
		say(t, c, string(proxyproto.AppendV2(nil, proxyproto.Header{}))+"check\n")
		expect(t, c, fmt.Sprintf("%s %s check\n", c.LocalAddr(), c.RemoteAddr()))
	}
}

func TestBadProxyHeaders(t *testing.T) {
	h := newHouse(t)
	p := newPool("web", backend(t, echo))
	h.load([]Config{{Name: "web", Listen: []netip.AddrPort{entrance}, AcceptProxy: &AcceptProxy{From: loopback},
		Timeouts: Timeouts{Header: 200 * time.Millisecond}}}, p)
	for name, sent := range map[string]string{
		"no header":  "GET / HTTP/1.1\r\n\r\n",
		"malformed":  "PROXY TCP4 nonsense\r\n",
		"truncated":  "PROXY TCP4 192.0.2.1",
		"nothing":    "",
		"only magic": "\r\n\r\n\x00\r\nQUIT\n",
	} {
		c := h.dial(entrance)
		say(t, c, sent)
		if _, err := io.Copy(io.Discard, c); err == nil || !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: the connection ended with %v, want a reset", name, err)
		}
		// A client that ends in the middle of it is not waited for.
		c = h.dial(entrance)
		say(t, c, sent)
		_ = c.CloseWrite()
		if _, err := io.Copy(io.Discard, c); err == nil {
			t.Errorf("%s, then an end: a clean end, want a reset", name)
		}
	}
	if st := h.engine.Stats()[0]; st.Malformed != 4 || st.Refused != 10 {
		t.Errorf("%+v, want 4 malformed, 10 refused", st)
	}
	if st := p.Servers()[0].Stats(); st.Total != 0 {
		t.Errorf("the server has had %d connections, want none", st.Total)
	}
}

// What looks like a header is data where it comes from someone who is not
// trusted.
func TestUntrustedProxyHeaderIsData(t *testing.T) {
	h := newHouse(t)
	h.load([]Config{{Name: "web", Listen: []netip.AddrPort{entrance},
		AcceptProxy: &AcceptProxy{From: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}}}, newPool("web", backend(t, echo)))
	c := h.dial(entrance)
	say(t, c, "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
	expect(t, c, "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
}

func TestRoutesByServerName(t *testing.T) {
	h := newHouse(t)
	// Each server says who it is, and echoes.
	named := func(name string) *pool.Pool {
		return newPool(name, backend(t, func(c *net.TCPConn) {
			_, _ = io.WriteString(c, name+":")
			echo(c)
		}))
	}
	cfg := Config{Name: "tls", Listen: []netip.AddrPort{entrance}, Pool: "rest", Timeouts: Timeouts{Header: 300 * time.Millisecond}, Routes: []Route{
		{SNI: []string{"a.example"}, Pool: "a"}, {SNI: []string{"*.example", "*.deep.example"}, Pool: "wild"},
	}}
	strict := cfg
	strict.Name, strict.Pool, strict.Listen = "strict", "", []netip.AddrPort{netip.MustParseAddrPort("127.0.0.22:0")}
	h.load([]Config{cfg, strict}, named("a"), named("wild"), named("rest"))
	for _, tt := range []struct{ name, want, strict string }{
		{"a.example", "a", "a"}, {"A.Example", "a", "a"}, {"b.example", "wild", "wild"}, {"x.y.example", "wild", "wild"},
		{"example", "rest", ""}, {"b.test", "rest", ""}, {"192.0.2.1", "rest", ""},
	} {
		hello := helloOf(t, tt.name)
		c := h.dial(entrance)
		half := len(hello) / 2
		say(t, c, string(hello[:half]))
		time.Sleep(time.Millisecond)
		say(t, c, string(hello[half:]))
		expect(t, c, tt.want+":")
		got := make([]byte, len(hello))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, hello) {
			t.Errorf("%s: the server did not get the ClientHello as it was: %v", tt.name, err)
		}
		c = h.dial(strict.Listen[0])
		say(t, c, string(hello))
		if tt.strict == "" {
			expectReset(t, c)
		} else {
			expect(t, c, tt.strict+":")
		}
	}
	// Garbage, and a client that waits for the server.
	c := h.dial(entrance)
	say(t, c, "SSH-2.0-x\r\n")
	expect(t, c, "rest:SSH-2.0-x\r\n")
	expect(t, h.dial(entrance), "rest:")
	expectReset(t, h.dial(strict.Listen[0]))
}

// What was only looked at is spliced like everything else.
func TestBulkAfterAHead(t *testing.T) {
	h := newHouse(t)
	h.load([]Config{{Name: "tls", Listen: []netip.AddrPort{entrance}, AcceptProxy: &AcceptProxy{From: loopback},
		Routes: []Route{{SNI: []string{"a.example"}, Pool: "a"}}}}, newPool("a", backend(t, echo)))
	c := h.dial(entrance)
	sent := append(helloOf(t, "a.example"), noise(8<<20)...)
	go func() {
		_, _ = c.Write(append(proxyproto.AppendV1(nil, proxyproto.Header{}), sent...))
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("got %d bytes back, %v; want the %d that were sent", len(got), err, len(sent))
	}
}
