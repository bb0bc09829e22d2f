package l7

import (
	"io"
	"os"
	"time"
)

const (
	// sendfileLeast is the size from which on a file is sent by the kernel: below,
	// a copy costs less.
	sendfileLeast = 32 << 10
	// sendfileMost is sent at a time.
	sendfileMost = 1 << 20
)

// WriteFile is described at fileWriter: by sendfile(2), which TLS cannot have.
func (a *http1Answer) WriteFile(f *os.File, n int64) (int64, error) {
	if a.conn.secure || a.chunked || n < sendfileLeast || n > a.left {
		return 0, nil
	}
	if err := a.Flush(); err != nil {
		return 0, err
	}
	sent := int64(0)
	for sent < n {
		if err := a.conn.armWrite(time.Now()); err != nil {
			return sent, err
		}
		most := min(n-sent, sendfileMost)
		k, err := a.conn.tcp.ReadFrom(io.LimitReader(f, most))
		sent += k
		a.left -= k
		switch {
		case err == nil && k < most:
			return sent, errAborted // the file has become shorter
		case err != nil && !tookPiece(k, err):
			return sent, err
		}
	}
	return sent, nil
}
