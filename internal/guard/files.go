package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// maxFiles is how many descriptors go with one message at most (SCM_MAX_FD of
// linux/net/scm.h).
const maxFiles = 253

// socketPair returns the appliance's end of a connection to a guard, and the
// guard's, which becomes its standard input.
func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "guard")
	end := os.NewFile(uintptr(fds[0]), "appliance")
	defer end.Close()
	c, err := net.FileConn(end) // a duplicate
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return c.(*net.UnixConn), theirs, nil
}

// send writes a message as one line, with files.
func send(c *net.UnixConn, m message, files []*os.File) error {
	if len(files) > maxFiles {
		return fmt.Errorf("%d files are too many for one message", len(files))
	}
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if len(files) == 0 {
		_, err := c.Write(line)
		return err
	}
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	n, _, err := c.WriteMsgUnix(line, unix.UnixRights(fds...), nil)
	if err == nil && n < len(line) {
		_, err = c.Write(line[n:])
	}
	return err
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// Files reads what an appliance sends, and takes the files that come with it. Its
// user is Watch.
type Files struct {
	conn       *net.UnixConn
	came, kept []*os.File
}

// NewFiles returns a reader of the guard's standard input. The error says that this
// is not what Start has given it.
func NewFiles(stdin *os.File) (*Files, error) {
	c, err := net.FileConn(stdin)
	if err != nil {
		return nil, fmt.Errorf("guard: standard input: %w", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("guard: standard input is no unix socket"), c.Close())
	}
	return &Files{conn: conn}, nil
}

// Read reads, and takes the files that come with what it reads.
func (f *Files) Read(p []byte) (int, error) {
	rights := make([]byte, unix.CmsgSpace(maxFiles*4))
	n, controls, _, _, err := f.conn.ReadMsgUnix(p, rights)
	if err != nil {
		return n, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:controls])
	if err != nil {
		return n, err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return n, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			f.came = append(f.came, os.NewFile(uintptr(fd), "kept"))
		}
	}
	return n, nil
}

// keep keeps the next n files that came, and closes those kept before.
func (f *Files) keep(n int) {
	if f == nil {
		return // it reads from something else, which has none
	}
	closeAll(f.kept)
	n = min(max(n, 0), len(f.came))
	f.kept = f.came[:n:n]
	f.came = f.came[n:]
}
