package lab_test

import (
	"bufio"
	"bytes"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"appliance/internal/lab"
)

// helper is the environment variable that makes a test process of
// TestSandboxHelper. Such a process is outside: it starts a sandbox of its own
// within that of the tests.
const helper = "LAB_TEST_HELPER"

// TestSandboxHelper is no test: it is what the processes of the tests below run
// in their sandboxes.
func TestSandboxHelper(t *testing.T) {
	switch os.Getenv(helper) {
	case "":
		t.Skip("it is for the other tests")
	case "exit 7":
		os.Exit(7)
	case "stay":
		stay(t)
	case "door":
		serveVisitors(t)
	}
}

// stay builds a pair, with a process on lb01, says so and waits for its end.
func stay(t *testing.T) {
	pair, err := lab.NewPair(lab.PairOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pair.LB01.Start(pair.LB01.Command("sleep", "1000")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stdout.WriteString("ready\n"); err != nil {
		t.Fatal(err)
	}
	select {}
}

// helperCommand prepares a process that starts a sandbox for a helper.
func helperCommand(part string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestSandboxHelper$")
	// The race detector would have each of the helper's processes sleep 1 s in the end.
	cmd.Env = append(os.Environ(), helper+"="+part, "GORACE=atexit_sleep_ms=0")
	return cmd
}

func TestSandboxPassesTheExitCode(t *testing.T) {
	var exit *exec.ExitError
	if err := helperCommand("exit 7").Run(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("got %v, want exit status 7", err)
	}
}

// However the outer process ends, nothing that ran inside is left: no process,
// and with the last of them no network namespace and no mount.
func TestSandboxLeavesNothing(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			mountsBefore := read(t, "/proc/self/mounts")
			cmd := helperCommand("stay")
			leavesNothing(t, cmd, signal)
			if now := read(t, "/proc/self/mounts"); now != mountsBefore {
				t.Errorf("the mounts outside were\n%s\nand are\n%s", mountsBefore, now)
			}
		})
	}
}

// A user without any rights gets a sandbox too, as root of a user namespace.
func TestSandboxWithoutRoot(t *testing.T) {
	cmd := helperCommand("stay")
	cmd.Dir = "/"
	if becomesAnyone(t) {
		cmd.SysProcAttr = asNobody()
	} // else these tests run without root themselves, and there is nobody else to be
	leavesNothing(t, cmd, syscall.SIGKILL)
}

// becomesAnyone reports whether this process may change its user, which it may
// not in the sandbox of a user who is not root.
func becomesAnyone(t *testing.T) bool {
	t.Helper()
	fields := strings.Fields(read(t, "/proc/self/uid_map"))
	return len(fields) >= 3 && fields[2] != "1"
}

// leavesNothing starts the helper "stay", ends it by a signal when all of it
// runs, and fails if a process outlives it.
func leavesNothing(t *testing.T, cmd *exec.Cmd, signal syscall.Signal) {
	t.Helper()
	before := processes(t)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("the helper said %q, %v\n%s", line, err, &complaints)
	}
	// The outer process, process 1, the program and its sleep.
	if n := len(processes(t)) - len(before); n != 4 {
		t.Errorf("the sandbox consists of %d processes, want 4", n)
	}
	if err := cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // how it ended does not matter here

	deadline := time.Now().Add(5 * time.Second)
	for {
		left := processes(t)
		maps.DeleteFunc(left, func(pid int, _ string) bool { return before[pid] != "" })
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %v", left)
		}
		time.Sleep(5 * time.Millisecond) // for the kernel, which tells nobody when it is done
	}
}

// processes returns all processes of the tests' sandbox with their names.
func processes(t *testing.T) map[int]string {
	t.Helper()
	list := make(map[int]string)
	entries, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range entries {
		name, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		list[pid] = strings.TrimSpace(string(name))
	}
	return list
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
