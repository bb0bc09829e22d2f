package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// kind says what a frame carries. The numbers are those of the wire: they are
// never given another meaning. A kind that a node does not know is skipped.
type kind uint8

const (
	kindHello  kind = 1  // JSON: hello
	kindRefuse kind = 2  // JSON: refusal, instead of a hello
	kindBeat   kind = 3  // nothing: the sender lives
	kindReport kind = 4  // JSON: report
	kindAsk    kind = 5  // nothing: the receiver is to report at once
	kindCall   kind = 6  // JSON: call
	kindReply  kind = 7  // JSON: reply
	kindCancel kind = 8  // JSON: cancel
	kindBye    kind = 9  // JSON: bye, the last frame
	kindBulk   kind = 10 // what Send was given
)

// frame is one message: on the wire the length of its body in four bytes, most
// significant first, its kind in one, and the body.
type frame struct {
	kind kind
	body []byte
}

const (
	frameHeader = 5
	// maxFrame bounds the body of a frame in bytes, maxHello that of the first
	// one.
	maxFrame = 256 << 10
	maxHello = 4 << 10
)

// MaxBulk is how many bytes Send takes at most.
const MaxBulk = maxFrame

// errTooLarge is the error of a frame whose body is larger than allowed.
var errTooLarge = errors.New("a frame is too large")

// append appends the frame as it is on the wire to b.
func (f frame) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(f.body)))
	b = append(b, byte(f.kind))
	return append(b, f.body...)
}

// readFrame reads one frame with at most limit bytes of body. An end between two
// frames is io.EOF, one within a frame io.ErrUnexpectedEOF.
func readFrame(r io.Reader, limit int) (frame, error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return frame{}, err
	}
	n := binary.BigEndian.Uint32(header[:4])
	if n > uint32(limit) {
		return frame{}, fmt.Errorf("%w: %d bytes, allowed are %d", errTooLarge, n, limit)
	}
	f := frame{kind: kind(header[4]), body: make([]byte, n)}
	if _, err := io.ReadFull(r, f.body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, err
	}
	return f, nil
}
