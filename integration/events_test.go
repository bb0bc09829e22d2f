package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"appliance/internal/control"
	"appliance/internal/lab"
)

// events returns a node's events of a kind, all of them for "", as `applianctl
// events --json` prints them.
func (p *pair) events(n *lab.Node, kind string) []control.Event {
	p.t.Helper()
	code, output := p.applianctl(n, "events", "--json", "--last", "0")
	if code != 0 {
		p.t.Fatalf("%s$ applianctl events ended with code %d: %s", n.Name, code, output)
	}
	var list []control.Event
	for line := range strings.Lines(output) {
		var e control.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			p.t.Fatalf("%s$ applianctl events --json printed %q: %v", n.Name, line, err)
		}
		if kind == "" || string(e.Kind) == kind {
			list = append(list, e)
		}
	}
	return list
}

// tells waits until a node's events of a kind have one that contains all of the
// words, and returns it.
func (p *pair) tells(n *lab.Node, kind string, words ...string) (found control.Event) {
	p.t.Helper()
	eventually(p.t, 20*time.Second, n.Name+" tells of "+kind+" with "+strings.Join(words, ", "), func() bool {
		for _, e := range p.events(n, kind) {
			if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(e.Text, w) }) {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

// Every transition is told with its cause: whose command, which demotion, how
// many adverts were missed. It is still told after a kill -9.
func TestEventsTellTheCauses(t *testing.T) {
	t.Parallel()
	p := newPair(t, labConfig(t))
	p.start()
	p.tells(p.LB01, "start", "started with "+lab.ConfigPath)
	p.tells(p.LB01, "transition", "fault -> backup: ready")
	p.tells(p.LB01, "transition", "backup -> active: no active router heard for")

	p.failover(p.LB01)
	e := p.tells(p.LB01, "transition", "active -> backup: failover by command of root")
	if e.Subject != "vrrp VI_1" || e.Details["from"] != "active" || e.Details["to"] != "backup" || time.Since(e.Time) > time.Minute {
		t.Errorf("%+v", e)
	}
	p.tells(p.LB02, "transition", "backup -> active: 192.168.15.11 resigned")

	if code, output := p.applianctl(p.LB01, "failback"); code != 0 {
		t.Fatalf("failback: %s", output)
	}
	p.tells(p.LB01, "transition", "failback from 192.168.15.12 by command of root")
	p.tells(p.LB02, "transition", "192.168.15.11 is active with priority 100, this node's is 90")

	// Only lb01 loses its servers.
	p.setServers(p.LB01, "maint")
	p.tells(p.LB01, "command", "set to maint by command of root")
	p.tells(p.LB01, "demotion", "demoted by 11: service web: no usable server in pool web")
	p.waitActive(p.LB02)
	p.tells(p.LB02, "transition", "192.168.15.11 is demoted by 11 and this node by 0, for")
	p.tells(p.LB01, "transition", "this node's is 89: 100 less 11 for service web (no usable server in pool web)")
	p.setServers(p.LB01, "ready")
	p.tells(p.LB01, "demotion_end", "service web")

	p.Servers[0].Kill()
	p.tells(p.LB02, "server_down", "by its http check", "refused")
	if err := p.Servers[0].Start(); err != nil {
		t.Fatal(err)
	}
	p.tells(p.LB02, "server_up", "by its http check")

	if err := p.Cut(p.LB02.Host, lab.LAN, lab.Unplugged); err != nil {
		t.Fatal(err)
	}
	told := p.tells(p.LB01, "transition", "no advert from 192.168.15.12 for", " missed, one is due every 100ms")
	if !regexp.MustCompile(`: ([3-9]|\d\d+) missed`).MatchString(told.Text) {
		t.Errorf("%q, want 3 missed or more", told.Text)
	}
	p.tells(p.LB02, "fault", "interface eth0: the interface has no carrier")
	if err := p.Heal(p.LB02.Host, lab.LAN); err != nil {
		t.Fatal(err)
	}
	p.tells(p.LB02, "transition", "ready: the fault interface eth0 is over")

	if code, _ := p.applianctl(p.LB01, "reload"); code != 0 {
		t.Error("reload failed")
	}
	p.tells(p.LB01, "reload", "reloaded by command of root")
	if err := p.LB01.WriteConfig("nonsense = 1\n" + labConfig(t)); err != nil {
		t.Fatal(err)
	}
	p.applianctl(p.LB01, "reload")
	p.tells(p.LB01, "reload_refused", "by command of root refused", "nonsense")
	if err := p.LB01.WriteConfig(labConfig(t)); err != nil {
		t.Fatal(err)
	}

	before := p.events(p.LB01, "")
	last := before[len(before)-1].Seq
	eventually(t, 10*time.Second, "the events are written", func() bool {
		text, err := os.ReadFile(p.LB01.Path(lab.EventsPath))
		return err == nil && strings.Contains(string(text), fmt.Sprintf("\n{\"seq\":%d,", last))
	})
	if err := p.LB01.Kill(); err != nil {
		t.Fatal(err)
	}
	p.waitActive(p.LB02)
	// The crash cut a line off.
	file, err := os.OpenFile(p.LB01.Path(lab.EventsPath), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(`{"seq":1000,"kind":"tran`); err != nil {
		t.Fatal(err)
	}
	file.Close()
	p.startNode(p.LB01)
	after := p.events(p.LB01, "")
	if len(after) <= len(before) {
		t.Fatalf("%d events before the kill, %d after the restart", len(before), len(after))
	}
	for i, e := range before {
		if after[i].Seq != e.Seq || after[i].Text != e.Text || !after[i].Time.Equal(e.Time) {
			t.Errorf("event %d was %+v before the kill and is %+v", i, e, after[i])
		}
	}
	// Something may have happened before the kill still.
	restart := len(before) + slices.IndexFunc(after[len(before):], func(e control.Event) bool { return e.Kind == "start" })
	if restart < len(before) {
		t.Fatalf("no start is told after the restart: %+v", after[len(before):])
	}
	if e := after[restart]; !strings.Contains(e.Text, "ended without a word") || e.Seq != last+1+uint64(restart-len(before)) {
		t.Errorf("the start is told by %+v", e)
	}
}

// Who follows hears of what happens, and of the stop, which he does not hold up.
func TestEventsAreFollowed(t *testing.T) {
	t.Parallel()
	p := newPair(t, labConfig(t))
	if err := p.LB01.StartAppliance(); err != nil {
		t.Fatal(err)
	}
	p.waitActive(p.LB01)
	cmd := p.LB01.Command("applianctl", "events", "--follow", "--last", "1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	process, err := p.LB01.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	// The latest one comes at once: from here on it follows.
	if line := <-lines; line == "" {
		t.Error("the first line is empty")
	}
	if code, output := p.applianctl(p.LB01, "reload"); code != 0 {
		t.Fatal(output)
	}
	for line := range lines {
		if strings.Contains(line, "reloaded by command of root") {
			break
		}
	}
	stopping := time.Now()
	if err := p.LB01.Terminate(p.within(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	took, last := time.Since(stopping), ""
	for line := range lines {
		last = line
	}
	if !strings.HasSuffix(last, "stopped") {
		t.Errorf("the last it heard: %q", last)
	}
	<-process.Done()
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("it ended with code %d, want 3: no appliance runs", code)
	}
	t.Logf("the stop took %v", took.Round(time.Millisecond))
	if code, output := p.applianctl(p.LB01, "events"); code != 3 {
		t.Errorf("without an appliance: code %d, %s", code, output)
	}
}

// A full disk is a warning and no more: the history goes on in memory, nothing
// else notices, and when there is room it is written again.
func TestEventsOnAFullDisk(t *testing.T) {
	t.Parallel()
	p := newPair(t, labConfig(t))
	const disk = "/run/appliance/state"
	for _, step := range []func() error{
		func() error { return os.Mkdir(disk, 0o755) },
		func() error { return unix.Mount("tmpfs", disk, "tmpfs", 0, "size=16k") },
	} {
		if err := p.LB01.Do(step); err != nil {
			t.Fatal(err)
		}
	}
	filler := p.LB01.Path(disk + "/filler")
	if err := os.WriteFile(filler, make([]byte, 12<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := p.LB01.Command("applianctl", "run", "--config", lab.ConfigPath, "--events", disk+"/events.jsonl")
	if _, err := p.LB01.Start(cmd); err != nil {
		t.Fatal(err)
	}
	p.waitActive(p.LB01)
	for range 40 { // more than a page
		if code, output := p.applianctl(p.LB01, "reload"); code != 0 {
			t.Fatal(output)
		}
	}
	eventually(t, 20*time.Second, "status shows that the disk is full", func() bool {
		s := p.status(p.LB01).Events
		return s.Path == disk+"/events.jsonl" && strings.Contains(s.Error, "no space")
	})
	before := p.events(p.LB01, "")
	if got := p.events(p.LB01, "reload"); len(got) != 40 {
		t.Errorf("%d of 40 reloads are in memory", len(got))
	}
	if s := p.status(p.LB01).VRRP[0]; s.State != "active" || s.Counters["transitions"] != 2 {
		t.Errorf("%s after %d transitions", s.State, s.Counters["transitions"])
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "all events are in the file", func() bool {
		text, err := os.ReadFile(p.LB01.Path(disk + "/events.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(text), "\n") >= len(before)
	})
	eventually(t, 10*time.Second, "status says nothing of a full disk", func() bool { return p.status(p.LB01).Events.Error == "" })
}
