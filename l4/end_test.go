package l4

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A server that answers in the middle of an upload and closes resets what still
// comes. Its answer reaches the client all the same, and the end is a reset, as
// it is without a relay.
func TestEarlyAnswer(t *testing.T) {
	answer := strings.Repeat("413 too large, and good bye\n", 3000)
	h := newHouse(t)
	h.serve(Timeouts{}, backend(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 1000))
		_, _ = io.WriteString(c, answer)
	}))
	upload := make([]byte, 1<<20)
	for range 100 {
		c := h.dial(entrance)
		go func() { _, _ = c.Write(upload) }()
		got := make([]byte, len(answer))
		if n, err := io.ReadFull(c, got); err != nil || string(got) != answer {
			t.Fatalf("got %d bytes of the answer, %v, want %d", n, err, len(answer))
		}
		expectReset(t, c)
		c.Close()
		if got := h.end(); got == "both sides closed" {
			t.Fatal("a broken upload is taken for a whole one")
		}
	}
}

// The kernel tells only one system call of a reset. Whichever it is, a server
// must not see the client's end in it.
func TestResetIsNeverAnEnd(t *testing.T) {
	h := newHouse(t)
	ended := make(chan error, 1)
	h.serve(Timeouts{}, backend(t, func(c *net.TCPConn) {
		// More than the client's buffer takes, so that the relay is writing, but
		// usually less than all take together, so that this side is not. If it
		// is, it may be the write that hears of the reset.
		_, err := c.Write(make([]byte, 1<<20))
		if err == nil {
			_, err = io.Copy(io.Discard, c)
		}
		ended <- err
	}))
	for range 100 {
		c := h.dial(entrance)
		expect(t, c, "\x00")
		resetConn(c)
		if err := <-ended; err == nil {
			t.Fatal("the server saw a clean end")
		}
		h.end()
	}
}

// A side that has ended its direction may still be reset, and the other side
// hears of it at once, though nothing is written.
func TestResetAfterAHalfCloseIsPassedOn(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		h := newHouse(t)
		ended := make(chan error, 1)
		h.serve(Timeouts{HalfClose: time.Hour}, backend(t, func(c *net.TCPConn) {
			_, _ = io.Copy(io.Discard, c)
			_, _ = io.WriteString(c, "!")
			_, err := awaitReset(c)
			ended <- err
		}))
		c := h.dial(entrance)
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		expect(t, c, "!")
		resetConn(c)
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(atOnce):
			t.Error("the server was not told")
		}
		h.end()
	})
	t.Run("server", func(t *testing.T) {
		h := newHouse(t)
		h.serve(Timeouts{HalfClose: time.Hour}, backend(t, func(c *net.TCPConn) {
			_ = c.CloseWrite()
			_, _ = io.ReadFull(c, make([]byte, 1))
			resetConn(c)
		}))
		c := h.dial(entrance)
		expectEnd(t, c)
		say(t, c, "x")
		if _, err := awaitReset(c); err != nil {
			t.Error(err)
		}
		h.end()
	})
}

// awaitReset waits until c is reset, without reading or writing.
func awaitReset(c *net.TCPConn) (events int16, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	ctrlErr := raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}} // POLLERR is always reported
		for end := time.Now().Add(atOnce); time.Now().Before(end); {
			if n, pollErr := unix.Poll(p, 100); pollErr == nil && n > 0 && p[0].Revents&unix.POLLERR != 0 {
				events = p[0].Revents
				return
			}
			time.Sleep(time.Millisecond)
		}
		err = errors.New("no reset")
	})
	return events, errors.Join(ctrlErr, err)
}

// A connection is carried until its client has everything, however it ends.
func TestActiveUntilTheClientHasEverything(t *testing.T) {
	sent := noise(1 << 20)
	for name, end := range map[string]func(c *net.TCPConn){
		"closed by the server": func(*net.TCPConn) {},
		"reset by the server": func(c *net.TCPConn) {
			awaitAcknowledged(c)
			resetConn(c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			done := make(chan struct{})
			p := h.serve(Timeouts{}, backend(t, func(c *net.TCPConn) {
				defer close(done)
				_, _ = c.Write(sent)
				end(c)
			}))
			c := h.dial(entrance)
			if name == "closed by the server" {
				if err := c.CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			<-done
			eventually(t, "the relay has taken everything", func() bool {
				return p.Servers()[0].Stats().BytesToClient == int64(len(sent))
			})
			for range 20 {
				if n := h.engine.Active(nil); n != 1 {
					t.Fatalf("%d connections are active, want the one that is not through", n)
				}
				time.Sleep(time.Millisecond)
			}
			got := make([]byte, len(sent))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("the client did not get what was sent: %v", err)
			}
			h.end()
		})
	}
}

// A client that takes nothing any more is waited for no longer than the
// half-close timeout.
func TestWaitForTheClientIsBounded(t *testing.T) {
	h := newHouse(t)
	h.serve(Timeouts{HalfClose: 200 * time.Millisecond}, backend(t, func(c *net.TCPConn) {
		_, _ = c.Write(make([]byte, 1<<20))
	}))
	c := h.dial(entrance)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	h.end()
	eventually(t, "nothing is carried", func() bool { return h.engine.Active(nil) == 0 })
}

// awaitAcknowledged waits until the peer of c has all that it was sent.
func awaitAcknowledged(c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	for is, end := false, time.Now().Add(atOnce); !is && time.Now().Before(end); time.Sleep(time.Millisecond) {
		if raw.Control(func(fd uintptr) { is = settled(int(fd)) }) != nil {
			return
		}
	}
}

// Urgent data is left out; what comes after it is not stuck.
func TestUrgentData(t *testing.T) {
	for name, size := range map[string]int{"small": 3, "large": 3 << 20} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.serve(Timeouts{}, backend(t, echo))
			c := h.dial(entrance)
			sent := noise(size)
			go func() {
				_, _ = c.Write(sent[:size/3])
				urgent(t, c, '!')
				_, _ = c.Write(sent[size/3:])
				_ = c.CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("got %d bytes back, %v; want the %d that were sent", len(got), err, len(sent))
			}
		})
	}
}

// urgent sends a byte of urgent data.
func urgent(t *testing.T, c *net.TCPConn, b byte) {
	raw, err := c.SyscallConn()
	if err != nil {
		t.Error(err)
		return
	}
	if ctrlErr := raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), []byte{b}, unix.MSG_OOB, nil)
		return err != unix.EAGAIN
	}); ctrlErr != nil || err != nil {
		t.Error(ctrlErr, err)
	}
}
