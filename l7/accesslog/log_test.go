package accesslog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// sink is a file that can be stopped, or broken.
type sink struct {
	mu      sync.Mutex
	text    bytes.Buffer
	writes  int
	gate    chan struct{} // nil: open
	failing func(p []byte) (int, error)
	closed  bool
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	if gate != nil {
		<-gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	if s.failing != nil {
		n, err := s.failing(p)
		s.text.Write(p[:n])
		return n, err
	}
	return s.text.Write(p)
}

func (s *sink) Close() error {
	s.closed = true
	return nil
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func start(t *testing.T, s *sink, said *bytes.Buffer) *Log {
	l := newLog(filepath.Join(t.TempDir(), "x.log"), s, zerolog.New(said))
	go l.run()
	return l
}

func TestLinesAreWrittenInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		l := start(t, s, &bytes.Buffer{})
		for i := range 10 {
			l.Add(fmt.Appendf(nil, "line %d\n", i))
		}
		synctest.Wait()
		if s.String() != "" {
			t.Error("written at once")
		}
		time.Sleep(flushEvery)
		synctest.Wait()
		if n := strings.Count(s.String(), "\n"); n != 10 || s.writes != 1 {
			t.Errorf("%d lines in %d writes", n, s.writes)
		}
		long := []byte(strings.Repeat("x", 1000) + "\n")
		for range 100 {
			l.Add(long)
		}
		synctest.Wait()
		if s.writes < 2 {
			t.Error("a full buffer waits")
		}
		l.Add([]byte("last\n"))
		l.Release()
		if err := l.Wait(context.Background()); err != nil {
			t.Fatal(err)
		}
		if !s.closed || !strings.HasSuffix(s.String(), "last\n") || l.Stats().Lines != 111 {
			t.Errorf("closed %v, %+v", s.closed, l.Stats())
		}
	})
}

func TestNobodyWaitsForASlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		gate := make(chan struct{})
		s := &sink{gate: gate}
		l := start(t, s, &said)
		line := []byte(strings.Repeat("x", 1023) + "\n")
		const total = 3 * maxBuffers * bufferSize / 1024
		for range total {
			l.Add(line)
		}
		dropped := l.Stats().Dropped
		if dropped == 0 || dropped > total {
			t.Fatalf("%d of %d dropped", dropped, total)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Reopen(ctx); err == nil {
			t.Error("reopened while the disk stands still")
		}
		close(gate)
		time.Sleep(2 * flushEvery)
		synctest.Wait()
		if got := uint64(strings.Count(s.String(), "\n")); got+dropped != total || l.Stats().Lines != got {
			t.Errorf("%d written, %d dropped, of %d", got, dropped, total)
		}
		if !strings.Contains(said.String(), fmt.Sprintf(`"dropped":%d`, dropped)) {
			t.Errorf("log: %s", said.String())
		}
		l.Release()
		<-l.over
	})
}

func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		s := &sink{failing: func(p []byte) (int, error) { return min(len(p), 7), errors.New("no space left on device") }}
		l := start(t, s, &said)
		l.Add([]byte("one\n"))
		l.Add([]byte("two2\n"))
		time.Sleep(flushEvery)
		synctest.Wait()
		if got := l.Stats(); got.Lines != 1 || got.Dropped != 1 || got.Trouble != "no space left on device" {
			t.Errorf("%+v", got)
		}
		s.mu.Lock()
		s.failing = nil
		s.mu.Unlock()
		l.Add([]byte("three\n"))
		l.Release()
		<-l.over
		if got := l.Stats(); got.Lines != 2 || got.Trouble != "" || s.String() != "one\ntwo\nthree\n" {
			t.Errorf("%+v, %q", got, s.String())
		}
		for _, want := range []string{"cannot be written: lines are dropped", "written again"} {
			if strings.Count(said.String(), want) != 1 {
				t.Errorf("not once %q in %s", want, said.String())
			}
		}
	})
}

func TestHolders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		l := start(t, s, &bytes.Buffer{})
		if !l.Hold() {
			t.Fatal("not held")
		}
		l.Release()
		l.Add([]byte("still\n"))
		l.Release()
		<-l.over
		if s.String() != "still\n" {
			t.Errorf("%q", s.String())
		}
		if l.Hold() {
			t.Error("a closed log was held")
		}
		l.Add([]byte("late\n"))
		if err := l.Reopen(t.Context()); err != nil || l.Stats().Dropped != 1 {
			t.Errorf("%v, %+v", err, l.Stats())
		}
	})
}

// Who asks for a closed log while others do is no reason for it to be taken for an open one.
func TestHoldersOfAClosedLog(t *testing.T) {
	l := newLog("x", &sink{}, zerolog.Nop())
	l.Release()
	var held atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20000 {
				if l.Hold() {
					held.Add(1)
				}
			}
		})
	}
	all.Wait()
	if n := held.Load(); n > 0 {
		t.Errorf("a closed log was held %d times", n)
	}
}

func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l, err := Open(path, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		b, _ := os.ReadFile(name)
		return string(b)
	}
	l.Add([]byte("one\n"))
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.Add([]byte("two\n"))
	if err := l.Reopen(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := read(path + ".1"); got != "one\n" {
		t.Errorf("the old file has %q", got)
	}
	if got := read(path); got != "two\n" {
		t.Errorf("the new file has %q", got)
	}

	// It notices by itself, too.
	if err := os.Rename(path, path+".2"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); read(path) == "" && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		l.Add([]byte("three\n"))
	}
	if !strings.HasPrefix(read(path), "three\n") {
		t.Error("a file that was renamed is never made anew")
	}

	// A folder that is gone.
	if err := os.Rename(filepath.Dir(path), filepath.Dir(path)+"-gone"); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(filepath.Dir(path) + "-gone")
	if err := l.Reopen(t.Context()); err == nil || !strings.Contains(err.Error(), "the file that was open") {
		t.Errorf("no folder: %v", err)
	}
	if got := l.Stats(); !strings.Contains(got.Trouble, "the file that was open") || got.Dropped != 0 {
		t.Errorf("%+v", got)
	}
	l.Release()
	<-l.over
}

func TestAddFromManyGoroutines(t *testing.T) {
	s := &sink{}
	l := start(t, s, &bytes.Buffer{})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 2000 {
				l.Add([]byte(strings.Repeat(string(rune('a'+i)), 60) + "\n"))
			}
		})
	}
	all.Wait()
	l.Release()
	<-l.over
	if got := l.Stats(); got.Lines+got.Dropped != 16000 {
		t.Errorf("%+v", got)
	}
	for line := range strings.Lines(s.String()) {
		if line != strings.Repeat(line[:1], 60)+"\n" {
			t.Fatalf("mixed: %q", line)
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	l, err := Open(os.DevNull, zerolog.Nop())
	if err != nil {
		b.Fatal(err)
	}
	line := []byte(strings.Repeat("x", 400) + "\n")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.Add(line)
		}
	})
	l.Release()
	<-l.over
}
