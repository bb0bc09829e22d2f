//go:build soak

package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"appliance/internal/lab"
)

// This file is `make soak`: troubles at random, one after the other, and what a
// pair promises in each of them. SOAK_FOR says for how long (default 3m), and
// SOAK_SEED repeats what a run that failed did.

const (
	soakInterval = 100 * time.Millisecond // of adverts, in the laboratory's file

	// soakSlack is what a busy machine may add to any time.
	soakSlack = 500 * time.Millisecond
	// soakAfterKill is how long a killed node may answer.
	soakAfterKill = 200 * time.Millisecond
	// soakTakeOver is how long a backup waits for a node that says nothing any
	// more, at most: for adverts, and one interval more for the peer link.
	soakTakeOver = 5 * soakInterval
	// soakBlink is how long both may answer, or neither, at a take-over between
	// nodes that hear each other.
	soakBlink = 200 * time.Millisecond
)

// soak is one run.
type soak struct {
	*pair
	config string
	link   bool // the nodes have a peer link
	random *rand.Rand
	load   *lab.Load
	// Stretches of time in which nobody may have answered, or both nodes.
	silence, dual []stretch
	steps         []string
}

// stretch is a stretch of time with a reason.
type stretch struct {
	from, to time.Time
	why      string
}

func TestSoak(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("SOAK_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	length := durationOf(t, "SOAK_FOR", 3*time.Minute)
	for i, v := range soakVariants {
		t.Run(v.name, func(t *testing.T) {
			config := v.config(t)
			s := &soak{pair: newPair(t, config), config: config, link: strings.Contains(config, peerTable), random: rand.New(rand.NewPCG(seed, uint64(i)))}
			s.pair.dual = time.Hour // judged by what happened, below
			t.Logf("SOAK_SEED=%d", seed)
			s.run(length / time.Duration(len(soakVariants)))
		})
	}
}

// soakVariants are the configurations that are put to the test.
var soakVariants = []struct {
	name   string
	config func(t *testing.T) string
}{
	{"without a peer link", soakConfig},
	{"with a peer link", func(t *testing.T) string { return peerTable + soakConfig(t) }},
}

// soakConfig is the laboratory's file with checks that a busy machine passes.
func soakConfig(t *testing.T) string {
	return labConfig(t, `interval = "500ms", timeout = "250ms"`, `interval = "1s", timeout = "1s"`)
}

func (s *soak) run(length time.Duration) {
	s.start()
	s.load = s.pair.load(100, 80, 8080)
	troubles := []struct {
		name string
		do   func()
	}{
		{"SIGKILL of the active node", func() { s.kill(s.active()) }},
		{"SIGKILL of the backup", func() { s.kill(s.Other(s.active())) }},
		{"SIGTERM of the active node", s.terminate},
		{"SIGSTOP of the active node", func() { s.freeze(s.active()) }},
		{"SIGSTOP of the backup", func() { s.freeze(s.Other(s.active())) }},
		{"the active node's cable goes silent", func() { s.cut(s.active(), lab.Silent) }},
		{"the backup's cable goes silent", func() { s.cut(s.Other(s.active()), lab.Silent) }},
		{"the active node's cable is unplugged", func() { s.cut(s.active(), lab.Unplugged) }},
		{"the nodes are parted", s.part},
		{"the backup hears no adverts", func() { s.deafen(s.Other(s.active())) }},
		{"the active node hears no adverts", func() { s.deafen(s.active()) }},
		{"failover by command", s.failOver},
		{"reload", func() { s.reloadAtRandom(1 + s.random.IntN(3)) }},
	}
	for begun := time.Now(); time.Since(begun) < length && !s.t.Failed(); {
		trouble := troubles[s.random.IntN(len(troubles))]
		s.steps = append(s.steps, fmt.Sprintf("%s %s", time.Now().Format("15:04:05.000"), trouble.name))
		trouble.do()
		s.settle()
		s.judge(begun)
		// A pause of any length, so that timers meet in every way.
		time.Sleep(time.Duration(s.random.IntN(700)) * time.Millisecond)
	}
	s.t.Logf("%d troubles:\n%s", len(s.steps), strings.Join(s.steps, "\n"))
	s.reloadsUnderLoad()
}

// active returns the node that alone answers for the address.
func (s *soak) active() *lab.Node {
	s.t.Helper()
	n, err := s.WaitAnyActive(s.within(20 * time.Second))
	if err != nil {
		s.fail("%v", err)
		s.t.FailNow()
	}
	return n
}

// fail tells what went wrong, after what.
func (s *soak) fail(format string, args ...any) {
	s.t.Helper()
	s.t.Errorf("%s: %s\nthe last steps:\n%s\nevents:\n%s", s.steps[len(s.steps)-1], fmt.Sprintf(format, args...),
		strings.Join(s.steps[max(0, len(s.steps)-4):], "\n"), s.lastEvents())
}

// lastEvents tells what the wire saw lately, without the repetitions.
func (s *soak) lastEvents() string {
	var lines []string
	var last string
	for _, e := range slices.Backward(s.Capture.Events()) {
		what := fmt.Sprintf("%s of %s priority %d", e.Kind, e.Host, e.Priority)
		if what == last {
			continue
		}
		last = what
		lines = append(lines, e.Time.Format("15:04:05.000 ")+what)
		if len(lines) == 40 {
			break
		}
	}
	slices.Reverse(lines)
	return strings.Join(lines, "\n")
}

// untilActive waits until a node alone answers, and fails if that took longer
// than the bound.
func (s *soak) untilActive(n *lab.Node, since time.Time, bound time.Duration) {
	s.t.Helper()
	if err := s.WaitActive(s.within(20*time.Second), n); err != nil {
		s.fail("%v", err)
		s.t.FailNow()
	}
	if took := time.Since(since); took > bound+soakSlack {
		s.fail("%s was active after %v, promised are %v", n.Name, took.Round(time.Millisecond), bound)
	}
}

// pause waits for a moment, so long at most.
func (s *soak) pause(longest time.Duration) {
	time.Sleep(time.Duration(s.random.Int64N(int64(longest))))
}

// mayBe allows silence, two answers or both from a moment to now and a bound.
func (s *soak) mayBe(list *[]stretch, from time.Time, bound time.Duration) {
	*list = append(*list, stretch{from, time.Now().Add(bound), s.steps[len(s.steps)-1]})
}

// kill kills a node, and starts it again after a while.
func (s *soak) kill(n *lab.Node) {
	active := s.active()
	killed := time.Now()
	if err := n.Kill(); err != nil {
		s.t.Fatal(err)
	}
	dead := time.Now()
	if n == active {
		// Its guard says that it is gone: the other one waits for its skew.
		s.untilActive(s.Other(n), killed, soakInterval)
		s.mayBe(&s.silence, killed, 0)
		if last, ok := s.Monitor.LastAnswer(n.Name); ok && last.Sub(dead) > soakAfterKill {
			s.fail("the machine of the killed node answered for %v, promised are %v", last.Sub(dead), soakAfterKill)
		}
		s.mayBe(&s.dual, killed, 0)
	}
	s.pause(time.Second)
	s.startAgain(n)
}

func (s *soak) startAgain(n *lab.Node) {
	s.t.Helper()
	if err := n.StartAppliance(); err != nil {
		s.t.Fatal(err)
	}
	if err := s.WaitReady(s.within(20*time.Second), n); err != nil {
		s.fail("%v", err)
		s.t.FailNow()
	}
}

// terminate stops the active node in order, and starts it again.
func (s *soak) terminate() {
	n := s.active()
	if err := n.Terminate(s.within(30 * time.Second)); err != nil {
		s.fail("%v", err)
		s.t.FailNow()
	}
	stopped := time.Now()
	s.untilActive(s.Other(n), stopped, soakInterval)
	s.mayBe(&s.silence, stopped.Add(-2*soakInterval), 0)
	s.pause(time.Second)
	s.startAgain(n)
}

// freeze stops a node for a while. What it does after it goes on is the point.
func (s *soak) freeze(n *lab.Node) {
	active := s.active()
	frozen := time.Now()
	if err := n.Appliance().Stop(); err != nil {
		s.t.Fatal(err)
	}
	s.pause(5 * time.Second)
	if n == active && time.Since(frozen) > soakTakeOver+soakSlack {
		// The kernel of the frozen one answers until its lease has ended.
		eventually(s.t, 20*time.Second, s.Other(n).Name+" takes over from a frozen node", func() bool {
			_, ok := s.Capture.First(lab.Advert, s.Other(n).Name, frozen)
			return ok
		})
		if e, _ := s.Capture.First(lab.Advert, s.Other(n).Name, frozen); e.Time.Sub(frozen) > soakTakeOver+soakSlack {
			s.fail("the other node took over %v after the freeze", e.Time.Sub(frozen))
		}
	}
	thawed := time.Now()
	if err := n.Appliance().Continue(); err != nil {
		s.t.Fatal(err)
	}
	if n == active {
		s.mayBe(&s.dual, frozen, 3*soakInterval)
		// No longer than the lease, however long it was frozen.
		if last := &s.dual[len(s.dual)-1]; last.to.Sub(frozen) > afterFreeze {
			last.to = frozen.Add(afterFreeze)
			s.dual = append(s.dual, stretch{thawed, thawed.Add(2 * soakInterval), "the thawed node goes on"})
		}
		s.mayBe(&s.silence, frozen, 3*soakInterval)
	}
}

// cut cuts a node's cable for a while.
func (s *soak) cut(n *lab.Node, how lab.Cut) {
	active := s.active()
	begun := time.Now()
	if err := s.Cut(n.Host, lab.LAN, how); err != nil {
		s.t.Fatal(err)
	}
	if n == active {
		s.untilActive(s.Other(n), begun, soakTakeOver)
		s.mayBe(&s.silence, begun, 0)
	}
	s.pause(3 * time.Second)
	if err := s.Heal(n.Host, lab.LAN); err != nil {
		s.t.Fatal(err)
	}
	s.healed()
}

// healed allows both nodes to answer until they have heard each other.
func (s *soak) healed() {
	now := time.Now()
	s.dual = append(s.dual, stretch{now, now.Add(2*soakInterval + soakSlack), "healed"})
	s.silence = append(s.silence, stretch{now, now.Add(2*soakInterval + soakSlack), "healed"})
}

// part lets the nodes see the client and not each other: both are active.
func (s *soak) part() {
	s.active()
	begun := time.Now()
	if err := s.Part(true); err != nil {
		s.t.Fatal(err)
	}
	s.pause(3 * time.Second)
	if err := s.Part(false); err != nil {
		s.t.Fatal(err)
	}
	s.mayBe(&s.dual, begun, 0)
	s.healed()
}

// deafen keeps the adverts of the other node away from one. The peer link tells it
// what it does not hear.
func (s *soak) deafen(n *lab.Node) {
	active := s.active()
	begun := time.Now()
	if err := s.Deafen(n, true); err != nil {
		s.t.Fatal(err)
	}
	s.pause(3 * time.Second)
	if err := s.Deafen(n, false); err != nil {
		s.t.Fatal(err)
	}
	if s.link {
		if e, ok := s.Capture.First(lab.Advert, s.Other(active).Name, begun); ok {
			s.fail("%s sent an advert of priority %d, %v after adverts were kept from %s", e.Host, e.Priority, e.Time.Sub(begun), n.Name)
		}
		return
	}
	s.mayBe(&s.dual, begun, 0)
	s.healed()
}

// failOver gives the address away by command and, sometimes, back.
func (s *soak) failOver() {
	n := s.active()
	if s.link {
		// It is refused, and rightly, while the other node is absent.
		eventually(s.t, 20*time.Second, n.Name+" knows the other node for a backup", func() bool {
			peers := s.status(n).Peers
			return len(peers) == 1 && peers[0].Link == "up" && len(peers[0].VRRP) == 1 && peers[0].VRRP[0].State == "backup"
		})
	}
	begun := time.Now()
	code, output := s.applianctl(n, "failover")
	if code != 0 {
		s.fail("%s$ applianctl failover: %s", n.Name, output)
	}
	s.mayBe(&s.silence, begun, 0)
	if s.random.IntN(2) == 0 {
		s.pause(time.Second)
		// It may be refused: there is no way back from the larger node.
		s.applianctl(n, "failback")
		s.mayBe(&s.silence, begun, 0)
	}
}

// reloadAtRandom reloads a file that differs a little from the last one.
func (s *soak) reloadAtRandom(times int) {
	for range times {
		s.reloadOn(s.Nodes()[s.random.IntN(2)])
	}
}

func (s *soak) reloadOn(n *lab.Node) {
	s.t.Helper()
	if err := n.WriteConfig(fmt.Sprintf("%s\n# %d\n", s.config, s.random.Uint32())); err != nil {
		s.t.Fatal(err)
	}
	if code, output := s.applianctl(n, "reload"); code != 0 {
		s.fail("%s$ applianctl reload: %s", n.Name, output)
	}
}

// settle waits until one node is active and the other one a backup. It fails if
// it takes more than an interval until there is one active node, or if the LAN
// heard last from another one where the address is.
func (s *soak) settle() {
	s.t.Helper()
	since := time.Now()
	var active, backup *lab.Node
	for alone := false; active == nil; time.Sleep(5 * time.Millisecond) {
		a, b := s.status(s.LB01).VRRP[0].State, s.status(s.LB02).VRRP[0].State
		took := time.Since(since)
		if !alone && (a == "active") != (b == "active") {
			alone = true
			if took > soakInterval+soakSlack {
				s.fail("it took %v until one node alone was active", took.Round(time.Millisecond))
			}
		}
		switch {
		case a == "active" && b == "backup":
			active, backup = s.LB01, s.LB02
		case a == "backup" && b == "active":
			active, backup = s.LB02, s.LB01
		case took > 20*time.Second:
			s.fail("lb01 is %s and lb02 is %s", a, b)
			s.t.FailNow()
		}
	}
	if err := s.WaitActive(s.within(5*time.Second), active); err != nil {
		s.fail("%v", err)
	}
	s.silence = append(s.silence, stretch{since, time.Now(), "settling"})
	s.announcedLastSoon(active, backup)
}

// soakAnnounce is how long the active node may wait with an announcement that
// heals what another one's has misled: it makes one a second of these at most.
const soakAnnounce = time.Second

// announcedLastSoon waits until the LAN has heard last from the active node where
// the address is, and fails if that takes too long.
func (s *soak) announcedLastSoon(active, backup *lab.Node) {
	s.t.Helper()
	since := time.Now()
	for {
		winner, announced := s.Capture.Last(lab.Gratuitous, active.Name, time.Now())
		loser, also := s.Capture.Last(lab.Gratuitous, backup.Name, time.Now())
		took := time.Since(since)
		if announced && (!also || winner.Time.After(loser.Time)) {
			if took > 2*soakInterval {
				s.steps[len(s.steps)-1] += fmt.Sprintf(" (misled neighbours were healed after %v)", took.Round(time.Millisecond))
			}
			return
		}
		if took > soakAnnounce+soakSlack {
			s.fail("%s is active, and %v later the last gratuitous ARP is one of %s", active.Name, took.Round(time.Millisecond), backup.Name)
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// judge fails the test if both nodes answered, or neither, when they may not.
func (s *soak) judge(begun time.Time) {
	s.t.Helper()
	for _, i := range s.Monitor.DualAnswerers() {
		if i.From.After(begun) && excess(i, s.dual) > soakBlink {
			s.fail("%v answered at the same time from %s to %s", i.Hosts, i.From.Format("15:04:05.000"), i.To.Format("15:04:05.000"))
		}
	}
	for _, i := range s.Monitor.Silences() {
		if i.From.After(begun) && excess(i, s.silence) > soakBlink {
			s.fail("nobody answered from %s to %s", i.From.Format("15:04:05.000"), i.To.Format("15:04:05.000"))
		}
	}
}

// excess returns how much of an interval no stretch allows.
func excess(i lab.Interval, allowed []stretch) time.Duration {
	over := i.Length()
	for _, a := range allowed {
		from, to := i.From, i.To
		if a.from.After(from) {
			from = a.from
		}
		if a.to.Before(to) {
			to = a.to
		}
		over -= max(0, to.Sub(from))
	}
	return over
}

// reloadsUnderLoad reloads the active node fifty times while clients are served: no advert is
// late by more than half an interval, and no request fails.
func (s *soak) reloadsUnderLoad() {
	s.steps = append(s.steps, "fifty reloads under load")
	active := s.active()
	begun := time.Now()
	for range 50 {
		s.reloadOn(active)
	}
	ended := time.Now()
	if gap := s.advertGap(active, begun, ended); gap > soakInterval*3/2 {
		s.fail("an advert came %v after the one before, due every %v", gap, soakInterval)
	} else {
		s.t.Logf("fifty reloads in %v: adverts at most %v apart", ended.Sub(begun).Round(time.Millisecond), gap.Round(time.Millisecond))
	}
	if report := s.load.Report(begun, ended); report.Failures() > 0 {
		s.fail("of %d requests %s, first: %v", report.Requests, report, report.FirstError)
	}
}
