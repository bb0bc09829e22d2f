package flowsync

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// end is a node: a machine, and the flows of the kernel that it speaks for.
type end struct {
	*Machine
	own  map[Key]Flow // that it carries
	held map[Key]Flow // that it was told

	unread []Flow
	inbox  [][]byte
	said   [][]byte // all that it ever sent
}

// world is two nodes, the time, and the link between them.
type world struct {
	t    *testing.T
	now  time.Time
	a, b *end
	// carry decides what arrives of a frame; nil: it does.
	carry func(to *end, body []byte) [][]byte
}

func newWorld(t *testing.T) *world {
	numbers := rand.New(rand.NewPCG(1, 2))
	node := func() *end {
		return &end{Machine: New(numbers.Uint64), own: make(map[Key]Flow), held: make(map[Key]Flow)}
	}
	return &world{t: t, now: time.Unix(1000, 0), a: node(), b: node()}
}

func (w *world) other(e *end) *end {
	if e == w.a {
		return w.b
	}
	return w.a
}

// step gives an event to a node and does what it wants done.
func (w *world) step(e *end, event Event) {
	for _, action := range e.Step(w.now, event) {
		switch action := action.(type) {
		case Send:
			e.said = append(e.said, action.Body)
			arrives := [][]byte{action.Body}
			if w.carry != nil {
				arrives = w.carry(w.other(e), action.Body)
			}
			w.other(e).inbox = append(w.other(e).inbox, arrives...)
		case Apply:
			for _, c := range action.Changes {
				if c.Gone {
					delete(e.held, c.Key)
				} else {
					e.held[c.Key] = c.Flow
				}
			}
		case Forget:
			maps.DeleteFunc(e.held, func(k Key, _ Flow) bool { _, told := action.Except[k]; return !told })
		case List:
			if action.Restart {
				e.unread = slices.Collect(maps.Values(e.own))
			}
			n := min(100, len(e.unread))
			next := Listed{Flows: e.unread[:n], End: n == len(e.unread)}
			e.unread = e.unread[n:]
			w.step(e, next)
		}
	}
}

// deliver hands over what is under way, until nothing is.
func (w *world) deliver() {
	for len(w.a.inbox)+len(w.b.inbox) > 0 {
		for _, e := range []*end{w.a, w.b} {
			if len(e.inbox) > 0 {
				body := e.inbox[0]
				e.inbox = e.inbox[1:]
				w.step(e, Received{body})
			}
		}
	}
}

func (w *world) link() {
	w.step(w.a, LinkUp{})
	w.step(w.b, LinkUp{})
	w.deliver()
}

// pass lets time pass, with ticks when they are due.
func (w *world) pass(d time.Duration) {
	for until := w.now.Add(d); ; {
		next := until
		for _, e := range []*end{w.a, w.b} {
			if t := e.Next(); !t.IsZero() && t.Before(next) {
				next = t
			}
		}
		if next.Before(w.now) {
			next = w.now
		}
		if next.Equal(w.now) {
			next = w.now.Add(time.Millisecond) // a machine that wants a tick now gets it
		}
		if next.After(until) {
			w.now = until
			return
		}
		w.now = next
		w.step(w.a, Tick{})
		w.step(w.b, Tick{})
		w.deliver()
	}
}

// begin has a node carry a flow from now on, and end no longer.
func (w *world) begin(e *end, f Flow) {
	e.own[f.Key] = f
	w.step(e, Changed{[]Change{{Flow: f}}})
}

func (w *world) end(e *end, f Flow) {
	delete(e.own, f.Key)
	w.step(e, Changed{[]Change{gone(f)}})
}

// same fails the test unless each node holds what the other carries.
func (w *world) same(when string) {
	w.t.Helper()
	if !maps.Equal(w.a.own, w.b.held) || !maps.Equal(w.b.own, w.a.held) {
		w.t.Fatalf("%s: a carries %d and b holds %d of them, b carries %d and a holds %d of them; %+v, %+v", when,
			len(w.a.own), len(w.b.held), len(w.b.own), len(w.a.held), w.a.Status(w.now), w.b.Status(w.now))
	}
}

func TestFullCopyAndChanges(t *testing.T) {
	w := newWorld(t)
	for i := range 1000 {
		w.begin(w.a, flow(uint16(i))) // without a link nobody hears of it
	}
	w.b.own[flow6().Key] = flow6()
	if s := w.b.Status(w.now); s.Complete || s.Copying {
		t.Errorf("before a link: %+v", s)
	}
	w.link()
	w.same("after the full copy")
	for _, e := range []*end{w.a, w.b} {
		if s := e.Status(w.now); !s.Complete || s.Copying || !s.Told || s.Waiting != 0 || !s.CompleteAt.Equal(w.now) {
			t.Errorf("%+v", s)
		}
	}
	w.begin(w.a, flow(2000))
	if len(w.b.inbox) == 0 {
		t.Error("a change does not leave at once though nothing is under way")
	}
	w.end(w.a, flow(7))
	w.begin(w.b, flow(3000))
	if s := w.a.Status(w.now); s.Waiting != 2 {
		t.Errorf("%+v", s)
	}
	w.now = w.now.Add(time.Millisecond)
	w.deliver()
	w.same("after changes")
	if s := w.a.Status(w.now); s.LastLag != time.Millisecond || s.MaxLag != time.Millisecond || s.Lag != 0 || s.Sent != 1002 {
		t.Errorf("%+v", s)
	}
}

func TestManyChangesNeedFewFrames(t *testing.T) {
	w := newWorld(t)
	w.link()
	before := len(w.a.said)
	for i := range 1000 {
		w.begin(w.a, flow(uint16(i)))
	}
	w.deliver()
	w.pass(10 * time.Millisecond)
	w.same("after many changes")
	// The first leaves alone, and then those that came until it was acknowledged.
	if n := len(w.a.said) - before; n > 6 {
		t.Errorf("%d frames", n)
	}
}

func TestWindowBoundsWhatIsUnderWay(t *testing.T) {
	w := newWorld(t)
	for i := range 10000 {
		w.a.own[flow(uint16(i)).Key] = flow(uint16(i))
	}
	most := 0
	w.carry = func(to *end, body []byte) [][]byte {
		most = max(most, len(w.a.sender.underWay))
		return [][]byte{body}
	}
	w.link()
	w.same("after the full copy")
	if most != Window {
		t.Errorf("%d frames were under way", most)
	}
}

// Whatever the link does, in the end each node knows what the other carries.
func TestBadLinks(t *testing.T) {
	numbers := rand.New(rand.NewPCG(3, 4))
	var old [][]byte
	links := map[string]func(to *end, body []byte) [][]byte{
		"loses": func(_ *end, body []byte) [][]byte {
			if numbers.IntN(5) == 0 {
				return nil
			}
			return [][]byte{body}
		},
		"repeats": func(_ *end, body []byte) [][]byte { return [][]byte{body, body} },
		"replays what is old": func(_ *end, body []byte) [][]byte {
			old = append(old, body)
			return [][]byte{old[numbers.IntN(len(old))], body, old[numbers.IntN(len(old))]}
		},
		"reorders": func(to *end, body []byte) [][]byte {
			to.inbox = slices.Insert(to.inbox, numbers.IntN(len(to.inbox)+1), body)
			return nil
		},
		"damages": func(_ *end, body []byte) [][]byte {
			bad := slices.Clone(body)
			switch numbers.IntN(3) {
			case 0:
				bad = bad[:numbers.IntN(len(bad))]
			case 1:
				bad = append(bad, byte(numbers.Uint32()))
			case 2:
				bad[0] ^= 0xff
			}
			return [][]byte{bad, body}
		},
		"sends garbage": func(_ *end, body []byte) [][]byte {
			bad := make([]byte, numbers.IntN(100))
			for i := range bad {
				bad[i] = byte(numbers.Uint32())
			}
			return [][]byte{bad, body, {}}
		},
	}
	for name, carry := range links {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for i := range 3000 {
				w.a.own[flow(uint16(i)).Key] = flow(uint16(i))
			}
			w.carry = carry
			w.link()
			for i := range 3000 {
				w.begin(w.a, flow(uint16(10000+i)))
				w.end(w.a, flow(uint16(i)))
				if i%100 == 0 {
					w.begin(w.b, flow(uint16(20000+i)))
					w.pass(time.Millisecond)
				}
			}
			w.carry = nil // what is said last must arrive at some time
			w.pass(10 * time.Second)
			w.same("at the end")
			if s := w.b.Status(w.now); !s.Complete {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestNothingForgedIsAccepted(t *testing.T) {
	w := newWorld(t)
	w.link()
	w.begin(w.a, flow(1))
	w.deliver()
	first := slices.Clone(w.a.said)
	w.step(w.a, LinkDown{})
	w.step(w.b, LinkDown{})
	w.end(w.a, flow(1))
	w.link()
	delete(w.b.held, flow(1).Key)
	s := w.b.Status(w.now)
	// What was sent in another stream, and streams that nobody asked for.
	frames := append(first, frame{kindBatch, 77, 1, []Change{{Flow: flow(9)}}}.bytes(), frame{kindBatch, 77, 2, []Change{{Flow: flow(9)}}}.bytes(),
		frame{kindDone, 78, 1, nil}.bytes(), frame{kindAck, 79, 5, nil}.bytes(), frame{kindAck, w.b.sender.stream, 1 << 40, nil}.bytes())
	w.carry = func(*end, []byte) [][]byte { return nil } // it may answer
	for _, f := range frames {
		w.step(w.b, Received{f})
	}
	w.carry = nil
	if len(w.b.held) > 0 {
		t.Errorf("it holds %v", w.b.held)
	}
	if now := w.b.Status(w.now); now.Stale < s.Stale+5 || now.Heard != s.Heard {
		t.Errorf("before %+v, after %+v", s, now)
	}
	// An old ask makes the other end begin a stream that nobody listens to; that
	// ends when it is noticed.
	w.begin(w.a, flow(2))
	w.begin(w.b, flow(3))
	w.pass(AskAgain + time.Second)
	w.begin(w.b, flow(4))
	w.pass(time.Second)
	w.same("in the end")
}

func TestStreamThatIsNotAnsweredIsAskedForAgain(t *testing.T) {
	w := newWorld(t)
	w.a.own[flow(1).Key] = flow(1)
	w.step(w.b, LinkUp{}) // the other node does not know of the link yet
	w.b.inbox, w.a.inbox = nil, nil
	w.step(w.a, LinkUp{})
	w.a.inbox = nil
	w.deliver()
	if s := w.b.Status(w.now); !s.Copying || s.Complete {
		t.Errorf("%+v", s)
	}
	w.pass(AskAgain + time.Millisecond)
	w.same("after another ask")
}

// The other node is quick: its ask is here before this end knows of the link.
func TestAskBeforeTheLinkIsAnswered(t *testing.T) {
	w := newWorld(t)
	w.a.own[flow(1).Key] = flow(1)
	w.step(w.b, LinkUp{})
	w.deliver() // to a, which takes note of it
	w.step(w.a, LinkUp{})
	w.deliver()
	w.same("at once")
	// Not so if it was by a link that is gone.
	w.step(w.a, LinkDown{})
	w.step(w.b, LinkDown{})
	w.step(w.b, LinkUp{})
	w.deliver()
	w.step(w.a, LinkDown{})
	w.step(w.a, LinkUp{})
	if w.a.sender.stream != 0 {
		t.Error("it begins a stream that was asked for by another link")
	}
}

func TestSenderThatFallsBehindTellsEverythingAnew(t *testing.T) {
	w := newWorld(t)
	w.link()
	w.carry = func(*end, []byte) [][]byte { return nil }
	w.a.room = 1000
	for i := range 1000 + Window*Batch + 5 {
		w.begin(w.a, flow(uint16(i)))
	}
	if s := w.a.Status(w.now); s.Forgotten == 0 || s.Told {
		t.Errorf("%+v", s)
	}
	w.carry = nil
	w.pass(time.Second)
	w.same("when the link is good again")
	if s := w.a.Status(w.now); !s.Told || s.Resent == 0 {
		t.Errorf("%+v", s)
	}
}

func TestWithoutALinkNothingIsSent(t *testing.T) {
	w := newWorld(t)
	w.link()
	w.step(w.a, LinkDown{})
	said := len(w.a.said)
	w.begin(w.a, flow(1))
	w.step(w.a, Received{frame{kind: kindAsk, stream: 5}.bytes()})
	w.step(w.a, Tick{})
	if len(w.a.said) != said || !w.a.Next().IsZero() {
		t.Errorf("%d frames more, next at %v", len(w.a.said)-said, w.a.Next())
	}
	if s := w.a.Status(w.now); !s.Complete || s.Copying {
		t.Errorf("what was complete is so still: %+v", s)
	}
}

// FuzzMachine gives a machine anything, in any order.
func FuzzMachine(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3}, frame{kindBatch, 1, 1, []Change{{Flow: flow(1)}}}.bytes())
	f.Add([]byte{0, 2, 2, 4, 5, 4}, frame{kind: kindAsk, stream: 9}.bytes())
	f.Fuzz(func(t *testing.T, events, body []byte) {
		n := uint64(0)
		m := New(func() uint64 { n++; return n })
		now := time.Unix(0, 0)
		for _, e := range events {
			var todo []Action
			switch e % 7 {
			case 0:
				todo = m.Step(now, LinkUp{})
			case 1:
				todo = m.Step(now, LinkDown{})
			case 2:
				todo = m.Step(now, Received{body})
			case 3:
				todo = m.Step(now, Changed{[]Change{{Flow: flow(uint16(e))}, gone(flow(1)), {}}})
			case 4:
				todo = m.Step(now, Listed{[]Flow{flow(uint16(e)), {}}, e > 100})
			case 5:
				todo = m.Step(now, Tick{})
			case 6:
				now = now.Add(time.Duration(e) * 10 * time.Millisecond)
			}
			for _, a := range todo {
				if s, ok := a.(Send); ok {
					if _, err := readFrame(s.Body); err != nil {
						t.Errorf("sent %x: %v", s.Body, err)
					}
				}
			}
			if len(m.sender.underWay) > Window {
				t.Errorf("%d frames are under way", len(m.sender.underWay))
			}
		}
		m.Status(now)
		m.Next()
	})
}
