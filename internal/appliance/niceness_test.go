package appliance

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"appliance/internal/config"
	"appliance/vrrp"
)

// nicenessVariable makes the test a child that changes its niceness: the test's own
// process is to keep the one it has.
const nicenessVariable = "NICENESS_TEST"

// Short adverts change the niceness of all threads, and their end takes it back;
// another one than 0 stays.
func TestNiceness(t *testing.T) {
	if os.Getenv(nicenessVariable) == "" {
		own, err := nicenessOf(0)
		if err != nil {
			t.Fatal(err)
		}
		for _, more := range []int{0, 5} {
			cmd := exec.Command("nice", "-n", strconv.Itoa(more), os.Args[0], "-test.run=^TestNiceness$", "-test.v")
			cmd.Env = append(os.Environ(), nicenessVariable+"="+strconv.Itoa(own+more))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("from %d: %v\n%s", own+more, err, out)
			}
		}
		return
	}
	before, err := strconv.Atoi(os.Getenv(nicenessVariable))
	if err != nil {
		t.Fatal(err)
	}
	raised := before
	if before == 0 {
		raised = niceness
	}
	var u urgency
	for _, step := range []struct {
		short bool
		want  int
	}{{false, before}, {true, raised}, {true, raised}, {false, before}, {true, raised}} {
		err := u.set(step.short)
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			if !strings.Contains(err.Error(), "set niceness -10") {
				t.Errorf("without the right to do it: %v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		expectNiceness(t, step.want)
	}
}

// expectNiceness checks that all threads of the process run at want.
func expectNiceness(t *testing.T, want int) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		thread, err := strconv.Atoi(task.Name())
		if err != nil {
			t.Fatal(err)
		}
		if n, err := nicenessOf(thread); err == nil && n != want {
			t.Errorf("thread %d of %d runs at %d, want %d", thread, len(tasks), n, want)
		}
	}
}

func TestUrgent(t *testing.T) {
	for _, tt := range []struct {
		intervals []time.Duration
		want      bool
	}{
		{nil, false},
		{[]time.Duration{time.Second, 100 * time.Millisecond}, false},
		{[]time.Duration{time.Second, 90 * time.Millisecond}, true},
	} {
		node := &config.Node{}
		for _, i := range tt.intervals {
			node.VRRP = append(node.VRRP, config.VRRPNode{Config: vrrp.Config{AdvertInterval: i}})
		}
		if got := urgent(node); got != tt.want {
			t.Errorf("intervals %v: %v, want %v", tt.intervals, got, tt.want)
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
	before := sessionNiceness(t)
	var u urgency
	for _, short := range []bool{true, false} {
		err := u.set(short)
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		want := before
		if u.raised && os.Getenv(sessionVariable) == "true" {
			if own, err := nicenessOf(0); err != nil || own == niceness {
				want = strconv.Itoa(niceness)
			}
		}
		if got := sessionNiceness(t); got != want {
			t.Errorf("short adverts %v: the session is at %s, want %s", short, got, want)
		}
	}
}

// sessionNiceness returns the niceness that the kernel shows for the session.
func sessionNiceness(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(autogroup)
	if err != nil {
		t.Fatal(err)
	}
	_, nice, _ := strings.Cut(strings.TrimSpace(string(text)), " nice ")
	return nice
}
