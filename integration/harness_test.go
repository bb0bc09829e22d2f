package integration

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"appliance/internal/control"
	"appliance/internal/lab"
)

// How long two nodes may answer for the virtual address at the same time.
const (
	// duringTakeOver is the moment of a take-over between two living nodes.
	duringTakeOver = 500 * time.Millisecond
	// afterFreeze is how long the address may outlive a process that was frozen,
	// or one that was killed together with its guard: the lease has ended then.
	afterFreeze = 3 * time.Second
)

// pair is a laboratory with the test it serves.
type pair struct {
	*lab.Pair
	t *testing.T
	// dual is how long two nodes may answer at the same time.
	dual time.Duration
}

// newPair builds a pair, which ends with the test. config is the text of
// appliance.toml, empty for labConfig.
func newPair(t *testing.T, config string) *pair {
	t.Helper()
	return newPairFor(t, lab.DefaultVIP, config)
}

// newPairFor is newPair for another virtual address.
func newPairFor(t *testing.T, vip netip.Addr, config string) *pair {
	t.Helper()
	if config == "" {
		config = labConfig(t)
	}
	return newPairOf(t, lab.PairOptions{Config: config, Binary: os.Getenv(binaryVariable), VIP: vip})
}

// newPairOf is newPair with all options.
func newPairOf(t *testing.T, o lab.PairOptions) *pair {
	t.Helper()
	p, err := lab.NewPair(o)
	if err != nil {
		t.Fatal(err)
	}
	made := &pair{Pair: p, t: t, dual: duringTakeOver}
	t.Cleanup(made.end)
	return made
}

// end removes the pair, and fails the test if two nodes answered for too long.
func (p *pair) end() {
	monitor, logs := p.Monitor, make(map[string]string)
	for _, n := range p.Nodes() {
		logs[n.Name] = n.Log()
	}
	// Close also tells if the monitor did not watch to the end.
	if err := p.Close(); err != nil {
		p.t.Errorf("removing the pair: %v", err)
	}
	for _, i := range monitor.DualAnswerers() {
		if i.Length() > p.dual {
			p.t.Errorf("%v answered for %s at the same time for %v, allowed are %v", i.Hosts, p.VIP, i.Length(), p.dual)
		}
	}
	if p.t.Failed() {
		for name, log := range logs {
			p.t.Logf("log of %s:\n%s", name, log)
		}
	}
}

// start starts lb01, and lb02 when lb01 is active: with both at once, a busy
// machine may make lb02 the first. It returns when lb02 is ready and a backup.
func (p *pair) start() {
	p.t.Helper()
	if err := p.LB01.StartAppliance(); err != nil {
		p.t.Fatal(err)
	}
	p.waitActive(p.LB01)
	p.startNode(p.LB02)
	eventually(p.t, 20*time.Second, "lb02 is a backup", func() bool { return p.status(p.LB02).VRRP[0].State == "backup" })
}

// startNode starts a node's appliance and waits until it is ready.
func (p *pair) startNode(n *lab.Node) {
	p.t.Helper()
	if err := n.StartAppliance(); err != nil {
		p.t.Fatal(err)
	}
	if err := p.WaitReady(p.within(30*time.Second), n); err != nil {
		p.t.Fatal(err)
	}
}

// waitActive waits until the node, and it alone, answers for the address.
func (p *pair) waitActive(n *lab.Node) {
	p.t.Helper()
	if err := p.WaitActive(p.within(20*time.Second), n); err != nil {
		p.t.Fatal(err)
	}
}

// targets returns ports of the virtual address.
func (p *pair) targets(ports ...uint16) []netip.AddrPort {
	var targets []netip.AddrPort
	for _, port := range ports {
		targets = append(targets, netip.AddrPortFrom(p.VIP, port))
	}
	return targets
}

// within returns a context that ends with the test or after d.
func (p *pair) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(p.t.Context(), d)
	p.t.Cleanup(cancel)
	return ctx
}

// status returns a node's status.
func (p *pair) status(n *lab.Node) control.Status {
	p.t.Helper()
	s, err := n.Status(p.within(10 * time.Second))
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// applianctl runs a verb on a node and returns its exit code with all it wrote.
func (p *pair) applianctl(n *lab.Node, args ...string) (code int, output string) {
	p.t.Helper()
	var out strings.Builder
	cmd := n.Command("applianctl", args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := n.Run(p.within(time.Minute), cmd)
	if err != nil && cmd.ProcessState == nil {
		p.t.Fatalf("applianctl %s: %v", strings.Join(args, " "), err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// load begins requests to ports of the virtual address, so many per second, and
// returns when the first have succeeded. It ends with the test at the latest.
func (p *pair) load(rate int, ports ...uint16) *lab.Load {
	p.t.Helper()
	l := lab.StartLoad(p.Client, lab.LoadOptions{Targets: p.targets(ports...), Rate: rate})
	p.t.Cleanup(l.Stop)
	p.waitRequests(l, rate/4)
	return l
}

// waitRequests waits until so many more requests have ended well.
func (p *pair) waitRequests(l *lab.Load, n int) {
	p.t.Helper()
	from := time.Now()
	eventually(p.t, 20*time.Second, fmt.Sprintf("%d requests that end well", n), func() bool {
		return l.SoFar(from).Kinds[lab.OK] >= n
	})
}

// waitAdverts waits until a node has sent so many more adverts. It is the clock
// of tests that show that something does not happen.
func (p *pair) waitAdverts(n *lab.Node, count int) {
	p.t.Helper()
	seen := len(p.Capture.Events())
	eventually(p.t, 30*time.Second, fmt.Sprintf("%d adverts of %s", count, n.Name), func() bool {
		sent := 0
		for _, e := range p.Capture.Events()[seen:] {
			if e.Kind == lab.Advert && e.Host == n.Name {
				sent++
			}
		}
		return sent >= count
	})
}

// holders returns the names of the nodes that have an address.
func (p *pair) holders(address netip.Addr) []string {
	p.t.Helper()
	var names []string
	for _, n := range p.Nodes() {
		has, err := n.Network.HasAddress(address)
		if err != nil {
			p.t.Fatal(err)
		}
		if has {
			names = append(names, n.Name)
		}
	}
	return names
}

// advertGap returns the longest time within from and to in which a node sent no
// advert.
func (p *pair) advertGap(n *lab.Node, from, to time.Time) (longest time.Duration) {
	last := from
	for _, e := range p.Capture.Events() {
		if e.Kind != lab.Advert || e.Host != n.Name || e.Time.Before(from) || e.Time.After(to) {
			continue
		}
		longest = max(longest, e.Time.Sub(last))
		last = e.Time
	}
	return max(longest, to.Sub(last))
}

// newCertificate makes a certificate that signs itself, for host names, and its
// key, both in PEM.
func newCertificate(t *testing.T, names ...string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: names[0]},
		DNSNames:              names,
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// peerTable is the peer link of the laboratory's own appliance.toml.
const peerTable = `[peer]
secret_file = "peer.secret"        # made by ` + "`applianctl secret`" + `, the same on both

`

// labConfig returns the laboratory's own appliance.toml with some of its text
// replaced, pairs of old and new, and without its
// peer link: most promises are kept without one.
func labConfig(t *testing.T, oldnew ...string) string {
	t.Helper()
	text := strings.Replace(lab.DefaultConfig, peerTable, "", 1)
	if text == lab.DefaultConfig {
		t.Fatal("the laboratory's file has no peer link any more")
	}
	return replaced(t, text, oldnew...)
}

// linkedConfig is labConfig with the peer link.
func linkedConfig(t *testing.T, oldnew ...string) string {
	t.Helper()
	return replaced(t, lab.DefaultConfig, oldnew...)
}

// replaced returns text with some of it replaced: pairs of old and new.
func replaced(t *testing.T, text string, oldnew ...string) string {
	t.Helper()
	for i := 0; i < len(oldnew); i += 2 {
		if !strings.Contains(text, oldnew[i]) {
			t.Fatalf("the laboratory's file does not contain %q any more", oldnew[i])
		}
		text = strings.ReplaceAll(text, oldnew[i], oldnew[i+1])
	}
	return text
}

// nodesConfig begins an appliance.toml: the pair, with a quick election for the
// laboratory's virtual address, but none that a busy machine decides. Services
// follow.
const nodesConfig = `
[node.lb01]
address  = "192.168.15.11"
priority = 100
[node.lb02]
address  = "192.168.15.12"
priority = 90

[[vrrp]]
name              = "VI_1"
virtual_router_id = 50
addresses         = ["192.168.15.3/24"]
advert_interval   = "200ms"
preempt           = false
`

// server returns a node's view of a server, by its name in a pool.
func (p *pair) server(n *lab.Node, pool, name string) control.Server {
	p.t.Helper()
	for _, candidate := range p.status(n).Pools {
		for _, s := range candidate.Servers {
			if candidate.Name == pool && s.Name == name {
				return s
			}
		}
	}
	p.t.Fatalf("%s has no server %s in a pool %s", n.Name, name, pool)
	return control.Server{}
}

// waitUp waits until servers of a pool are up on lb01. A server that has just
// been started may be too slow for the first check.
func (p *pair) waitUp(pool string, names ...string) {
	p.t.Helper()
	for _, name := range names {
		eventually(p.t, 30*time.Second, name+" is up in pool "+pool, func() bool {
			return p.server(p.LB01, pool, name).Health == "up"
		})
	}
}

// waitAccepting waits until a process that was started on a host accepts TCP
// connections there.
func waitAccepting(t *testing.T, h *lab.Host, address netip.AddrPort, process *lab.Process) {
	t.Helper()
	eventually(t, time.Minute, address.String()+" accepts connections", func() bool {
		select {
		case <-process.Done():
			t.Fatalf("what was to listen at %v has ended: %v", address, process.Err())
		default:
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c, err := h.Dial(ctx, address)
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
}

// killTree kills a process and all that descends from it, and waits for the
// first of them. It is for what must not outlive a folder of the test's, and for
// servers whose children leave the process group, where the host's end does not
// find them.
func killTree(p *lab.Process) {
	select {
	case <-p.Done(): // its number may be another's by now
	default:
		killDescent(p.PID())
		<-p.Done()
	}
}

func killDescent(pid int) {
	syscall.Kill(pid, syscall.SIGSTOP) // no more children from here on
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var children []int
	for _, path := range lists {
		text, _ := os.ReadFile(path) // it may have ended
		for _, child := range strings.Fields(string(text)) {
			if n, err := strconv.Atoi(child); err == nil {
				children = append(children, n)
			}
		}
	}
	syscall.Kill(pid, syscall.SIGKILL)
	for _, child := range children {
		killDescent(child)
	}
}

// patientConfig is labConfig for tests that look for what must not change. Its
// checks wait longer for servers and its backup for adverts, so that a machine
// that is busy with other things makes no changes of its own.
func patientConfig(t *testing.T, oldnew ...string) string {
	t.Helper()
	return labConfig(t, append([]string{
		`interval = "500ms", timeout = "250ms"`, `interval = "1s", timeout = "1s"`,
		quickAdverts, patientAdverts,
	}, oldnew...)...)
}

// threeAdverts is what a backup waits for adverts of patientConfig at least.
const threeAdverts = 600 * time.Millisecond

// eventually fails the test unless the condition comes true in time. It is for
// what only asking can tell; within is generous, for machines are busy.
func eventually(t *testing.T, within time.Duration, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, within)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// need skips the test if a program is missing, and names the package that has
// it. Where the tests are to run completely (CI=true) that is a failure.
func need(t *testing.T, program, debianPackage string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + program)
	}
	if err == nil {
		return path
	}
	message := program + " is not installed; it comes with the Debian package " + debianPackage
	if os.Getenv("CI") == "true" {
		t.Fatal(message)
	}
	t.Skip(message)
	return ""
}
