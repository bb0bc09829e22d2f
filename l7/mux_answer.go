package l7

import (
	"errors"
	"fmt"
	"net/http"

	"golang.org/x/net/http2"
)

// gotHead takes a head, or trailers, and says why it is none. conn.mu is held.
func (st *muxStream) gotHead(h *muxHead) error {
	st.answers++
	switch {
	case h.tooLarge:
		return errors.New("the head of the answer is too large")
	case h.wrong != nil:
		return &malformedError{h.wrong.Error()}
	case st.ended:
		return &malformedError{"something comes behind its end"}
	case st.final:
		return st.gotTrailers(h)
	case h.status == 0:
		return &malformedError{"it has no status"}
	case h.status == http.StatusSwitchingProtocols:
		return &malformedError{"its status is 101, which HTTP/2 does not have"} // RFC 9113, section 8.6
	case h.status < 200 && h.end:
		return &malformedError{"it ends with an interim answer"}
	case h.status < 200:
		if st.heads = append(st.heads, muxInterim{h.status, h.fields}); st.answers > maxInterim {
			return fmt.Errorf("more than %d interim answers", maxInterim)
		}
		poke(st.wake)
		return nil
	}
	st.status, st.fields, st.length = h.status, h.fields, h.length
	st.trailer = st.fields.has("Trailer")
	if st.bodyless() {
		st.length = 0
	}
	st.opened()
	if err := st.gotEnd(h.end); err != nil {
		return err
	}
	st.final = true
	return nil
}

// bodyless reports whether the answer has no body whatever its length.
func (st *muxStream) bodyless() bool {
	return st.ex.method == http.MethodHead || st.status == http.StatusNoContent || st.status == http.StatusNotModified
}

func (st *muxStream) gotTrailers(h *muxHead) error {
	switch {
	case h.status != 0:
		return &malformedError{"there are two heads"}
	case !h.end:
		return &malformedError{"the trailers are not its end"}
	}
	st.lines = h.fields
	return st.gotEnd(true)
}

// gotEnd takes the end of an answer, if it is there. conn.mu is held.
func (st *muxStream) gotEnd(end bool) error {
	if end && st.length >= 0 && st.got != st.length {
		return &malformedError{errLength.Error()} // RFC 9113, section 8.1.1
	}
	st.ended = end
	poke(st.wake)
	if end {
		poke(st.room) // who is still sending may stop
	}
	return nil
}

// gotData takes a part of the body, and says what is wrong with it. conn.mu is held.
func (st *muxStream) gotData(f *http2.DataFrame) error {
	if !st.gotPart(int64(f.Length), f.StreamEnded()) {
		return errOverrun
	}
	p := f.Data()
	st.free(int64(f.Length) - int64(len(p))) // padding is nobody's
	switch {
	case st.ended:
		return &malformedError{"something comes behind its end"}
	case !st.final:
		return &malformedError{"its body comes before its head"}
	}
	st.got += int64(len(p))
	if st.length >= 0 && st.got > st.length {
		return &malformedError{errLength.Error()}
	}
	if st.err == nil {
		for len(p) > 0 {
			if n := len(st.in); n == 0 || st.in[n-1].w == len(st.in[n-1].b) {
				st.in = append(st.in, inboxes.Get().(*inbox))
			}
			last := st.in[len(st.in)-1]
			n := copy(last.b[last.w:], p)
			last.w += n
			p = p[n:]
		}
	}
	return st.gotEnd(f.StreamEnded())
}
