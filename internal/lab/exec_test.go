package lab_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"appliance/internal/lab"
)

// visit is what the helpers "exec" and "intrude" do instead of tests: their
// arguments after the flag are a host and a command.
func visit() (exitCode int) {
	host, args := os.Args[2], os.Args[3:]
	var err error
	if os.Getenv(helper) == "exec" {
		exitCode, err = lab.Exec(host, args)
	} else {
		err = lab.Intrude("@applianctl-lab-0", host, args)
	}
	if err != nil {
		fmt.Println(err)
		return 100
	}
	return exitCode
}

// serveVisitors is the helper "door": a host and the door to it.
func serveVisitors(t *testing.T) {
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	h := newHost(t, "lb01")
	if _, err := os.Stdout.WriteString("ready\n"); err != nil {
		t.Fatal(err)
	}
	err := lab.ServeDoor(ctx, lab.Inherited(0), func(name string) (*lab.Host, error) {
		if name != h.Name {
			return nil, fmt.Errorf("there is no host %q", name)
		}
		return h, nil
	})
	if err != nil {
		t.Error(err)
	}
}

// openDoor starts the helper "door" as a user, and ends it with the test.
func openDoor(t *testing.T, as *syscall.SysProcAttr) {
	t.Helper()
	cmd := helperCommand("door")
	cmd.SysProcAttr = as
	cmd.Dir = "/"
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var rest io.Reader
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		text, _ := io.ReadAll(rest)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the laboratory ended: %v, and said %s", err, text)
		}
	})
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the laboratory said %q, %v", line, err)
	}
	rest = r
}

// visitor prepares a helper that goes to a host, as a user.
func visitor(part string, as *syscall.SysProcAttr, args ...string) *exec.Cmd {
	cmd := helperCommand(part)
	cmd.Args = append(cmd.Args, args...)
	cmd.SysProcAttr = as
	cmd.Dir = "/"
	return cmd
}

// users are those that the tests can be: root and nobody, or the one they are.
func users(t *testing.T) map[string]*syscall.SysProcAttr {
	t.Helper()
	if !becomesAnyone(t) {
		return map[string]*syscall.SysProcAttr{"this user": nil}
	}
	return map[string]*syscall.SysProcAttr{"root": nil, "nobody": asNobody()}
}

func asNobody() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}

func TestExec(t *testing.T) {
	for name, user := range users(t) {
		t.Run(name, func(t *testing.T) {
			openDoor(t, user)
			var out, errs strings.Builder
			cmd := visitor("exec", user, "lb01", "sh", "-c", "read line; cat /proc/sys/kernel/hostname; echo $line >&2; exit 7")
			cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("hello\n"), &out, &errs
			var exit *exec.ExitError
			if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
				t.Errorf("got %v, want exit status 7", err)
			}
			if out.String() != "lb01\n" || errs.String() != "hello\n" {
				t.Errorf("the output is %q, and %q to standard error", &out, &errs)
			}
		})
	}
}

func TestExecSaysWhatIsWrong(t *testing.T) {
	openDoor(t, nil)
	for want, args := range map[string][]string{
		`there is no host "lb99"`: {"lb99", "true"},
		"no-such-program":         {"lb01", "no-such-program"},
	} {
		text, err := visitor("exec", nil, args...).Output()
		if err == nil || !strings.Contains(string(text), want) {
			t.Errorf("%q: %v, said %q", args, err, text)
		}
	}
}

func TestExecWithoutLab(t *testing.T) {
	text, err := visitor("exec", nil, "lb01", "true").Output()
	if err == nil || !strings.Contains(string(text), lab.ErrNoLab.Error()) {
		t.Errorf("%v, said %q", err, text)
	}
}

// Only the user whose laboratory it is gets in.
func TestExecRefusesOtherUsers(t *testing.T) {
	if !becomesAnyone(t) {
		t.Skip("there is one user only in the sandbox of a user who is not root")
	}
	openDoor(t, nil)
	text, err := visitor("intrude", asNobody(), "lb01", "true").Output()
	if err == nil || !strings.Contains(string(text), "another user's") {
		t.Errorf("%v, said %q", err, text)
	}
}

// A signal to the visitor reaches the command, and so does the visitor's end.
func TestExecPassesSignals(t *testing.T) {
	openDoor(t, nil)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		before := processes(t)
		cmd := visitor("exec", nil, "lb01", "sh", "-c", "echo ready; sleep 1000; true")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) {
			t.Errorf("%s: %v", s, err)
		} else if s == syscall.SIGTERM && exit.ExitCode() != 128+15 {
			t.Errorf("%s: exit code %d", s, exit.ExitCode())
		}
		waitFor(t, "the end of the command", func() bool { return len(processes(t)) == len(before) })
	}
}
