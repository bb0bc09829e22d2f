package flowsync

import "time"

// sender is the end of a Machine that tells this node's flows.
type sender struct {
	stream   uint64 // 0 before the other node has asked
	seq      uint64 // of the latest frame
	underWay []sent
	resendAt time.Time // unless nothing is under way
	told     bool      // the first full copy has been acknowledged
	doneSeq  uint64    // of the latest Done

	// waiting is what is to be told, in order: a flow that was read must not be
	// told after its end.
	waiting []waiting
	changes int // those of waiting that were not read

	copying  bool // the full copy that a stream begins with is under way
	restart  bool // and nothing has been read yet
	listing  bool // a List has not been answered yet
	dropping bool // and its answer is that of an older copy
	ended    bool // there is nothing more to read
	// gone are the flows that have ended since the copy began: who reads them may
	// have seen them before.
	gone map[Key]struct{}
}

// waiting is a change that has not left yet.
type waiting struct {
	Change
	since time.Time // when it happened; zero for a flow that was read
}

// sent is a frame that has not been acknowledged.
type sent struct {
	seq   uint64
	body  []byte
	all   int       // how many changes and flows there are in it
	n     int       // changes that happened
	since time.Time // when the first of those did
}

// reset forgets the stream.
func (s *sender) reset() {
	*s = sender{listing: s.listing, dropping: s.listing}
}

// begin begins a stream, unless it is the one that there is.
func (s *sender) begin(stream uint64) {
	if stream == s.stream {
		return
	}
	s.reset()
	s.stream = stream
	s.copyAll()
}

// copyAll begins to tell all flows.
func (s *sender) copyAll() {
	s.copying, s.restart, s.ended, s.gone = true, true, false, make(map[Key]struct{})
	s.dropping = s.listing
}

// change takes changes in. Without a stream nobody wants them: the full copy that
// a stream begins with has all that is so then.
func (m *Machine) change(now time.Time, changes []Change) {
	s := &m.sender
	if s.stream == 0 {
		return
	}
	for _, c := range changes {
		if s.copying && c.Gone {
			s.gone[c.Key] = struct{}{}
		}
		m.enqueue(waiting{c, now})
	}
	if s.changes > m.room {
		m.status.Forgotten += uint64(s.changes)
		s.waiting, s.changes, s.told = nil, 0, false
		s.copyAll()
	}
}

// enqueue has a change told, if it can be.
func (m *Machine) enqueue(w waiting) {
	if !w.valid() {
		m.status.Untellable++
		return
	}
	if !w.since.IsZero() {
		m.sender.changes++
	}
	m.sender.waiting = append(m.sender.waiting, w)
}

// list takes flows that were read.
func (m *Machine) list(flows []Flow, end bool) {
	s := &m.sender
	s.listing = false
	if s.dropping {
		s.dropping = false
		return
	}
	for _, f := range flows {
		if _, gone := s.gone[f.Key]; !gone {
			m.enqueue(waiting{Change: Change{Flow: f}})
		}
	}
	s.ended = end
}

// acknowledged takes note that the other node has all up to a frame.
func (m *Machine) acknowledged(now time.Time, f frame) {
	s := &m.sender
	if f.stream != s.stream || f.seq > s.seq {
		m.status.Stale++
		return
	}
	for len(s.underWay) > 0 && s.underWay[0].seq <= f.seq {
		first := s.underWay[0]
		s.underWay = s.underWay[1:]
		m.status.Sent += uint64(first.all)
		if !first.since.IsZero() {
			m.status.LastLag = now.Sub(first.since)
			m.status.MaxLag = max(m.status.MaxLag, m.status.LastLag)
		}
		if first.seq == s.doneSeq {
			s.told = true
		}
		s.resendAt = now.Add(Resend)
	}
}

// pump sends what there is to send and may be under way.
func (m *Machine) pump(todo []Action, now time.Time) []Action {
	s := &m.sender
	if s.stream == 0 {
		return todo
	}
	if len(s.underWay) > 0 && !now.Before(s.resendAt) {
		for _, f := range s.underWay {
			todo = append(todo, Send{f.body})
		}
		m.status.Resent += uint64(len(s.underWay))
		s.resendAt = now.Add(Resend)
	}
	for len(s.underWay) < Window {
		switch {
		case s.due(now):
			todo = s.sendBatch(todo, now)
		case s.copying && s.ended && len(s.waiting) == 0:
			s.copying, s.gone = false, nil
			todo = s.send(todo, now, sent{}, kindDone, nil)
			s.doneSeq = s.seq
		case s.copying && !s.ended && !s.listing:
			todo = append(todo, List{s.restart})
			s.listing, s.restart = true, false
			return todo
		default:
			return todo
		}
	}
	return todo
}

// due reports whether changes that wait are to leave now.
func (s *sender) due(now time.Time) bool {
	return len(s.waiting) > 0 && (len(s.underWay) == 0 || len(s.waiting) >= Batch || s.copying || now.Sub(s.waiting[0].since) >= Flush)
}

// sendBatch sends as many of the changes that wait as one frame takes.
func (s *sender) sendBatch(todo []Action, now time.Time) []Action {
	n := min(Batch, len(s.waiting))
	changes := make([]Change, n)
	var f sent
	for i, w := range s.waiting[:n] {
		changes[i] = w.Change
		if w.since.IsZero() {
			continue
		}
		s.changes--
		if f.n++; f.since.IsZero() {
			f.since = w.since
		}
	}
	f.all = n
	s.waiting = s.waiting[n:]
	return s.send(todo, now, f, kindBatch, changes)
}

// send sends a frame of the stream, and remembers it as f.
func (s *sender) send(todo []Action, now time.Time, f sent, k kind, changes []Change) []Action {
	s.seq++
	f.seq, f.body = s.seq, frame{k, s.stream, s.seq, changes}.bytes()
	if len(s.underWay) == 0 {
		s.resendAt = now.Add(Resend)
	}
	s.underWay = append(s.underWay, f)
	return append(todo, Send{f.body})
}

// next returns the times at which there is something to be done.
func (s *sender) next() []time.Time {
	var all []time.Time
	if len(s.underWay) > 0 {
		all = append(all, s.resendAt)
	}
	if len(s.waiting) > 0 && len(s.underWay) < Window {
		all = append(all, s.waiting[0].since.Add(Flush))
	}
	return all
}

// lag returns how long the oldest change has been waiting that has not been
// acknowledged; 0 if there is none.
func (s *sender) lag(now time.Time) time.Duration {
	for _, f := range s.underWay {
		if f.n > 0 {
			return max(0, now.Sub(f.since))
		}
	}
	for _, w := range s.waiting {
		if !w.since.IsZero() {
			return max(0, now.Sub(w.since))
		}
	}
	return 0
}
