package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"appliance/internal/control"
)

// labMark is the variable by which all processes of one laboratory are known:
// they inherit it.
const labMark = "APPLIANCE_TEST_LAB"

// labUser is who runs a laboratory.
type labUser struct {
	name       string
	credential *syscall.Credential // nil: the tests' own
}

// labUsers returns the tests' user, and an ordinary one where the tests may
// become it.
func labUsers(t *testing.T) []labUser {
	t.Helper()
	users := []labUser{{name: "root"}}
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	probe := exec.Command("true")
	probe.SysProcAttr = &syscall.SysProcAttr{Credential: nobody}
	if err := probe.Run(); err != nil {
		t.Logf("an ordinary user is not tried, the tests cannot become one here: %v", err)
		return users
	}
	return append(users, labUser{"an ordinary user", nobody})
}

// labRun is a laboratory that runs.
type labRun struct {
	t    *testing.T
	cmd  *exec.Cmd
	mark string
	user labUser
	done chan struct{} // closed when the outer process has ended

	mu   sync.Mutex
	text bytes.Buffer
}

// Write takes the narration.
func (l *labRun) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *labRun) narration() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// labCommand prepares `applianctl lab` with arguments.
func labCommand(t *testing.T, user labUser, mark string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Getenv(binaryVariable), append([]string{"lab"}, args...)...)
	cmd.Env = append(os.Environ(), labMark+"="+mark)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user.credential, Setpgid: true}
	return cmd
}

// startLab starts a laboratory, which is gone at the end of the test.
func startLab(t *testing.T, user labUser, args ...string) *labRun {
	t.Helper()
	l := &labRun{t: t, user: user, mark: fmt.Sprintf("%s-%d", t.Name(), time.Now().UnixNano()), done: make(chan struct{})}
	l.cmd = labCommand(t, user, l.mark, args...)
	l.cmd.Stdout, l.cmd.Stderr = l, l
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(l.done)
		l.cmd.Wait() // the exit code is in ProcessState
	}()
	t.Cleanup(func() {
		for _, pid := range l.processes() {
			syscall.Kill(pid, syscall.SIGKILL) // it fails if that one has just ended
		}
		<-l.done
		if t.Failed() {
			t.Logf("%s: the laboratory said:\n%s", user.name, l.narration())
		}
	})
	return l
}

// processes returns the processes of the laboratory that there are.
func (l *labRun) processes() (pids []int) {
	paths, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		l.t.Error(err)
	}
	for _, path := range paths {
		environ, err := os.ReadFile(path)
		if err != nil || !slices.Contains(strings.Split(string(environ), "\x00"), labMark+"="+l.mark) {
			continue // it has ended, or is another's
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			l.t.Error(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// waitSaid waits until the narration matches.
func (l *labRun) waitSaid(within time.Duration, pattern string) {
	l.t.Helper()
	re := regexp.MustCompile(pattern)
	eventually(l.t, within, l.user.name+": the laboratory says "+pattern, func() bool { return re.MatchString(l.narration()) })
}

// waitEnd waits for the end of the outer process and of all others, and returns
// the exit code.
func (l *labRun) waitEnd(within time.Duration) int {
	l.t.Helper()
	select {
	case <-l.done:
	case <-time.After(within):
		l.t.Fatalf("%s: the laboratory has not ended within %v", l.user.name, within)
	}
	eventually(l.t, 10*time.Second, l.user.name+": no process of the laboratory is left", func() bool { return len(l.processes()) == 0 })
	return l.cmd.ProcessState.ExitCode()
}

// labOutside is what a laboratory must not change outside of itself.
func labOutside(t *testing.T) string {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := os.ReadFile("/proc/self/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	var doors []string
	for line := range strings.Lines(string(sockets)) {
		if _, name, ok := strings.Cut(line, "@applianctl-lab"); ok {
			doors = append(doors, name)
		}
	}
	return fmt.Sprintf("host name %s\ninterfaces %v\ndoors %q\nmounts\n%s", host, interfaces, doors, mounts)
}

// The laboratory, of which a user has one at a time.
func TestLab(t *testing.T) {
	t.Parallel()
	t.Run("tells its story", labTellsItsStory)
	t.Run("leaves nothing", labLeavesNothing)
}

// It tells a whole story with its figures, for root as for anybody else, lets people
// in while it is kept, and leaves nothing behind.
func labTellsItsStory(t *testing.T) {
	before := labOutside(t)
	var runs []*labRun
	for _, user := range labUsers(t) {
		l := startLab(t, user, "--keep")
		runs = append(runs, l)
		l.waitSaid(30*time.Second, `lb0\d is active`)
		l.visit()
	}
	for _, l := range runs {
		l.waitSaid(2*time.Minute, `The pair stays until Ctrl-C`)
		for _, step := range []string{
			`\d+ requests per second`, `web1, web2, web3: no failures`, `Killed the server web\d`, `longest gap \d+ ms`,
			`web\d is back`, `SIGKILL: lb0\d`, `The client waited \d+ ms at most`, `first advert of lb0\d \d+ ms after the kill`,
			`applianctl failover`, `VI_1: lb0\d \(192\.168\.15\.1\d\) is active, after \d+ ms`,
			`(?m)^steady traffic +\d+ +\d+ ms +0$`, `(?m)^failover by command +\d+ +\d+ ms +\d+$`,
		} {
			if !regexp.MustCompile(step).MatchString(l.narration()) {
				t.Errorf("%s: the story does not tell %s", l.user.name, step)
			}
		}
		if err := l.cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if code := l.waitEnd(20 * time.Second); code != 0 {
			t.Errorf("%s: exit code %d, want 0", l.user.name, code)
		}
	}
	if after := labOutside(t); after != before {
		t.Errorf("outside there was\n%s\nand is\n%s", before, after)
	}
}

// visit runs commands on the hosts of a laboratory that runs, from outside.
func (l *labRun) visit() {
	l.t.Helper()
	laboratory := func(args ...string) (code int, stdout, stderr string) {
		l.t.Helper()
		cmd := labCommand(l.t, l.user, l.mark, args...)
		var out, problems bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &problems
		if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
			l.t.Fatalf("%s: lab %s: %v", l.user.name, strings.Join(args, " "), err)
		}
		return cmd.ProcessState.ExitCode(), out.String(), problems.String()
	}
	code, stdout, stderr := laboratory("exec", "lb01", "--", "applianctl", "status", "--json")
	var s control.Status
	if err := json.Unmarshal([]byte(stdout), &s); code != 0 || err != nil || s.Node != "lb01" || len(s.VRRP) != 1 {
		l.t.Errorf("%s: lab exec lb01: exit code %d, %v: %s%s", l.user.name, code, err, stdout, stderr)
	}
	for _, tt := range []struct {
		want         int
		args         []string
		says, mumble string // on standard output, and on standard error
	}{
		{0, []string{"exec", "lb02", "--", "cat", "/proc/sys/kernel/hostname"}, "lb02\n", ""},
		{7, []string{"exec", "client", "--", "sh", "-c", "echo out; echo err >&2; exit 7"}, "out\n", "err\n"},
		{1, []string{"exec", "lb03", "--", "true"}, "", "lb01, lb02, client"},
		{1, []string{"exec", "lb01", "--", "no-such-program"}, "", "no-such-program"},
		{1, []string{"--keep"}, "", "already"},
	} {
		code, stdout, stderr := laboratory(tt.args...)
		if code != tt.want || stdout != tt.says || !strings.Contains(stderr, tt.mumble) {
			l.t.Errorf("%s: lab %s: exit code %d, want %d; %q, %q", l.user.name, strings.Join(tt.args, " "), code, tt.want, stdout, stderr)
		}
	}
	// A command that hangs goes with whoever asked for it.
	hanging := labCommand(l.t, l.user, l.mark+"-visitor", "exec", "client", "--", "sleep", "1000")
	if err := hanging.Start(); err != nil {
		l.t.Fatal(err)
	}
	sleeping := func() bool {
		return slices.ContainsFunc(l.processes(), func(pid int) bool {
			line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			return err == nil && strings.HasPrefix(string(line), "sleep\x001000")
		})
	}
	eventually(l.t, 10*time.Second, l.user.name+": the command runs", sleeping)
	if err := hanging.Process.Kill(); err != nil {
		l.t.Fatal(err)
	}
	hanging.Wait() // killed
	eventually(l.t, 10*time.Second, l.user.name+": the command has ended", func() bool { return !sleeping() })
}

// However it ends, nothing of it is left.
func labLeavesNothing(t *testing.T) {
	before := labOutside(t)
	for _, user := range labUsers(t) {
		for _, s := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
			for _, keep := range [][]string{nil, {"--keep"}} {
				l := startLab(t, user, keep...)
				l.waitSaid(30*time.Second, `lb0\d is active`)
				if n := len(l.processes()); n < 4 {
					t.Errorf("%s: %d processes: outer, init, laboratory and two nodes are expected", user.name, n)
				}
				if err := l.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
					t.Fatal(err)
				}
				if code := l.waitEnd(20 * time.Second); code == 0 {
					t.Errorf("%s: after %v the exit code is 0", user.name, s)
				}
			}
		}
	}
	if after := labOutside(t); after != before {
		t.Errorf("outside there was\n%s\nand is\n%s", before, after)
	}
}
