package pool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// several returns a pool of servers a, b, c ... with these weights.
func several(cfg Config, weights ...int) *Pool {
	for i, w := range weights {
		cfg.Servers = append(cfg.Servers, ServerConfig{
			Name: string(rune('a' + i)), Address: fmt.Sprintf("192.0.2.%d:80", i+1), Weight: w,
		})
	}
	return New(cfg)
}

func clientNumber(i int) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], 0x0a000000+uint32(i))
	return netip.AddrFrom4(b)
}

// A server that leaves moves its own clients and nobody else, and when it comes
// back each client has the server it had.
func TestSourceHashMovesOnlyTheClientsOfWhoLeaves(t *testing.T) {
	p := several(Config{Balance: SourceHash}, 1, 1, 2)
	where := func() map[netip.Addr]string {
		m := make(map[netip.Addr]string)
		for i := range 20000 {
			s, err := p.PickFor(clientNumber(i))
			if err != nil {
				t.Fatal(err)
			}
			m[clientNumber(i)] = s.Label()
			s.Done()
		}
		return m
	}
	before := where()
	count := make(map[string]int)
	for _, label := range before {
		count[label]++
	}
	for label, want := range map[string]int{"a": 5000, "b": 5000, "c": 10000} {
		if got := count[label]; got < want*9/10 || got > want*11/10 {
			t.Errorf("server %s has %d clients of 20000, want about %d", label, got, want)
		}
	}
	if err := p.SetAdmin("b", Drain); err != nil {
		t.Fatal(err)
	}
	for client, label := range where() {
		if before[client] != "b" && label != before[client] {
			t.Fatalf("client %s moved from %s to %s though b left", client, before[client], label)
		}
	}
	if err := p.SetAdmin("b", Ready); err != nil {
		t.Fatal(err)
	}
	for client, label := range where() {
		if label != before[client] {
			t.Fatalf("client %s has %s after b is back, had %s", client, label, before[client])
		}
	}
}

// Two nodes with the same file send a client to the same server.
func TestSourceHashIsTheSameOnBothNodes(t *testing.T) {
	a, b := several(Config{Balance: SourceHash}, 1, 1, 1), several(Config{Balance: SourceHash}, 1, 1, 1)
	for i := range 100 {
		x, _ := a.PickFor(clientNumber(i))
		y, _ := b.PickFor(clientNumber(i))
		if x.Label() != y.Label() {
			t.Fatalf("client %d has %s on one node and %s on the other", i, x.Label(), y.Label())
		}
	}
}

func TestFirstFillsServersInOrder(t *testing.T) {
	cfg := Config{Balance: First}
	for _, name := range []string{"a", "b"} {
		cfg.Servers = append(cfg.Servers, ServerConfig{Name: name, Address: "192.0.2.1:80", MaxConnections: 2})
	}
	p := New(cfg)
	got := ""
	var picked []*Server
	for range 4 {
		s, err := p.Pick()
		if err != nil {
			t.Fatal(err)
		}
		picked = append(picked, s)
		got += s.Label()
	}
	if got != "aabb" {
		t.Errorf("picked %s, want aabb", got)
	}
	if _, err := p.Pick(); !errors.Is(err, ErrFull) {
		t.Errorf("a fifth connection: %v, want ErrFull", err)
	}
	picked[0].Done()
	if s, err := p.Pick(); err != nil || s.Label() != "a" {
		t.Errorf("after one has ended: %v, %v; want a", s, err)
	}
}

func TestRandom2PrefersTheLessBusy(t *testing.T) {
	p := several(Config{Balance: Random2}, 1, 1, 1, 1)
	for range 4000 {
		if _, err := p.Pick(); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range p.Servers() {
		if n := s.Current(); n < 990 || n > 1010 {
			t.Errorf("%s has %d of 4000 connections, want 1000 within 10", s.Label(), n)
		}
	}
}

// Many at once never get a server more connections than it may have.
func TestMaxConnectionsHoldsUnderContention(t *testing.T) {
	for _, balance := range balances {
		cfg := Config{Balance: balance}
		for _, name := range []string{"a", "b"} {
			cfg.Servers = append(cfg.Servers, ServerConfig{Name: name, Address: "192.0.2.1:80", MaxConnections: 3})
		}
		p := New(cfg)
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for range 2000 {
					s, err := p.PickFor(clientNumber(i))
					if err != nil {
						continue
					}
					if n := s.Current(); n > 5 { // a racing pick counts for a moment
						t.Errorf("%s: %d connections", balance, n)
					}
					s.Done()
				}
			})
		}
		all.Wait()
		for _, s := range p.Servers() {
			if s.Current() != 0 {
				t.Errorf("%s: %s has %d connections left", balance, s.Label(), s.Current())
			}
		}
	}
}

func TestQueue(t *testing.T) {
	p := New(Config{Queue: 2, Servers: []ServerConfig{{Name: "a", Address: "192.0.2.1:80", MaxConnections: 1}}})
	busy, err := p.Pick()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	join := func(name string) *Ticket {
		ticket, err := p.Queue(netip.Addr{}, func(s *Server) { got = append(got, name+":"+s.Label()) })
		if err != nil {
			t.Fatal(err)
		}
		return ticket
	}
	first, second := join("first"), join("second")
	if _, err := p.Queue(netip.Addr{}, nil); !errors.Is(err, ErrQueueFull) {
		t.Errorf("a third in the queue: %v, want ErrQueueFull", err)
	}
	if !first.Leave() || first.Leave() {
		t.Error("a place must be given up once")
	}
	busy.Done()
	if len(got) != 1 || got[0] != "second:a" || second.Leave() {
		t.Errorf("served %v, want the second alone", got)
	}
	p.Servers()[0].Done()
	if n := p.Waiting(); n != 0 || p.Servers()[0].Current() != 0 {
		t.Errorf("%d wait and %d connections are left, want none", n, p.Servers()[0].Current())
	}
	// Someone who queues when there is a server need not wait.
	join("third")
	if len(got) != 2 {
		t.Errorf("served %v, want the third at once", got)
	}
}

// Who has tried a server waits for another one, and holds up nobody behind.
func TestQueueForAnotherServer(t *testing.T) {
	p := New(Config{Balance: First, Queue: 4, Servers: []ServerConfig{
		{Name: "a", Address: "192.0.2.1:80", MaxConnections: 1}, {Name: "b", Address: "192.0.2.2:80", MaxConnections: 1},
	}})
	a, _ := p.Pick()
	b, err := p.Pick()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, waits := range []struct {
		name  string
		tried []*Server
	}{{"not a", []*Server{a}}, {"any", nil}, {"not b", []*Server{b}}} {
		if _, err := p.Queue(netip.Addr{}, func(s *Server) { got = append(got, waits.name+":"+s.Label()) }, waits.tried...); err != nil {
			t.Fatal(err)
		}
	}
	a.Done()
	b.Done()
	a.Done()
	if want := []string{"any:a", "not a:b", "not b:a"}; !slices.Equal(got, want) || p.Waiting() != 0 {
		t.Errorf("served %v, want %v; %d wait", got, want, p.Waiting())
	}
}

// One that is let in again is for those who wait, also if nobody comes; and a newcomer
// does not get in before them.
func TestQueueWhenAnEjectionEnds(t *testing.T) {
	for name, newcomer := range map[string]time.Duration{"nobody comes": time.Minute, "somebody comes": 10 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			p := New(Config{Queue: 1, Outlier: &Outlier{ConsecutiveFailures: 1, Base: 10 * time.Second}, Servers: []ServerConfig{
				{Name: "a", Address: "192.0.2.1:80", MaxConnections: 1}, {Name: "b", Address: "192.0.2.2:80", MaxConnections: 1},
			}})
			a, b := p.Servers()[0], p.Servers()[1]
			b.Failed(time.Now())
			if s, err := p.Pick(); s != a || err != nil {
				t.Fatalf("%s: %v, %v", name, s, err)
			}
			var got *Server
			if _, err := p.Queue(netip.Addr{}, func(s *Server) { got = s }); err != nil {
				t.Fatal(err)
			}
			time.Sleep(newcomer)
			if s, err := p.Pick(); !errors.Is(err, ErrFull) {
				t.Errorf("%s: the newcomer got %v, %v", name, s, err)
			}
			if synctest.Wait(); got != b {
				t.Errorf("%s: who has waited got %v", name, got)
			}
		})
	}
}

// The end of a connection is cheap also if all who wait have tried what is free.
func BenchmarkQueue(bench *testing.B) {
	const waiting = 1000
	p := New(Config{Queue: waiting, Balance: First, Servers: []ServerConfig{
		{Name: "a", Address: "192.0.2.1:80"}, {Name: "b", Address: "192.0.2.2:80", MaxConnections: 1}, {Name: "c", Address: "192.0.2.3:80", MaxConnections: 2},
	}})
	a := p.Servers()[0]
	for range 3 {
		if _, err := p.Pick(a); err != nil {
			bench.Fatal(err)
		}
	}
	for range waiting {
		if _, err := p.Queue(netip.Addr{}, func(*Server) {}, a); err != nil {
			bench.Fatal(err)
		}
	}
	for bench.Loop() {
		if s, err := p.Pick(); s != a || err != nil {
			bench.Fatal(s, err)
		}
		a.Done()
	}
}

// An ejection ends as a failed check does: the server is not flooded at once.
func TestSlowStartAfterAnEjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := several(Config{SlowStart: 10 * time.Second, Outlier: &Outlier{ConsecutiveFailures: 1, Base: time.Minute}}, 1, 1)
		b := p.Servers()[1]
		b.Failed(time.Now())
		time.Sleep(time.Minute)
		if p.Usable() != 2 || b.Share(time.Now()) != 0.1 {
			t.Errorf("at first it has %v of its share", b.Share(time.Now()))
		}
		time.Sleep(10 * time.Second)
		if b.Share(time.Now()) != 1 {
			t.Errorf("in the end it has %v of its share", b.Share(time.Now()))
		}
	})
}

func TestSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := several(Config{SlowStart: 10 * time.Second, Checked: true}, 1, 1)
		up := func(address string) { p.SetHealth(address, Health{State: Up, Since: time.Now()}) }
		up("192.0.2.1:80")
		up("192.0.2.2:80")
		share := func() int {
			n := 0
			for range 4000 {
				s, err := p.Pick()
				if err != nil {
					t.Fatal(err)
				}
				if s.Label() == "b" {
					n++
				}
				s.Done()
			}
			return n / 40
		}
		if got := share(); got != 50 {
			t.Errorf("b has %d %% at first, want its half: it has nothing to recover from", got)
		}
		p.SetHealth("192.0.2.2:80", Health{State: Down})
		time.Sleep(time.Minute)
		up("192.0.2.2:80")
		for _, tt := range []struct {
			after    time.Duration
			min, max int
		}{{0, 2, 9}, {5 * time.Second, 20, 30}, {5 * time.Second, 50, 50}} {
			time.Sleep(tt.after)
			if got := share(); got < tt.min || got > tt.max {
				t.Errorf("%v later b has %d %%, want %d to %d", tt.after, got, tt.min, tt.max)
			}
		}
	})
}

// Only a pool that says so has connections reset, once for each fall.
func TestOnDown(t *testing.T) {
	for mode, want := range map[OnServerDown]int{DownReset: 1, DownDrain: 0} {
		p := several(Config{OnServerDown: mode, Checked: true}, 1, 1)
		told := 0
		p.OnDown("test", func(s *Server) {
			told++
			if s.Label() != "a" {
				t.Errorf("told of %s", s.Label())
			}
		})
		for _, state := range []HealthState{Up, Down, Down} {
			p.SetHealth("192.0.2.1:80", Health{State: state, Reason: time.Now().String()})
		}
		if told != want {
			t.Errorf("%s: told %d times, want %d", mode, told, want)
		}
	}
}

// Who drains db1 means db1, whatever its address becomes.
func TestAdminStateIsKeptWhenTheAddressChanges(t *testing.T) {
	p := several(Config{}, 1, 1)
	if err := p.SetAdmin("a", Maint); err != nil {
		t.Fatal(err)
	}
	p.Update(Config{Servers: []ServerConfig{{Name: "a", Address: "192.0.2.9:80"}, {Name: "b", Address: "192.0.2.2:80"}}}, nil)
	if got := p.Servers()[0].Stats().Admin; got != Maint {
		t.Errorf("a is %s, want maint", got)
	}
}
