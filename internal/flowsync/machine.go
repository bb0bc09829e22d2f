package flowsync

import "time"

// The measures of a Machine.
const (
	// Batch is how many changes a frame has at most.
	Batch = 256
	// Window is how many frames are under way at most.
	Window = 8
	// Flush is how long a change waits for more of them at most.
	Flush = 5 * time.Millisecond
	// Resend is how long an acknowledgement may take; then what is under way is
	// sent again.
	Resend = 200 * time.Millisecond
	// AskAgain is how long the other node may take to answer an ask.
	AskAgain = 3 * time.Second
	// maxWaiting is how many changes wait; with more all are forgotten, and
	// everything is told anew.
	maxWaiting = 1 << 19
)

// Event is what happens to a Machine: one of the types below.
type Event interface{ event() }

type (
	// LinkUp says that there is a link to the other node now, or another one than
	// before.
	LinkUp struct{}
	// LinkDown says that there is none any more.
	LinkDown struct{}
	// Received is what came from the other node's Send. The machine keeps none of
	// it.
	Received struct{ Body []byte }
	// Changed are changes of this node's flows, in the order of what happened.
	Changed struct{ Changes []Change }
	// Listed answers a List. End says that there are no more flows.
	Listed struct {
		Flows []Flow
		End   bool
	}
	// Tick says that the time is that of Next, or any other.
	Tick struct{}
)

func (LinkUp) event()   {}
func (LinkDown) event() {}
func (Received) event() {}
func (Changed) event()  {}
func (Listed) event()   {}
func (Tick) event()     {}

// Action is what a Machine wants done, in order: one of the types below.
type Action interface{ action() }

type (
	// Send is a frame for the other node. It may be lost.
	Send struct{ Body []byte }
	// Apply are changes of the other node's flows, to be put into the kernel.
	Apply struct{ Changes []Change }
	// Forget says that the other node has no flows but these, which were told:
	// others that it told before have ended. The set is the receiver's.
	Forget struct{ Except map[Key]struct{} }
	// List asks for this node's flows: the next ones, about Batch of them, or the
	// first ones with Restart. It is answered by one Listed.
	List struct{ Restart bool }
)

func (Send) action()   {}
func (Apply) action()  {}
func (Forget) action() {}
func (List) action()   {}

// Status describes a Machine at one moment. Counters count since its start.
type Status struct {
	// Complete says that all flows which the other node had have been told here,
	// once at least, and CompleteAt when that was the latest time; Copying that
	// this is under way.
	Complete   bool
	CompleteAt time.Time
	Copying    bool
	// Told says that the other node has acknowledged all flows of this one.
	Told bool
	// Sent are changes that the other node has acknowledged, those of full copies
	// among them; Waiting those that happened and that it has not acknowledged.
	Sent    uint64
	Waiting int
	// Lag is how long the oldest of Waiting has been waiting, LastLag how long the
	// latest acknowledged frame of changes took from the first one of them on, and
	// MaxLag the longest of those.
	Lag, LastLag, MaxLag time.Duration
	// Heard are flows that were told here, each as often as it was; Ended those
	// that were told to be gone.
	Heard, Ended uint64
	// Malformed are frames that are none, Stale those of a stream that was not
	// asked for or that were here already, Missing those that came before one that
	// is missing still, Resent those sent again.
	Malformed, Stale, Missing, Resent uint64
	// Untellable are changes that have no place in a frame, Forgotten those that
	// were too many.
	Untellable, Forgotten uint64
}

// Machine is one end of the exchange with one other node. It must be used by one
// goroutine.
type Machine struct {
	up bool
	// early is the stream that was asked for before there was a link as far as this
	// end knew; 0 if none was.
	early    uint64
	sender   sender
	receiver receiver
	status   Status // the counters
	room     int    // for changes that wait
}

// New returns a machine without a link. number returns another number each time,
// which nobody can know before; 0 is none.
func New(number func() uint64) *Machine {
	return &Machine{receiver: receiver{number: number}, room: maxWaiting}
}

// Step takes an event and returns what is to be done about it.
func (m *Machine) Step(now time.Time, e Event) []Action {
	var todo []Action
	switch e := e.(type) {
	case LinkUp:
		m.up = true
		m.sender.reset()
		if m.early != 0 {
			m.sender.begin(m.early)
		}
		m.early = 0
		todo = m.receiver.ask(todo, now)
	case LinkDown:
		m.up, m.early = false, 0
		m.sender.reset()
		m.receiver.silence()
	case Received:
		if m.up {
			todo = m.receive(todo, now, e.Body)
		} else if f, err := readFrame(e.Body); err == nil && f.kind == kindAsk {
			m.early = f.stream
		}
	case Changed:
		m.change(now, e.Changes)
	case Listed:
		m.list(e.Flows, e.End)
	case Tick:
	}
	if !m.up {
		return todo
	}
	todo = m.receiver.retry(todo, now)
	return m.pump(todo, now)
}

// receive acts on a frame.
func (m *Machine) receive(todo []Action, now time.Time, body []byte) []Action {
	f, err := readFrame(body)
	if err != nil {
		m.status.Malformed++
		return todo
	}
	switch f.kind {
	case kindAsk:
		if f.stream == m.receiver.stream {
			m.status.Stale++ // its own, back again
			return todo
		}
		m.sender.begin(f.stream)
		return todo
	case kindAck:
		m.acknowledged(now, f)
		return todo
	}
	return m.take(todo, now, f)
}

// Next returns when a Tick is due at the latest; zero if none is.
func (m *Machine) Next() time.Time {
	if !m.up {
		return time.Time{}
	}
	next := m.receiver.next()
	for _, t := range m.sender.next() {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	return next
}

// Status describes the machine at now.
func (m *Machine) Status(now time.Time) Status {
	s := m.status
	s.Complete, s.CompleteAt, s.Copying = !m.receiver.completeAt.IsZero(), m.receiver.completeAt, m.up && !m.receiver.done
	s.Told = m.sender.told
	s.Waiting = m.sender.changes
	for _, f := range m.sender.underWay {
		s.Waiting += f.n
	}
	s.Lag = m.sender.lag(now)
	return s
}
