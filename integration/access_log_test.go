package integration

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

const accessLogConfig = `
[[l7]]
name       = "json"
listen     = ["127.0.0.1:81"]
access_log = "access.log"
[[l7.route]]
respond = { body = "hello" }

[[l7]]
name       = "combined"
listen     = ["127.0.0.1:82"]
access_log = { path = "access.log", format = "combined" }
[[l7.route]]
respond = { body = "hello" }

[[l7]]
name       = "full"
listen     = ["127.0.0.1:83"]
access_log = "/dev/full"
[[l7.route]]
respond = { body = "hello" }

[[l7]]
name       = "journal"
listen     = ["127.0.0.1:84"]
access_log = { path = "stdout", format = "common" }
[[l7.route]]
respond = { body = "hello" }
`

// Requests are logged in the form that was asked for, in files that are rotated;
// a full disk harms no request, and is told.
func TestAccessLog(t *testing.T) {
	t.Parallel()
	curl := need(t, "curl", "curl")
	a := newAlone(t)
	a.start(accessLogConfig)
	ask := func(urls ...string) {
		t.Helper()
		if got := a.run(curl, append([]string{"-qsS", "-A", "me \"too\"", "-e", "http://from/"}, urls...)...); got != strings.Repeat("hello", len(urls)) {
			t.Fatalf("%q", got)
		}
	}
	ask("http://127.0.0.1:81/a?b=c", "http://127.0.0.1:82/%22x")
	rename := func(from, to string) {
		t.Helper()
		if err := os.Rename(a.Path("/run/appliance/"+from), a.Path("/run/appliance/"+to)); err != nil {
			t.Fatal(err)
		}
	}
	// A line follows its answer, and is written in a while.
	eventually(t, 30*time.Second, "both requests are logged", func() bool { return strings.Count(a.read("access.log"), "\n") == 2 })
	rename("access.log", "access.log.1")
	if got := a.command("reopen"); got != "reopened\n" {
		t.Errorf("reopen: %q", got)
	}
	lines := strings.Split(a.read("access.log.1"), "\n")
	if len(lines) != 3 {
		t.Fatalf("%q", lines)
	}
	var first map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"service": "json", "client": "127.0.0.1", "method": "GET", "target": "/a?b=c", "host": "127.0.0.1:81", "status": 200.0, "bytes_out": 5.0,
		"protocol": "HTTP/1.1", "user_agent": "me \"too\"", "referer": "http://from/", "end": "own",
	} {
		if first[key] != want {
			t.Errorf("%s is %v, want %v", key, first[key], want)
		}
	}
	at, err := time.Parse(time.RFC3339, first["time"].(string))
	if ago := time.Since(at); err != nil || ago < 0 || ago > time.Minute {
		t.Errorf("time: %v, %v", first["time"], err)
	}
	if !strings.HasPrefix(lines[1], "127.0.0.1 - - [") || !strings.HasSuffix(lines[1], `] "GET /%22x HTTP/1.1" 200 5 "http://from/" "me \x22too\x22"`) {
		t.Errorf("combined: %s", lines[1])
	}

	// The other ways to rotate.
	for _, rotate := range []func(){
		func() { a.command("reload") },
		func() { _ = a.process.Signal(syscall.SIGUSR1) },
		func() { _ = a.process.Signal(syscall.SIGHUP) },
		func() {}, // it is noticed
	} {
		rename("access.log", "access.log.2")
		rotate()
		eventually(t, 30*time.Second, "a new file has lines", func() bool {
			ask("http://127.0.0.1:81/new")
			return strings.Contains(a.read("access.log"), "/new")
		})
	}

	ask("http://127.0.0.1:83/", "http://127.0.0.1:84/journal")
	eventually(t, 30*time.Second, "the full disk is told", func() bool {
		for _, l := range a.status().AccessLogs {
			if l.Path == "/dev/full" {
				return l.Dropped == 1 && l.Lines == 0 && strings.Contains(l.Error, "no space")
			}
		}
		return false
	})
	if got := a.command("status"); !strings.Contains(got, "access log /dev/full: 1 lines DROPPED, 0 written; it cannot be written: write /dev/full: no space left on device") {
		t.Errorf("status:\n%s", got)
	}
	ask("http://127.0.0.1:81/last")
	a.stop()
	if !strings.HasSuffix(strings.TrimSpace(a.read("access.log")), "}") || !strings.Contains(a.read("access.log"), "/last") {
		t.Error("the last line is missing")
	}
	log := a.read("run.log")
	for _, want := range []string{"the access log cannot be written: lines are dropped", `"GET /journal HTTP/1.1" 200 5`} {
		if !strings.Contains(log, want) {
			t.Errorf("the appliance's log does not have %s", want)
		}
	}
}
