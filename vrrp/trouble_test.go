package vrrp

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// troubles is one election with troubles at random, as a script of TestElections
// could have them.
type troubles struct {
	t       *testing.T
	net     *network
	random  *rand.Rand
	nodes   []string
	grouped bool // two LANs, and a group on each of two nodes
	stopped map[string]bool
}

func (s *troubles) do(format string, args ...any) {
	s.t.Helper()
	line := fmt.Sprintf(format, args...)
	s.net.note("# %s", line)
	if err := s.net.command(strings.Fields(line)); err != nil {
		s.t.Fatalf("%s: %v", line, err)
	}
}

func pick[T any](s *troubles, choice ...T) T { return choice[s.random.IntN(len(choice))] }

// begin starts two or three nodes, or two on two LANs, which may have a link.
func (s *troubles) begin() {
	common := fmt.Sprintf("preempt=%v interval=%s settle=2s drain=%s %s",
		pick(s, true, false), pick(s, "1s", "100ms"), pick(s, "0s", "500ms"), pick(s, "", "reach=192.168.15.1"))
	s.nodes = []string{"a", "b", "c"}[:pick(s, 2, 2, 3)]
	for i, name := range s.nodes {
		s.do("node %s 192.168.15.%d priority=%d %s", name, 11+i, pick(s, 100, 100-10*i), common)
	}
	if s.grouped = len(s.nodes) == 2 && pick(s, true, false, false); s.grouped {
		for i, name := range s.nodes {
			second := name + "2"
			s.do("node %s 172.16.1.%d priority=%d lan=second vip=172.16.1.3/24 %s", second, 11+i, s.net.node(name).m.cfg.Priority, common)
			s.do("group edge-of-%s %s %s", name, name, second)
		}
		s.nodes = append(s.nodes, "a2", "b2")
	}
	if pick(s, true, true, false) {
		s.do("link")
	}
	s.do("start %s", strings.Join(s.nodes, " "))
}

// trouble makes one trouble, or ends one.
func (s *troubles) trouble() {
	x := pick(s, s.nodes...)
	n := s.net.node(x)
	if s.stopped[x] {
		s.whole("cont", x)
		return
	}
	switch pick(s, "cut", "deaf", "heal", "heal", "link", "demote", "move", "move", "stop", "acquire", "fault", "reach") {
	case "cut":
		s.do("cut %s", x)
	case "deaf":
		s.do("deaf %s", x)
	case "heal":
		s.do("heal %s", x)
	case "link":
		switch {
		case s.net.linked && s.net.linkCut:
			s.do("linkheal")
		case s.net.linked:
			s.do("linkcut")
		}
	case "demote":
		s.do("demote %s %d no server", x, pick(s, 0, 11, 22))
	case "move":
		if len(s.nodes) != 3 { // the network answers offers for a pair
			s.do("%s %s", pick(s, "failover", "failback"), x+pick(s, "", " force", " back"))
		}
	case "stop":
		s.whole("stop", x)
	case "acquire":
		s.do("%s %s", pick(s, "acquire-fails", "acquire-works"), x)
	case "fault":
		s.do("fault %s %s", x, pick(s, "", "broken"))
	case "reach":
		if len(n.m.cfg.Reach) > 0 {
			s.do("%s %s", pick(s, "reach", "unreach"), x)
		}
	}
}

// whole does to the whole node what is done to x: a group is one process.
func (s *troubles) whole(verb, x string) {
	for _, y := range s.nodes {
		if y == x || s.grouped && y[0] == x[0] {
			s.stopped[y] = verb == "stop"
			s.do("%s %s", verb, y)
		}
	}
}

// end ends all troubles but those that an election has to live with: a link that
// is cut, and nodes that are not healthy.
func (s *troubles) end() {
	for _, x := range s.nodes {
		if s.stopped[x] {
			s.do("cont %s", x)
		}
		for _, verb := range []string{"heal", "acquire-works", "fault", "reach"} {
			s.do("%s %s", verb, x)
		}
		if pick(s, true, false) {
			s.do("demote %s 0", x)
		}
	}
	if s.net.linkCut && pick(s, true, true, false) {
		s.do("linkheal")
	}
}

func (s *troubles) transitions() (n int) {
	for _, x := range s.net.nodes {
		n += x.transitions
	}
	return n
}

// Whatever happens, and in whatever order: once it is over, one node is active on
// each LAN and stays that.
func TestAfterAnyTroublesOneNodeIsActive(t *testing.T) {
	for seed := range uint64(400) {
		s := &troubles{t: t, net: newNetwork(), random: rand.New(rand.NewPCG(seed, 0)), stopped: make(map[string]bool)}
		s.begin()
		for range 5 + s.random.IntN(20) {
			s.trouble()
			s.do("run %dms", pick(s, 1, 2, 3, 5, 20, 100, 300, 1000, 2500, 5000))
		}
		s.end()
		s.do("run %s", 2*holdOff<<holdOffDoublings) // no failure is held against anybody any more
		before, active := s.transitions(), 0
		s.do("run 30s")
		for _, x := range s.net.nodes {
			if x.m.State() == Active {
				active++
			}
		}
		want := 1
		if s.grouped {
			want = 2
		}
		split := s.grouped && s.net.node("a").m.State() != s.net.node("a2").m.State()
		if active != want || split || s.transitions() != before {
			t.Fatalf("seed %d: %d nodes are active, and %d transitions came late:\n%s", seed, active, s.transitions()-before, s.net.log.String())
		}
	}
}
