package l7

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Bodies that go from socket to socket arrive as they were, in both directions,
// and the connections are good for more.
func TestSplicedBodies(t *testing.T) {
	data := make([]byte, 9<<20+17)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data) // never fails
	sum := fmt.Sprintf("%x", sha256.Sum256(data))
	r, addr := simple(t, web(t, func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		io.Copy(h, r.Body)
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Header().Set("X-Sum", fmt.Sprintf("%x", h.Sum(nil)))
		w.Write(data)
	}))
	c, in := dial(t, addr, nil)
	for range 3 {
		go func() {
			fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", len(data))
			c.Write(data)
		}()
		resp := answerTo(t, in, "POST")
		h := sha256.New()
		n, err := io.Copy(h, resp.Body)
		if got := fmt.Sprintf("%x", h.Sum(nil)); got != sum || resp.Header.Get("X-Sum") != sum || n != int64(len(data)) || err != nil || resp.Close {
			t.Fatalf("%d bytes with sum %s, sent with %s; want %s; %v, close %v", n, got, resp.Header.Get("X-Sum"), sum, err, resp.Close)
		}
	}
	r.until("accounting", func() bool { s := r.stats("web"); return s.BytesIn == int64(3*len(data)) && s.BytesOut == s.BytesIn })
	ps := &r.engine.services["web"].state.Load().pools[r.pools["p"]].pipes
	r.until("a pipe that is given back", func() bool {
		ps.mu.Lock()
		defer ps.mu.Unlock()
		return len(ps.free) > 0
	})
	before := openPipes(t)
	r.apply()
	if after := openPipes(t); before-after < 2 {
		t.Errorf("%d ends of pipes before the service went, %d after it", before, after)
	}
}

func openPipes(t *testing.T) (n int) {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); bytes.HasPrefix([]byte(to), []byte("pipe:")) {
			n++
		}
	}
	return n
}

// No more pipes are lent than may be, few are kept, and none is used that holds next to
// nothing: a process without privileges gets such ones once there are many.
func TestPipesThatThereAre(t *testing.T) {
	for _, privileged := range []bool{true, false} {
		t.Run(fmt.Sprint("privileged ", privileged), func(t *testing.T) {
			if !privileged {
				runtime.LockOSThread() // which ends with the test, and its capabilities with it
				head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
				var have [2]unix.CapUserData
				if err := unix.Capget(&head, &have[0]); err != nil {
					t.Fatal(err)
				}
				have[0].Effective &^= 1<<unix.CAP_SYS_RESOURCE | 1<<unix.CAP_SYS_ADMIN
				if err := unix.Capset(&head, &have[0]); err != nil {
					t.Fatal(err)
				}
			}
			before := openPipes(t)
			var ps pipes
			var all []*pipe
			for p := ps.get(); p != nil && len(all) <= mostPipes; p = ps.get() {
				all = append(all, p)
				if size, err := unix.FcntlInt(uintptr(p.r), unix.F_GETPIPE_SZ, 0); err != nil || size < leastPipe || size != p.size {
					t.Fatalf("pipe %d holds %d, not %d, %v", len(all), size, p.size, err)
				}
			}
			t.Logf("%d pipes", len(all))
			if len(all) > mostPipes || len(all) == 0 {
				t.Errorf("%d pipes", len(all))
			}
			if n := openPipes(t) - before; n != 2*len(all) {
				t.Errorf("%d ends of %d pipes", n, len(all))
			}
			if ps.pause == 0 && len(all) < mostPipes {
				t.Error("the kernel is asked again at once")
			}
			for _, p := range all {
				ps.put(p)
			}
			if n := openPipes(t) - before; n > 2*sparePipes {
				t.Errorf("%d ends of pipes are kept", n)
			}
			p := ps.get()
			if p == nil {
				t.Fatal("none came back")
			}
			ps.close()
			ps.put(p)
			if n := openPipes(t) - before; n != 0 {
				t.Errorf("%d ends of pipes are left", n)
			}
		})
	}
}

// A large answer that breaks off, and a client that goes in the midst of one,
// end the exchange and leave nothing in a pipe for others.
func TestSplicedBodiesThatBreakOff(t *testing.T) {
	r, addr := simple(t, raw(t, func(c *net.TCPConn, r *bufio.Reader) {
		readHead(r)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
		io.CopyN(c, zeros{}, 5000000)
	}))
	for range 3 {
		resp := say(t, addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if n, err := io.Copy(io.Discard, resp.Body); err == nil || n > 5000000 {
			t.Errorf("%d bytes, %v", n, err)
		}
		c, in := dial(t, addr, nil)
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		io.CopyN(io.Discard, in, 1000)
		c.Close()
	}
	r.until("the end", func() bool { return r.stats("web").Current == 0 && r.engine.Active(nil) == 0 })
	ps := &r.engine.services["web"].state.Load().pools[r.pools["p"]].pipes
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.free {
		if p.n != 0 {
			t.Errorf("%d bytes were left in a pipe", p.n)
		}
	}
}

// Whoever pauses in the midst of a large body has had all that came before
// delivered, in both directions: nothing waits for what is to come.
func TestSplicedBodiesThatPause(t *testing.T) {
	const size, first = 1 << 20, 300<<10 + 11
	got := make(chan struct{})
	_, addr := simple(t, raw(t, func(c *net.TCPConn, r *bufio.Reader) {
		readHead(r)
		io.CopyN(io.Discard, r, first)
		got <- struct{}{} // and only then the client goes on
		io.CopyN(io.Discard, r, size-first)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
		io.CopyN(c, zeros{}, first)
		<-got
		io.CopyN(c, zeros{}, size-first)
	}))
	c, in := dial(t, addr, nil)
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size)
	io.CopyN(c, zeros{}, first)
	<-got
	io.CopyN(c, zeros{}, size-first)
	resp := answerTo(t, in, "POST")
	if _, err := io.CopyN(io.Discard, resp.Body, first); err != nil {
		t.Fatal(err)
	}
	got <- struct{}{}
	if n, err := io.Copy(io.Discard, resp.Body); n != size-first || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}
