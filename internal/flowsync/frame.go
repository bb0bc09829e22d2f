package flowsync

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// format is the first byte of every frame. A change that older nodes could not
// read gets another one.
const format = 1

// kind says what a frame is. The numbers are those of the wire.
type kind uint8

const (
	kindAsk   kind = 1 // by the receiver: begin a stream of this number
	kindBatch kind = 2 // changes
	kindDone  kind = 3 // all flows there were have been told
	kindAck   kind = 4 // by the receiver: this frame of the stream, and all before, are in force
)

// frame is a message between two machines. Each of them is of a stream; seq
// counts from 1 in a stream, without a gap over batches and dones, and is 0 in an
// ask.
type frame struct {
	kind    kind
	stream  uint64
	seq     uint64
	changes []Change // of a batch, one at least
}

// frameHeader is what a frame begins with: format, kind, stream, number, and how
// many changes follow.
const frameHeader = 1 + 1 + 8 + 8 + 2

// errFrame is the error of bytes that are no frame.
var errFrame = errors.New("no frame")

// append appends the frame to b.
func (f frame) append(b []byte) []byte {
	b = append(b, format, byte(f.kind))
	b = binary.BigEndian.AppendUint64(b, f.stream)
	b = binary.BigEndian.AppendUint64(b, f.seq)
	b = binary.BigEndian.AppendUint16(b, uint16(len(f.changes)))
	for _, c := range f.changes {
		b = appendChange(b, c)
	}
	return b
}

// bytes returns the frame as it is on the wire.
func (f frame) bytes() []byte {
	return f.append(make([]byte, 0, frameHeader+len(f.changes)*maxChange))
}

// readFrame reads what append writes, and nothing else.
func readFrame(b []byte) (frame, error) {
	r := reader{b: b}
	version, f := r.byte(), frame{kind: kind(r.byte())}
	f.stream, f.seq = r.uint64(), r.uint64()
	n := int(r.uint16())
	switch {
	case r.short:
		return frame{}, fmt.Errorf("%w: %d bytes", errFrame, len(b))
	case version != format:
		return frame{}, fmt.Errorf("%w: format %d", errFrame, version)
	case f.kind < kindAsk || f.kind > kindAck:
		return frame{}, fmt.Errorf("%w: kind %d", errFrame, f.kind)
	case (f.seq == 0) != (f.kind == kindAsk), f.stream == 0:
		return frame{}, fmt.Errorf("%w: number %d of stream %d", errFrame, f.seq, f.stream)
	case (n > 0) != (f.kind == kindBatch):
		return frame{}, fmt.Errorf("%w: %d changes in kind %d", errFrame, n, f.kind)
	}
	rest := r.b
	for i := range n {
		c, more, err := readChange(rest)
		if err != nil {
			return frame{}, fmt.Errorf("change %d: %w", i, err)
		}
		f.changes, rest = append(f.changes, c), more
	}
	if len(rest) > 0 {
		return frame{}, fmt.Errorf("%w: %d bytes follow", errFrame, len(rest))
	}
	return f, nil
}
