package appliance

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
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

const sessionVariable = "NICENESS_SESSION_TEST"

// Niceness counts against other sessions as well, if the session is our own.
func TestNicenessOfTheSession(t *testing.T) {
	if os.Getenv(sessionVariable) == "" {
		if _, err := os.Stat(autogroup); err != nil {
			t.Skip("this kernel does not group processes by session")
		}
		for _, leads := range []bool{true, false} {
			cmd := exec.Command(os.Args[0], "-test.run=^TestNicenessOfTheSession$", "-test.v")
			cmd.Env = append(os.Environ(), sessionVariable+"="+strconv.FormatBool(leads))
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: leads}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("leader %v: %v\n%s", leads, err, out)
			}
		}
		return
	}
	before, err := os.ReadFile(autogroup)
	if err != nil {
		t.Fatal(err)
	}
	err = beLessNice()
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(autogroup)
	if err != nil {
		t.Fatal(err)
	}
	own, err := nicenessOf(0)
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv(sessionVariable) == "false" {
		if string(after) != string(before) {
			t.Errorf("the session of somebody else went from %s to %s", before, after)
		}
	} else if want := " nice " + strconv.Itoa(own) + "\n"; own < 0 && !strings.HasSuffix(string(after), want) {
		t.Errorf("the session is at %s, want%s", after, want)
	}
}
