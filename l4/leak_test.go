package l4

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// descriptors returns how many descriptors of a kind ("socket", "pipe") the
// process has.
func descriptors(t *testing.T, kind string) int {
	t.Helper()
	// The pipes that the runtime keeps for later go with the garbage.
	runtime.GC()
	runtime.GC()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, l := range links {
		if target, err := os.Readlink(l); err == nil && strings.HasPrefix(target, kind+":") {
			n++
		}
	}
	return n
}

// Thousands of connections that end in every way leave nothing behind.
func TestNothingLeaks(t *testing.T) {
	h := newHouse(t)
	p := h.serve(Timeouts{}, backend(t, echo), closedPort(t))
	carry := func(i int) {
		c := h.dial(entrance)
		defer c.Close()
		say(t, c, "x")
		expect(t, c, "x")
		switch i % 3 {
		case 0:
			resetConn(c)
		case 1:
			if err := c.CloseWrite(); err != nil {
				t.Error(err)
			}
			expectEnd(t, c)
		}
	}
	quiet := func() bool { return h.engine.Active(nil) == 0 }

	carry(1) // whatever is started on first use runs now
	eventually(t, "the first connection is over", quiet)
	goroutines, sockets, pipes := runtime.NumGoroutine(), descriptors(t, "socket"), descriptors(t, "pipe")
	const clients, each = 20, 150
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for i := range each {
				carry(i)
			}
		})
	}
	all.Wait()
	eventually(t, "all connections are over", quiet)
	eventually(t, "as many goroutines as before", func() bool { return runtime.NumGoroutine() <= goroutines })
	eventually(t, "as many sockets as before", func() bool { return descriptors(t, "socket") <= sockets })
	eventually(t, "as many pipes as before", func() bool { return descriptors(t, "pipe") <= pipes })
	for _, s := range p.Servers() {
		if n := s.Current(); n != 0 {
			t.Errorf("%s has %d connections left", s.Label(), n)
		}
	}
	if st := h.engine.Stats()[0]; st.Total != clients*each+1 || st.Current != 0 || st.Refused != 0 {
		t.Errorf("stats %+v, want %d connections, none left or refused", st, clients*each+1)
	}
}

// A connection that waits for its next byte keeps its two sockets and no pipe.
func TestIdleConnectionsHoldNoPipes(t *testing.T) {
	h := newHouse(t)
	h.serve(Timeouts{}, backend(t, echo))
	pipes := descriptors(t, "pipe")
	const n = 100
	large := string(noise(64 << 10)) // enough for a splice, and for all buffers
	for range n {
		c := h.dial(entrance)
		say(t, c, large)
		expect(t, c, large)
	}
	eventually(t, "fewer pipes than connections", func() bool { return descriptors(t, "pipe")-pipes < n/2 })
}
