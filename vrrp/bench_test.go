package vrrp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const ms = time.Millisecond

// testConfig is node a (192.168.15.11, base 100) of a pair with b
// (192.168.15.12, base 90).
func testConfig() Config {
	return Config{
		Name: "VI_1", VRID: 50, Interface: "eth0", Source: addr("192.168.15.11"),
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.15.3/24")},
		Version:   3, AdvertInterval: 100 * ms, Priority: 100, Preempt: true, Settle: 3 * time.Second,
		Peers: []Peer{{Name: "b", Address: addr("192.168.15.12"), Priority: 90}},
	}
}

// bench drives one machine by hand.
type bench struct {
	t   *testing.T
	m   *Machine
	now time.Time
}

// newBench returns a machine that has become Backup at epoch.
func newBench(t *testing.T, change ...func(*Config)) *bench {
	cfg := testConfig()
	for _, c := range change {
		c(&cfg)
	}
	b := &bench{t: t, m: NewMachine(cfg, epoch), now: epoch}
	b.do(SetFault{Source: StartupFault})
	return b
}

// newActive returns a machine that has just become Active and holds its addresses.
func newActive(t *testing.T, change ...func(*Config)) *bench {
	b := newBench(t, change...)
	b.run(b.m.Deadline().Sub(b.now))
	b.acquired()
	if b.m.State() != Active {
		t.Fatal("not active")
	}
	return b
}

func (b *bench) do(ev Event) []Action { return b.m.Step(b.now, ev) }

// hear delivers an advert of node b.
func (b *bench) hear(priority int) []Action { return b.hearFrom("192.168.15.12", priority) }

func (b *bench) hearFrom(source string, priority int) []Action {
	return b.do(Heard{Source: addr(source), Priority: priority, Interval: 100 * ms})
}

func (b *bench) acquired() []Action {
	return b.do(Acquired{Term: b.m.holding.term, At: b.now})
}

// run lets d pass with a tick at each deadline, and renewals that succeed.
func (b *bench) run(d time.Duration) (out []Action) {
	end := b.now.Add(d)
	for {
		next := b.m.Deadline()
		if next.IsZero() || next.After(end) {
			b.now = end
			return out
		}
		b.now = next
		for _, a := range b.do(Tick{}) {
			out = append(out, a)
			if r, ok := a.(Renew); ok {
				b.do(Acquired{Term: r.Term, At: b.now})
			}
		}
	}
}

// hearFor delivers adverts of node b every 100 ms for d.
func (b *bench) hearFor(d time.Duration, priority int) {
	for end := b.now.Add(d); b.now.Before(end); {
		b.hear(priority)
		b.run(100 * ms)
	}
}

func (b *bench) want(s State) {
	b.t.Helper()
	if b.m.State() != s {
		b.t.Fatalf("state %s (%s), want %s", b.m.State(), b.m.reason, s)
	}
}

// wantDown checks how far away the Active_Down_Timer is.
func (b *bench) wantDown(d time.Duration) {
	b.t.Helper()
	b.want(Backup)
	if got := b.m.Deadline().Sub(b.now); got != d {
		b.t.Fatalf("the timer runs out in %s, want %s", got, d)
	}
}

// kinds writes actions as words: "send 100", "acquire", ...
func kinds(actions []Action) string {
	var words []string
	for _, a := range actions {
		w := strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", a), "vrrp."))
		switch a := a.(type) {
		case Send:
			w = fmt.Sprintf("send %d", a.Priority)
		case Transition:
			w = "to " + a.To.String()
		}
		words = append(words, w)
	}
	return strings.Join(words, ", ")
}

func wantKinds(t *testing.T, got []Action, want string) {
	t.Helper()
	if k := kinds(got); k != want {
		t.Fatalf("actions %q, want %q", k, want)
	}
}

// replyOf returns the reply among actions.
func replyOf(t *testing.T, actions []Action) Reply {
	t.Helper()
	for _, a := range actions {
		if r, ok := a.(Reply); ok {
			return r
		}
	}
	t.Fatalf("no reply in %q", kinds(actions))
	return Reply{}
}

const (
	// downA is Active_Down_Interval of node a: 3 * 100 ms + 156/256 * 100 ms.
	downA = 300*ms + skewA
	skewA = 156 * 100 * ms / 256
)
