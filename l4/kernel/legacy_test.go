package kernel

import (
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"appliance/internal/ingress"
)

// TestLegacy has one path go on with what another one has left, while connections are
// under way: none notices, or with filters, which are not left, none ends.
func TestLegacy(t *testing.T) {
	t.Parallel()
	way, err := Supported("")
	if err != nil {
		missing(t, err.Error())
	}
	ways := []ingress.Way{ingress.Clsact}
	if way == ingress.TCX {
		ways = append(ways, way)
	}
	for _, way := range ways {
		t.Run(string(way), func(t *testing.T) { testLegacy(t, way) })
	}
}

func testLegacy(t *testing.T, way ingress.Way) {
	eachFamily(t, func(t *testing.T, f family) {
		w := newNetwork(t)
		w.serve(t, f.server)
		w.serve(t, f.second)
		s := f.service()
		s.Servers = append(s.Servers, Server{Addr: f.second})
		attach := func(p *Path) {
			t.Helper()
			var err error
			w.balancer.do(func() { err = p.Attach([]Interface{{Index: w.toClient.Index}, {Index: w.toServer.Index}}) })
			if err != nil {
				t.Fatal(err)
			}
		}
		var first *Path
		var err error
		w.balancer.do(func() { first, err = Open(Options{Way: way}) })
		if err != nil {
			missing(t, err.Error())
		}
		if err := first.Set([]Service{s}); err != nil {
			t.Fatal(err)
		}
		attach(first)

		var conns []net.Conn
		for range 16 {
			c := w.dial(t, f.vip)
			c.Write([]byte("x"))
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
		}
		stop, said := make(chan struct{}), make(chan struct{})
		var talking sync.WaitGroup
		// more returns when the connections have had answers for a while, whoever
		// carries them.
		more := func() {
			t.Helper()
			for range 400 {
				select {
				case <-said:
				case <-time.After(10 * time.Second):
					t.Fatal("nobody gets an answer any more")
				}
			}
		}
		for _, c := range conns[:8] { // the others are idle meanwhile
			talking.Go(func() {
				for {
					c.Write([]byte("x"))
					if _, err := c.Read(make([]byte, 1)); err != nil {
						t.Error(err)
						return
					}
					select {
					case <-stop:
						return
					case said <- struct{}{}:
					}
				}
			})
		}

		legacy, err := first.Legacy()
		if want := map[ingress.Way]int{ingress.TCX: 4, ingress.Clsact: 2}[way]; err != nil || len(legacy) != want {
			t.Fatal(legacy, err)
		}
		if way == ingress.Clsact { // as the address goes with a process
			w.balancer.ip("addr del " + f.vip.Addr().String() + " dev c0")
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		if way == ingress.TCX {
			more() // nobody looks after it now
		}
		s.Servers[0], s.Servers[1] = s.Servers[1], s.Servers[0]
		second := w.open(t, Options{Way: way, Legacy: legacy})
		for _, l := range legacy {
			l.Close()
		}
		if err := second.Set([]Service{s}); err != nil {
			t.Fatal(err)
		}
		attach(second)
		if way == ingress.Clsact {
			w.balancer.ip("addr add " + f.vip.Addr().String() + " dev c0" + map[bool]string{true: " nodad"}[f.vip.Addr().Is6()])
		}
		more()
		close(stop)
		talking.Wait()
		if n := second.Inherited(); n != 16 {
			t.Errorf("%d flows taken over; want 16", n)
		}
		second.each(func(_ *programKey, flow *programFlow) bool {
			if flow.Flags&flagInstalled != 0 {
				t.Error("a flow of this node is the other one's now")
			}
			return true
		})
		for i, c := range conns {
			c.SetDeadline(time.Now().Add(10 * time.Second))
			c.Write([]byte("y"))
			b := make([]byte, 1)
			if _, err := c.Read(b); err != nil || b[0] != 'y' {
				t.Errorf("connection %d: %q, %v", i, b, err)
			}
		}
		// One program looks at each interface, and it is the second's.
		stats, err := second.Stats()
		if err != nil || stats.Services[0].Strays != 0 || stats.Services[0].PacketsToServer < 16 {
			t.Errorf("%+v, %v", stats, err)
		}
		n := 0
		second.Flows(func(flow Flow) bool { n++; return true })
		if n != 16 {
			t.Errorf("%d flows; want 16", n)
		}
	})
}

// TestLegacyThatIsNone opens a path with files that are something else.
func TestLegacyThatIsNone(t *testing.T) {
	t.Parallel()
	f := families[0]
	w := newNetwork(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	p := w.open(t, Options{Legacy: map[string]*os.File{"flows.1-7": null, "servers.1-8": null, "tcx-9": null, "flows.0-1": null, "": null}})
	if err := p.Set([]Service{f.service()}); err != nil {
		t.Fatal(err)
	}
	w.balancer.do(func() { err = p.Attach([]Interface{{Index: w.toClient.Index}}) })
	if err != nil || p.Inherited() != 0 {
		t.Errorf("%d, %v", p.Inherited(), err)
	}
}
