package contest

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
)

// Median returns the median of what of gives for each sample, 0 without any. Of
// an even number it is the mean of the two in the middle.
func Median[S any, T ~int64 | ~float64](samples []S, of func(S) T) T {
	if len(samples) == 0 {
		return 0
	}
	values := make([]T, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}

// Machine tells what the figures depend on: the kernel, the processors and the
// version of Go.
func Machine() string {
	release, _ := exec.Command("uname", "-r").Output()
	model := cmp.Or(field("/proc/cpuinfo", "model name"), runtime.GOARCH)
	return fmt.Sprintf("kernel %s, %s, %d processors, %s", strings.TrimSpace(string(release)), model, runtime.NumCPU(), runtime.Version())
}

// WriteSection replaces the section of the Markdown file at path between the
// comments that mark it, or adds it at the end.
func WriteSection(path, name, text string) error {
	begin, end := "<!-- "+name+": begin -->\n", "<!-- "+name+": end -->\n"
	old, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	before, rest, found := strings.Cut(string(old), begin)
	if !found {
		if before == "" {
			before = "# Benchmarks\n\n"
		} else {
			before += "\n"
		}
	}
	_, after, _ := strings.Cut(rest, end)
	return os.WriteFile(path, []byte(before+begin+text+end+after), 0o644)
}
