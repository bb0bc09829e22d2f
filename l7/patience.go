package l7

import (
	"context"
	"errors"
	"io"
	"time"
)

// errSilent says why a patientBody was cut.
var errSilent = errors.New("the server sends no more of its answer")

// patientBody is an answer's body that is cut when a read of it brings nothing
// for the time patience, so that a server that stops in the middle of an answer
// does not hold the exchange for ever.
type patientBody struct {
	io.ReadCloser
	ctx      context.Context // of the exchange with the server
	cut      context.CancelCauseFunc
	patience time.Duration
	timer    *time.Timer // runs during a read; nil before the first
}

func (b *patientBody) Read(p []byte) (int, error) {
	if b.timer == nil {
		b.timer = time.AfterFunc(b.patience, func() { b.cut(errSilent) })
	} else {
		b.timer.Reset(b.patience)
	}
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if err != nil && err != io.EOF && context.Cause(b.ctx) == errSilent {
		err = errSilent
	}
	return n, err
}
