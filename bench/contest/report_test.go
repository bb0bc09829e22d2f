package contest

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		samples []time.Duration
		want    time.Duration
	}{
		{nil, 0},
		{[]time.Duration{7}, 7},
		{[]time.Duration{9, 1, 5}, 5},
		{[]time.Duration{9, 1, 3, 5}, 4},
	} {
		if got := Median(tt.samples, func(d time.Duration) time.Duration { return d }); got != tt.want {
			t.Errorf("median of %v: %v, want %v", tt.samples, got, tt.want)
		}
	}
}

// A section is added at the end, and replaced where it stands; the others stay.
func TestWriteSection(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.md")
	for _, section := range [][2]string{{"a", "first\n"}, {"b", "second\n"}, {"a", "third\n"}} {
		if err := WriteSection(path, section[0], section[1]); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := "# Benchmarks\n\n<!-- a: begin -->\nthird\n<!-- a: end -->\n\n<!-- b: begin -->\nsecond\n<!-- b: end -->\n"
	if string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestProcess(t *testing.T) {
	if CPU(os.Getpid()) <= 0 || Memory(os.Getpid()) < 1<<20 {
		t.Errorf("this process has used %v and %d bytes", CPU(os.Getpid()), Memory(os.Getpid()))
	}
}
