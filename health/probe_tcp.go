package health

import (
	"errors"
	"fmt"
	"io"
)

// maxAnswer bounds the answer to a tcp check, in bytes.
const maxAnswer = 8 << 10

// prepareTCP returns the exchange that passes when the target accepts a connection
// and, where the check sends or expects something, says what is expected. The
// connection is closed in the ordinary way.
func prepareTCP(target Target) (*exchange, error) {
	send, err := unescape(target.Check.Send)
	if err != nil {
		return nil, err
	}
	want, err := newPattern(target.Check)
	if err != nil {
		return nil, err
	}
	x := &exchange{address: target.Address, send: send, most: maxAnswer}
	if !want.any() {
		x.judge = want.judge
	}
	return x, nil
}

// judge passes an answer that contains what is wanted.
func (p pattern) judge(answer []byte, ended error) (finding, error) {
	switch {
	case len(answer) > 0 && p.in(answer):
		return finding{words: "answered " + quoted(answer)}, nil
	case ended == nil:
		return finding{}, errMore
	case ended == errFull:
		return finding{}, fmt.Errorf("the first %d KiB of the answer have no %v", maxAnswer>>10, p)
	case len(answer) > 0 && (timedOut(ended) || errors.Is(ended, io.EOF)):
		return finding{}, fmt.Errorf("answered %s, want %v", quoted(answer), p)
	}
	return finding{}, ended
}
