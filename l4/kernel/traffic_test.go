package kernel

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
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
		for _, mode := range []Mode{NAT, DNAT} {
			for _, forwarding := range []string{"1", "0"} {
				t.Run(fmt.Sprintf("%s/forwarding %s", mode, forwarding), func(t *testing.T) {
					w := newNetwork(t)
					w.forward(forwarding)
					w.serve(t, f.server)
					p := w.open(t, Options{Route: func(netip.Addr) int { return w.toServer.Index }})
					s := f.service()
					s.Mode = mode
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

// waitForTick waits for the program's next tick, when it looks for routes anew.
func waitForTick() {
	for now := tick(); tick() == now; {
		time.Sleep(time.Millisecond)
	}
}
