package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
)

// ErrNoLink is the kind of error of a call for which there is no link, or whose
// link ends before the answer.
var ErrNoLink = errors.New("no peer link")

// RemoteError is what the other node answered instead of carrying a call out.
type RemoteError struct{ Message string }

func (e *RemoteError) Error() string { return e.Message }

// call asks the other node to do something.
type call struct {
	ID   uint64          `json:"id"`
	Verb string          `json:"verb"`
	Body json.RawMessage `json:"body"`
}

// reply answers the call of the same ID.
type reply struct {
	ID    uint64          `json:"id"`
	Body  json.RawMessage `json:"body,omitempty"`
	Error string          `json:"error,omitempty"`
}

// cancel says that nobody waits for the answer to the call of that ID any more.
type cancel struct {
	ID uint64 `json:"id"`
}

// maxCalls is how many calls of the other node are carried out at the same time.
const maxCalls = 16

// pending are the calls of this node that wait for their replies. It is safe for
// concurrent use.
type pending struct {
	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan<- reply
	ended   bool
}

// add returns the ID of a new call and where its reply comes; the channel is
// closed when the link ends first.
func (p *pending) add() (uint64, <-chan reply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	answer := make(chan reply, 1)
	if p.ended {
		close(answer)
		return 0, answer
	}
	if p.waiting == nil {
		p.waiting = make(map[uint64]chan<- reply)
	}
	p.last++
	p.waiting[p.last] = answer
	return p.last, answer
}

// forget gives a call up.
func (p *pending) forget(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, id)
}

// answer passes a reply on; one that nobody waits for is dropped.
func (p *pending) answer(r reply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.waiting[r.ID]; c != nil {
		delete(p.waiting, r.ID)
		c <- r
	}
}

// end ends all calls.
func (p *pending) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	for id, c := range p.waiting {
		close(c)
		delete(p.waiting, id)
	}
}

// call has the other node carry out a verb, and decodes what it returns into out
// unless that is nil.
func (s *session) call(ctx context.Context, verb string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	id, answer := s.pending.add()
	defer s.pending.forget(id)
	if err := s.post(kindCall, call{ID: id, Verb: verb, Body: body}); err != nil {
		return err
	}
	select {
	case r, ok := <-answer:
		switch {
		case !ok:
			return fmt.Errorf("%w: it ended before %s answered", ErrNoLink, s.neighbour.name)
		case r.Error != "":
			return &RemoteError{r.Error}
		case out == nil:
			return nil
		}
		return json.Unmarshal(r.Body, out)
	case <-ctx.Done():
		s.post(kindCancel, cancel{ID: id}) // if it cannot be told, it is told by the end of the link
		return ctx.Err()
	}
}

// serving are the calls of the other node that are being carried out. All but
// the calls themselves belongs to the goroutine that reads.
type serving struct {
	running sync.WaitGroup
	slots   chan struct{}
	mu      sync.Mutex
	cancels map[uint64]context.CancelFunc
}

// serve carries out a call on a goroutine of its own, which ends with ctx.
func (s *session) serve(ctx context.Context, c call) {
	v := &s.serving
	select {
	case v.slots <- struct{}{}:
	default:
		s.post(kindReply, reply{ID: c.ID, Error: "too many calls at the same time"})
		return
	}
	ctx, stop := context.WithCancel(ctx)
	v.mu.Lock()
	v.cancels[c.ID] = stop
	v.mu.Unlock()
	v.running.Go(func() {
		defer func() {
			v.mu.Lock()
			delete(v.cancels, c.ID)
			v.mu.Unlock()
			stop()
			<-v.slots
		}()
		r := reply{ID: c.ID}
		out, err := s.neighbour.mesh.handler.Called(ctx, s.neighbour.name, c.Verb, c.Body)
		if err == nil {
			r.Body, err = json.Marshal(out)
		}
		if err != nil {
			r.Body, r.Error = nil, err.Error()
		}
		s.post(kindReply, r) // fails only if nobody is there any more to hear it
	})
}

// cancel ends the carrying out of a call.
func (v *serving) cancel(id uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if stop := v.cancels[id]; stop != nil {
		stop()
	}
}
