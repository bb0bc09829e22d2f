package flowsync

import "time"

// receiver is the end of a Machine that is told the other node's flows.
type receiver struct {
	number func() uint64

	stream     uint64 // that it has asked for; 0 without a link
	askedAt    time.Time
	seq        uint64           // up to which the frames of the stream are here
	done       bool             // all flows of the stream's beginning are here
	completeAt time.Time        // when that was so the latest time, of any stream
	told       map[Key]struct{} // until done: the flows that the stream has told
}

// ask asks for a new stream.
func (r *receiver) ask(todo []Action, now time.Time) []Action {
	before := r.stream
	for r.stream = r.number(); r.stream == 0 || r.stream == before; r.stream = r.number() {
	}
	r.seq, r.done, r.told = 0, false, make(map[Key]struct{})
	return r.askAgain(todo, now)
}

func (r *receiver) askAgain(todo []Action, now time.Time) []Action {
	r.askedAt = now
	return append(todo, Send{frame{kind: kindAsk, stream: r.stream}.bytes()})
}

// silence forgets the stream, of which nothing more will come.
func (r *receiver) silence() { r.stream, r.seq, r.done, r.told = 0, 0, false, nil }

// retry asks again where nothing came.
func (r *receiver) retry(todo []Action, now time.Time) []Action {
	if t := r.next(); t.IsZero() || now.Before(t) {
		return todo
	}
	return r.askAgain(todo, now)
}

// next returns when retry has something to do.
func (r *receiver) next() time.Time {
	if r.seq > 0 {
		return time.Time{}
	}
	return r.askedAt.Add(AskAgain)
}

// take acts on a frame of a stream.
func (m *Machine) take(todo []Action, now time.Time, f frame) []Action {
	r := &m.receiver
	switch {
	case f.stream != r.stream:
		m.status.Stale++
		// The other node is with another stream, so it may never have heard of
		// this one.
		if now.Sub(r.askedAt) >= AskAgain {
			todo = r.ask(todo, now)
		}
		return todo
	case f.seq > r.seq+1:
		m.status.Missing++
		return todo // it will be sent again, after the one that is missing
	case f.seq <= r.seq:
		m.status.Stale++ // the acknowledgement was lost, or late
	case f.kind == kindBatch:
		r.seq = f.seq
		for _, c := range f.changes {
			if c.Gone {
				m.status.Ended++
				delete(r.told, c.Key)
				continue
			}
			m.status.Heard++
			if r.told != nil {
				r.told[c.Key] = struct{}{}
			}
		}
		todo = append(todo, Apply{f.changes})
	case f.kind == kindDone:
		if r.told != nil {
			todo = append(todo, Forget{r.told})
		}
		r.seq, r.done, r.completeAt, r.told = f.seq, true, now, nil
	}
	return append(todo, Send{frame{kind: kindAck, stream: r.stream, seq: r.seq}.bytes()})
}
