package integration

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"appliance/internal/lab"
)

const sshConfig = nodesConfig + `
[[l4]]
name    = "ssh"
listen  = ["192.168.15.3:1122"]
servers = ["172.16.1.51:22"]
check   = { type = "tcp" }
`

// The places of the SSH files, on the host that they belong to.
const (
	sshDir        = "/run/ssh"
	sshHostKey    = sshDir + "/host_key"
	sshUserKey    = sshDir + "/user_key"
	sshKnownHosts = sshDir + "/known_hosts"
)

// SSH through the virtual address is SSH: a login by key to the server that
// proves to be itself, commands with their exit codes, files both ways.
func TestSSH(t *testing.T) {
	t.Parallel()
	sshd := need(t, "sshd", "openssh-server")
	for _, program := range []string{"ssh", "scp", "ssh-keygen"} {
		need(t, program, "openssh-client")
	}
	if !sshUsersMapped() {
		t.Skip("sshd leaves root's rights behind for a user that this sandbox does not have; run the tests as root")
	}
	p := newPair(t, sshConfig)
	server := p.Servers[0].Host
	_, log := sshStart(p, server, sshd)
	p.start()
	p.waitUp("ssh", "172.16.1.51:22")

	// The server speaks first, to a client that has said nothing.
	c, err := p.Client.Dial(p.within(10*time.Second), p.targets(1122)[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if banner, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(banner, "SSH-2.0-") {
		t.Errorf("the banner is %q, %v", banner, err)
	}

	out, err := sshRun(p, "ssh", "-p", "1122", "root@192.168.15.3", "hostname; echo $SSH_CONNECTION; exit 7")
	if err == nil || err.Error() != "exit status 7" {
		t.Fatalf("ssh: %v, want the command's exit status 7; it wrote:\n%s", err, out)
	}
	lines := strings.Split(out, "\n")
	if lines[0] != "web1" || len(lines) < 2 || !strings.HasPrefix(lines[1], "172.16.1.11 ") {
		t.Errorf("the command wrote:\n%s\nwant to be on web1, connected from lb01 (172.16.1.11)", out)
	}
	for _, line := range []string{"Connection from 172.16.1.11 port ", "Accepted publickey for root from 172.16.1.11 "} {
		if text, err := os.ReadFile(log); err != nil || !bytes.Contains(text, []byte(line)) {
			t.Errorf("no %q in the server's log (%v):\n%s", line, err, text)
		}
	}

	const size = 100 << 20
	dir := t.TempDir()
	sent, there, back := filepath.Join(dir, "sent"), filepath.Join(dir, "there"), filepath.Join(dir, "back")
	sum := sshMakeFile(t, sent, size)
	for _, way := range [][2]string{{sent, "root@192.168.15.3:" + there}, {"root@192.168.15.3:" + there, back}} {
		begun := time.Now()
		if out, err := sshRun(p, "scp", "-q", "-P", "1122", way[0], way[1]); err != nil {
			t.Fatalf("scp %s %s: %v\n%s", way[0], way[1], err, out)
		}
		t.Logf("100 MiB in %v", time.Since(begun).Round(time.Millisecond))
	}
	for _, path := range []string{there, back} {
		if got := sshSumOf(t, path); got != sum {
			t.Errorf("%s has SHA-256 %x, the file sent %x", path, got, sum)
		}
	}
	eventually(t, 10*time.Second, "lb01 has counted the bytes of both files", func() bool {
		s := p.status(p.LB01).Services[0]
		return s.BytesIn >= size && s.BytesOut >= size
	})
}

// sshUsersMapped reports whether there are users besides root in the sandbox:
// sshd changes to one of its own before it trusts a client.
func sshUsersMapped() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	fields := strings.Fields(string(text))
	return err == nil && len(fields) == 3 && len(fields[2]) > 4
}

// sshStart makes keys, hands the public ones out, and starts sshd at port 22 of
// the server, which ends with the test. It returns the path of its log as well.
func sshStart(p *pair, server *lab.Host, program string) (process *lab.Process, log string) {
	p.t.Helper()
	// A folder of sshd's own is where Debian's has its unprivileged half.
	for _, dir := range []string{server.Path(sshDir), p.Client.Path(sshDir), server.Path("/run/sshd")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			p.t.Fatal(err)
		}
	}
	hostKey := sshKey(p, server, sshHostKey)
	userKey := sshKey(p, p.Client, sshUserKey)
	config := strings.Join([]string{
		"ListenAddress 172.16.1.51:22",
		"HostKey " + sshHostKey,
		"AuthorizedKeysFile " + sshDir + "/authorized_keys",
		"PermitRootLogin prohibit-password",
		"PasswordAuthentication no",
		"UsePAM no",
		"PidFile none",
		"LogLevel VERBOSE",
		"Subsystem sftp internal-sftp",
	}, "\n") + "\n"
	for _, f := range []struct {
		host       *lab.Host
		path, text string
	}{
		{server, sshDir + "/sshd_config", config},
		{server, sshDir + "/authorized_keys", userKey},
		{p.Client, sshKnownHosts, "[192.168.15.3]:1122 " + hostKey},
	} {
		if err := f.host.WriteFile(f.path, []byte(f.text)); err != nil {
			p.t.Fatal(err)
		}
	}

	log = filepath.Join(p.t.TempDir(), "sshd.log")
	process, err := server.Start(server.Command(program, "-D", "-E", log, "-f", sshDir+"/sshd_config"))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { killTree(process) })
	waitAccepting(p.t, server, netip.MustParseAddrPort("172.16.1.51:22"), process)
	return process, log
}

// sshKey makes a key on a host and returns its public half.
func sshKey(p *pair, h *lab.Host, path string) string {
	p.t.Helper()
	if _, err := h.Output(p.within(time.Minute), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path); err != nil {
		p.t.Fatal(err)
	}
	text, err := os.ReadFile(h.Path(path + ".pub"))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text)
}

// sshRun runs ssh or scp on the client with its key. The server must have the
// key that the client knows; nothing is asked, and no file of the user is read.
func sshRun(p *pair, program string, args ...string) (output string, err error) {
	var out strings.Builder
	cmd := sshCommand(p, program, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err = p.Client.Run(p.within(time.Minute), cmd)
	return out.String(), err
}

// sshCommand is what sshRun runs.
func sshCommand(p *pair, program string, args ...string) *exec.Cmd {
	options := []string{"-F", "none", "-i", sshUserKey}
	for _, o := range []string{"BatchMode=yes", "IdentitiesOnly=yes", "IdentityAgent=none",
		"StrictHostKeyChecking=yes", "UserKnownHostsFile=" + sshKnownHosts, "GlobalKnownHostsFile=none"} {
		options = append(options, "-o", o)
	}
	return p.Client.Command(program, append(options, args...)...)
}

// sshMakeFile writes a file of size bytes that nothing compresses and returns
// its SHA-256.
func sshMakeFile(t *testing.T, path string, size int64) (sum [sha256.Size]byte) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(f, hash), rand.NewChaCha8([32]byte{1}), size); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(hash.Sum(nil))
}

func sshSumOf(t *testing.T, path string) (sum [sha256.Size]byte) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(hash.Sum(nil))
}
