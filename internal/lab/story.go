package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
)

const (
	storyRate   = 200                    // requests per second
	storyStep   = 3 * time.Second        // how long the traffic is watched after each event
	storyWait   = 10 * time.Second       // within which each event must have had its effect
	longestGap  = 5 * time.Second        // without a success: longer than that is a failure to serve
	checkTime   = 2 * time.Second        // by then the checks of DefaultConfig have found a server dead
	longestDual = 500 * time.Millisecond // with two nodes answering: the moment of a take-over
)

// story is the narrated run: a steady pair, a server that dies, a node that is
// killed, its return, and a move by command.
type story struct {
	pair  *Pair
	out   io.Writer
	began time.Time
	load  *Load
	next  time.Time // where the next step of the summary begins
	rows  []row
	fault []error // what went against the promises
}

// row is a line of the summary.
type row struct {
	what   string
	report Report
}

func newStory(pair *Pair, out io.Writer) *story {
	return &story{pair: pair, out: out, began: time.Now()}
}

// say prints a line with the seconds since the beginning.
func (s *story) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	stamp := fmt.Sprintf("%5.1fs  ", time.Since(s.began).Seconds())
	fmt.Fprintln(s.out, stamp+strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", len(stamp))))
}

// tell tells the whole story. The error says what failed.
func (s *story) tell(ctx context.Context) error {
	active, err := s.begin(ctx)
	if err != nil {
		return err
	}
	s.next = time.Now()
	s.load = StartLoad(s.pair.Client, LoadOptions{
		Targets: []netip.AddrPort{netip.AddrPortFrom(s.pair.VIP, 80), netip.AddrPortFrom(s.pair.VIP, 8080)},
		Rate:    storyRate,
	})
	defer s.load.Stop()
	if err := s.steady(ctx, active); err != nil {
		return err
	}
	if err := s.serverDies(ctx); err != nil {
		return err
	}
	if active, err = s.nodeDies(ctx, active); err != nil {
		return err
	}
	if err := s.nodeReturns(ctx, active); err != nil {
		return err
	}
	if err := s.failover(ctx, active); err != nil {
		return err
	}
	s.load.Stop()
	s.summary()
	return errors.Join(s.fault...)
}

// begin starts both nodes and waits until one of them is active.
func (s *story) begin(ctx context.Context) (*Node, error) {
	s.say("Built in namespaces of this process: lb01, lb02, a client, %d servers, two LANs.", len(s.pair.Servers))
	if err := s.pair.Start(); err != nil {
		return nil, err
	}
	s.say("Both nodes run `applianctl run` with the same appliance.toml.")
	ctx, cancel := context.WithTimeout(ctx, storyWait)
	defer cancel()
	for _, n := range s.pair.Nodes() {
		if err := s.pair.WaitReady(ctx, n); err != nil {
			return nil, err
		}
	}
	active, err := s.pair.WaitAnyActive(ctx)
	if err != nil {
		return nil, err
	}
	s.say("%s is active: it alone answers for %s on the LAN.", active.Name, s.pair.VIP)
	return active, nil
}

func (s *story) steady(ctx context.Context, active *Node) error {
	s.say("The client sends %d requests per second to %s, a new connection each:\n"+
		"half to the HTTP service (port 80), half to the TCP service (port 8080).", storyRate, s.pair.VIP)
	if err := pause(ctx, storyStep); err != nil {
		return err
	}
	r := s.record("steady traffic")
	s.say("%s serves %.0f requests per second from %s: %s.", active.Name, r.Rate(), strings.Join(r.ServerNames(), ", "), r)
	if r.Requests == 0 {
		s.wrong("steady traffic: there was none")
	}
	s.flawless("steady traffic", r)
	return nil
}

func (s *story) serverDies(ctx context.Context) error {
	victim := s.pair.Servers[1]
	killed := time.Now()
	victim.Kill()
	s.say("Killed the server %s: its port refuses connections.", victim.Name())
	if err := pause(ctx, storyStep); err != nil {
		return err
	}
	r := s.record("server " + victim.Name() + " killed")
	s.say("%.0f requests per second go on; %s, longest gap %s.", r.Rate(), r, ms(r.Gap))
	// What the server was answering when it died has failed with it.
	s.flawless("server "+victim.Name()+" found dead", s.load.Report(killed.Add(checkTime), r.To))
	if err := victim.Start(); err != nil {
		return err
	}
	since := time.Now()
	if err := s.until(ctx, func() bool { return s.load.SoFar(since).Servers[victim.Name()] > 0 }); err != nil {
		return fmt.Errorf("%s is back and gets no requests: %w", victim.Name(), err)
	}
	s.say("%s is back: checked, and in use again after %s.", victim.Name(), ms(time.Since(since)))
	s.flawless("server "+victim.Name()+" returns", s.record("server "+victim.Name()+" returns"))
	return nil
}

func (s *story) nodeDies(ctx context.Context, active *Node) (*Node, error) {
	heir := s.pair.Other(active)
	killed := time.Now()
	if err := active.Kill(); err != nil {
		return nil, err
	}
	s.say("Killed the active node's process by SIGKILL: %s.", active.Name)
	if err := s.moved(ctx, heir); err != nil {
		return nil, err
	}
	if err := pause(ctx, storyStep); err != nil {
		return nil, err
	}
	r := s.record("active node " + active.Name + " killed")
	s.say("%s is active. The client waited %s at most; %s.", heir.Name, ms(r.Gap), r)
	if first, ok := s.pair.Capture.First(Advert, heir.Name, killed); ok {
		line := fmt.Sprintf("On the wire: first advert of %s %s after the kill", heir.Name, ms(first.Time.Sub(killed)))
		if arp, ok := s.pair.Capture.First(Gratuitous, heir.Name, killed); ok {
			line += fmt.Sprintf(", its gratuitous ARP %s after that", ms(arp.Time.Sub(first.Time)))
		}
		s.say("%s.", line)
	}
	if last, ok := s.pair.Monitor.LastAnswer(active.Name); ok {
		s.say("The dead node's machine answered for the address for %s more.", ms(max(0, last.Sub(killed))))
	}
	return heir, nil
}

func (s *story) nodeReturns(ctx context.Context, active *Node) error {
	returning := s.pair.Other(active)
	from := time.Now()
	if err := returning.StartAppliance(); err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, storyWait)
	defer cancel()
	if err := s.pair.WaitReady(ready, returning); err != nil {
		return err
	}
	if err := pause(ctx, storyStep); err != nil {
		return err
	}
	r := s.record("node " + returning.Name + " returns")
	s.say("Started %s again. It is a backup and stays one (preempt = false); %s.", returning.Name, r)
	s.flawless("node "+returning.Name+" returns", r)
	if hosts, ok := s.pair.Monitor.Answerers(from); !ok || len(hosts) != 1 || hosts[0] != active.Name {
		s.wrong("the return of %s moved the address: %v answer for it", returning.Name, hosts)
	}
	return nil
}

func (s *story) failover(ctx context.Context, active *Node) error {
	heir := s.pair.Other(active)
	commandCtx, cancel := context.WithTimeout(ctx, storyWait)
	defer cancel()
	text, err := active.Output(commandCtx, "applianctl", "failover")
	if err != nil {
		return err
	}
	s.say("%s$ applianctl failover\n%s", active.Name, strings.TrimSpace(text))
	if err := s.moved(ctx, heir); err != nil {
		return err
	}
	if err := pause(ctx, storyStep); err != nil {
		return err
	}
	r := s.record("failover by command")
	s.say("%s is active. The client waited %s at most; %s.", heir.Name, ms(r.Gap), r)
	s.flawless("failover by command", r)
	return nil
}

// moved waits until the heir alone answers for the address.
func (s *story) moved(ctx context.Context, heir *Node) error {
	ctx, cancel := context.WithTimeout(ctx, storyWait)
	defer cancel()
	return s.pair.WaitActive(ctx, heir)
}

// record adds to the summary what became of the requests that began since the
// record before. It returns when they have ended, so that what is broken next
// hits none of them: each failure belongs to the step that caused it.
func (s *story) record(what string) Report {
	r := s.load.Report(s.next, time.Now())
	s.next = r.To
	s.rows = append(s.rows, row{what, r})
	if r.Gap > longestGap {
		s.wrong("%s: no request succeeded for %s", what, ms(r.Gap))
	}
	return r
}

// flawless notes that a step broke its promise if it cost the client a request.
func (s *story) flawless(what string, r Report) {
	if r.Failures() > 0 {
		s.wrong("%s: of %d requests %s, first: %v", what, r.Requests, r, r.FirstError)
	}
}

func (s *story) wrong(format string, args ...any) {
	s.fault = append(s.fault, fmt.Errorf(format, args...))
}

// until waits for a condition that only looking at the load can tell.
func (s *story) until(ctx context.Context, condition func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, storyWait)
	defer cancel()
	for !condition() {
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *story) summary() {
	fmt.Fprintf(s.out, "\n%-28s %10s %12s %10s\n", "", "requests", "longest gap", "failed")
	for _, r := range s.rows {
		fmt.Fprintf(s.out, "%-28s %10d %12s %10d\n", r.what, r.report.Requests, ms(r.report.Gap), r.report.Failures())
	}
	var longest time.Duration
	for _, i := range s.pair.Monitor.DualAnswerers() {
		longest = max(longest, i.Length())
	}
	if longest > longestDual {
		s.wrong("both nodes answered for %s at the same time, for %s", s.pair.VIP, ms(longest))
	}
	if longest == 0 {
		fmt.Fprintf(s.out, "\nAt no time did two nodes answer for %s.\n", s.pair.VIP)
	} else {
		fmt.Fprintf(s.out, "\nTwo nodes answered for %s at the same time for %s at most.\n", s.pair.VIP, ms(longest))
	}
}

// ms formats a duration in milliseconds.
func ms(d time.Duration) string {
	return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
}
