package integration

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"appliance/internal/lab"
)

// badClientConfig has an HTTPS service that does not wait long for anybody, but
// long enough for hundreds of handshakes on a machine of two processors, and
// for the host raw.example a server that shows what it is sent.
const badClientConfig = `
[[l7]]
name            = "secure"
listen          = ["192.168.15.3:443"]
pool            = "web"
max_header_size = "64KiB"
tls             = { certificates = [{ cert = "blog.pem", key = "blog.key" }] }
timeouts        = { header = "3s", idle = "3s" }

[[l7.route]]
hosts = ["raw.example"]
pool  = "raw"

[pool.raw]
servers = ["172.16.1.51:8000"]
`

// badClientRig is a pair with that service, and who talks to it.
type badClientRig struct {
	*pair
	trust  *tls.Config
	target netip.AddrPort
	raw    *badClientServer
}

// badClientAnswer is how long a bad client waits for its end: many times the
// service's own limits.
const badClientAnswer = 20 * time.Second

func newBadClientRig(t *testing.T) *badClientRig {
	t.Helper()
	cert, key := newCertificate(t, "blog.example")
	p := newPair(t, patientConfig(t)+badClientConfig)
	for _, n := range p.Nodes() {
		for path, data := range map[string][]byte{"/run/appliance/blog.pem": cert, "/run/appliance/blog.key": key} {
			if err := n.WriteFile(path, data); err != nil {
				t.Fatal(err)
			}
		}
	}
	rig := &badClientRig{
		pair: p, trust: reloadTrust(t, cert), target: netip.AddrPortFrom(p.VIP, 443),
		raw: newBadClientServer(t, p.Servers[0].Host, "172.16.1.51:8000"),
	}
	p.start()
	return rig
}

// open opens a connection, with the handshake for HTTP/1.1 if it is to be TLS.
// It gives up after badClientAnswer.
func (r *badClientRig) open(handshake bool) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), badClientAnswer)
	defer cancel()
	c, err := r.Client.Dial(ctx, r.target)
	if err != nil {
		return nil, err
	}
	r.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(badClientAnswer)); err != nil || !handshake {
		return c, err
	}
	config := r.trust.Clone()
	config.NextProtos = []string{"http/1.1"}
	t := tls.Client(c, config)
	return t, t.Handshake()
}

// badClientServer is a server that notes what it is sent, byte by byte, and
// answers the first head on each connection.
type badClientServer struct {
	listener net.Listener
	tasks    sync.WaitGroup
	mu       sync.Mutex
	heads    []string
}

func newBadClientServer(t *testing.T, h *lab.Host, address string) *badClientServer {
	t.Helper()
	l, err := h.Listen(netip.MustParseAddrPort(address))
	if err != nil {
		t.Fatal(err)
	}
	s := &badClientServer{listener: l}
	s.tasks.Go(s.serve)
	t.Cleanup(func() {
		l.Close()
		s.tasks.Wait()
	})
	return s
}

func (s *badClientServer) serve() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return // the listener was closed
		}
		s.tasks.Go(func() {
			defer c.Close()
			c.SetDeadline(time.Now().Add(badClientAnswer))
			var head strings.Builder
			for r := bufio.NewReader(c); ; {
				line, err := r.ReadString('\n')
				head.WriteString(line)
				if err != nil {
					return
				}
				if strings.TrimSpace(line) == "" {
					break
				}
			}
			s.mu.Lock()
			s.heads = append(s.heads, head.String())
			s.mu.Unlock()
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nraw\n")
		})
	}
}

// seen returns the heads that it got.
func (s *badClientServer) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.heads)
}

// badClientEnd is how a connection went on after a client had its say.
type badClientEnd struct {
	status  int // of the first answer; 0: there was none
	answers int
	closed  bool
}

// badClientReadEnd reads until the connection is closed, or gives up.
func badClientReadEnd(c net.Conn) badClientEnd {
	var e badClientEnd
	all, err := io.ReadAll(c)
	e.closed = !errors.Is(err, os.ErrDeadlineExceeded)
	e.answers = bytes.Count(all, []byte("HTTP/1.1 ")) + bytes.Count(all, []byte("HTTP/1.0 "))
	if fields := bytes.Fields(all); len(fields) > 1 && e.answers > 0 {
		e.status, _ = strconv.Atoi(string(fields[1]))
	}
	return e
}

// badClientCase is what a client says on a connection of its own.
type badClientCase struct {
	name, text string
	want       []int // any of these is the answer's status; 0: closed without a word
}

const (
	badClientGet  = "GET / HTTP/1.1\r\nHost: raw.example\r\n"
	badClientPost = "POST / HTTP/1.1\r\nHost: raw.example\r\n"
)

// say has clients say what the cases are. Each must get at most one answer and
// lose its connection; what is forwarded must have one meaning only.
func (r *badClientRig) say(cases []badClientCase) {
	r.t.Helper()
	names := make(map[string]string) // of the cases, by their targets
	for i, c := range cases {
		conn, err := r.open(true)
		if err != nil {
			r.t.Fatal(err)
		}
		target := fmt.Sprintf("/case%d", i)
		names[target] = c.name
		text := strings.Replace(c.text, " / ", " "+target+" ", 1)
		written := make(chan struct{})
		go func() {
			io.WriteString(conn, text) // it may fail: the rest is not wanted
			close(written)
		}()
		e := badClientReadEnd(conn)
		conn.Close()
		<-written
		if !slices.Contains(c.want, e.status) || !e.closed || e.answers > 1 {
			r.t.Errorf("%s: status %d, closed %v, %d answers; want one of %v, and closed", c.name, e.status, e.closed, e.answers, c.want)
		}
	}
	// What the server got of them it may have got late.
	seen := make(map[string]bool)
	for _, head := range r.raw.seen() {
		_, rest, _ := strings.Cut(head, " ")
		target, _, _ := strings.Cut(rest, " ")
		name, ok := names[target]
		if !ok || seen[name] {
			r.t.Errorf("the server got a request that was not sent: %q", head)
		}
		seen[name] = true
		lower := strings.ToLower(head)
		length, coding := strings.Count(lower, "\r\ncontent-length:"), strings.Count(lower, "\r\ntransfer-encoding:")
		if length+coding > 1 || strings.Contains(strings.ReplaceAll(head, "\r\n", ""), "\r") {
			r.t.Errorf("%s: the server got an ambiguous request: %q", name, head)
		}
	}
}

// What is no request, or not clearly one, gets a clear status and loses its
// connection.
func TestBadClientRequests(t *testing.T) {
	t.Parallel()
	const get, post = badClientGet, badClientPost
	var lines strings.Builder
	for i := range 10000 {
		fmt.Fprintf(&lines, "X-%d: %d\r\n", i, i)
	}
	newBadClientRig(t).say([]badClientCase{
		{"no HTTP at all", "\x00\x01\x02\xff\xfe hello \r\n\r\n", []int{400}},
		{"half a request", get, []int{408, 0}},
		{"a field of 1 MiB", get + "X-Large: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", []int{431}},
		{"10,000 fields", get + lines.String() + "\r\n", []int{431}},
		{"a target of 100 KiB", "GET /" + strings.Repeat("x", 100<<10) + " HTTP/1.1\r\nHost: raw.example\r\n\r\n", []int{414, 431}},
		{"no host", "GET / HTTP/1.1\r\n\r\n", []int{400}},
		{"two hosts", get + "Host: blog.example\r\n\r\n", []int{400}},
		{"a blank in the host", "GET / HTTP/1.1\r\nHost: raw example\r\n\r\n", []int{400}},
		{"a path in the host", "GET / HTTP/1.1\r\nHost: raw.example/x\r\n\r\n", []int{400}},
		{"a user in the host", "GET / HTTP/1.1\r\nHost: me@raw.example\r\n\r\n", []int{400}},
		{"a field without a name", get + ": x\r\n\r\n", []int{400}},
		{"a field without a colon", get + "X-A\r\n\r\n", []int{400}},
		{"a zero byte", get + "X-A: b\x00c\r\n\r\n", []int{400}},
		{"a bare carriage return", get + "X-A: b\rX-B: c\r\n\r\n", []int{400}},
		{"no method", "G@T / HTTP/1.1\r\nHost: raw.example\r\n\r\n", []int{400}},
		{"a version to come", "GET / HTTP/3.0\r\nHost: raw.example\r\n\r\n", []int{505}},
		{"no version", "GET /\r\n\r\n", []int{400}},
		{"a tunnel", "CONNECT raw.example:443 HTTP/1.1\r\nHost: raw.example:443\r\nConnection: close\r\n\r\n", []int{501, 405}},

		{"two lengths", post + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", []int{400}},
		{"a length with a sign", post + "Content-Length: +4\r\n\r\nabcd", []int{400}},
		{"a negative length", post + "Content-Length: -4\r\n\r\nabcd", []int{400}},
		{"a list of lengths", post + "Content-Length: 4, 5\r\n\r\nabcde", []int{400}},
		{"an unknown coding", post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", []int{400, 501}},
		{"two codings", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", []int{400, 501}},
		{"a blank before the colon", post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", []int{400}},
		{"a chunk without a size", post + "Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n", []int{400, 200}},
		{"a chunk of any size", post + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n", []int{400, 200}},
	})
}

// A request with a length and a coding is refused, or the last of its
// connection (RFC 9112, section 6.3): somebody on its way may have gone by the
// other one, and what follows is not what it seems to be.
func TestBadClientLengthAndCoding(t *testing.T) {
	t.Parallel()
	const smuggled = "GET /smuggled HTTP/1.1\r\nHost: raw.example\r\n\r\n"
	newBadClientRig(t).say([]badClientCase{
		{"a length and a coding", badClientPost + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, []int{400, 200}},
		{"a coding and a length", badClientPost + "Transfer-Encoding: chunked\r\nContent-Length: 50\r\n\r\n0\r\n\r\n" + smuggled, []int{400, 200}},
		{"a coding for HTTP/1.0", "POST / HTTP/1.0\r\nHost: raw.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, []int{400, 200}},
	})
}
