package fdstore

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The environment that a service manager gives to a service.
const (
	socketVariable = "NOTIFY_SOCKET"
	pidVariable    = "LISTEN_PID"
	countVariable  = "LISTEN_FDS"
	namesVariable  = "LISTEN_FDNAMES"
	mostVariable   = "FDSTORE" // since systemd 254
)

// mostOfUnit is how many files the unit file has the manager keep that comes with the
// appliance (FileDescriptorStoreMax), where the manager does not say.
const mostOfUnit = 256

// firstFile is the descriptor of the first file that is handed over
// (SD_LISTEN_FDS_START).
const firstFile = 3

// Store is the store of this process's service. Its methods are for one goroutine at a
// time. The zero Store keeps nothing: there is no service manager that would.
type Store struct {
	socket string
	stored []string // names
	most   int      // files
}

// Open returns the store, and what an earlier process of the service has left in it, by
// name; the caller closes that. Of several files of one name there is one. It is to be called once, before
// anything else is opened: it takes the variables of the environment away, for no child
// is to believe that they are for it.
func Open() (*Store, map[string]*os.File) {
	s := &Store{socket: os.Getenv(socketVariable), most: mostOfUnit}
	if n, err := strconv.Atoi(os.Getenv(mostVariable)); err == nil && n >= 0 {
		s.most = n
	}
	left := inherited(os.Getenv(pidVariable), os.Getenv(countVariable), os.Getenv(namesVariable))
	for _, v := range []string{socketVariable, pidVariable, countVariable, namesVariable, mostVariable} {
		os.Unsetenv(v)
	}
	for name := range left {
		s.stored = append(s.stored, name)
	}
	return s, left
}

// inherited returns the files that are this process's by its environment.
func inherited(pid, count, names string) map[string]*os.File {
	files := make(map[string]*os.File)
	n, err := strconv.Atoi(count)
	if err != nil || pid != strconv.Itoa(os.Getpid()) {
		return files
	}
	list := strings.Split(names, ":")
	for i := range n {
		fd := firstFile + i
		unix.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "left")
		if i >= len(list) || files[list[i]] != nil {
			f.Close() // nobody could say what it is
			continue
		}
		files[list[i]] = f
	}
	return files
}

// Available reports whether there is a service manager. Whether it keeps anything, it
// does not say: FileDescriptorStoreMax of the unit is 0 unless set.
func (s *Store) Available() bool { return s.socket != "" }

// Keep has the store keep these files and nothing else. The name of a file stands for it: one whose name is
// in the store already is there. Where there is no room for all, the first by name are
// kept. The files are the caller's before and after. A name
// has neither a colon nor a control character. The error says what could not be told or
// has no room; the next Keep tries it again.
func (s *Store) Keep(files map[string]*os.File) error {
	if s.socket == "" {
		return nil
	}
	var problems []error
	var kept []string
	names := slices.Sorted(maps.Keys(files))
	if len(names) > s.most {
		problems = append(problems, fmt.Errorf("it keeps %d files at most, and %d are to be kept: raise FileDescriptorStoreMax of the unit", s.most, len(names)))
		names = names[:s.most]
	}
	for _, name := range s.stored {
		if slices.Contains(names, name) {
			kept = append(kept, name)
			continue
		}
		if err := s.tell("FDSTOREREMOVE=1\nFDNAME="+name, nil); err != nil {
			problems = append(problems, fmt.Errorf("give %s up: %w", name, err))
			kept = append(kept, name)
		}
	}
	for _, name := range names {
		if slices.Contains(s.stored, name) {
			continue
		}
		f := files[name]
		// What they are polled for would be an end; they have none.
		if err := s.tell("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, f); err != nil {
			problems = append(problems, fmt.Errorf("keep %s: %w", name, err))
			continue
		}
		kept = append(kept, name)
	}
	s.stored = kept
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("file descriptor store: %w", err)
	}
	return nil
}

// tell sends the service manager a message, with a file or nil.
func (s *Store) tell(text string, f *os.File) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var rights []byte
	if f != nil {
		rights = unix.UnixRights(int(f.Fd()))
	}
	// A name that begins with @ is one of the abstract namespace.
	return unix.Sendmsg(fd, []byte(text), rights, &unix.SockaddrUnix{Name: s.socket}, unix.MSG_NOSIGNAL)
}
