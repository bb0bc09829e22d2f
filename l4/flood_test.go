package l4

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"appliance/internal/pool"
)

// crowd connects n clients that say nothing. Those that are refused may not even
// get as far as that.
func (h *house) crowd(n int) (all []net.Conn) {
	for range n {
		c, err := net.DialTimeout("tcp", h.set.Addr(entrance).String(), atOnce)
		if err != nil {
			continue
		}
		h.t.Cleanup(func() { c.Close() })
		all = append(all, c)
	}
	return all
}

// More idle clients than may be: those that are in are served, the others are
// refused without a server's noticing, and silence makes room.
func TestFloodOfIdleConnections(t *testing.T) {
	const limit, more = 100, 200
	h := newHouse(t)
	p := newPool("web", backend(t, echo))
	h.load([]Config{{Name: "web", Listen: []netip.AddrPort{entrance}, MaxConnections: limit, Timeouts: Timeouts{Idle: 2 * time.Second}}}, p)
	in := h.crowd(limit)
	eventually(t, "all of the first are in", func() bool { return p.Servers()[0].Current() == limit })
	for _, c := range h.crowd(more) {
		_ = c.SetReadDeadline(time.Now().Add(atOnce))
		expectReset(t, c)
	}
	if st := h.engine.Stats()[0]; st.Limited != more || st.Current != limit || p.Servers()[0].Stats().Total != limit {
		t.Errorf("%+v, want %d refused and %d in", st, more, limit)
	}
	for i, c := range in {
		_ = c.SetDeadline(time.Now().Add(atOnce))
		if _, err := io.WriteString(c, "x"); err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
		expect(t, c, "x")
	}
	eventually(t, "silence makes room", func() bool { return h.engine.Stats()[0].Current == 0 })
	if st := h.engine.Stats()[0]; st.TimedOut != limit {
		t.Errorf("%d timed out, want %d", st.TimedOut, limit)
	}
	c := h.dial(entrance)
	say(t, c, "x")
	expect(t, c, "x")
}

// The same for clients that owe a header: no server hears of them, and they have
// the header's timeout.
func TestFloodOfHalfOpenConnections(t *testing.T) {
	const limit, more = 100, 200
	h := newHouse(t)
	p := newPool("web", backend(t, echo))
	h.load([]Config{{Name: "web", Listen: []netip.AddrPort{entrance}, MaxConnections: limit,
		AcceptProxy: &AcceptProxy{From: loopback}, Timeouts: Timeouts{Header: 2 * time.Second}}}, p)
	in := h.crowd(limit)
	eventually(t, "all of the first are in", func() bool { return h.engine.Stats()[0].Current == limit })
	for _, c := range h.crowd(more) {
		_ = c.SetReadDeadline(time.Now().Add(atOnce))
		expectReset(t, c)
	}
	if st := h.engine.Stats()[0]; st.Limited != more {
		t.Errorf("%+v, want %d refused by the limit", st, more)
	}
	for _, c := range in {
		_ = c.SetReadDeadline(time.Now().Add(atOnce))
		expectReset(t, c)
	}
	if st := p.Servers()[0].Stats(); st.Total != 0 {
		t.Errorf("the server has had %d connections, want none", st.Total)
	}
	eventually(t, "there is room", func() bool { return h.engine.Stats()[0].Current == 0 })
	c := h.dial(entrance)
	say(t, c, "PROXY UNKNOWN\r\nx")
	expect(t, c, "x")
}

// A server that accepts and never says or takes anything holds up nobody else;
// its clients have the idle timeout, however much they want to tell it.
func TestServerThatAcceptsAndNeverAnswers(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.31:0") // the kernel accepts
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h := newHouse(t)
	other := netip.MustParseAddrPort("127.0.0.22:0")
	dumb := newPool("dumb", l.Addr().(*net.TCPAddr).AddrPort())
	h.load([]Config{
		{Name: "dumb", Listen: []netip.AddrPort{entrance}, Pool: "dumb", Timeouts: Timeouts{Idle: time.Second}},
		{Name: "good", Listen: []netip.AddrPort{other}, Pool: "good"},
	}, dumb, newPool("good", backend(t, echo)))
	ends := make(chan error, 10)
	for range cap(ends) {
		c := h.dial(entrance)
		go func() {
			for { // much more than anything between them can hold
				if _, err := c.Write(make([]byte, 1<<20)); err != nil {
					ends <- err
					return
				}
			}
		}()
	}
	c := h.dial(other)
	for range 100 {
		say(t, c, "x")
		expect(t, c, "x")
	}
	for range cap(ends) {
		if err := <-ends; err == nil || isTimeout(err) {
			t.Errorf("a client of the silent server ended with %v, want a reset", err)
		}
	}
	eventually(t, "nothing is left", func() bool { return dumb.Servers()[0].Current() == 0 })
	if st := h.engine.Stats()[0]; st.TimedOut != int64(cap(ends)) {
		t.Errorf("%d timed out, want %d", st.TimedOut, cap(ends))
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// IPv6 at both ends, with the address passed on.
func TestIPv6(t *testing.T) {
	for _, version := range []string{"none", "v1", "v2"} {
		h := newHouse(t)
		l, err := net.Listen("tcp", "[::1]:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					_ = c.SetDeadline(time.Now().Add(atOnce))
					if version == "none" {
						echo(c.(*net.TCPConn))
						return
					}
					tellProxy(c.(*net.TCPConn))
				}()
			}
		}()
		p := pool.New(pool.Config{Name: "web", Servers: []pool.ServerConfig{{Address: l.Addr().String(), SendProxy: version}}})
		at := netip.MustParseAddrPort("[::1]:0")
		h.load([]Config{{Name: "web", Listen: []netip.AddrPort{at}}}, p)
		c := h.dial(at)
		say(t, c, "hello\n")
		want := "hello\n"
		if version != "none" {
			want = fmt.Sprintf("%s %s hello\n", c.LocalAddr(), c.RemoteAddr())
		}
		expect(t, c, want)
		if version == "none" {
			sent := noise(4 << 20)
			go func() {
				_, _ = c.Write(sent)
				_ = c.CloseWrite()
			}()
			if got, err := io.ReadAll(c); err != nil || string(got) != string(sent) {
				t.Errorf("%d bytes came back, %v, want %d", len(got), err, len(sent))
			}
		}
	}
}
