package events

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// texts returns what the events say.
func texts(list []Event) []string {
	var s []string
	for _, e := range list {
		s = append(s, e.Text)
	}
	return s
}

func (l *Log) all() []Event {
	list, _ := l.After(0)
	return list
}

func wantTexts(t *testing.T, l *Log, want ...string) {
	t.Helper()
	if got := texts(l.all()); !reflect.DeepEqual(got, want) {
		t.Errorf("the history says %q, want %q", got, want)
	}
}

// logger returns a logger whose lines the function returns.
func logger() (zerolog.Logger, func() string) {
	var mu sync.Mutex
	var b bytes.Buffer
	w := writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return b.Write(p)
	})
	return zerolog.New(w), func() string {
		mu.Lock()
		defer mu.Unlock()
		return b.String()
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// eventually asks until is says yes.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what + ": not in time")
		}
	}
}

func TestHistorySurvivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "events.jsonl") // the folder is made
	l := Open(path, zerolog.Nop())
	l.Add(Start, "node lb01", "started")
	l.Add(Transition, "vrrp VI_1", "backup -> active: alone", "from", "backup", "to", "active")
	before := l.all()
	l.Close()

	l = Open(path, zerolog.Nop())
	defer l.Close()
	if got := l.all(); !reflect.DeepEqual(got, before) {
		t.Errorf("after the restart\n%+v, before\n%+v", got, before)
	}
	l.Add(Stop, "node lb01", "stopping")
	if list, _ := l.After(2); len(list) != 1 || list[0].Seq != 3 || list[0].Text != "stopping" {
		t.Errorf("after the second: %+v", list)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// What is written is on the disk without a Close: a kill -9 must lose nothing.
func TestEventsAreWrittenAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	l := Open(path, zerolog.Nop())
	defer l.Close()
	l.Add(Start, "node lb01", "started")
	eventually(t, "the event is in the file", func() bool {
		text, _ := os.ReadFile(path)
		return strings.HasSuffix(string(text), "\n") && strings.Contains(string(text), `"text":"started"`)
	})
}

func TestTornLineIsLeftOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	l := Open(path, zerolog.Nop())
	l.Add(Start, "node lb01", "first")
	l.Add(Start, "node lb01", "second")
	l.Close()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text[:len(text)-20], 0o600); err != nil {
		t.Fatal(err)
	}
	l = Open(path, zerolog.Nop())
	wantTexts(t, l, "first")
	l.Add(Start, "node lb01", "third")
	l.Close()
	l = Open(path, zerolog.Nop())
	defer l.Close()
	wantTexts(t, l, "first", "third")
}

func TestFileIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	f := file{path: path, limit: 1000}
	for i := range 50 {
		e := newEvent(Start, "node lb01", fmt.Sprint("event ", i), nil)
		e.Seq = uint64(i + 1)
		if err := f.write([]Event{e}); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{path, path + older} {
		if info, err := os.Stat(p); err != nil || info.Size() > 1200 {
			t.Errorf("%s: %v, %v", p, info, err)
		}
	}
	list, err := f.read()
	if err != nil || len(list) < 8 || list[len(list)-1].Text != "event 49" {
		t.Fatalf("%q, %v", texts(list), err)
	}
	for i, e := range list[1:] {
		if e.Seq != list[i].Seq+1 {
			t.Errorf("%d follows %d", e.Seq, list[i].Seq)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	l := Open("", zerolog.Nop())
	defer l.Close()
	for i := range 5 * Kept {
		l.Add(Start, "node lb01", fmt.Sprint(i))
	}
	list := l.all()
	if len(list) < Kept || len(list) > 2*Kept || list[len(list)-1].Seq != 5*Kept {
		t.Errorf("%d are kept, the last is %d", len(list), list[len(list)-1].Seq)
	}
	l.Add(Start, "node lb01", strings.Repeat("x", 1<<20))
	if list, _ := l.After(5 * Kept); len(list[0].Text) > textLimit+4 {
		t.Errorf("a text of %d bytes is kept", len(list[0].Text))
	}
}

// A disk that cannot be written to is a warning; the history goes on in memory,
// and into the file when that is possible again.
func TestUnwritableFileIsAWarning(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // in the place of the folder
		t.Fatal(err)
	}
	log, said := logger()
	l := Open(filepath.Join(dir, "events.jsonl"), log)
	l.Add(Start, "node lb01", "first")
	eventually(t, "it is told", func() bool { return strings.Contains(said(), "in memory only") && l.Trouble() != "" })
	wantTexts(t, l, "first")
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	l.Add(Start, "node lb01", "second")
	eventually(t, "it is written again", func() bool { return l.Trouble() == "" })
	l.Close()
	l = Open(filepath.Join(dir, "events.jsonl"), zerolog.Nop())
	defer l.Close()
	wantTexts(t, l, "first", "second")
	if n := strings.Count(said(), "\n"); n > 3 {
		t.Errorf("%d lines of log:\n%s", n, said())
	}
}

// Nothing is waited for, and no device is filled, where no file is.
func TestPathThatIsNoFileIsAWarning(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"a device": func(path string) error { return os.Symlink("/dev/full", path) },
		"a pipe":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a folder": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		path := filepath.Join(t.TempDir(), "events.jsonl")
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		log, said := logger()
		l := Open(path, log)
		l.Add(Start, "node lb01", "first")
		eventually(t, name+" is refused", func() bool { return l.Trouble() != "" })
		wantTexts(t, l, "first")
		l.Close()
		if !strings.Contains(said(), path) {
			t.Errorf("%s: %s", name, said())
		}
	}
}

func TestFollowersAreWoken(t *testing.T) {
	l := Open("", zerolog.Nop())
	defer l.Close()
	list, changed := l.After(0)
	if len(list) > 0 {
		t.Fatalf("%+v", list)
	}
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() { l.Add(Start, "node lb01", "x") })
	}
	<-changed
	all.Wait()
	for i, e := range l.all() {
		if e.Seq != uint64(i+1) {
			t.Errorf("event %d has the number %d", i, e.Seq)
		}
	}
}

// FuzzRead: whatever is in a file is read without a panic, the numbers grow, and
// what was read is read again as it is.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"seq":1,"time":"2026-01-01T00:00:00Z","kind":"start","subject":"node lb01","text":"started"}` + "\n"))
	f.Add([]byte(`{"seq":9,"kind":"stop"}` + "\n" + `{"seq":9,"kind":"stop"}` + "\n{\"seq"))
	f.Fuzz(func(t *testing.T, text []byte) {
		list := appendEvents(nil, text)
		var again []byte
		for i, e := range list {
			if i > 0 && e.Seq <= list[i-1].Seq && list[i-1].Seq != 1<<64-1 {
				t.Fatalf("%d follows %d", e.Seq, list[i-1].Seq)
			}
			line, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			again = append(append(again, line...), '\n')
		}
		back := appendEvents(nil, again)
		for i := range list {
			if list[i].Details != nil && len(list[i].Details) == 0 {
				list[i].Details = nil
			}
			list[i].Time = list[i].Time.UTC()
			back[i].Time = back[i].Time.UTC()
		}
		if !reflect.DeepEqual(list, back) && len(list) > 0 {
			t.Fatalf("%+v\nread again: %+v", list, back)
		}
	})
}
