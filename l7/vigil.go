package l7

import "time"

// While an answer is awaited, the goroutine looks after its client now and then:
// after firstLook for the first time, at least every lastLook at last.
const (
	firstLook = 50 * time.Millisecond
	lastLook  = 2 * time.Second
)

// errTimeout says that the server took too long.
var errTimeout error = &timeoutError{"the server did not answer in time"}

// timeoutError is a timeout as net.Error has it.
type timeoutError struct{ text string }

func (e *timeoutError) Error() string   { return e.text }
func (e *timeoutError) Timeout() bool   { return true }
func (e *timeoutError) Temporary() bool { return true }

// vigil is the wait of an exchange for its server. It is over limit after it began
// or, if that is later, after the request's body has been sent.
type vigil struct {
	began time.Time
	limit time.Duration
	look  time.Duration // after which the client was looked after last
}

// first returns how long to wait at first.
func (v *vigil) first() time.Duration {
	v.look = firstLook
	return min(firstLook, v.limit)
}

// again is called when such a wait was in vain. It looks after the client, and
// returns how long to wait now; the error says that there is no more waiting.
func (v *vigil) again(ex *exchange) (time.Duration, error) {
	now := time.Now()
	ex.now = now
	if sent, running := ex.out.upload.ended(); running {
		v.began = now
	} else if sent.After(v.began) {
		v.began = sent
	}
	if now.Sub(v.began) >= v.limit {
		return 0, errTimeout
	}
	if ex.client != nil && ex.client.gone() {
		ex.interrupt()
	}
	if ex.over() {
		return 0, errAborted
	}
	v.look = min(2*v.look, lastLook)
	return min(v.look, v.limit-now.Sub(v.began)+time.Millisecond), nil
}
