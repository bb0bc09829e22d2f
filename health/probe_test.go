package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"appliance/internal/endpoint"
)

// short is the timeout of checks that are to run into it, ample that of the
// others.
const (
	short = 150 * time.Millisecond
	ample = 10 * time.Second
)

// serve listens on loopback and runs handle for each connection, one after the
// other, until the test ends. handle need not close the connection.
func serve(t *testing.T, handle func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			handle(c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// silent reads and never answers, until the client goes away.
func silent(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// say answers with text, then waits for the client to go away.
func say(text string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = io.WriteString(c, text)
		silent(c)
	}
}

// closed is an address that refuses connections: a socket has it that does not
// listen, so that nobody else gets the port.
func closed(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	return bindLoopback(t, fd)
}

// bindLoopback binds a socket to a port of 127.0.0.1.
func bindLoopback(t *testing.T, fd int) netip.AddrPort {
	t.Helper()
	address := [4]byte{127, 0, 0, 1}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: address}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4(address), uint16(name.(*syscall.SockaddrInet4).Port))
}

// full is an address whose queue of new connections is full, so that a connect
// gets no answer.
func full(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	address := bindLoopback(t, fd)
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for {
		c, err := net.DialTimeout("tcp", address.String(), short)
		if err != nil {
			return address
		}
		t.Cleanup(func() { _ = c.Close() })
	}
}

// patient is a context whose end counts as that of a deadline.
type patient struct{ context.Context }

func (p patient) Err() error {
	if p.Context.Err() != nil {
		return context.DeadlineExceeded
	}
	return nil
}

func (p patient) Deadline() (time.Time, bool) {
	if p.Context.Err() != nil {
		return time.Unix(1, 0), true
	}
	return p.Context.Deadline()
}

// inTurns returns a context that ends after d as this process lives it: on a busy
// machine everything else in it has got as far by then as on an idle one. So a test
// may say how far a check comes in its time.
func inTurns(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		const turn = 5 * time.Millisecond
		for tick := time.NewTicker(turn); d > 0 && ctx.Err() == nil; d -= turn {
			<-tick.C
		}
		cancel()
	}()
	return patient{ctx}, cancel
}

// verdictOf checks address once and returns "up: reason" or "down: reason". It
// fails the test where the check outlives its timeout.
func verdictOf(t *testing.T, address netip.AddrPort, check Config) string {
	t.Helper()
	ctx, cancel := inTurns(t.Context(), check.Timeout)
	defer cancel()
	begun := time.Now()
	found, err := prepare(Target{Address: endpoint.IP(address), Check: check}).once(ctx)
	if took := time.Since(begun); took > ample {
		t.Errorf("the check took %s with a timeout of %s", took, check.Timeout)
	}
	var rest *unfinished
	if errors.As(err, &rest) {
		rest.finish(ctx)
	}
	if err != nil {
		return "down: " + inWords(err, check.Timeout)
	}
	if found.warning != "" {
		return "up: " + found.words + "; warning: " + found.warning
	}
	return "up: " + found.words
}

func TestTCP(t *testing.T) {
	tests := map[string]struct {
		address netip.AddrPort
		timeout time.Duration
		want    string
	}{
		"accepts":         {serve(t, silent), ample, "up: connection accepted"},
		"closes at once":  {serve(t, func(net.Conn) {}), ample, "up: connection accepted"},
		"refuses":         {closed(t), ample, "down: connection refused"},
		"does not answer": {full(t), short, "down: no connection within 150ms"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := verdictOf(t, test.address, Config{Type: TCP, Timeout: test.timeout}); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

func TestHTTPStatus(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var status int
		_, _ = fmt.Sscanf(r.URL.Path, "/%d", &status)
		w.Header().Set("Location", "/599")
		w.WriteHeader(status)
	}))
	defer server.Close()
	address := netip.MustParseAddrPort(server.Listener.Addr().String())
	tests := []struct{ path, status, want string }{
		{"/400", "", "down: status 400, want 200-399; the check asks for the host " + address.String() + ", name one of the site's with host"},
		{"/400", "200,400", "up: status 400"},
		{"/200", "", "up: status 200"},
		{"/302", "", "up: status 302"},
		{"/302", "200", "down: status 302, want 200"},
		{"/404", "", "down: status 404, want 200-399"},
		{"/500", "", "down: status 500, want 200-399"},
		{"/404", "200-299,404", "up: status 404"},
	}
	named := Config{Type: HTTP, Timeout: ample, Path: "/400", Host: "blog.example.com"}
	if got, want := verdictOf(t, address, named), "down: status 400, want 200-399"; got != want {
		t.Errorf("with a host: %s, want %s", got, want)
	}
	for _, test := range tests {
		t.Run(test.path+" "+test.status, func(t *testing.T) {
			check := Config{Type: HTTP, Timeout: ample, Path: test.path, Status: test.status}
			if got := verdictOf(t, address, check); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

func TestHTTPRequest(t *testing.T) {
	requests := make(chan string, 1)
	address := serve(t, func(c net.Conn) {
		buf := make([]byte, 4096)
		n, _ := c.Read(buf)
		requests <- string(buf[:n])
		_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
	})
	tests := map[string]struct {
		check Config
		want  []string
	}{
		"defaults": {Config{}, []string{"GET / HTTP/1.1\r\n", "Host: " + address.String() + "\r\n", "Connection: close\r\n"}},
		"all":      {Config{Method: "HEAD", Path: "/up?deep=1", Host: "example.com"}, []string{"HEAD /up?deep=1 HTTP/1.1\r\n", "Host: example.com\r\n"}},
		"slashes":  {Config{Path: "//up"}, []string{"GET //up HTTP/1.1\r\n"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.check.Type, test.check.Timeout = HTTP, ample
			if got := verdictOf(t, address, test.check); got != "up: status 204" {
				t.Error(got)
			}
			request := <-requests
			for _, part := range test.want {
				if !strings.Contains(request, part) {
					t.Errorf("no %q in the request %q", part, request)
				}
			}
		})
	}
}

func TestHTTPServersThatMisbehave(t *testing.T) {
	endless := func(start string) func(net.Conn) {
		return func(c net.Conn) {
			_, err := io.WriteString(c, start)
			for junk := strings.Repeat("x", 8<<10); err == nil; {
				_, err = io.WriteString(c, junk)
			}
		}
	}
	tests := map[string]struct {
		address netip.AddrPort
		timeout time.Duration
		want    string
	}{
		"refuses":          {closed(t), ample, "down: connection refused"},
		"never answers":    {serve(t, silent), short, "down: no answer within 150ms"},
		"half an answer":   {serve(t, say("HTTP/1.1 200")), short, "down: no answer within 150ms"},
		"closes at once":   {serve(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) }), ample, "down: connection closed by the server"},
		"speaks SSH":       {serve(t, say("SSH-2.0-OpenSSH_9.2\r\n")), ample, "down: the answer is not HTTP"},
		"endless head":     {serve(t, endless("HTTP/1.1 200 OK\r\nX: ")), ample, "down: the head of the answer is longer than 64 KiB"},
		"endless body":     {serve(t, endless("HTTP/1.1 200 OK\r\n\r\n")), ample, "up: status 200"},
		"body that stalls": {serve(t, say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")), short, "up: status 200"},
		"redirect to a hole": {
			serve(t, say("HTTP/1.1 301 Moved\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n")), ample, "up: status 301",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := verdictOf(t, test.address, Config{Type: HTTP, Timeout: test.timeout}); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

func TestUnknownTypeIsDown(t *testing.T) {
	if got := verdictOf(t, closed(t), Config{Type: "ping", Timeout: ample}); got != `down: unknown check type "ping"` {
		t.Error(got)
	}
}

func TestInWords(t *testing.T) {
	_, missing := os.ReadFile(filepath.Join("no", "such", "file"))
	tests := []struct {
		err  error
		want string
	}{
		{&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, "connection reset by peer"},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}, "no route to host"},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), "no answer within 2s"},
		{fmt.Errorf("x: %w", io.ErrUnexpectedEOF), "connection closed by the server"},
		{missing, "no/such/file: no such file or directory"},
		{&stageError{"logged in", &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}}, "logged in: no answer within 2s"},
		{errors.New("odd \x1b[31m\nwords \xff"), "odd ?[31m?words ?"},
		{errors.New(strings.Repeat("é", maxWords)), strings.Repeat("é", maxWords/2) + "..."},
	}
	for _, test := range tests {
		if got := inWords(test.err, 2*time.Second); got != test.want {
			t.Errorf("%v: %q, want %q", test.err, got, test.want)
		}
	}
}
