package l7

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tcpPair returns two ends of a connection.
func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.DialTCP("tcp4", nil, l.Addr().(*net.TCPAddr)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	if b, err = l.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return a, b
}

func lowWater(t *testing.T, raw syscall.RawConn) (n int) {
	t.Helper()
	var err error
	if e := raw.Control(func(fd uintptr) { n, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	return max(n, 1) // which is the same
}

func TestIntake(t *testing.T) {
	_, c := tcpPair(t)
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for _, tt := range []struct {
		name string
		got  int64
		in   time.Duration
		left int64
		want int
	}{
		{"a slow sender", 1 << 20, 10 * time.Millisecond, 1 << 30, 1},
		{"a quick one", 200 << 10, batchTime, 1 << 30, 200 << 10},
		{"more than a pipe holds", 8 << 20, batchTime, 1 << 30, pipeSize},
		{"near the end", 200 << 10, batchTime, 1000, 1000},
		{"at once", 1 << 20, 0, 1 << 30, pipeSize},
		{"nothing since", 0, batchTime, 1 << 30, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var in intake
			in.init()
			var pace int64
			if in.begin(raw, &pace, began) {
				t.Error("waits for who was never quick")
			}
			in.got = tt.got
			if got := in.batch(began.Add(tt.in), min(tt.left, pipeSize)); got != (tt.want > 1) {
				t.Errorf("batch %v, want %d bytes", got, tt.want)
			}
			var ready bool
			_ = raw.Control(func(fd uintptr) { ready = in.ready(fd) })
			if ready != (tt.want == 1) || lowWater(t, raw) != tt.want {
				t.Errorf("ready %v, woken by %d bytes, want %d", ready, lowWater(t, raw), tt.want)
			}
			in.hush()
			if got := lowWater(t, raw); got < 32<<10 {
				t.Errorf("woken by %d bytes while there is nowhere to put them", got)
			}
			in.each()
			if got := lowWater(t, raw); got != 1 {
				t.Errorf("woken by %d bytes, want each", got)
			}
			in.hush()
			in.end()
			if got := lowWater(t, raw); got != 1 {
				t.Errorf("woken by %d bytes after the end", got)
			}
		})
	}
}

// What cannot be told how much to wait for is left alone.
func TestIntakeOfNothing(t *testing.T) {
	var in intake
	in.init()
	pace := int64(1 << 30)
	if in.begin(nil, &pace, time.Now()) {
		t.Error("waits for a first batch")
	}
	in.got = 1 << 30
	if in.batch(time.Now(), 1<<30) {
		t.Error("waits for a batch")
	}
	in.hush()
	in.end()
}

// A client that is quick, then comes to a stop a byte before the end of a batch, and
// goes on by single bytes, is heard each time.
func TestSplicedUploadThatBecomesSlow(t *testing.T) {
	const size, quick, slow = 24<<20 + 20, 24 << 20, 20
	at, done := make(chan int64, slow+1), make(chan error, 1)
	_, addr := simple(t, raw(t, countingServer(size, quick, at, done)))
	c, in := dial(t, addr, nil)
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 25165844\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(c, zeros{}, quick); err != nil {
		t.Fatal(err)
	}
	for i := range int64(slow) {
		if got := <-at; got != quick+i {
			t.Fatalf("the server has %d bytes, want %d", got, quick+i)
		}
		if _, err := c.Write([]byte{0}); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if resp := answerTo(t, in, "POST"); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
	// A request of few bytes is heard at once, too.
	if _, err := io.WriteString(c, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if resp := answerTo(t, in, "HEAD"); resp.StatusCode != 200 {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// countingServer takes a body of size bytes. From quick bytes on it tells at how many
// it has after each read. It answers, and then another request.
func countingServer(size, quick int64, at chan<- int64, done chan<- error) func(c *net.TCPConn, r *bufio.Reader) {
	return func(c *net.TCPConn, r *bufio.Reader) {
		readHead(r)
		n, err := io.CopyN(io.Discard, r, quick)
		for at <- n; err == nil && n < size; n++ {
			if _, err = r.ReadByte(); err == nil && n+1 < size {
				at <- n + 1
			}
		}
		done <- err
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		readHead(r)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	}
}

// Who was quick with a body and stops in the midst of the next, of which we wait for
// a batch before anything else, has what there is carried on, in both directions.
func TestSplicedBodyThatStopsAfterAQuickOne(t *testing.T) {
	const size, part = 1 << 20, 200 << 10
	seen := make(chan error)
	_, addr := simple(t, raw(t, func(c *net.TCPConn, r *bufio.Reader) {
		head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
		for range 2 {
			readHead(r)
			io.CopyN(io.Discard, r, size)
			io.WriteString(c, head)
			io.CopyN(c, zeros{}, size)
		}
		readHead(r)
		_, err := io.CopyN(io.Discard, r, part)
		seen <- err
		io.CopyN(io.Discard, r, size-part)
		io.WriteString(c, head)
		io.CopyN(c, zeros{}, part)
		<-seen
		io.CopyN(c, zeros{}, size-part)
		<-seen
	}))
	c, in := dial(t, addr, nil)
	begin := func() {
		t.Helper()
		if _, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		begin()
		if _, err := io.CopyN(c, zeros{}, size); err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, answerTo(t, in, "POST").Body); n != size || err != nil {
			t.Fatal(n, err)
		}
	}
	begin()
	if _, err := io.CopyN(c, zeros{}, part); err != nil {
		t.Fatal(err)
	}
	if err := <-seen; err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(c, zeros{}, size-part); err != nil {
		t.Fatal(err)
	}
	resp := answerTo(t, in, "POST")
	if n, err := io.CopyN(io.Discard, resp.Body, part); n != part || err != nil {
		t.Fatal(n, err)
	}
	seen <- nil
	if n, err := io.Copy(io.Discard, resp.Body); n != size-part || err != nil {
		t.Fatal(n, err)
	}
	seen <- nil
}

// The pace of a body is known to the connection, and the next body waits by it.
func TestIntakeRemembers(t *testing.T) {
	_, c := tcpPair(t)
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var in intake
	in.init()
	var pace int64
	now := time.Now()
	in.begin(raw, &pace, now)
	in.took(1 << 20)
	in.last = now.Add(batchTime)
	in.end()
	if pace != 1<<20 {
		t.Errorf("pace %d", pace)
	}
	if !in.begin(raw, &pace, now) || !in.batch(now, 1<<19) {
		t.Error("does not wait for who was quick")
	}
	in.took(1000)
	in.last = now.Add(batchTime)
	in.end()
	if in.begin(raw, &pace, now) {
		t.Errorf("waits for who has become slow, at %d", pace)
	}
	in.end()
}
