package l7

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// webSocketEcho is a server that takes WebSockets and sends back what comes.
func webSocketEcho(t *testing.T) string {
	return raw(t, func(c *net.TCPConn, r *bufio.Reader) {
		key := ""
		for _, line := range strings.Split(readHead(r), "\r\n") {
			if name, value, ok := strings.Cut(line, ": "); ok && strings.EqualFold(name, "Sec-WebSocket-Key") {
				key = value
			}
		}
		if key == "" {
			io.WriteString(c, "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 4\r\n\r\nno\r\n")
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: %s\r\n\r\nwelcome", webSocketAccept(key))
		_, _ = io.Copy(c, r)
		c.CloseWrite()
	})
}

// A WebSocket goes to a server by HTTP/2 as an extended CONNECT, here to another
// service of ours, and either side may end first.
func TestWebSocketByHTTP2(t *testing.T) {
	r := newRig(t)
	r.pool("echo", webSocketEcho(t))
	inner, outer := r.addr(), r.addr()
	cert := makeCert(t, "inner.example.com")
	r.pool("inner", inner.String())
	r.wires = map[string]Transport{"inner": {HTTP: HTTP2, TLS: &ServerTLS{ServerName: "inner.example.com", CAFile: cert.Cert}}}
	r.apply(Config{Name: "inner", Listen: []netip.AddrPort{inner}, Pool: "echo", TLS: &TLS{Certificates: []Certificate{cert}}},
		Config{Name: "outer", Listen: []netip.AddrPort{outer}, Pool: "inner"})
	for range 3 {
		c, in := dial(t, outer, nil)
		const key = "dGhlIHNhbXBsZSBub25jZQ=="
		io.WriteString(c, "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+key+"\r\n\r\n")
		head := readHead(in)
		for _, want := range []string{" 101 ", "\r\nUpgrade: websocket\r\n", "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", "chat"} {
			if !strings.Contains(head, want) {
				t.Fatalf("%q has no %q", head, want)
			}
		}
		text := strings.Repeat("0123456789abcdef", 1<<16)
		go func() {
			io.WriteString(c, text)
			c.(*net.TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(in)
		if string(got) != "welcome"+text || err != nil {
			t.Errorf("%d bytes came back, %v", len(got), err)
		}
		c.Close()
	}
	r.until("the tunnels have ended", func() bool { return r.pools["inner"].Servers()[0].Current() == 0 })
	if s := r.stats("outer"); s.Responses[0] != 3 {
		t.Errorf("%v", s.Responses)
	}
}

// A client that leaves ends the tunnel on all its way, and a server that does not take
// extended CONNECT gets an ordinary request.
func TestWebSocketByHTTP2ThatEnds(t *testing.T) {
	r := newRig(t)
	ended := make(chan struct{})
	r.pool("echo", raw(t, func(c *net.TCPConn, in *bufio.Reader) {
		head := readHead(in)
		_, key, _ := strings.Cut(strings.ToLower(head), "sec-websocket-key: ")
		at := strings.Index(strings.ToLower(head), key)
		key, _, _ = strings.Cut(head[at:], "\r\n")
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\nwelcome", webSocketAccept(key))
		_, _ = io.Copy(io.Discard, in)
		close(ended)
	}))
	inner, outer := r.addr(), r.addr()
	cert := makeCert(t, "inner.example.com")
	r.pool("inner", inner.String())
	r.pool("plain", http2Web(t, nil, nil, nil, mirror))
	r.wires = map[string]Transport{"plain": byHTTP2, "inner": {HTTP: HTTP2, TLS: &ServerTLS{ServerName: "inner.example.com", CAFile: cert.Cert}}}
	r.apply(Config{Name: "inner", Listen: []netip.AddrPort{inner}, Pool: "echo", TLS: &TLS{Certificates: []Certificate{cert}}},
		Config{Name: "outer", Listen: []netip.AddrPort{outer}, Pool: "inner", Routes: []Route{{Paths: []string{"/plain"}, Pool: "plain"}}})
	const rest = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	c, in := dial(t, outer, nil)
	io.WriteString(c, "GET / HTTP/1.1\r\n"+rest)
	readHead(in)
	if _, err := io.ReadFull(in, make([]byte, len("welcome"))); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
	<-ended
	r.until("the tunnel has ended", func() bool { return r.pools["inner"].Servers()[0].Current() == 0 })
	resp := say(t, outer, "GET /plain HTTP/1.1\r\n"+rest)
	if body(t, resp); resp.StatusCode != 200 {
		t.Errorf("an ordinary request: %s", resp.Status)
	}
}
