package integration

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"appliance/internal/lab"
	"appliance/internal/link"
)

// forgedSender sends frames from the client host.
type forgedSender struct {
	t    *testing.T
	tap  *link.Tap
	port int
}

func (p *pair) newForgedSender() *forgedSender {
	p.t.Helper()
	s := &forgedSender{t: p.t}
	err := p.Client.Do(func() (err error) {
		s.tap, err = link.OpenTap()
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { s.tap.Close() })
	if s.port, err = p.Client.Network.Index(lab.LAN); err != nil {
		p.t.Fatal(err)
	}
	return s
}

// send sends a frame, when the kernel has room for it.
func (s *forgedSender) send(frame []byte) {
	s.t.Helper()
	var err error
	for range 1000 {
		if err = s.tap.Send(s.port, frame); !errors.Is(err, syscall.ENOBUFS) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// forgedNode is one of the pair as the forger sees it.
type forgedNode struct {
	*lab.Node
	address string
	mac     net.HardwareAddr
}

func (p *pair) forgedNodes() []forgedNode {
	return []forgedNode{
		{p.LB01, "192.168.15.11", net.HardwareAddr{0x02, 0, 192, 168, 15, 11}},
		{p.LB02, "192.168.15.12", net.HardwareAddr{0x02, 0, 192, 168, 15, 12}},
	}
}

// forgedCounts returns how often a node has refused something, by reason.
func (p *pair) forgedCounts(n *lab.Node) map[string]uint64 {
	p.t.Helper()
	counts := maps.Clone(p.status(n).VRRP[0].Counters)
	maps.DeleteFunc(counts, func(name string, _ uint64) bool {
		return !strings.HasPrefix(name, "refused_") && !strings.HasPrefix(name, "receive_error_")
	})
	return counts
}

// forgedExpect waits until a node has counted what was sent, and fails the test
// if it does not or counts more.
func (p *pair) forgedExpect(n *lab.Node, want map[string]uint64) {
	p.t.Helper()
	differ := func() (names []string) {
		got := p.forgedCounts(n)
		for name := range want {
			if got[name] != want[name] && (got[name] != 0 || !slices.Contains(forgedHeaders, name)) {
				names = append(names, fmt.Sprintf("%s is %d, want %d", name, got[name], want[name]))
			}
		}
		for name := range got {
			if _, ok := want[name]; !ok {
				names = append(names, fmt.Sprintf("%s is %d, and nothing of that kind was sent", name, got[name]))
			}
		}
		return names
	}
	deadline := time.Now().Add(10 * time.Second)
	names := differ()
	for len(names) > 0 && time.Now().Before(deadline) {
		names = differ()
	}
	for _, name := range names {
		p.t.Errorf("%s: %s", n.Name, name)
	}
}

// Forged adverts change nothing, and each is counted under what is wrong with
// it.
func TestForgedAdvertsAreCounted(t *testing.T) {
	t.Parallel()
	p := newPair(t, patientConfig(t))
	p.start()
	sender := p.newForgedSender()
	for _, n := range p.forgedNodes() {
		before, began := p.status(n.Node), time.Now()
		want := p.forgedCounts(n.Node)
		for _, c := range forgedCases(n.address) {
			if c.counter != "" {
				want[c.counter]++
			}
			sender.send(c.frame.build(n.mac))
		}
		p.forgedExpect(n.Node, want)
		random := rand.New(rand.NewPCG(1, 2))
		for sent := 0; sent < 200; {
			payload := make([]byte, 8+random.IntN(200))
			for i := range payload {
				payload[i] = byte(random.Uint32())
			}
			payload[1] = 50 // or it would be another virtual router's
			if payload[0]>>4 == 3 {
				continue // its reason depends on more than its first byte
			}
			want["refused_version"]++
			sender.send(forgedFrame{payload: payload}.build(n.mac))
			// More than the socket's buffer holds would be lost on a busy machine.
			if sent++; sent%50 == 0 {
				p.forgedExpect(n.Node, want)
			}
		}
		p.waitAdverts(p.LB01, 5)
		reloadSame(t, before, p.status(n.Node))
		if gap := p.advertGap(p.LB01, began, time.Now()); gap > threeAdverts {
			t.Errorf("%s: meanwhile the active node sent no advert for %v", n.Name, gap)
		}
		after := p.status(n.Node).VRRP[0]
		if n.Node == p.LB01 {
			// Nobody else sends anything to the active node.
			was := before.VRRP[0]
			for name, count := range was.Counters {
				if (strings.HasPrefix(name, "checksum_") || name == "address_mismatches") && after.Counters[name] != count {
					t.Errorf("%s rose from %d to %d: something forged was believed", name, count, after.Counters[name])
				}
			}
			if after.ActiveRouter != nil {
				t.Errorf("lb01 takes %+v for the active router", after.ActiveRouter)
			}
		} else if after.ActiveRouter == nil || after.ActiveRouter.Address != "192.168.15.11" || after.ActiveRouter.Priority != 100 {
			t.Errorf("lb02 takes %+v for the active router", after.ActiveRouter)
		}
	}
}

// A thousand forged adverts in a second to each node do not keep them from
// anything. An advert of a larger priority that is right in every part does:
// that is VRRP, and shows that the forged ones would be noticed. It heals.
func TestForgedFlood(t *testing.T) {
	t.Parallel()
	p := newPair(t, patientConfig(t))
	p.start()
	sender := p.newForgedSender()
	load := p.load(100, 80, 8080)
	nodes := p.forgedNodes()
	var frames [2][][]byte
	before := make(map[*lab.Node]map[string]uint64)
	for i, n := range nodes {
		for _, c := range forgedCases(n.address) {
			frames[i] = append(frames[i], c.frame.build(n.mac))
		}
		before[n.Node] = p.forgedCounts(n.Node)
	}
	was01, was02 := p.status(p.LB01), p.status(p.LB02)
	from := time.Now()
	const rate, seconds = 1000, 3
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for sent := 0; sent < rate*seconds; {
		<-pace.C
		for due := int(time.Since(from).Seconds() * rate); sent < min(due, rate*seconds); sent++ {
			for _, f := range frames {
				sender.send(f[sent%len(f)])
			}
		}
	}
	to := time.Now()
	p.waitAdverts(p.LB01, 5)
	p.waitRequests(load, 25)
	reloadNoFailures(t, load, from)
	reloadSame(t, was01, p.status(p.LB01))
	reloadSame(t, was02, p.status(p.LB02))
	if gap := p.advertGap(p.LB01, from, time.Now()); gap > threeAdverts {
		t.Errorf("the active node sent no advert for %v", gap)
	}
	for _, n := range nodes {
		now := p.forgedCounts(n.Node)
		for _, c := range forgedCases(n.address) {
			if c.counter != "" && now[c.counter] < before[n.Node][c.counter]+10 && !slices.Contains(forgedHeaders, c.counter) {
				t.Errorf("%s: %s: %s went from %d to %d", n.Name, c.name, c.counter, before[n.Node][c.counter], now[c.counter])
			}
		}
	}
	t.Logf("%d forged adverts to each node in %v", rate*seconds, to.Sub(from))

	everybody := net.HardwareAddr{0x01, 0x00, 0x5e, 0x00, 0x00, 0x12}
	sender.send(forgedFrame{priority: 200}.build(everybody))
	eventually(t, 10*time.Second, "lb01 gives way to a larger priority", func() bool {
		return p.status(p.LB01).VRRP[0].Counters["transitions"] > was01.VRRP[0].Counters["transitions"]
	})
	if _, err := p.WaitAnyActive(p.within(20 * time.Second)); err != nil {
		t.Error(err)
	}
	p.settle()
}
