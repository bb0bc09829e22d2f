package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"appliance/internal/control"
)

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("refused"), exitFailed},
		{fmt.Errorf("%w: unknown flag", errUsage), exitUsage},
		{fmt.Errorf("socket: %w", control.ErrNotRunning), exitNotRunning},
		{exitError{7}, 7},
	} {
		if got := report(c.err); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
	}
}

func TestWrongCommandLinesAreUsageErrors(t *testing.T) {
	for _, line := range []string{
		"status extra", "status --nonsense", "nonsense", "server ready", "server ready mysql",
		"server on mysql/db1", "run --log-level loud", "run --log-format xml", "failover VI_1", "events extra", "events --last x", "events --last -1",
	} {
		c := newRootCommand()
		c.SetArgs(append(strings.Fields(line), "--socket", t.TempDir()+"/none.sock"))
		if err := c.ExecuteContext(t.Context()); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v, want a usage error", line, err)
		}
	}
}

func TestStatusTableTellsWhatMatters(t *testing.T) {
	now := time.Now()
	var out strings.Builder
	err := renderStatus(&out, control.Status{
		Node: "lb01", Version: "1.2.3", Started: now, Ready: true,
		Config: control.Config{Path: "/etc/appliance/appliance.toml", SHA256: "0123456789abcdef", Loaded: now, Error: "file:1:1: wrong"},
		VRRP: []control.VRRP{{
			Name: "VI_1", VRID: 50, Interface: "eth0", State: "backup", Since: now, Reason: "failover by command",
			Addresses: []string{"192.168.15.3/24"}, BasePriority: 100, Priority: 70, Yielded: true,
			ActiveRouter: &control.Router{Address: "192.168.15.12", Priority: 90},
			Demotions:    []control.Condition{{Source: "service mysql", Amount: 30, Reason: "no usable server in pool mysql", Since: now}},
			Faults:       []control.Condition{{Source: "interface eth1", Reason: "the interface has no carrier", Since: now}},
		}},
		Services: []control.Service{{Name: "mysql", Layer: 4, Listen: []string{"192.168.15.3:3306"}, Fault: "too many open files", BytesIn: 3 << 20},
			{Name: "web", Layer: 7, Certificates: []control.Certificate{{Path: "old.pem", NotAfter: now.Add(-time.Hour)}, {Path: "soon.pem", NotAfter: now.Add(73 * time.Hour)},
				{Path: "good.pem", NotAfter: now.Add(999 * time.Hour)}}}},
		Pools: []control.Pool{{Name: "mysql", Servers: []control.Server{{
			Name: "db1", Address: "172.16.1.51:3306", Health: "down", Admin: "drain", Weight: 2, Backup: true,
			Check: "connection refused", LatencySeconds: 0.0012,
		}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"lb01", "1.2.3", "0123456789ab", "file:1:1: wrong", "BACKUP (yielded)", "70 of 100", "192.168.15.12 (priority 90)",
		"failover by command", "demoted by 30: service mysql: no usable server in pool mysql", "fault: interface eth1",
		"mysql: fault: too many open files", "web: CERTIFICATE old.pem HAS EXPIRED", "web: certificate soon.pem expires in 3 days", "3.0MiB", "mysql/db1", "DOWN", "drain", "2 backup", "connection refused (1.2 ms)",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestAge(t *testing.T) {
	now := time.Now()
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m01s",
		3*time.Hour + 5*time.Minute: "3h05m", 50 * time.Hour: "2d",
	} {
		if got := age(now, now.Add(-d)); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	if got := age(now, time.Time{}); got != "-" {
		t.Errorf("never: %q", got)
	}
}

// A service that the kernel path of one node alone carries is told of.
func TestRenderPathsThatDiffer(t *testing.T) {
	peer := control.Peer{Node: "lb02", Services: []control.PeerService{{Name: "a", Path: "proxy"}, {Name: "b", Path: "kernel"}, {Name: "c"}, {Name: "d", Path: "kernel"}, {Name: "e"}}}
	services := []control.Service{{Name: "a", Path: "kernel"}, {Name: "b", Path: "kernel"}, {Name: "c"}, {Name: "d"}, {Name: "f", Path: "kernel"}}
	var out strings.Builder
	renderPaths(&out, peer, services)
	const want = "a on lb02: carried by the proxy, here by the kernel path\nd on lb02: carried by the kernel path, here by the proxy\n"
	if out.String() != want {
		t.Errorf("%q", out.String())
	}
}

// The manual page names every command and every flag, and each command that can be
// used in more than one way has an example.
func TestManualPageIsComplete(t *testing.T) {
	text, err := os.ReadFile("../../packaging/applianctl.8")
	if err != nil {
		t.Fatal(err)
	}
	page := strings.ReplaceAll(string(text), `\-`, "-")
	var judge func(c *cobra.Command)
	judge = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" {
			return
		}
		if !strings.Contains(page, c.Name()) {
			t.Errorf("the page does not name %q", c.CommandPath())
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && f.Name != "version" && !strings.Contains(page, "--"+f.Name) {
				t.Errorf("the page does not name --%s of %q", f.Name, c.CommandPath())
			}
			if f.Name != "help" && c.HasParent() && c.Name() != "lab" && c.Example == "" {
				t.Errorf("%q has --%s and no example", c.CommandPath(), f.Name)
			}
		})
		for _, sub := range c.Commands() {
			judge(sub)
		}
	}
	judge(newRootCommand())
}

// What has nothing in it takes no room.
func TestTableLeavesColumnsOut(t *testing.T) {
	var out strings.Builder
	table := newTable("NAME", "A", "B", "C")
	table.add("x", 0, "-", "0B")
	table.add("y", 0, 7, "")
	table.write(&out)
	if want := "NAME\tB\nx\t-\ny\t7\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
