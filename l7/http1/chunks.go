package http1

// Chunks reads a body that comes in chunks (RFC 9112, section 7.1) up to its
// trailers. The zero value is at the beginning of one.
type Chunks struct {
	state  chunkState
	digits int
	left   int64 // of the chunk
	ext    int   // bytes of extensions, of the whole body
}

type chunkState uint8

const (
	atSize  chunkState = iota // before the first digit, or among them
	atBlank                   // between the size and ";"
	atExt                     // in the extensions
	atSizeLF
	atData
	atDataCR
	atDataLF
	atTrailer
)

// maxExtensions bounds the extensions of one body's chunks, in bytes. They are
// dropped: nobody uses them but to hide something.
const maxExtensions = 4 << 10

// Next reads on in b and returns how many bytes it has used and, as a part of
// them, the next data. Without data it has used all of b, or has come to the
// trailers, which Trailer says. The error is an *Error.
func (c *Chunks) Next(b []byte) (used int, data []byte, err error) {
	for used < len(b) {
		if c.state == atData {
			n := min(int64(len(b)-used), c.left)
			data = b[used : used+int(n)]
			c.left -= n
			if c.left == 0 {
				c.state = atDataCR
			}
			return used + int(n), data, nil
		}
		if c.state == atTrailer {
			return used, nil, nil
		}
		if err := c.step(b[used]); err != nil {
			return used, nil, err
		}
		used++
	}
	return used, nil, nil
}

// Trailer reports whether what follows are the trailers, if any, and the empty
// line at the end.
func (c *Chunks) Trailer() bool { return c.state == atTrailer }

// step takes one byte that is not data.
func (c *Chunks) step(b byte) error {
	switch c.state {
	case atSize:
		return c.size(b)
	case atBlank, atExt:
		c.ext++
		switch {
		case b == '\r' && c.state == atExt:
			c.state = atSizeLF
		case b == ';':
			c.state = atExt
		case c.state == atBlank && b != ' ' && b != '\t', kinds[b]&inValue == 0, c.ext > maxExtensions:
			return errChunkExt
		}
	case atSizeLF:
		if b != '\n' {
			return errChunkEnd
		}
		c.state, c.digits = atData, 0
		if c.left == 0 {
			c.state = atTrailer
		}
	case atDataCR:
		if b != '\r' {
			return errChunkEnd
		}
		c.state = atDataLF
	case atDataLF:
		if b != '\n' {
			return errChunkEnd
		}
		c.state = atSize
	}
	return nil
}

// size takes a byte of a chunk's size or the first one after it.
func (c *Chunks) size(b byte) error {
	if kinds[b]&inHex != 0 {
		if c.digits++; c.digits > 15 {
			return errChunkSize
		}
		c.left = c.left<<4 | int64(hexValue(b))
		return nil
	}
	switch {
	case c.digits == 0:
		return errChunkSize
	case b == '\r':
		c.state = atSizeLF
	case b == ';':
		c.state = atExt
	case b == ' ' || b == '\t':
		c.state = atBlank // RFC 9112, section 7.1.1, allows it before ";" alone
	default:
		return errChunkSize
	}
	return nil
}

func hexValue(b byte) byte {
	switch {
	case b >= 'a':
		return b - 'a' + 10
	case b >= 'A':
		return b - 'A' + 10
	}
	return b - '0'
}

// maxTrailer bounds the trailers of one body, in bytes.
const maxTrailer = 16 << 10

// ParseTrailer parses the trailers at the beginning of b and appends them to fs.
// used is 0 as long as they are not complete. The strings are views of b. The
// error is an *Error.
func ParseTrailer(fs []Field, b []byte) (trailers []Field, used int, err error) {
	start, rest := len(fs), b
	for {
		if end := lineEnd(rest); end == 0 {
			if len(b) > maxTrailer {
				return fs, 0, errTrailer
			}
			return fs[:start], 0, nil
		}
		var name, value []byte
		if name, value, rest, err = parseField(rest); err != nil {
			return fs, 0, err
		}
		if name == nil {
			return fs, len(b) - len(rest), nil
		}
		if len(fs)-start >= MaxFields {
			return fs, 0, errTooMany
		}
		fs = append(fs, Field{view(name), view(value)})
	}
}

// lineEnd returns the length of the first line, 0 if it is not complete.
func lineEnd(b []byte) int {
	for i, c := range b {
		if c == '\n' {
			return i + 1
		}
	}
	return 0
}
