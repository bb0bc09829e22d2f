package l7

import (
	"sync"
	"sync/atomic"
)

// replay is what has been read of a request's body, as long as that is little: a
// server of HTTP/2 may say that it has not looked at the request, which then is
// sent again, body and all (RFC 9113, section 8.7). The goroutine of the upload
// reads and sends; that of the exchange has it wait and sends again: claim, move.
type replay struct {
	keeps atomic.Bool // all that was read is there
	freed atomic.Bool // nothing is

	mu     sync.Mutex // held while a part is sent that is kept
	moved  sync.Cond
	kept   []*inbox // the first one is for reading even if nothing is kept
	ended  bool     // nothing more will be read
	moving bool     // nothing is to be sent until move has been called
	moves  int      // that there were
	over   bool     // there will be none any more
}

// replayMost is how many inboxes are kept. Two are as much as a server can get that
// has never opened a window wider than it is by itself (RFC 9113, section 6.9.2).
const replayMost = 2

// begin makes ready for another body; nothing is kept of it if keeps is false.
func (r *replay) begin(keeps bool) {
	r.keeps.Store(keeps)
	r.freed.Store(false)
	r.moved.L = &r.mu
	r.kept, r.ended, r.moving, r.moves, r.over = r.kept[:0], false, false, 0, false
}

// room returns where the next part is to be read to.
func (r *replay) room() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.kept)
	if r.keeps.Load() && n > 0 && r.kept[n-1].w < len(r.kept[n-1].b) {
		last := r.kept[n-1]
		return last.b[last.w:]
	}
	if n == 0 || r.keeps.Load() && n < replayMost {
		in := inboxes.Get().(*inbox)
		r.kept = append(r.kept, in)
		return in.b
	}
	for r.moving && !r.over {
		r.moved.Wait()
	}
	r.keeps.Store(false) // it is too much
	for _, in := range r.kept[1:] {
		putInbox(in)
	}
	r.kept = r.kept[:1]
	return r.kept[0].b
}

// send sends a part that was read into room, to the place that the body goes to
// now, and counts it. If that place will not look at it, it waits for another one,
// which gets all from the beginning.
func (u *upload) send(ex *exchange, p []byte, last bool) error {
	r := &u.replay
	if !r.keeps.Load() {
		err := u.to.sendBody(u, p, last)
		if err == nil {
			ex.sent(len(p))
		}
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept[len(r.kept)-1].w += len(p)
	r.ended = last
	for moves := r.moves; ; r.moved.Wait() {
		if r.over {
			return errStopped
		}
		if r.moving {
			continue
		}
		if r.moves != moves {
			break // move has sent it
		}
		if err := u.to.sendBody(u, p, last); err == nil {
			break
		} else if err != errUnprocessed {
			return err
		}
	}
	// Under the lock, and not while the exchange is on its way to another server.
	ex.sent(len(p))
	return nil
}

// claim makes the body wait for move, and reports whether all of it that was sent
// can be sent again. It is called by the exchange.
func (u *upload) claim() bool {
	r := &u.replay
	r.mu.Lock()
	defer r.mu.Unlock()
	switch u.state.Load() {
	case uploadRunning, uploadLast, uploadSent:
		r.moving = r.keeps.Load()
		return r.moving
	}
	return false
}

// move has the body go to another place, which gets first what the one before had
// got.
func (u *upload) move(to uploadTarget) error {
	r := &u.replay
	r.mu.Lock()
	defer r.mu.Unlock()
	u.to = to
	var err error
	for i, in := range r.kept {
		if err = to.sendBody(u, in.b[:in.w], r.ended && i == len(r.kept)-1); err != nil {
			break
		}
	}
	if u.state.Load() == uploadFailed { // meanwhile: the rest never comes
		to.breakOff()
	}
	if err == errUnprocessed {
		return err // it waits for the next place, or more would be read than is kept
	}
	r.moving = false
	r.moves++
	r.moved.Broadcast()
	return err
}

// breakOff breaks off the place that the body goes to now, or goes to next.
func (u *upload) breakOff() {
	u.replay.mu.Lock()
	defer u.replay.mu.Unlock()
	u.to.breakOff()
}

// answered says that the body will not have to be sent again.
func (u *upload) answered() {
	if !u.started() {
		return
	}
	u.replay.keeps.Store(false)
	if u.settled() {
		u.task.Wait()
		u.replay.free()
	}
}

// stop ends all waiting.
func (r *replay) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.moving, r.over = false, true
	r.moved.Broadcast()
}

// free gives back what is kept, once nobody uses it any more.
func (r *replay) free() {
	if r.freed.CompareAndSwap(false, true) {
		for i, in := range r.kept {
			putInbox(in)
			r.kept[i] = nil
		}
	}
}
