package appliance

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// nicenessVariable makes the test a child that asks for its niceness: the test's
// own process is to keep the one it has.
const nicenessVariable = "NICENESS_TEST"

func TestNiceness(t *testing.T) {
	if os.Getenv(nicenessVariable) == "" {
		own, err := nicenessOf(0)
		if err != nil {
			t.Fatal(err)
		}
		for _, more := range []int{0, 5} {
			want := own + more
			if want == 0 {
				want = niceness
			}
			cmd := exec.Command("nice", "-n", strconv.Itoa(more), os.Args[0], "-test.run=^TestNiceness$", "-test.v")
			cmd.Env = append(os.Environ(), nicenessVariable+"="+strconv.Itoa(want))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("from %d: %v\n%s", own+more, err, out)
			}
		}
		return
	}
	err := beLessNice()
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		if !strings.Contains(err.Error(), "set niceness -10") {
			t.Errorf("without the right to do it: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		thread, err := strconv.Atoi(task.Name())
		if err != nil {
			t.Fatal(err)
		}
		if n, err := nicenessOf(thread); err == nil && strconv.Itoa(n) != os.Getenv(nicenessVariable) {
			t.Errorf("thread %d of %d runs at %d, want %s", thread, len(tasks), n, os.Getenv(nicenessVariable))
		}
	}
}
