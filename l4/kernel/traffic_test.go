package kernel

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"appliance/internal/ingress"
)

// serve has the server namespace answer at addr: a connection gets back what it
// sends, until it ends.
func (w *network) serve(t *testing.T, addr netip.AddrPort) {
	t.Helper()
	var l net.Listener
	var err error
	w.server.do(func() { l, err = net.Listen("tcp", addr.String()) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

// dial connects the client to addr.
func (w *network) dial(t *testing.T, addr netip.AddrPort) net.Conn {
	t.Helper()
	var c net.Conn
	var err error
	w.client.do(func() { c, err = (&net.Dialer{Timeout: 10 * time.Second}).Dial("tcp", addr.String()) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

// echo sends size bytes and wants them back, then ends.
func echo(t *testing.T, c net.Conn, size int) {
	t.Helper()
	sent := bytes.Repeat([]byte("0123456789abcde\n"), size/16)
	go func() {
		_, _ = c.Write(sent)
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
	}()
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("after %d of %d bytes: %v", len(got), len(sent), err)
	}
	if !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes came back for %d, or others", len(got), len(sent))
	}
}

// TestTraffic carries connections of real sockets over real interfaces, with
// partial checksums and segments that the sender leaves to the interface, with
// the kernel forwarding and not.
func TestTraffic(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, f family) {
		for _, mode := range []Mode{NAT, DNAT, Direct} {
			for _, c := range []struct {
				forwarding string
				way        ingress.Way
			}{{"1", ""}, {"0", ""}, {"1", ingress.Clsact}} {
				t.Run(fmt.Sprintf("%s/forwarding %s%s", mode, c.forwarding, c.way), func(t *testing.T) {
					w := newNetwork(t)
					w.forward(c.forwarding)
					s := f.service()
					s.Mode = mode
					if mode == Direct {
						// Its answers come by the balancer here, which is its way to
						// everything, and could go any other.
						nodad := ""
						if f.vip.Addr().Is6() {
							nodad = " nodad" // usable at once
						}
						w.server.ip("addr add " + f.vip.Addr().String() + " dev lo" + nodad)
						w.serve(t, f.vip)
						s.Servers[0].Addr = netip.AddrPortFrom(f.server.Addr(), f.vip.Port())
					} else {
						w.serve(t, f.server)
					}
					p := w.open(t, Options{Way: c.way, Route: func(netip.Addr) int { return w.toServer.Index }})
					if err := p.Set([]Service{s}); err != nil {
						t.Fatal(err)
					}
					var err error
					w.balancer.do(func() { err = p.Attach([]Interface{{Index: w.toClient.Index}, {Index: w.toServer.Index}}) })
					if err != nil {
						t.Fatal(err)
					}
					echo(t, w.dial(t, f.vip), 16)
					echo(t, w.dial(t, f.vip), 1<<24)
					stats, err := p.Stats()
					if err != nil {
						t.Fatal(err)
					}
					if got := stats.Services[0]; got.Total != 2 || got.BytesToServer < 1<<24 || got.BytesToClient < 1<<24 || got.Fallback != (Fallback{}) {
						t.Errorf("%+v", got)
					}
				})
			}
		}
	})
}

// TestNarrowWay sends to a server behind an interface that takes less at a time
// than the client's: the client hears of it and sends smaller packets.
func TestNarrowWay(t *testing.T) {
	t.Parallel()
	eachFamily(t, func(t *testing.T, f family) {
		w := newNetwork(t)
		w.balancer.ip("link set s0 mtu 1320")
		var l net.Listener
		var err error
		w.server.do(func() { l, err = net.Listen("tcp", f.server.String()) })
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		const size = 1 << 20
		got := make(chan int64, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			n, _ := io.Copy(io.Discard, c)
			got <- n
		}()
		p := w.open(t, Options{})
		if err := p.Set([]Service{f.service()}); err != nil {
			t.Fatal(err)
		}
		w.balancer.do(func() { err = p.Attach([]Interface{{Index: w.toClient.Index}, {Index: w.toServer.Index}}) })
		if err != nil {
			t.Fatal(err)
		}
		c := w.dial(t, f.vip)
		if _, err := c.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		select {
		case n := <-got:
			if n != size {
				t.Errorf("%d bytes came; want %d", n, size)
			}
		case <-time.After(20 * time.Second):
			t.Error("the bytes did not come")
		}
		stats, err := p.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if stats.Services[0].Dropped == 0 {
			t.Error("nothing was too big; the test has tried nothing")
		}
	})
}

// TestManyConnections has many connections begin and end at the same time. In the
// end nothing is left of them.
func TestManyConnections(t *testing.T) {
	t.Parallel()
	f := families[0]
	w := newNetwork(t)
	w.serve(t, f.server)
	w.serve(t, f.second)
	p := w.open(t, Options{})
	s := f.service()
	s.Servers = append(s.Servers, Server{Addr: f.second})
	if err := p.Set([]Service{s}); err != nil {
		t.Fatal(err)
	}
	var err error
	w.balancer.do(func() { err = p.Attach([]Interface{{Index: w.toClient.Index}, {Index: w.toServer.Index}}) })
	if err != nil {
		t.Fatal(err)
	}
	const workers, each = 16, 60
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for i := range each {
				var c net.Conn
				var err error
				w.client.do(func() { c, err = (&net.Dialer{Timeout: 10 * time.Second}).Dial("tcp", f.vip.String()) })
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				if i%3 == 0 {
					_ = c.(*net.TCPConn).SetLinger(0) // ends in a reset
				}
				var b [5]byte
				if _, err := c.Write([]byte("hello")); err != nil {
					t.Error(err)
				} else if _, err := io.ReadFull(c, b[:]); err != nil {
					t.Error(err)
				}
				c.Close()
			}
		})
	}
	group.Wait()
	stats := func() ServiceStats {
		all, err := p.Stats()
		if err != nil {
			t.Fatal(err)
		}
		return all.Services[0]
	}
	for end := time.Now().Add(10 * time.Second); stats().Current > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	got := stats()
	if got.Total != workers*each || got.Current != 0 || got.Broken != workers*each/3 || got.Fallback != (Fallback{}) || got.Dropped != 0 {
		t.Errorf("%+v; want %d, a third of them broken, and none now", got, workers*each)
	}
	for _, srv := range got.Servers {
		if srv.Total < workers*each/3 {
			t.Errorf("%s had %d of %d", srv.Addr, srv.Total, got.Total)
		}
	}
	p.sweepOnce(tick()+ticks(linger)+2, 0)
	n := 0
	if err := p.each(func(*programKey, *programFlow) bool { n++; return true }); err != nil || n > 0 {
		t.Errorf("%d entries are left; %v", n, err)
	}
}

// waitForTick waits for the program's next tick, when it looks for routes anew.
func waitForTick() {
	for now := tick(); tick() == now; {
		time.Sleep(time.Millisecond)
	}
}
