package listen

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair returns both ends of a connection.
func pair(t *testing.T) (client net.Conn, server *Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client = dial(t, l.Addr().(*net.TCPAddr).AddrPort())
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server = adopt(t, c.(*net.TCPConn))
	t.Cleanup(func() { server.Close() })
	if got, want := server.Peer().String(), client.LocalAddr().String(); got != want {
		t.Errorf("the other side of %v is %v", want, got)
	}
	return client, server
}

// A connection that has never to be waited for stays unknown to the poller; one that
// has does what it did before.
func TestConnIsPolledWhenItWaits(t *testing.T) {
	client, c := pair(t)
	say := func(text string) {
		t.Helper()
		if _, err := io.WriteString(client, text); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(want string) {
		t.Helper()
		b := make([]byte, len(want))
		if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
			t.Fatalf("read %q, %v; want %q", b, err, want)
		}
	}
	say("one")
	ready(t, c)
	hear("one")
	if _, err := io.WriteString(c, "1"); err != nil {
		t.Fatal(err)
	}
	expect(t, client, "1")
	if c.polled.Load() != nil {
		t.Error("the poller knows a connection that has not been waited for")
	}
	go func() {
		time.Sleep(10 * time.Millisecond)
		_, _ = io.WriteString(client, "two")
	}()
	hear("two")
	if c.polled.Load() == nil {
		t.Error("the poller does not know a connection that has been waited for")
	}
	say("three")
	hear("three")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after CloseWrite the client reads: %v", err)
	}
	client.Close()
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the client has closed: %v", err)
	}
}

// ready waits until there is something to read.
func ready(t *testing.T, c *Conn) {
	t.Helper()
	if err := (*rawConn)(c).Control(func(fd uintptr) {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience/time.Millisecond))
	}); err != nil {
		t.Fatal(err)
	}
}

// A deadline holds whether it was set before or after the poller knew of the
// connection.
func TestConnDeadlines(t *testing.T) {
	_, c := pair(t)
	for range 2 {
		if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
	}
	much := make([]byte, 64<<20)
	if err := c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Write(much)
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 {
		t.Errorf("wrote %d bytes, %v", n, err)
	}
}

// A deadline ends also what never has to wait: as much as the other side has sent does
// not keep a reader for longer.
func TestConnDeadlineWithoutWaiting(t *testing.T) {
	client, c := pair(t)
	if _, err := client.Write(make([]byte, 1<<10)); err != nil {
		t.Fatal(err)
	}
	ready(t, c)
	past := time.Now().Add(-time.Second)
	for what, call := range map[string]func() error{
		"read":  func() error { _, err := c.Read(make([]byte, 1)); return err },
		"write": func() error { _, err := c.Write(make([]byte, 1)); return err },
	} {
		if err := call(); err != nil {
			t.Errorf("%s without a deadline: %v", what, err)
		}
		if err := c.SetDeadline(past); err != nil {
			t.Fatal(err)
		}
		if err := call(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s after the deadline: %v", what, err)
		}
		if err := c.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		if err := call(); err != nil {
			t.Errorf("%s with no deadline any more: %v", what, err)
		}
	}
	if c.polled.Load() != nil {
		t.Error("the poller knows a connection that has not been waited for")
	}
}

// Close ends calls under way, however far they are, and the descriptor is closed
// once.
func TestConnClose(t *testing.T) {
	for name, during := range map[string]func(c *Conn, began chan<- struct{}) error{
		"in a read that waits": func(c *Conn, began chan<- struct{}) error {
			close(began)
			_, err := c.Read(make([]byte, 1))
			return err
		},
		"in a call of the descriptor": func(c *Conn, began chan<- struct{}) error {
			return (*rawConn)(c).Read(func(uintptr) bool {
				close(began)
				for c.SetReadDeadline(time.Time{}) == nil {
					time.Sleep(time.Millisecond)
				}
				return false
			})
		},
		"in a write that waits in a call of the descriptor": func(c *Conn, began chan<- struct{}) (err error) {
			_ = (*rawConn)(c).Read(func(uintptr) bool {
				close(began)
				for err == nil {
					_, err = c.Write(make([]byte, 1<<20))
				}
				return true
			})
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = net.ErrClosed // as good
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			client, c := pair(t)
			began, ended := make(chan struct{}), make(chan error)
			go func() { ended <- during(c, began) }()
			<-began
			time.Sleep(10 * time.Millisecond)
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			select {
			case err := <-ended:
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("the call ends with %v", err)
				}
			case <-time.After(patience):
				t.Fatal("the call goes on")
			}
			if _, err := io.Copy(io.Discard, client); err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client is not told: %v", err)
			}
			for what, err := range map[string]error{
				"close again":  c.Close(),
				"set deadline": c.SetDeadline(time.Now()),
				"close write":  c.CloseWrite(),
				"control":      (*rawConn)(c).Control(func(uintptr) { t.Error("called") }),
			} {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

func TestConnResetOnClose(t *testing.T) {
	client, c := pair(t)
	if err := errors.Join(c.ResetOnClose(), c.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client reads: %v", err)
	}
}

// accepts is a handler that tells whose connection it gets.
type accepts struct {
	first bool
	got   chan netip.AddrPort
}

func (a accepts) ClientsFirst() bool { return a.first }

func (a accepts) ServeConn(c *Conn) {
	a.got <- c.Peer()
	c.Close()
}

// Where clients speak first those who have spoken are accepted first, at once, and
// who is silent is after a second. A reload can end that.
func TestClientsSpeakFirst(t *testing.T) {
	s := newSet(t)
	address, got := anyPort("127.0.0.1"), make(chan netip.AddrPort, 3)
	next := func(c net.Conn, who string) {
		t.Helper()
		select {
		case peer := <-got:
			if peer.String() != c.LocalAddr().String() {
				t.Fatalf("%v was accepted and not %s", peer, who)
			}
		case <-time.After(patience):
			t.Fatalf("%s was not accepted", who)
		}
	}
	stage(t, s, map[netip.AddrPort]Handler{address: accepts{true, got}}).Commit()
	bound := s.Addr(address)
	began := time.Now()
	silent, speaks, leaves := dial(t, bound), dial(t, bound), dial(t, bound)
	if _, err := io.WriteString(speaks, "hello"); err != nil {
		t.Fatal(err)
	}
	next(speaks, "who speaks")
	leaves.Close()
	next(leaves, "who leaves")
	next(silent, "who is silent")
	if took := time.Since(began); took < time.Second/2 {
		t.Errorf("who is silent was accepted after %v", took)
	}

	stage(t, s, map[netip.AddrPort]Handler{address: accepts{false, got}}).Commit()
	began = time.Now()
	next(dial(t, bound), "who is silent")
	if took := time.Since(began); took > time.Second/2 {
		t.Errorf("who is silent was accepted after %v where nobody has to speak", took)
	}
}
