package integration

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"appliance/internal/control"
	"appliance/internal/lab"
)

// badConfigText has a mistake in most of its lines.
const badConfigText = `[node.lb01]
address  = "192.168.15.11"
priority = 100
color    = "red"
[node.lb02]
address  = "192.168.15.12"
priority = 90

[handover]
drain = 5

[[vrrp]]
name              = "VI_1"
virtual_router_id = "50"
addresses         = ["192.168.15.3/24", "192.168.15.300/24"]
advert_intervall  = "100ms"
priority          = { lb01 = 100, lb02 = 50, lb03 = 80 }
track             = [{ service = "web", weight = 20 }]

[[l7]]
name   = "web"
listen = ["192.168.15.3:80", "192.168.15.3:443"]
pool   = "webb"

[l7.tls]
certificates = [{ cert = "a.pem", key = "b.key" },
                { cert = "a.pem", key = "missing.key" }]

[[l4]]
name     = "relay"
listen   = ["192.168.15.3:80"]
pool     = "web"
timeouts = { idle = "8 hours" }

[pool.web]
balance = "fastest"
servers = [{ name = "web1", address = "172.16.1.51:80", weight = "2" },
           { name = "web2", address = "172.16.1.52" }]
check   = { type = "http", interval = "500ms", timeout = "1s" }
`

// badConfigLines are all that is to be said about badConfigText; FILE and DIR
// stand for the file and its folder.
const badConfigLines = `FILE:4:1: node.lb01.color: unknown key; known here: address, priority, keepalived
FILE:10:1: handover.drain: want a string such as "250ms", got integer
FILE:14:1: vrrp[0].virtual_router_id: want an integer, got string
FILE:15:41: vrrp[0].addresses[1]: "192.168.15.300/24" is not an address such as "192.168.15.3/24"
FILE:16:1: vrrp[0].advert_intervall: unknown key; did you mean advert_interval?
FILE:17:46: vrrp[0].priority.lb03: there is no node lb03; did you mean lb01?
FILE:18:1: vrrp[0].track: can never move the addresses: all weights together take 20 off lb01's 100, which must fall below lb02's 50; more than 50 is needed
FILE:22:11: l7[0].listen[0]: 192.168.15.3:80 is taken by l4[0].listen[0], service relay
FILE:23:1: l7[0].pool: there is no pool webb; did you mean web?
FILE:26:35: l7[0].tls.certificates[0].key: DIR/b.key: this key does not match the certificate DIR/a.pem
FILE:27:35: l7[0].tls.certificates[1].key: open DIR/missing.key: no such file or directory
FILE:33:14: l4[0].timeouts.idle: "8 hours" is not a duration such as "250ms", "3s" or "1h30m"
FILE:36:1: pool.web.balance: unknown balance "fastest"; known: round_robin, least_conn, random2, source_hash, first
FILE:37:57: pool.web.servers[0].weight: want an integer, got string
FILE:38:29: pool.web.servers[1].address: "172.16.1.52" is not an address with a port, such as 172.16.1.51:3306
FILE:39:48: pool.web.check.timeout: the timeout must be positive and no longer than the interval, so that checks never pile up
`

// badConfigExpected returns badConfigLines for a file.
func badConfigExpected(file string) string {
	return strings.NewReplacer("FILE", file, "DIR", filepath.Dir(file)).Replace(badConfigLines)
}

// badConfigHost returns a machine that has nothing but the appliance's program
// and what badConfigText refers to.
func badConfigHost(t *testing.T, name string) *lab.Host {
	t.Helper()
	h, err := lab.NewHost(name, os.Getenv(binaryVariable))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	badConfigFiles(t, h)
	return h
}

func badConfigFiles(t *testing.T, h *lab.Host) {
	t.Helper()
	certA, _ := newCertificate(t, "a.example")
	_, keyB := newCertificate(t, "b.example")
	for path, data := range map[string][]byte{"bad.toml": []byte(badConfigText), "a.pem": certA, "b.key": keyB} {
		if err := h.WriteFile("/run/appliance/"+path, data); err != nil {
			t.Fatal(err)
		}
	}
}

// badConfigRun runs applianctl on a host and returns its exit code with what it
// wrote to standard output and to standard error.
func badConfigRun(t *testing.T, h *lab.Host, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, problems strings.Builder
	cmd := h.Command("applianctl", args...)
	cmd.Stdout, cmd.Stderr = &out, &problems
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var exit *exec.ExitError
	if err := h.Run(ctx, cmd); err != nil && !errors.As(err, &exit) {
		t.Fatalf("applianctl %s: %v", strings.Join(args, " "), err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), problems.String()
}

// All problems of a file are told at once, each with its place and its key, by
// the verb that only looks and by the one that would run it.
func TestBadConfigIsExplained(t *testing.T) {
	t.Parallel()
	const file = "/run/appliance/bad.toml"
	h := badConfigHost(t, "lb01")
	for _, verb := range []string{"check", "run"} {
		code, stdout, stderr := badConfigRun(t, h, verb, "--config", file)
		if want := badConfigExpected(file); code != 1 || stdout != "" || stderr != want {
			t.Errorf("%s: exit code %d, want 1; standard output %q, want none; standard error:\n%s\nwant:\n%s", verb, code, stdout, stderr, want)
		}
	}
}

// A file that does not say who this machine is tells who it could be.
func TestBadConfigUnknownNode(t *testing.T) {
	t.Parallel()
	const file = "/run/appliance/appliance.toml"
	h := badConfigHost(t, "elsewhere")
	if err := h.WriteFile(file, []byte(patientConfig(t))); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--node", "lb09"}, "applianctl: " + file + " has no node lb09; its nodes: lb01, lb02; choose one with --node\n"},
		{nil, "applianctl: " + file + " has no node called like this host, elsewhere; its nodes: lb01, lb02; say which one this is with --node\n"},
	} {
		for _, verb := range []string{"check", "run"} {
			code, stdout, stderr := badConfigRun(t, h, append([]string{verb, "--config", file}, tt.args...)...)
			if code != 1 || stdout != "" || stderr != tt.want {
				t.Errorf("%s %v: exit code %d, want 1; standard output %q; standard error %q, want %q", verb, tt.args, code, stdout, stderr, tt.want)
			}
		}
	}
	if code, stdout, stderr := badConfigRun(t, h, "check", "--config", file, "--node", "lb02"); code != 0 || stderr != "" || !strings.Contains(stdout, "node lb02") {
		t.Errorf("check as lb02: exit code %d, want 0; %q, %q", code, stdout, stderr)
	}
}

// A reload of a bad file changes nothing on a pair at work, and says why.
func TestBadConfigReload(t *testing.T) {
	t.Parallel()
	p := newPair(t, patientConfig(t))
	p.start()
	load := p.load(100, 80, 8080)
	before := map[*lab.Node]control.Status{p.LB01: p.status(p.LB01), p.LB02: p.status(p.LB02)}
	from := time.Now()

	for _, n := range p.Nodes() {
		badConfigFiles(t, n.Host)
		if err := n.WriteConfig(badConfigText); err != nil {
			t.Fatal(err)
		}
		problems := badConfigExpected(lab.ConfigPath)
		code, output := p.applianctl(n, "reload")
		if want := "applianctl: reload refused, the old configuration stays in force:\n" + problems; code != 1 || output != want {
			t.Errorf("%s: reload: exit code %d, want 1; it said:\n%s\nwant:\n%s", n.Name, code, output, want)
		}
		if got := p.status(n).Config.Error; got+"\n" != problems {
			t.Errorf("%s: config.error is %q, want %q", n.Name, got, problems)
		}
		if _, table := p.applianctl(n, "status"); !strings.Contains(table, "the latest reload was refused") || !strings.Contains(table, "there is no pool webb") {
			t.Errorf("%s: the status does not tell of the refusal:\n%s", n.Name, table)
		}

		// Each of these is refused as well, by signal as by command.
		for _, bad := range []struct{ what, text, says string }{
			{"a broken line", patientConfig(t) + "\n[pool.web\n", "expected '.' or ']'"},
			{"an empty file", "", "there is nothing to do"},
			{"no text at all", "\x00\xff\xfe\x01", "NULL bytes"},
			{"this node is gone", strings.ReplaceAll(patientConfig(t), "[node."+n.Name+"]", "[node.lb07]"), "no node called like this host"},
			{"another socket", patientConfig(t) + "\n[admin]\nsocket = \"/run/appliance/other.sock\"\n", "restart"},
			{"a network that is missing", strings.ReplaceAll(patientConfig(t), "192.168.15.3/24", "10.9.8.7/24"), "10.9.8.7"},
		} {
			if err := n.WriteConfig(bad.text); err != nil {
				t.Fatal(err)
			}
			if err := n.Appliance().Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			eventually(t, 10*time.Second, n.Name+": the reason for refusing "+bad.what, func() bool {
				return strings.Contains(p.status(n).Config.Error, bad.says)
			})
			if code, output := p.applianctl(n, "reload"); code != 1 || !strings.Contains(output, bad.says) {
				t.Errorf("%s: reload of %s: exit code %d, want 1 and %q; it said:\n%s", n.Name, bad.what, code, bad.says, output)
			}
		}
		if err := os.Remove(n.Path(lab.ConfigPath)); err != nil {
			t.Fatal(err)
		}
		if code, output := p.applianctl(n, "reload"); code != 1 || !strings.Contains(output, "no such file") {
			t.Errorf("%s: reload without a file: exit code %d, want 1; it said:\n%s", n.Name, code, output)
		}
	}
	p.waitRequests(load, 50)
	to := time.Now()
	load.Stop()

	if r := load.Report(from, to); r.Failures() > 0 {
		t.Errorf("%d requests: %s, first: %v", r.Requests, r, r.FirstError)
	}
	if gap := p.advertGap(p.LB01, from, to); gap > threeAdverts {
		t.Errorf("the active node sent no advert for %v, which is more than 3 intervals", gap)
	}
	for n, was := range before {
		now := p.status(n)
		if now.Config.SHA256 != was.Config.SHA256 || !now.Config.Loaded.Equal(was.Config.Loaded) {
			t.Errorf("%s: the configuration in force is %s of %v, was %s of %v", n.Name, now.Config.SHA256, now.Config.Loaded, was.Config.SHA256, was.Config.Loaded)
		}
		if a, b := was.VRRP[0], now.VRRP[0]; a.State != b.State || !a.Since.Equal(b.Since) || a.Counters["transitions"] != b.Counters["transitions"] {
			t.Errorf("%s was %s since %v, is %s since %v because %s", n.Name, a.State, a.Since, b.State, b.Since, b.Reason)
		}
		for i, pool := range was.Pools {
			for j, server := range pool.Servers {
				if s := now.Pools[i].Servers[j]; s.Name != server.Name || s.Health != server.Health || !s.Since.Equal(server.Since) {
					t.Errorf("%s: server %s was %s since %v, is %s since %v", n.Name, server.Name, server.Health, server.Since, s.Health, s.Since)
				}
			}
		}
		// A good file is taken, and nothing is held against it.
		if err := n.WriteConfig(patientConfig(t) + "\n# changed\n"); err != nil {
			t.Fatal(err)
		}
		if code, output := p.applianctl(n, "reload"); code != 0 || output != "reloaded\n" {
			t.Errorf("%s: reload of a good file: exit code %d, %q", n.Name, code, output)
		}
		if s := p.status(n); s.Config.Error != "" || s.Config.SHA256 == was.Config.SHA256 {
			t.Errorf("%s: after a reload of a good file config.error is %q, sha256 %s", n.Name, s.Config.Error, s.Config.SHA256)
		}
	}
}
