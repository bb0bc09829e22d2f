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
//
// The kernel releases what a killed process had open from the highest descriptor
// to the lowest, and takes its time over some: packet sockets wait for all
// processors, one after the other. So the appliance's end has a high one, and the
// guard hears of the death before all that, not after.
func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "guard")
	fd := fds[0]
	if high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, highest()); err == nil {
		unix.Close(fd)
		fd = high
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, nil, errors.Join(fmt.Errorf("socket pair: %w", err), theirs.Close())
	}
	return os.NewFile(uintptr(fd), "appliance"), theirs, nil
}

// highest returns a descriptor that is higher than most others of this process will
// be. The table of descriptors has 8 bytes for each one below it.
func highest() int {
	const most = 1 << 16
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > most {
		return most - 1
	}
	return max(int(limit.Cur)-1, 0)
}

// send writes a message as one line, with files.
func send(c *os.File, m message, files []*os.File) error {
	if len(files) > maxFiles {
		return fmt.Errorf("%d files are too many for one message", len(files))
	}
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if len(files) > 0 {
		if line, err = sendFiles(c, line, files); err != nil {
			return err
		}
	}
	_, err = c.Write(line)
	return err
}

// sendFiles writes the beginning of line, files with it, and returns the rest.
func sendFiles(c *os.File, line []byte, files []*os.File) (rest []byte, err error) {
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	n := 0
	if waited := raw.Write(func(fd uintptr) bool {
		n, err = unix.SendmsgN(int(fd), line, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL)
		return err != unix.EAGAIN
	}); waited != nil {
		return nil, waited
	}
	if err != nil {
		return nil, fmt.Errorf("send files: %w", err)
	}
	return line[n:], nil
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

// remains returns what is kept.
func (f *Files) remains() []*os.File {
	if f == nil {
		return nil
	}
	return f.kept
}
