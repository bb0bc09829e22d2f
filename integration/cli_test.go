package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"appliance/internal/control"
	"appliance/internal/lab"
)

// Every verb ends with a code that tells scripts how it went: 0 done, 1 failed,
// 2 wrong command line, 3 no appliance. What it has to say against it goes to
// standard error.
func TestCommandLineExitCodes(t *testing.T) {
	t.Parallel()
	h := badConfigHost(t, "lb01")
	const file = "--config=/run/appliance/appliance.toml"
	if err := h.WriteFile("/run/appliance/appliance.toml", []byte(patientConfig(t))); err != nil {
		t.Fatal(err)
	}
	// A secret that everybody may read is none.
	open := "/run/appliance/open.secret"
	if err := h.WriteFile(open, []byte(strings.Repeat("x", 40))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(h.Path(open), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := h.WriteFile("/run/appliance/open.toml", []byte(linkedConfig(t, `"peer.secret"`, `"open.secret"`))); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		want int
		args string
		says string // somewhere in what it writes
	}{
		{0, "", "Available Commands"},
		{0, "--help", "Exit codes"},
		{0, "help", "Available Commands"},
		{0, "help server", "drain"},
		{0, "version", "applianctl "},
		{0, "--version", "applianctl "},
		{0, "completion bash", "applianctl"},
		{0, "completion zsh", "applianctl"},
		{0, "completion fish", "applianctl"},
		{0, "check " + file, "node lb01"},
		{0, "check --node lb02 " + file, "node lb02"},

		{1, "check --config /run/appliance/bad.toml", "bad.toml:4:1: "},
		{1, "check --config /run/appliance/open.toml", "peer.secret_file: the secret cannot be used: /run/appliance/open.secret has mode 0644, so others may read or change it: chmod 600"},
		{0, "secret", ""},
		{1, "check --config /nowhere", "/nowhere: no such file"},
		{1, "check --node lb09 " + file, "lb01, lb02"},
		{1, "run --config /run/appliance/bad.toml", "bad.toml:4:1: "},
		{1, "run --config /nowhere", "/nowhere: no such file"},
		{1, "run --node lb09 " + file, "lb01, lb02"},
		{1, "lab exec lb01 -- true", "applianctl lab --keep"},

		{2, "chek", "chek"},
		{2, "--bogus", "--bogus"},
		{2, "version now", "now"},
		{2, "check all", "all"},
		{2, "check --nod lb01", "--nod"},
		{2, "run lb01", "lb01"},
		{2, "run --log-level loud " + file, "debug, info, warn, error"},
		{2, "run --log-format xml " + file, "text, json"},
		{2, "status all", "all"},
		{2, "status --yaml", "--yaml"},
		{2, "failover lb02", "lb02"},
		{2, "failback lb02", "lb02"},
		{2, "reload all", "all"},
		{2, "server", "server --help"},
		{2, "server drain", "server --help"},
		{2, "server drain web/web1 web/web2", "server --help"},
		{2, "server stop web/web1", "ready, drain, maint"},
		{2, "server drain web1", "POOL/SERVER"},
		{2, "server drain web/", "POOL/SERVER"},
		{2, "lab all", "all"},
		{2, "lab exec", "exec --help"},

		{3, "status", "/run/appliance/control.sock"},
		{3, "status --json", "no appliance is running"},
		{3, "status --socket /run/appliance/other.sock", "/run/appliance/other.sock"},
		{3, "failover", "no appliance is running"},
		{3, "failback", "no appliance is running"},
		{3, "reload", "no appliance is running"},
		{3, "server drain web/web1", "no appliance is running"},
	} {
		code, stdout, stderr := badConfigRun(t, h, strings.Fields(tt.args)...)
		if code != tt.want {
			t.Errorf("applianctl %s: exit code %d, want %d: %s%s", tt.args, code, tt.want, stdout, stderr)
		}
		said, silent := stdout, stderr
		if tt.want != 0 {
			said, silent = stderr, stdout
		}
		if !strings.Contains(said, tt.says) || silent != "" {
			t.Errorf("applianctl %s: want %q; standard output %.300q, standard error %.300q", tt.args, tt.says, stdout, stderr)
		}
		if tt.want == 3 && strings.Contains(stderr, "in force") {
			t.Errorf("applianctl %s speaks of a configuration, and nothing runs: %s", tt.args, stderr)
		}
	}

	// A socket that a killed appliance left behind is none.
	if err := h.Do(func() error { return cliStaleSocket("/run/appliance/control.sock") }); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := badConfigRun(t, h, "status"); code != 3 {
		t.Errorf("status at a socket that nobody serves: exit code %d, want 3: %s", code, stderr)
	}
}

// cliStaleSocket leaves a socket that nobody listens on.
func cliStaleSocket(path string) error {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	return syscall.Bind(fd, &syscall.SockaddrUnix{Name: path})
}

// What keeps an appliance from starting is said in one sentence, with the thing
// that is missing.
func TestCommandLineRunRefuses(t *testing.T) {
	t.Parallel()
	p := newPair(t, patientConfig(t)) // for the network of its nodes; nothing is started
	taken, err := p.LB01.Listen(netip.MustParseAddrPort("0.0.0.0:8080"))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := p.LB01.WriteFile("/run/appliance/file", nil); err != nil {
		t.Fatal(err)
	}
	free := patientConfig(t, "192.168.15.3:8080", "192.168.15.3:8081")
	for _, tt := range []struct {
		what, text string
		says       []string
	}{
		{"a network that is missing", strings.ReplaceAll(free, "192.168.15.3/24", "10.9.8.7/24"), []string{"VI_1", "10.9.8.7"}},
		{"an address that is taken", patientConfig(t), []string{"192.168.15.3:8080", "in use"}},
		{"a socket below a file", free + "\n[admin]\nsocket = \"/run/appliance/file/x.sock\"\n", []string{"/run/appliance/file"}},
	} {
		if err := p.LB01.WriteConfig(tt.text); err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := badConfigRun(t, p.LB01.Host, "run", "--config", lab.ConfigPath)
		if code != 1 || stdout != "" {
			t.Errorf("%s: exit code %d, want 1; standard output %q", tt.what, code, stdout)
		}
		lines := strings.Split(strings.TrimSpace(stderr), "\n")
		last := lines[len(lines)-1]
		for _, says := range append(tt.says, "applianctl: ") {
			if !strings.Contains(last, says) {
				t.Errorf("%s: %q is missing in the last line of:\n%s", tt.what, says, stderr)
			}
		}
		if entries, err := os.ReadDir(p.LB01.Path("/run/appliance")); err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool {
			return strings.Contains(e.Name(), ".sock")
		}) {
			t.Errorf("%s: a socket was left behind: %v, %v", tt.what, entries, err)
		}
	}
}

// An interface that is missing may come yet: a node waits for it, takes no part
// meanwhile, and says so.
func TestCommandLineMissingInterface(t *testing.T) {
	t.Parallel()
	p := newPair(t, strings.Replace(patientConfig(t), "preempt ", "interface = \"eth9\"\npreempt ", 1))
	p.startNode(p.LB01)
	eventually(t, 20*time.Second, "the status tells of the interface that is missing", func() bool {
		_, table := p.applianctl(p.LB01, "status")
		return regexp.MustCompile(`(?m)^VI_1 .* eth9 .* FAULT `).MatchString(table) && regexp.MustCompile(`(?m)^VI_1: fault: .*eth9`).MatchString(table)
	})
	if v := p.status(p.LB01).VRRP[0]; v.State != "fault" || v.Counters["transitions"] != 0 {
		t.Errorf("the virtual router is %s, with %d transitions", v.State, v.Counters["transitions"])
	}
}

// The verbs do on a running pair what they say, or say why not.
func TestCommandLineOnAPair(t *testing.T) {
	t.Parallel()
	p := newPair(t, patientConfig(t))
	p.start()
	expect := func(n *lab.Node, want int, says string, args ...string) string {
		t.Helper()
		code, output := p.applianctl(n, args...)
		if code != want || !strings.Contains(output, says) {
			t.Errorf("%s: applianctl %s: exit code %d, want %d and %q: %s", n.Name, strings.Join(args, " "), code, want, says, output)
		}
		return output
	}
	info, err := os.Stat(p.LB01.Path(lab.SocketPath))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 || info.Mode().Type() != os.ModeSocket {
		t.Errorf("the control socket's mode is %v, want a socket of 0600", info.Mode())
	}
	if os.Geteuid() == 0 {
		cmd := p.LB01.Command("applianctl", "status")
		var said bytes.Buffer
		cmd.Stderr = &said
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		process, err := p.LB01.Start(cmd)
		switch {
		case err != nil:
			t.Logf("another user cannot be tried here: %v", err) // no other is mapped into the user namespace
		case process.ExitCode() != 1 || !strings.Contains(said.String(), "permission denied"):
			t.Errorf("status as another user: exit code %d, want 1: %s", process.ExitCode(), said.String())
		}
	}
	expect(p.LB01, 1, "another appliance answers there", "run", "--config", lab.ConfigPath)
	expect(p.LB02, 1, "VI_1 is backup", "failover")
	expect(p.LB02, 1, "", "failover", "--vrrp", "VI_1")
	expect(p.LB01, 1, "yielded", "failback")
	expect(p.LB01, 1, "VI_9", "failover", "--vrrp", "VI_9")
	expect(p.LB01, 1, "VI_9", "failback", "--vrrp", "VI_9")
	expect(p.LB01, 1, "dns", "server", "drain", "dns/web1")
	expect(p.LB01, 1, "web9", "server", "drain", "web/web9")
	if v := p.status(p.LB01).VRRP[0]; v.State != "active" || v.Counters["transitions"] > 2 {
		t.Errorf("after what was refused lb01 is %s, with %d transitions", v.State, v.Counters["transitions"])
	}

	expect(p.LB01, 0, "lb02 (192.168.15.12) is active", "failover")
	p.waitActive(p.LB02)
	eventually(t, 10*time.Second, "lb01 has yielded", func() bool { return p.status(p.LB01).VRRP[0].Yielded })
	expect(p.LB01, 0, "BACKUP (yielded)", "status")
	var results []control.MoveResult
	output := expect(p.LB01, 0, "", "failback", "--vrrp", "VI_1", "--json")
	if err := json.Unmarshal([]byte(output), &results); err != nil || len(results) != 1 || results[0].ActiveNode != "lb01" ||
		results[0].Active != "192.168.15.11" || results[0].VRRP != "VI_1" || results[0].Seconds <= 0 {
		t.Errorf("failback --json says %s: %v", output, err)
	}
	p.waitActive(p.LB01)
	expect(p.LB01, 0, "reloaded", "reload")
}

// A server set to drain or maint gets no new connection, and keeps those it
// has, until it is set to ready.
func TestCommandLineServer(t *testing.T) {
	t.Parallel()
	p := newPair(t, patientConfig(t))
	p.start()
	load := p.load(100, 80, 8080)
	from := time.Now()
	state := func(pool, server string) control.Server {
		t.Helper()
		for _, candidate := range p.status(p.LB01).Pools {
			for _, s := range candidate.Servers {
				if candidate.Name == pool && s.Name == server {
					return s
				}
			}
		}
		t.Fatalf("there is no server %s/%s", pool, server)
		return control.Server{}
	}
	for _, verb := range []string{"drain", "maint"} {
		kept := p.dialEcho(3306)
		number := strings.TrimPrefix(kept.server, "web")
		label := "172.16.1.5" + number + ":3306"
		for _, server := range []string{"tcp/" + label, "web/" + kept.server} {
			if code, output := p.applianctl(p.LB01, "server", verb, server); code != 0 || output != server+": "+verb+"\n" {
				t.Fatalf("server %s %s: exit code %d: %s", verb, server, code, output)
			}
		}
		began := time.Now()
		if s := state("tcp", label); s.Admin != verb || s.Health != "up" || s.Current != 1 {
			t.Errorf("the server is %s, %s, with %d connections; want %s, up, 1", s.Admin, s.Health, s.Current, verb)
		}
		for range 9 {
			if other := p.dialEcho(3306); other.server == kept.server {
				t.Errorf("%s got a new connection in %s", other.server, verb)
			}
		}
		kept.say("still served")
		p.waitRequests(load, 30)
		kept.conn.Close()
		eventually(t, 10*time.Second, "the kept connection has ended", func() bool { return state("tcp", label).Current == 0 })
		ended := time.Now()
		for _, o := range load.Outcomes() {
			if o.Start.After(began) && o.End.Before(ended) && o.Server == kept.server {
				t.Errorf("%s served a request in %s", o.Server, verb)
				break
			}
		}
		for _, server := range []string{"tcp/" + label, "web/" + kept.server} {
			if code, output := p.applianctl(p.LB01, "server", "ready", server); code != 0 {
				t.Fatalf("server ready %s: exit code %d: %s", server, code, output)
			}
		}
		ready := time.Now()
		eventually(t, 10*time.Second, kept.server+" gets requests again", func() bool {
			return load.SoFar(ready).Servers[kept.server] > 0
		})
	}
	reloadNoFailures(t, load, from)
}

// The socket of a running appliance answers nonsense with an error and goes on.
func TestCommandLineSocketRefusesNonsense(t *testing.T) {
	t.Parallel()
	p := newPair(t, patientConfig(t))
	p.start()
	client := cliSocketClient(p.LB01.Path(lab.SocketPath))
	for _, tt := range []struct {
		method, path, body string
		want               int
	}{
		{"GET", "/v1/status", "", http.StatusOK},
		{"POST", "/v1/status", "{}", http.StatusMethodNotAllowed},
		{"GET", "/v1/reload", "", http.StatusMethodNotAllowed},
		{"GET", "/v1/nothing", "", http.StatusNotFound},
		{"POST", "/v1/failover", "", http.StatusBadRequest},
		{"POST", "/v1/failover", "{", http.StatusBadRequest},
		{"POST", "/v1/failover", `{"to": "lb02"}`, http.StatusBadRequest},
		{"POST", "/v1/failover", `{"vrrp": "VI_9"}`, http.StatusNotFound},
		{"POST", "/v1/failback", `{}`, http.StatusConflict},
		{"POST", "/v1/server", `{"pool": "web", "server": "web1", "state": "stop"}`, http.StatusBadRequest},
		{"POST", "/v1/server", `{"pool": "web", "server": "web9", "state": "drain"}`, http.StatusNotFound},
		{"POST", "/v1/server", `{"pool": "dns", "server": "web1", "state": "drain"}`, http.StatusNotFound},
		{"POST", "/v1/server", `{"pool": "` + strings.Repeat("x", 1<<20) + `"}`, http.StatusBadRequest},
		{"POST", "/v1/reload", `{}`, http.StatusOK},
	} {
		request, err := http.NewRequestWithContext(p.within(10*time.Second), tt.method, "http://appliance"+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatalf("%s %s: %v", tt.method, tt.path, err)
		}
		response.Body.Close()
		if response.StatusCode != tt.want {
			t.Errorf("%s %s %.60s: status %d, want %d", tt.method, tt.path, tt.body, response.StatusCode, tt.want)
		}
	}
}

// cliSocketClient speaks HTTP to a unix socket.
func cliSocketClient(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
}
