package pool

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// servers makes the configuration of a pool from words like "a", "b*3" for a
// weight of 3 and "c!" for a backup. The addresses are 192.0.2.1:80 and on.
func servers(words ...string) (list []ServerConfig) {
	for i, w := range words {
		sc := ServerConfig{Address: fmt.Sprintf("192.0.2.%d:80", i+1)}
		w, sc.Backup = strings.CutSuffix(w, "!")
		if name, weight, ok := strings.Cut(w, "*"); ok {
			fmt.Sscan(weight, &sc.Weight)
			w = name
		}
		sc.Name = w
		list = append(list, sc)
	}
	return list
}

// picks returns the labels of the next n picks, which stay connected.
func picks(t *testing.T, p *Pool, n int) string {
	t.Helper()
	var b strings.Builder
	for range n {
		s, err := p.Pick()
		if err != nil {
			t.Fatalf("pick: %v", err)
		}
		b.WriteString(s.Label())
	}
	return b.String()
}

func server(t *testing.T, p *Pool, label string) *Server {
	t.Helper()
	for _, s := range p.Servers() {
		if s.Label() == label {
			return s
		}
	}
	t.Fatalf("no server %s", label)
	return nil
}

func TestRoundRobinIsSmoothAndWeighted(t *testing.T) {
	for _, tt := range []struct {
		servers []ServerConfig
		want    string // two rounds
	}{
		{servers("a"), "aa"},
		{servers("a", "b", "c"), "abcabc"},
		{servers("a*5", "b", "c"), "aabacaaaabacaa"},
		{servers("a*100", "b*200"), "babbab"},
		{servers("a*256", "b*256"), "abab"},
		{servers("a", "b!", "c"), "acac"},
	} {
		p := New(Config{Name: "p", Balance: RoundRobin, Servers: tt.servers})
		if got := picks(t, p, len(tt.want)); got != tt.want {
			t.Errorf("%v: picked %s, want %s", tt.servers, got, tt.want)
		}
	}
}

func TestRoundRobinIsFairToConcurrentCallers(t *testing.T) {
	p := New(Config{Servers: servers("a*3", "b")})
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 100 {
				if _, err := p.Pick(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	if a, b := server(t, p, "a").Current(), server(t, p, "b").Current(); a != 600 || b != 200 {
		t.Errorf("a has %d connections and b %d, want 600 and 200", a, b)
	}
}

func TestLeastConn(t *testing.T) {
	t.Run("by connections per weight", func(t *testing.T) {
		p := New(Config{Balance: LeastConn, Servers: servers("a*2", "b")})
		picks(t, p, 30)
		if a, b := server(t, p, "a").Current(), server(t, p, "b").Current(); a != 20 || b != 10 {
			t.Errorf("a has %d connections and b %d, want 20 and 10", a, b)
		}
	})
	t.Run("prefers the server that became free", func(t *testing.T) {
		p := New(Config{Balance: LeastConn, Servers: servers("a", "b", "c")})
		picks(t, p, 9)
		b := server(t, p, "b")
		b.Done()
		b.Done()
		if got := picks(t, p, 2); got != "bb" {
			t.Errorf("picked %s, want bb", got)
		}
	})
	t.Run("idle servers take turns", func(t *testing.T) {
		p := New(Config{Balance: LeastConn, Servers: servers("a", "b*2", "c")})
		count := make(map[string]int)
		for range 40 {
			s, err := p.Pick()
			if err != nil {
				t.Fatal(err)
			}
			count[s.Label()]++
			s.Done()
		}
		if count["a"] != 10 || count["b"] != 20 || count["c"] != 10 {
			t.Errorf("picked %v, want a 10, b 20, c 10 times", count)
		}
	})
}

func TestPickPassesOverTried(t *testing.T) {
	for _, balance := range []Balance{RoundRobin, LeastConn} {
		p := New(Config{Balance: balance, Servers: servers("a*9", "b", "c!")})
		var tried []*Server
		var got string
		for range 3 {
			s, err := p.Pick(tried...)
			if err != nil {
				t.Fatalf("%s: %v", balance, err)
			}
			tried = append(tried, s)
			got += s.Label()
		}
		if got != "abc" {
			t.Errorf("%s: picked %s, want abc: the normal servers, then the backup", balance, got)
		}
		if s, err := p.Pick(tried...); err != ErrNoServer {
			t.Errorf("%s: picked %v, %v with all tried, want ErrNoServer", balance, s, err)
		}
	}
}

func TestBackupsStepIn(t *testing.T) {
	p := New(Config{Checked: true, Servers: servers("a", "b!", "c!")})
	up := func(address string, s HealthState) { p.SetHealth(address, Health{State: s}) }
	up("192.0.2.2:80", Up)
	up("192.0.2.3:80", Up)
	if got := picks(t, p, 4); got != "bcbc" || p.Usable() != 2 {
		t.Errorf("without a normal server: picked %s of %d, want bcbc of 2", got, p.Usable())
	}
	up("192.0.2.1:80", Up)
	if got := picks(t, p, 3); got != "aaa" || p.Usable() != 1 {
		t.Errorf("with a normal server: picked %s of %d, want aaa of 1", got, p.Usable())
	}
}

func TestUsability(t *testing.T) {
	for _, tt := range []struct {
		health HealthState
		admin  Admin
		want   bool
	}{
		{Unknown, Ready, false},
		{Up, Ready, true},
		{Down, Ready, false},
		{Up, Drain, false},
		{Up, Maint, false},
		{Down, Maint, false},
	} {
		p := New(Config{Checked: true, Servers: servers("a")})
		p.SetHealth("192.0.2.1:80", Health{State: tt.health})
		if err := p.SetAdmin("a", tt.admin); err != nil {
			t.Fatal(err)
		}
		_, err := p.Pick()
		if got := err == nil; got != tt.want {
			t.Errorf("%v, %v: Pick says %v", tt.health, tt.admin, err)
		}
		if got := p.Usable() > 0; got != tt.want {
			t.Errorf("%v, %v: Usable is %d", tt.health, tt.admin, p.Usable())
		}
		if got := server(t, p, "a").Stats().Usable; got != tt.want {
			t.Errorf("%v, %v: Stats say usable %v", tt.health, tt.admin, got)
		}
	}
}

func TestFirstHealth(t *testing.T) {
	for _, tt := range []struct {
		checked bool
		want    HealthState
	}{{false, Up}, {true, Unknown}} {
		p := New(Config{Checked: tt.checked, Servers: servers("a")})
		h := p.Servers()[0].Stats().Health
		if h.State != tt.want || h.Reason == "" || h.Since.IsZero() {
			t.Errorf("checked %v: health is %+v, want %v with reason and time", tt.checked, h, tt.want)
		}
	}
}

func TestSetHealthReachesEveryServerOfTheAddress(t *testing.T) {
	p := New(Config{Checked: true, Servers: []ServerConfig{
		{Name: "a", Address: "[2001:db8::1]:80"},
		{Name: "b", Address: "[2001:0DB8:0::1]:80"},
		{Name: "c", Address: "[2001:db8::2]:80"},
	}})
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p.SetHealth("[2001:db8::1]:80", Health{State: Up, Reason: "200 OK", Since: since})
	p.SetHealth("[2001:db8::9]:80", Health{State: Up}) // unknown: nothing happens
	for label, want := range map[string]HealthState{"a": Up, "b": Up, "c": Unknown} {
		if got := server(t, p, label).Stats().Health; got.State != want {
			t.Errorf("%s is %v, want %v", label, got.State, want)
		}
	}
	if got := server(t, p, "b").Stats().Health; got.Reason != "200 OK" || !got.Since.Equal(since) {
		t.Errorf("health is %+v, want reason and time as they were set", got)
	}
}

func TestSetAdmin(t *testing.T) {
	p := New(Config{Name: "web", Servers: servers("a")})
	err := p.SetAdmin("z", Drain)
	if !errors.Is(err, ErrUnknownServer) || !strings.Contains(err.Error(), "pool web: server z") {
		t.Errorf("error %v, want ErrUnknownServer naming pool and server", err)
	}
	a := server(t, p, "a")
	picks(t, p, 1)
	if err := p.SetAdmin("a", Drain); err != nil {
		t.Fatal(err)
	}
	drained := a.Stats().AdminSince
	if got := a.Current(); got != 1 {
		t.Errorf("draining left %d connections, want 1", got)
	}
	if err := p.SetAdmin("a", Drain); err != nil {
		t.Fatal(err)
	}
	if got := a.Stats().AdminSince; !got.Equal(drained) {
		t.Errorf("draining a draining server moved its time from %v to %v", drained, got)
	}
}

func TestUpdateKeepsServers(t *testing.T) {
	p := New(Config{Name: "p", Checked: true, Servers: servers("a", "b", "c")})
	for _, s := range p.Servers() {
		p.SetHealth(s.Address(), Health{State: Up, Reason: "fine"})
	}
	if err := p.SetAdmin("b", Maint); err != nil {
		t.Fatal(err)
	}
	picks(t, p, 4)
	a, b, c := server(t, p, "a"), server(t, p, "b"), server(t, p, "c")
	a.AddBytes(10, 20)
	a.ConnectFailed(errors.New("refused"))

	next := servers("a*7", "b!", "c", "d")
	next[2].Address = "192.0.2.33:80"
	p.Update(Config{Name: "p", Checked: true, Balance: LeastConn, Servers: next}, nil)

	want := a.Stats()
	if got := server(t, p, "a"); got != a || want.Weight != 7 || want.Current != 2 || want.Total != 2 ||
		want.BytesToServer != 10 || want.BytesToClient != 20 || want.ConnectErrors != 1 || want.Health.Reason != "fine" {
		t.Errorf("a did not keep what it had: %+v", want)
	}
	if got := b.Stats(); server(t, p, "b") != b || got.Admin != Maint || !got.Backup {
		t.Errorf("b did not keep its admin state or become a backup: %+v", got)
	}
	moved := server(t, p, "c").Stats()
	if server(t, p, "c") == c || moved.Health.State != Unknown || moved.Total != 0 {
		t.Errorf("c has a new address and is another server, got %+v", moved)
	}
	if got := server(t, p, "d").Stats().Health.State; got != Unknown {
		t.Errorf("the new server is %v, want unknown", got)
	}

	// The connections of the server that is gone end as they would have.
	if got := c.Current(); got != 2 {
		t.Errorf("the removed server has %d connections, want 2", got)
	}
	c.Done()
	if got := c.Current(); got != 1 {
		t.Errorf("the removed server has %d connections after Done, want 1", got)
	}
	if got := picks(t, p, 5); got != "aaaaa" {
		t.Errorf("picked %s, want aaaaa", got)
	}
}

func TestUpdateOfTheCheck(t *testing.T) {
	p := New(Config{Servers: servers("a")})
	p.Update(Config{Checked: true, Servers: servers("a", "b")}, nil)
	if got := picks(t, p, 2); got != "aa" {
		t.Errorf("check added: picked %s, want aa: a stays up until it is judged, b waits", got)
	}
	p.SetHealth("192.0.2.1:80", Health{State: Down})
	if n := p.Usable(); n != 0 {
		t.Errorf("a is down: %d usable, want 0", n)
	}
	p.Update(Config{Servers: servers("a", "b")}, nil)
	if got := picks(t, p, 2); got != "ab" && got != "ba" {
		t.Errorf("check removed: picked %s, want both", got)
	}
}

func TestServersIsACopy(t *testing.T) {
	p := New(Config{Servers: servers("a", "b")})
	list := p.Servers()
	list[0] = nil
	if got := picks(t, p, 2); got != "ab" || slices.Contains(p.Servers(), nil) {
		t.Error("changing the slice changed the pool")
	}
}

// TestChangesWhilePicking is for the race detector: readers and writers at the
// same time, and nothing counted twice or lost.
func TestChangesWhilePicking(t *testing.T) {
	p := New(Config{Checked: true, Servers: servers("a", "b", "c")})
	first := p.Servers()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 500 {
				if s, err := p.Pick(); err == nil {
					s.AddBytes(1, 1)
					s.Stats()
					s.Done()
				}
			}
		})
	}
	all.Go(func() {
		for i := range 200 {
			p.SetHealth(first[i%3].Address(), Health{State: HealthState(i % 3)})
			_ = p.SetAdmin("b", Admin(i%3))
			p.Update(Config{Checked: true, Servers: servers("a*2", "b", "c!")[:2+i%2]}, nil)
		}
	})
	all.Wait()
	for _, s := range first {
		if n := s.Current(); n != 0 {
			t.Errorf("%s has %d connections left, want 0", s.Label(), n)
		}
	}
}

func TestPickDoesNotAllocate(t *testing.T) {
	for _, balance := range []Balance{RoundRobin, LeastConn} {
		p := New(Config{Balance: balance, Servers: servers("a*3", "b", "c!")})
		if n := testing.AllocsPerRun(100, func() {
			s, _ := p.Pick()
			other, _ := p.Pick(s)
			s.Done()
			other.Done()
		}); n != 0 {
			t.Errorf("%s: %v allocations, want 0", balance, n)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, balance := range []Balance{RoundRobin, LeastConn} {
		p := New(Config{Balance: balance, Servers: servers("a*3", "b", "c", "d*2", "e", "f", "g", "h")})
		b.Run(string(balance), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					s, err := p.Pick()
					if err != nil {
						b.Fatal(err)
					}
					s.Done()
				}
			})
		})
	}
}

// BenchmarkJudge is what it takes to tell a pool of 1,000 servers of a round of checks
// of which one has another result than before.
func BenchmarkJudge(b *testing.B) {
	for _, weight := range []int{1, 100} {
		b.Run(fmt.Sprintf("weights to %d", weight), func(b *testing.B) {
			cfg := Config{Checked: true}
			for i := range 1000 {
				cfg.Servers = append(cfg.Servers, ServerConfig{Address: fmt.Sprintf("10.0.%d.%d:80", i/250, i%250+1), Weight: 1 + i%weight})
			}
			p, verdicts := New(cfg), make(map[ID]Health)
			for _, s := range p.Servers() {
				verdicts[s.ID()] = Health{State: Up, Reason: "status 200", Since: time.Now()}
			}
			one := p.Servers()[500].ID()
			for state := Up; b.Loop(); state = Up + Down - state {
				verdicts[one] = Health{State: state}
				p.Judge(verdicts)
			}
		})
	}
}

func TestUpdateSeedsNewServersOnly(t *testing.T) {
	p := New(Config{Checked: true, Servers: servers("a")})
	p.SetHealth(p.Servers()[0].Address(), Health{State: Up, Reason: "kept"})
	known := func(ID) (Health, bool) { return Health{State: Up, Reason: "seeded"}, true }
	p.Update(Config{Checked: true, Servers: servers("a", "b")}, known)
	for i, want := range []string{"kept", "seeded"} {
		if h := p.Servers()[i].Stats().Health; h.State != Up || h.Reason != want {
			t.Errorf("server %d: %+v, want up, %s", i, h, want)
		}
	}
	p.Update(Config{Checked: true, Servers: servers("c")}, func(ID) (Health, bool) { return Health{}, false })
	if h := p.Servers()[0].Stats().Health; h.State != Unknown {
		t.Errorf("a server nobody knows: %+v", h)
	}
}
