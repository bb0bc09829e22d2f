package peer

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestFrameEnds(t *testing.T) {
	whole := frame{kindReport, []byte("{}")}.append(nil)
	for n := range len(whole) {
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		if _, err := readFrame(bytes.NewReader(whole[:n]), maxFrame); !errors.Is(err, want) {
			t.Errorf("%d of %d bytes: %v, want %v", n, len(whole), err, want)
		}
	}
}

func TestFrameThatIsTooLargeIsRefusedBeforeItIsRead(t *testing.T) {
	if _, err := readFrame(bytes.NewReader([]byte{0xff, 0xff, 0xff, 0xff, 3}), maxFrame); !errors.Is(err, errTooLarge) {
		t.Errorf("4 GiB: %v", err)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte{})
	f.Add(frame{kind: kindBeat}.append(nil))
	f.Add(frame{kindBye, []byte(`{"final":true}`)}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		got, err := readFrame(r, maxFrame)
		if err != nil {
			return
		}
		if again := got.append(nil); !bytes.Equal(again, b[:len(b)-r.Len()]) {
			t.Errorf("%x was read as %+v, which is written as %x", b, got, again)
		}
	})
}

// FuzzTake gives a session anything that may come after the greetings.
func FuzzTake(f *testing.F) {
	f.Add(byte(kindReport), []byte(`{"version":"1","routers":[{"name":"VI_1","state":"active"}],"more":{"a":[1]}}`))
	f.Add(byte(kindReply), []byte(`{"id":7,"body":{}}`))
	f.Add(byte(kindCancel), []byte(`{"id":7}`))
	f.Add(byte(kindBye), []byte(`{"final":true,"reason":"stopping"}`))
	f.Add(byte(kindBulk), []byte("anything"))
	f.Add(byte(200), []byte("a later version's"))
	done := make(chan struct{})
	close(done)
	f.Fuzz(func(t *testing.T, k byte, body []byte) {
		if kind(k) == kindCall {
			return // carries out what it says
		}
		s := &session{neighbour: &neighbour{mesh: &Mesh{}, done: done}, news: make(chan struct{}, 1)}
		s.take(t.Context(), frame{kind(k), body})
	})
}
