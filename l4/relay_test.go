package l4

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"appliance/internal/pool"
)

func TestServerSpeaksFirst(t *testing.T) {
	h := newHouse(t)
	h.serve(Timeouts{}, backend(t, greet("220 ready\r\n")))
	c := h.dial(entrance)
	expect(t, c, "220 ready\r\n")
	c.Close()
	if got := h.end(); got != "both sides closed" {
		t.Errorf("the connection ended with %q", got)
	}
}

func noise(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data) // never fails
	return data
}

// The server answers only after the client's end: the end must travel while
// the other direction stays open.
func TestHalfCloseByTheClient(t *testing.T) {
	h := newHouse(t)
	h.serve(Timeouts{}, backend(t, func(c *net.TCPConn) {
		data, err := io.ReadAll(c)
		if err != nil {
			t.Errorf("server read: %v", err)
		}
		_, _ = c.Write(data)
	}))
	c := h.dial(entrance)
	sent := noise(10 << 20)
	if _, err := c.Write(sent); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("got %d bytes back, %v, want the %d that were sent", len(got), err, len(sent))
	}
	if got := h.end(); got != "both sides closed" {
		t.Errorf("the connection ended with %q", got)
	}
	st := h.engine.Stats()[0]
	if st.BytesToServer != 10<<20 || st.BytesToClient != 10<<20 {
		t.Errorf("counted %d bytes to the server and %d to the client", st.BytesToServer, st.BytesToClient)
	}
}

func TestHalfCloseByTheServer(t *testing.T) {
	h := newHouse(t)
	sum := make(chan [32]byte, 1)
	h.serve(Timeouts{}, backend(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "send me all you have")
		_ = c.CloseWrite()
		data, err := io.ReadAll(c)
		if err != nil {
			t.Errorf("server read: %v", err)
		}
		sum <- sha256.Sum256(data)
	}))
	c := h.dial(entrance)
	expect(t, c, "send me all you have")
	expectEnd(t, c)
	sent := noise(10 << 20)
	if _, err := c.Write(sent); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if got := <-sum; got != sha256.Sum256(sent) {
		t.Error("the server got something else than was sent")
	}
	if got := h.end(); got != "both sides closed" {
		t.Errorf("the connection ended with %q", got)
	}
}

func TestBothDirectionsAtOnce(t *testing.T) {
	h := newHouse(t)
	h.serve(Timeouts{}, backend(t, echo))
	c := h.dial(entrance)
	sent := noise(10 << 20)
	go func() {
		_, _ = c.Write(sent)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("got %d bytes back, %v, want the %d that were sent", len(got), err, len(sent))
	}
}

func TestResetOfTheClientReachesTheServer(t *testing.T) {
	for name, serve := range map[string]func(*net.TCPConn) error{
		"idle": func(c *net.TCPConn) error {
			_, err := io.Copy(io.Discard, c)
			return err
		},
		"download": func(c *net.TCPConn) error {
			_, err := c.Write(noise(64 << 20))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			ended := make(chan error, 1)
			p := h.serve(Timeouts{}, backend(t, func(c *net.TCPConn) {
				_, _ = io.WriteString(c, "go")
				ended <- serve(c)
			}))
			c := h.dial(entrance)
			expect(t, c, "go")
			resetConn(c)
			if err := <-ended; err == nil {
				t.Error("the server saw a clean end")
			}
			if got := h.end(); !strings.Contains(got, "reset by peer") && !strings.Contains(got, "broken pipe") {
				t.Errorf("the connection ended with %q", got)
			}
			if st := p.Servers()[0].Stats(); st.Errors != (pool.Errors{}) {
				t.Errorf("the server has %+v, but it was the client", st.Errors)
			}
		})
	}
}

func TestResetOfTheServerReachesTheClient(t *testing.T) {
	h := newHouse(t)
	p := h.serve(Timeouts{}, backend(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "Content-Length: 1000000\r\n\r\n...")
		_, _ = c.Read(make([]byte, 1))
		resetConn(c)
	}))
	c := h.dial(entrance)
	say(t, c, "x")
	expectReset(t, c)
	if got := h.end(); got != "server to client: read: connection reset by peer" {
		t.Errorf("the connection ended with %q", got)
	}
	if st := p.Servers()[0].Stats(); st.Errors.Broken != 1 {
		t.Errorf("the server has %+v, want 1 broken", st)
	}
}

func TestIdleTimeout(t *testing.T) {
	h := newHouse(t)
	const idle = 200 * time.Millisecond
	ended := make(chan error, 1)
	h.serve(Timeouts{Idle: idle}, backend(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "hello")
		_, err := io.Copy(io.Discard, c)
		ended <- err
	}))
	before := time.Now()
	c := h.dial(entrance)
	expect(t, c, "hello")
	expectReset(t, c)
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server saw %v, want a reset", err)
	}
	if lasted := time.Since(before); lasted < idle {
		t.Errorf("the connection was cut after %v, before its timeout", lasted)
	}
	if got := h.end(); got != "idle timeout" {
		t.Errorf("the connection ended with %q", got)
	}
}

// A direction that is silent for longer than the timeout does not matter while
// the other one is busy.
func TestOneWayTrafficIsNotIdle(t *testing.T) {
	const idle, lasts, every = time.Second, 2500 * time.Millisecond, 50 * time.Millisecond
	drip := func(c net.Conn) (int, error) {
		tick := time.NewTicker(every)
		defer tick.Stop()
		n := 0
		for end := time.Now().Add(lasts); time.Now().Before(end); <-tick.C {
			if _, err := io.WriteString(c, "."); err != nil {
				return n, err
			}
			n++
		}
		return n, nil
	}
	t.Run("download", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		sent := make(chan int, 1)
		h.serve(Timeouts{Idle: idle}, backend(t, func(c *net.TCPConn) {
			n, err := drip(c)
			if err != nil {
				t.Errorf("server write: %v", err)
			}
			sent <- n
		}))
		got, err := io.ReadAll(h.dial(entrance))
		if want := <-sent; err != nil || len(got) != want {
			t.Errorf("read %d bytes, %v, want %d", len(got), err, want)
		}
	})
	t.Run("upload", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		got := make(chan int64, 1)
		h.serve(Timeouts{Idle: idle}, backend(t, func(c *net.TCPConn) {
			n, _ := io.Copy(io.Discard, c)
			got <- n
		}))
		c := h.dial(entrance)
		n, err := drip(c)
		if err != nil {
			t.Fatalf("client write: %v", err)
		}
		c.Close()
		if got := <-got; got != int64(n) {
			t.Errorf("the server read %d bytes, want %d", got, n)
		}
	})
	// After a half-close it is the half-close timeout that must spare it.
	t.Run("half closed", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		h.serve(Timeouts{HalfClose: idle}, backend(t, func(c *net.TCPConn) {
			if _, err := drip(c); err != nil {
				t.Errorf("server write: %v", err)
			}
		}))
		c := h.dial(entrance)
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(c); err != nil {
			t.Error(err)
		}
		if got := h.end(); got != "both sides closed" {
			t.Errorf("the connection ended with %q", got)
		}
	})
}

// Two sides that write and never read stop each other: that is idle too.
func TestStalledConnectionIsIdle(t *testing.T) {
	h := newHouse(t)
	flood := func(c *net.TCPConn) {
		for {
			if _, err := c.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	}
	h.serve(Timeouts{Idle: 500 * time.Millisecond}, backend(t, flood))
	flood(h.dial(entrance))
	if got := h.end(); got != "idle timeout" {
		t.Errorf("the connection ended with %q", got)
	}
}

func TestHalfCloseTimeout(t *testing.T) {
	h := newHouse(t)
	const halfClose = 200 * time.Millisecond
	done := make(chan struct{})
	defer close(done)
	h.serve(Timeouts{HalfClose: halfClose}, backend(t, func(c *net.TCPConn) {
		_, _ = io.Copy(io.Discard, c)
		<-done
	}))
	c := h.dial(entrance)
	before := time.Now()
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	expectReset(t, c)
	if lasted := time.Since(before); lasted < halfClose {
		t.Errorf("the connection was cut after %v, before its timeout", lasted)
	}
	if got := h.end(); got != "half-close timeout" {
		t.Errorf("the connection ended with %q", got)
	}
}
