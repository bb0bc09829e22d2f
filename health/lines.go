package health

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// The bounds of an answer in lines: of one in bytes, and how many there may be.
const (
	maxLine  = 4 << 10
	maxLines = 100
)

var errLongLine = fmt.Errorf("the answer has a line longer than %d KiB", maxLine>>10)

// newLineReader returns a reader of lines of up to maxLine bytes.
func newLineReader(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, maxLine) }

// readLine returns the next line without its end.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", errLongLine
	case errors.Is(err, io.EOF) && len(line) > 0:
		return "", io.ErrUnexpectedEOF
	case err != nil:
		return "", err
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}
