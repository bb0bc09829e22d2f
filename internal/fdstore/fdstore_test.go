package fdstore

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is the other side: it remembers what it was told.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
}

func newManager(t *testing.T) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv(socketVariable, path)
	return &manager{t, c}
}

// next returns the next message, and the file that came with it, or nil.
func (m *manager) next() (text string, f *os.File) {
	m.t.Helper()
	m.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	b, rights := make([]byte, 1000), make([]byte, 100)
	n, controls, _, _, err := m.conn.ReadMsgUnix(b, rights)
	if err != nil {
		m.t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:controls])
	if err != nil {
		m.t.Fatal(err)
	}
	for _, c := range messages {
		fds, err := unix.ParseUnixRights(&c)
		if err != nil || len(fds) != 1 {
			m.t.Fatal(fds, err)
		}
		f = os.NewFile(uintptr(fds[0]), "kept")
	}
	return string(b[:n]), f
}

func TestKeep(t *testing.T) {
	m := newManager(t)
	s, left := Open()
	if !s.Available() || len(left) != 0 || os.Getenv(socketVariable) != "" {
		t.Fatalf("available %v, left %v", s.Available(), left)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := s.Keep(map[string]*os.File{"one": w}); err != nil {
		t.Fatal(err)
	}
	text, f := m.next()
	if lines := strings.Split(text, "\n"); !slices.Contains(lines, "FDSTORE=1") || !slices.Contains(lines, "FDNAME=one") || f == nil {
		t.Fatalf("%q, %v", text, f)
	}
	w.Close()
	io.WriteString(f, "x")
	f.Close()
	if b, err := io.ReadAll(r); string(b) != "x" || err != nil {
		t.Errorf("it was another file: %q, %v", b, err)
	}
	// What is there still is told once; what is not named goes.
	if err := s.Keep(map[string]*os.File{"one": r, "two": r}); err != nil {
		t.Fatal(err)
	}
	if text, _ := m.next(); !strings.Contains(text, "FDNAME=two") {
		t.Errorf("%q", text)
	}
	if err := s.Keep(map[string]*os.File{"two": r}); err != nil {
		t.Fatal(err)
	}
	if text, _ := m.next(); text != "FDSTOREREMOVE=1\nFDNAME=one" {
		t.Errorf("%q", text)
	}
}

// Where there is room for two files, the first by name are kept, and the rest is told.
func TestKeepMoreThanThereIsRoomFor(t *testing.T) {
	m := newManager(t)
	t.Setenv(mostVariable, "2")
	s, _ := Open()
	all := map[string]*os.File{"flows": os.Stdin, "servers": os.Stdin, "tcx-1": os.Stdin, "tcx-2": os.Stdin}
	if err := s.Keep(all); err == nil || !strings.Contains(err.Error(), "2 files at most, and 4") || !strings.Contains(err.Error(), "FileDescriptorStoreMax") {
		t.Errorf("error %v", err)
	}
	for _, want := range []string{"flows", "servers"} {
		if text, _ := m.next(); !strings.Contains(text, "FDNAME="+want) {
			t.Errorf("%q; want %s", text, want)
		}
	}
	delete(all, "servers")
	delete(all, "tcx-2")
	if err := s.Keep(all); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"FDSTOREREMOVE=1\nFDNAME=servers", "FDNAME=tcx-1"} {
		if text, _ := m.next(); !strings.Contains(text, want) {
			t.Errorf("%q; want %s", text, want)
		}
	}
}

// A bound that is none is not believed.
func TestKeepWithABoundThatIsNone(t *testing.T) {
	m := newManager(t)
	t.Setenv(mostVariable, "-1")
	s, _ := Open()
	if err := s.Keep(map[string]*os.File{"flows": os.Stdin}); err != nil {
		t.Error(err)
	}
	if text, _ := m.next(); !strings.Contains(text, "FDNAME=flows") {
		t.Errorf("%q", text)
	}
}

func TestWithoutAManager(t *testing.T) {
	for _, v := range []string{socketVariable, pidVariable, countVariable, namesVariable, mostVariable} {
		t.Setenv(v, "")
	}
	s, left := Open()
	if s.Available() || len(left) > 0 || s.Keep(map[string]*os.File{"one": os.Stdin}) != nil {
		t.Error("it believes that there is one")
	}
}

func TestInherited(t *testing.T) {
	if left := inherited("1", "2", "a:b"); len(left) > 0 {
		t.Errorf("what is another process's is taken: %v", left)
	}
	if left := inherited(strconv.Itoa(os.Getpid()), "x", ""); len(left) > 0 {
		t.Errorf("%v", left)
	}
}
