package listen

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// sleeper is a handler that sends back what comes, and parks the connection whenever
// there is nothing.
type sleeper struct {
	patience time.Duration // if it is not 0, after this a connection is closed
	came     chan *Conn    // takes each connection as it is parked
	ended    chan error    // takes why one was closed
}

func newSleeper() *sleeper {
	return &sleeper{came: make(chan *Conn, 1000), ended: make(chan error, 1000)}
}

func (s *sleeper) ServeConn(c *Conn) {
	b := make([]byte, 64)
	for {
		n, err := readNow(c, b)
		switch {
		case err == unix.EAGAIN && c.Park(s):
			if c.polled.Load() == nil && s.patience > 0 { // for the first time
				_ = c.SetReadDeadline(time.Now().Add(s.patience))
			}
			select {
			case s.came <- c:
			default: // nobody wants to know
			}
			return
		case err == unix.EAGAIN:
			err = errors.New("cannot be parked")
		case err == nil && n == 0:
			err = io.EOF
		case err == nil:
			_, err = c.Write(b[:n])
		}
		if err != nil {
			c.Close()
			s.ended <- err
			return
		}
	}
}

// readNow reads what is there.
func readNow(c *Conn, b []byte) (n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	if waitErr := raw.Read(func(fd uintptr) bool {
		n, err = unix.Read(int(fd), b)
		return true
	}); waitErr != nil {
		return 0, waitErr
	}
	return n, err
}

// parkedCount returns how many connections of s wait without a goroutine.
func parkedCount(s *Set) int {
	s.conns.lot.mu.Lock()
	defer s.conns.lot.mu.Unlock()
	return s.conns.lot.count
}

// awaitParked waits until that many do.
func awaitParked(t *testing.T, s *Set, want int) {
	t.Helper()
	for end := time.Now().Add(patience); parkedCount(s) != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d connections are parked, want %d", parkedCount(s), want)
		}
	}
}

// A parked connection goes on when something comes, again and again, and ends when
// its client leaves.
func TestPark(t *testing.T) {
	s, h, address := newSet(t), newSleeper(), anyPort("127.0.0.1")
	stage(t, s, map[netip.AddrPort]Handler{address: h}).Commit()
	one, other := dial(t, s.Addr(address)), dial(t, s.Addr(address))
	for range 3 {
		awaitParked(t, s, 2)
		say(t, one, "hello")
		awaitParked(t, s, 2)
		say(t, other, "hi")
	}
	awaitParked(t, s, 2)
	one.Close()
	if err := <-h.ended; err != io.EOF {
		t.Errorf("a client that has left: %v", err)
	}
	awaitParked(t, s, 1)
	other.(*net.TCPConn).SetLinger(0)
	other.Close()
	if err := <-h.ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a client that has reset its connection: %v", err)
	}
}

// What ends a read ends the wait of a parked connection.
func TestParkEnds(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(s *Set, c *Conn)
		want error
	}{
		{"deadline", func(_ *Set, c *Conn) { _ = c.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		{"close", func(_ *Set, c *Conn) { c.Close() }, net.ErrClosed},
		{"cut", func(s *Set, c *Conn) { s.Cut([]netip.Addr{c.Local().Addr()}) }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, h, address := newSet(t), newSleeper(), anyPort("127.0.0.1")
			stage(t, s, map[netip.AddrPort]Handler{address: h}).Commit()
			dial(t, s.Addr(address))
			c := <-h.came
			awaitParked(t, s, 1)
			tc.do(s, c)
			if err := <-h.ended; tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
			awaitParked(t, s, 0)
		})
	}
	t.Run("time", func(t *testing.T) {
		s, h, address := newSet(t), newSleeper(), anyPort("127.0.0.1")
		h.patience = 30 * time.Millisecond
		stage(t, s, map[netip.AddrPort]Handler{address: h}).Commit()
		began := time.Now()
		late := dial(t, s.Addr(address))
		<-h.came
		time.Sleep(h.patience / 2)
		dial(t, s.Addr(address)) // is due later
		for range 2 {
			if err := <-h.ended; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%v", err)
			}
		}
		if d := time.Since(began); d < h.patience*3/2 {
			t.Errorf("both ended after %v", d)
		}
		if _, err := late.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the client reads: %v", err)
		}
	})
}

// Something that comes before the connection is parked is found, and so is what else
// ends the wait.
func TestParkTooLate(t *testing.T) {
	client, c := pair(t)
	s := &conns{}
	h := newSleeper()
	c.parks = true
	s.add(c)
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if !s.park(&parked{conn: c, handler: h}) {
		t.Fatal("not parked")
	}
	if got := <-h.came; got != c {
		t.Error("another connection")
	}
	for end := time.Now().Add(patience); c.parked.Load() == nil && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if err := c.SetReadDeadline(time.Now().Add(time.Hour)); err != nil { // it goes on, and is parked again
		t.Fatal(err)
	}
	<-h.came
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-h.ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
	if s.park(&parked{conn: c, handler: h}) {
		t.Error("a closed connection is parked")
	}
	s.wait()
}

// Wait waits for parked connections and the goroutine that waits for them. None is
// parked from then on.
func TestWaitForParked(t *testing.T) {
	s, h, address := NewSet(zerolog.Nop(), nil), newSleeper(), anyPort("127.0.0.1")
	stage(t, s, map[netip.AddrPort]Handler{address: h}).Commit()
	client := dial(t, s.Addr(address))
	awaitParked(t, s, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		s.Wait()
	}()
	for ended := false; !ended; time.Sleep(time.Millisecond) {
		s.conns.lot.mu.Lock()
		ended = s.conns.lot.ended
		s.conns.lot.mu.Unlock()
	}
	say(t, client, "still there") // by a goroutine that goes on for as long as there is nothing
	select {
	case <-over:
		t.Error("Wait has returned before its connection has ended")
	default:
	}
	client.Close()
	<-over
	if n := parkedCount(s); n != 0 {
		t.Errorf("%d are parked after Wait", n)
	}
}

// Whatever happens at the same time, nothing is lost: what comes is answered, and all
// connections end.
func TestParkUnderFire(t *testing.T) {
	s, h, address := newSet(t), newSleeper(), anyPort("127.0.0.1")
	stage(t, s, map[netip.AddrPort]Handler{address: h}).Commit()
	const many, rounds = 20, 100
	stop := make(chan struct{})
	var disturbers, clients sync.WaitGroup
	for range 2 {
		disturbers.Go(func() {
			for {
				select {
				case c := <-h.came:
					if rand.IntN(2) == 0 {
						_ = c.SetReadDeadline(time.Time{}) // closed, perhaps
					}
				case <-stop:
					return
				}
			}
		})
	}
	for range many {
		c := dial(t, s.Addr(address))
		clients.Go(func() {
			b := make([]byte, 1)
			for range rounds {
				time.Sleep(time.Duration(rand.IntN(200)) * time.Microsecond)
				if _, err := c.Write(b); err != nil {
					t.Error(err)
					return
				}
				if _, err := io.ReadFull(c, b); err != nil {
					t.Error(err)
					return
				}
			}
			c.Close()
		})
	}
	clients.Wait()
	for range many {
		if err := <-h.ended; err != io.EOF {
			t.Errorf("ended: %v", err)
		}
	}
	close(stop)
	disturbers.Wait()
	awaitParked(t, s, 0)
}
