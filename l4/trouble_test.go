package l4

import (
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"appliance/internal/listen"
)

// alone reports whether this is the child of a test that limits its process; if
// not, it runs the child.
func alone(t *testing.T, name string) bool {
	t.Helper()
	if os.Getenv("L4_TEST_CHILD") == name {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$", "-test.count=1")
	cmd.Env = append(os.Environ(), "L4_TEST_CHILD="+name)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

// exhaust takes all descriptors that the process may have, 200, until free is
// called: then it may have as many as before.
func exhaust(t *testing.T) (free func()) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	set := func(l unix.Rlimit) {
		t.Helper()
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
			t.Fatal(err)
		}
	}
	set(unix.Rlimit{Cur: 200, Max: limit.Max})
	for {
		if _, err := unix.Dup(0); err != nil {
			return func() { t.Helper(); set(limit) }
		}
	}
}

// Without descriptors no connection is accepted, which is a fault; those that
// there are go on, and when there are descriptors again so do the others.
func TestNoDescriptors(t *testing.T) {
	if !alone(t, "TestNoDescriptors") {
		return
	}
	faults := make(chan error, 100)
	h := newHouse(t)
	h.set = listen.NewSet(zerolog.Nop(), func(_ netip.AddrPort, err error) { faults <- err })
	h.serve(Timeouts{}, backend(t, echo))
	old := h.dial(entrance)
	say(t, old, "before")
	expect(t, old, "before")
	client, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	free := exhaust(t)
	unix.Close(client) // for the client's own socket
	late := h.dial(entrance)
	select {
	case err := <-faults:
		if err == nil {
			t.Fatal("the fault ended before it began")
		}
	case <-time.After(atOnce):
		t.Fatal("no fault")
	}
	say(t, old, "during")
	expect(t, old, "during")
	free()
	for deadline := time.After(atOnce); ; {
		var err error
		select {
		case err = <-faults:
		case <-deadline:
			t.Fatal("the fault does not end")
		}
		if err == nil {
			break
		}
	}
	say(t, late, "after")
	expect(t, late, "after")
}

// Where pipes are not to be had, bytes are copied.
func TestNoPipes(t *testing.T) {
	if !alone(t, "TestNoPipes") {
		return
	}
	h := newHouse(t)
	h.serve(Timeouts{}, backend(t, echo))
	c := h.dial(entrance)
	say(t, c, "x")
	expect(t, c, "x")
	for { // until nothing is left
		if _, err := unix.Dup(0); err != nil {
			break
		}
		if n, _ := unix.Dup(0); n > 5000 {
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(n), Max: uint64(n)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	sent := noise(4 << 20)
	go func() { _, _ = c.Write(sent) }()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != string(sent) {
		t.Errorf("what came back differs: %v", err)
	}
}

// A client that never reads holds up nobody else, and is idle in the end.
func TestClientThatNeverReads(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.serve(Timeouts{Idle: 3 * time.Second}, backend(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		for {
			if _, err := c.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	}))
	deaf := make([]*net.TCPConn, 50)
	for i := range deaf {
		deaf[i] = h.dial(entrance)
		say(t, deaf[i], "x")
	}
	c := h.dial(entrance)
	say(t, c, "x")
	if _, err := io.ReadFull(c, make([]byte, 8<<20)); err != nil {
		t.Errorf("a client beside those that do not read: %v", err)
	}
	c.Close()
	eventually(t, "all have been ended", func() bool { return h.engine.Active(nil) == 0 })
}

// 100,000 connections that end in every way leave nothing behind.
func TestNothingLeaksOverManyConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	const clients, each = 25, 4000
	h := newHouse(t)
	h.serve(Timeouts{}, backend(t, echo))
	to := h.set.Addr(entrance).String()
	carry := func(d *net.Dialer, i int) {
		conn, err := d.Dial("tcp", to)
		if err != nil {
			t.Error(err)
			return
		}
		c := conn.(*net.TCPConn)
		defer c.Close()
		if i%5 == 0 {
			resetConn(c)
			return
		}
		_, _ = io.WriteString(c, "x")
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		if i%5 == 1 {
			_ = c.CloseWrite()
			_, _ = io.Copy(io.Discard, c)
			return
		}
		resetConn(c) // or this machine has no ports left
	}
	carry(new(net.Dialer), 1)
	idle := func() bool { return h.engine.Active(nil) == 0 }
	eventually(t, "the first is over", idle)
	goroutines, sockets, pipes := runtime.NumGoroutine(), descriptors(t, "socket"), descriptors(t, "pipe")
	done := make(chan struct{})
	for n := range clients {
		go func() {
			d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, 0, byte(1+n))}}
			for i := range each {
				carry(d, i)
			}
			done <- struct{}{}
		}()
	}
	for range clients {
		<-done
	}
	eventually(t, "all are over", idle)
	eventually(t, "as many goroutines as before", func() bool { return runtime.NumGoroutine() <= goroutines })
	eventually(t, "as many sockets as before", func() bool { return descriptors(t, "socket") <= sockets })
	eventually(t, "as many pipes as before", func() bool { return descriptors(t, "pipe") <= pipes })
	if st := h.engine.Stats()[0]; st.Total != clients*each+1 || st.Current != 0 {
		t.Errorf("%+v, want %d connections, none left", st, clients*each+1)
	}
}
