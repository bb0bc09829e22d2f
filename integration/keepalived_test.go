package integration

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"appliance/internal/control"
	"appliance/internal/lab"
)

// dialect is a form of VRRP that both sides are set to.
type dialect struct {
	name       string
	keepalived string // of a vrrp_instance
	ours       string // of a [[vrrp]]
	interval   time.Duration
	version    int
	ipv6       bool
	unicast    bool
	// more are further virtual addresses.
	more      []netip.Prefix
	scenarios []scenario
}

// scenario is how a pair is set up: which of the two is the larger, and what
// preempt says on both.
type scenario struct{ oursLarger, preempt bool }

// What is shown of a dialect: everything; what is the wire's, in both roles; and
// what takes long, once.
var (
	allScenarios  = []scenario{{true, true}, {true, false}, {false, true}, {false, false}}
	bothScenarios = []scenario{{true, true}, {false, false}}
	oneScenario   = []scenario{{true, true}}
)

// addresses are the virtual ones; the last is what the monitor watches.
func (d dialect) addresses() []netip.Prefix {
	if d.ipv6 {
		return []netip.Prefix{netip.MustParsePrefix("fe80::50/64"), netip.MustParsePrefix("fd15::3/64")}
	}
	return append(slices.Clone(d.more), netip.PrefixFrom(lab.DefaultVIP, 24))
}

// lb01 is the address that lb01's adverts come from.
func (d dialect) lb01() string { return d.source("192.168.15.11", "fe80::c0ff:fea8:f0b", "fd15::b") }

// lb02 is the address that lb02's adverts come from.
func (d dialect) lb02() string { return d.source("192.168.15.12", "fe80::c0ff:fea8:f0c", "fd15::c") }

// source chooses among a node's addresses.
func (d dialect) source(ipv4, linkLocal, ipv6 string) string {
	switch {
	case d.unicast && d.ipv6:
		return ipv6
	case d.ipv6:
		return linkLocal
	}
	return ipv4
}

var dialects = []dialect{
	{
		name:       "version 2 with a password",
		keepalived: "version 2\n advert_int 1\n authentication {\n auth_type PASS\n auth_pass 1111\n }",
		ours:       "version = 2\nauthentication = { type = \"pass\", password = \"1111\" }",
		interval:   time.Second,
		version:    2,
		scenarios:  allScenarios,
	},
	{
		name:       "version 2",
		keepalived: "version 2\n advert_int 1",
		ours:       "version = 2",
		interval:   time.Second,
		version:    2,
		scenarios:  bothScenarios,
	},
	{
		name:       "version 3",
		keepalived: "version 3\n advert_int 0.1",
		ours:       "version = 3\nadvert_interval = \"100ms\"",
		more:       []netip.Prefix{netip.MustParsePrefix("192.168.15.5/24"), netip.MustParsePrefix("192.168.15.6/32")},
		interval:   100 * time.Millisecond,
		version:    3,
		scenarios:  allScenarios,
	},
	{
		name:       "IPv6",
		keepalived: "version 3\n advert_int 0.1",
		ours:       "interface = \"eth0\"\nadvert_interval = \"100ms\"",
		interval:   100 * time.Millisecond,
		version:    3,
		ipv6:       true,
		scenarios:  allScenarios,
	},
	{
		name:       "version 2 with a password, unicast",
		keepalived: "version 2\n advert_int 1\n authentication {\n auth_type PASS\n auth_pass 1111\n }",
		ours:       "version = 2\nauthentication = { type = \"pass\", password = \"1111\" }",
		unicast:    true,
		interval:   time.Second,
		version:    2,
		scenarios:  oneScenario,
	},
	{
		name:       "version 3, unicast",
		keepalived: "version 3\n advert_int 0.1",
		ours:       "advert_interval = \"100ms\"",
		interval:   100 * time.Millisecond,
		version:    3,
		unicast:    true,
		scenarios:  bothScenarios,
	},
	{
		name:       "IPv6, unicast",
		keepalived: "version 3\n advert_int 0.1",
		ours:       "interface = \"eth0\"\nadvert_interval = \"100ms\"",
		interval:   100 * time.Millisecond,
		version:    3,
		ipv6:       true,
		unicast:    true,
		scenarios:  oneScenario,
	},
	{
		name:       "virtual MAC",
		keepalived: "version 3\n advert_int 0.1" + keepalivedVMAC,
		ours:       "virtual_mac = true\nadvert_interval = \"100ms\"",
		interval:   100 * time.Millisecond,
		version:    3,
		scenarios:  bothScenarios,
	},
	{
		name:       "virtual MAC of ours alone",
		keepalived: "version 3\n advert_int 0.1",
		ours:       "virtual_mac = true\nadvert_interval = \"100ms\"",
		interval:   100 * time.Millisecond,
		version:    3,
		scenarios:  bothScenarios,
	},
	{
		name:       "virtual MAC of keepalived alone",
		keepalived: "version 3\n advert_int 0.1" + keepalivedVMAC,
		ours:       "advert_interval = \"100ms\"",
		interval:   100 * time.Millisecond,
		version:    3,
		scenarios:  bothScenarios,
	},
	{
		name:       "IPv6, virtual MAC",
		keepalived: "version 3\n advert_int 0.1" + keepalivedVMAC,
		ours:       "interface = \"eth0\"\nvirtual_mac = true\nadvert_interval = \"100ms\"",
		interval:   100 * time.Millisecond,
		version:    3,
		ipv6:       true,
		scenarios:  bothScenarios,
	},
}

const keepalivedVMAC = "\n use_vmac"

// skew is Skew_Time of a backup with that priority.
func (d dialect) skew(priority int) time.Duration {
	unit := time.Second
	if d.version == 3 {
		unit = d.interval
	}
	return time.Duration(256-priority) * unit / 256
}

// down is how long that backup waits for an advert.
func (d dialect) down(priority int) time.Duration { return 3*d.interval + d.skew(priority) }

// mixed is a pair of which lb01 is ours and lb02 a keepalived.
type mixed struct {
	*pair
	dialect
	ours, theirs int    // priorities
	program      string // keepalived
	process      *lab.Process
}

const (
	keepalivedConfig = "/run/keepalived.conf"
	keepalivedChild  = "/run/keepalived-vrrp.pid"
	keepalivedLog    = "/run/keepalived.log"
)

// newMixed builds the pair; neither node is started.
func newMixed(t *testing.T, d dialect, theirs int, preempt bool) *mixed {
	m := &mixed{dialect: d, ours: 100, theirs: theirs, program: need(t, "keepalived", "keepalived")}
	one, two := "192.168.15.11", "192.168.15.12"
	if d.unicast {
		one, two = d.lb01(), d.lb02()
		d.ours += "\nunicast = true"
		d.keepalived += fmt.Sprintf("\n unicast_src_ip %s\n unicast_peer {\n %s\n }", two, one)
	}
	addresses := d.addresses()
	var quoted, listed []string
	for _, a := range addresses {
		quoted, listed = append(quoted, fmt.Sprintf("%q", a)), append(listed, a.String())
	}
	m.pair = newPairFor(t, addresses[len(addresses)-1].Addr(), fmt.Sprintf(`
[node.lb01]
address  = %q
priority = %d
[node.lb02]
address  = %q
priority = %d
[[vrrp]]
name              = "VI_1"
virtual_router_id = 50
addresses         = [%s]
preempt           = %v
%s
`, one, m.ours, two, m.theirs, strings.Join(quoted, ", "), preempt, d.ours))
	nopreempt := ""
	if !preempt {
		nopreempt = "nopreempt"
	}
	text := fmt.Sprintf(`global_defs {
 router_id lb02
}
vrrp_instance VI_1 {
 state BACKUP
 interface eth0
 virtual_router_id 50
 priority %d
 %s
 %s
 virtual_ipaddress {
 %s
 }
}
`, theirs, nopreempt, d.keepalived, strings.Join(listed, "\n "))
	if err := m.LB02.WriteFile(keepalivedConfig, []byte(text)); err != nil {
		t.Fatal(err)
	}
	m.tcpdump()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of keepalived:\n%s", m.keepalivedLog())
		}
	})
	return m
}

// tcpdump has tcpdump look at all adverts that lb02 sends and receives. At the end
// the test fails if it finds a checksum wrong, or has not seen both nodes.
func (m *mixed) tcpdump() {
	program := need(m.t, "tcpdump", "tcpdump")
	path := m.LB02.Path("/run/tcpdump.log")
	log, err := os.Create(path)
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close() // the process has it too
	cmd := m.LB02.Command(program, "-i", lab.LAN, "-n", "-vv", "-e", "-l", "--immediate-mode", "ip proto 112 or ip6 proto 112")
	cmd.Stdout, cmd.Stderr = log, log
	process, err := m.LB02.Host.Start(cmd)
	if err != nil {
		m.t.Fatal(err)
	}
	read := func() string {
		text, err := os.ReadFile(path)
		if err != nil {
			m.t.Fatal(err)
		}
		return string(text)
	}
	eventually(m.t, 20*time.Second, "tcpdump listens", func() bool { return strings.Contains(read(), "listening on") })
	m.t.Cleanup(func() {
		process.Kill()
		text := read()
		for line := range strings.Lines(text) {
			if strings.Contains(line, "bad vrrp cksum") {
				m.t.Errorf("tcpdump: %s", line)
			}
		}
		for _, address := range []string{m.lb01(), m.lb02()} {
			if strings.Count(text, " "+address+" > ") < 3 || !strings.Contains(text, ": VRRPv"+strconv.Itoa(m.version)) {
				m.t.Errorf("tcpdump has not seen the adverts of %s:\n%s", address, text)
			}
		}
	})
}

// startKeepalived starts keepalived and waits until it takes part.
func (m *mixed) startKeepalived() {
	m.t.Helper()
	log, err := os.OpenFile(m.LB02.Path(keepalivedLog), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close() // the process has it too
	lives := strings.Count(m.keepalivedLog(), keepalivedReady)
	cmd := m.LB02.Command(m.program, "--dont-fork", "--log-console", "--no-syslog", "--log-detail", "--vrrp",
		"--use-file="+keepalivedConfig, "--pid=/run/keepalived.pid", "--vrrp_pid="+keepalivedChild)
	cmd.Stdout, cmd.Stderr = log, log
	if m.process, err = m.LB02.Host.Start(cmd); err != nil {
		m.t.Fatal(err)
	}
	eventually(m.t, 20*time.Second, "keepalived takes part", func() bool {
		return strings.Count(m.keepalivedLog(), keepalivedReady) > lives
	})
}

// keepalivedReady is what keepalived says when it begins as a backup.
const keepalivedReady = "Entering BACKUP STATE (init)"

// keepalivedLog returns what keepalived has written over all its lives.
func (m *mixed) keepalivedLog() string {
	text, _ := os.ReadFile(m.LB02.Path(keepalivedLog)) // none before the first
	return string(text)
}

// terminateKeepalived stops keepalived by SIGTERM and waits for its end.
func (m *mixed) terminateKeepalived() {
	m.t.Helper()
	if err := m.process.Signal(syscall.SIGTERM); err != nil {
		m.t.Fatal(err)
	}
	select {
	case <-m.process.Done():
	case <-time.After(20 * time.Second):
		m.t.Fatal("keepalived does not end")
	}
}

// killKeepalived makes the machine of keepalived die: the cable and the address go
// as well, since the address alone would outlive the processes.
func (m *mixed) killKeepalived() {
	m.t.Helper()
	if err := m.Cut(m.LB02.Host, lab.LAN, lab.Silent); err != nil {
		m.t.Fatal(err)
	}
	text, err := os.ReadFile(m.LB02.Path(keepalivedChild))
	if err != nil {
		m.t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		m.t.Fatal(err)
	}
	// The parent would start another child.
	if err := m.process.Stop(); err != nil {
		m.t.Fatal(err)
	}
	if err := syscall.Kill(child, syscall.SIGKILL); err != nil {
		m.t.Fatal(err)
	}
	if err := m.process.Kill(); err != nil {
		m.t.Fatal(err)
	}
	for _, a := range m.addresses() {
		if err := m.LB02.Network.DeleteAddress(lab.LAN, a); err != nil {
			m.t.Fatal(err)
		}
	}
}

// startOurs starts the appliance and waits until it takes part.
func (m *mixed) startOurs() {
	m.t.Helper()
	m.startNode(m.LB01)
	eventually(m.t, 20*time.Second, "ours takes part", func() bool { return m.status(m.LB01).VRRP[0].State != "fault" })
}

// terminateOurs stops the appliance by SIGTERM and waits for its end.
func (m *mixed) terminateOurs() {
	m.t.Helper()
	if err := m.LB01.Terminate(m.within(20 * time.Second)); err != nil {
		m.t.Fatal(err)
	}
}

// handsOver waits until heir has announced the address, alone answers for it,
// and returns what the wire tells of that. began is a time at which heir was a
// backup.
func (m *mixed) handsOver(why string, began time.Time, gone, heir *lab.Node) takeOver {
	m.t.Helper()
	var w takeOver
	eventually(m.t, 20*time.Second, heir.Name+" announces the address after "+why, func() bool {
		var sent, announced bool
		w.first, sent = m.Capture.First(lab.Advert, heir.Name, began)
		w.announce, announced = m.Capture.First(lab.Gratuitous, heir.Name, w.first.Time)
		return sent && announced
	})
	var ok bool
	if w.last, ok = m.Capture.Last(lab.Advert, gone.Name, w.first.Time); !ok {
		m.t.Fatalf("%s was never heard", gone.Name)
	}
	m.waitActive(heir)
	m.alone(heir)
	m.t.Logf("%s: %v", why, w)
	m.checkPeace()
	return w
}

// stays shows that the active node is left alone by the other one.
func (m *mixed) stays(n *lab.Node) {
	m.t.Helper()
	since := time.Now()
	m.waitAdverts(n, 6)
	m.alone(n)
	other := m.Other(n)
	if e, ok := m.Capture.First(lab.Advert, other.Name, since); ok {
		m.t.Errorf("%s is active, and %s sent an advert of priority %d", n.Name, other.Name, e.Priority)
	}
	m.checkPeace()
}

// checkResignation fails the test unless the last advert of a node that went had
// priority 0, and the other one did not wait for three missed ones.
func (m *mixed) checkResignation(w takeOver, heir int) {
	m.t.Helper()
	if w.last.Priority != 0 {
		m.t.Errorf("the last advert of %s had priority %d, want 0", w.last.Host, w.last.Priority)
	}
	// Whether the heir has believed it is not told by the time: adverts of 100 ms
	// may be missed as soon as a busy machine gets to it.
	latest := m.skew(heir) + time.Second
	if got, skew := w.gap(), m.skew(heir); got < skew*9/10 || got >= latest {
		m.t.Errorf("%s was active %v after %s resigned, want about %v", w.first.Host, got, w.last.Host, skew)
	}
}

// checkSilence fails the test unless the other node waited for three adverts
// of one that went without a word, and for not much more.
func (m *mixed) checkSilence(w takeOver, heir int) {
	m.t.Helper()
	if got, want := w.gap(), m.down(heir); got < want*9/10 || got > want+time.Second {
		m.t.Errorf("%s was active %v after the last advert of %s, want about %v", w.first.Host, got, w.last.Host, want)
	}
}

// complaint matches what keepalived says of adverts that it does not like.
var complaint = regexp.MustCompile(`(?i)invalid|checksum|authentication|\bbad\b|mismatch|wrong|incorrect|unexpected|drop|ignor|\berror\b`)

// checkPeace fails the test if one side has refused an advert of the other.
func (m *mixed) checkPeace() {
	m.t.Helper()
	for line := range strings.Lines(m.keepalivedLog()) {
		if complaint.MatchString(line) {
			m.t.Errorf("keepalived complains: %s", line)
		}
	}
	if !m.LB01.Running() {
		return
	}
	for name, n := range m.status(m.LB01).VRRP[0].Counters {
		if n > 0 && (strings.HasPrefix(name, "refused_") || strings.HasPrefix(name, "receive_error_") || name == "address_mismatches") {
			m.t.Errorf("%s: %d adverts of keepalived", name, n)
		}
	}
	for _, e := range m.Capture.Events() {
		if e.Kind == lab.Advert && e.Version != m.version {
			m.t.Fatalf("%s sent an advert of version %d", e.Host, e.Version)
		}
	}
}

// checkReason fails the test unless that is why our router is what it is.
func (m *mixed) checkReason(want string) {
	m.t.Helper()
	var s control.VRRP
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if s = m.status(m.LB01).VRRP[0]; strings.Contains(s.Reason, want) {
			return
		}
	}
	m.t.Errorf("ours is %s because %q, want %q", s.State, s.Reason, want)
}

// keepalivedResigned is what keepalived says when it believes an advert of
// priority 0.
const keepalivedResigned = "Backup received priority 0 advertisement"

// checkBelieved fails the test unless keepalived has believed so many
// resignations.
func (m *mixed) checkBelieved(want int) {
	m.t.Helper()
	eventually(m.t, 10*time.Second, fmt.Sprintf("keepalived has believed %d resignations", want), func() bool {
		return strings.Count(m.keepalivedLog(), keepalivedResigned) == want
	})
}

// A pair of which one node is a keepalived, as it is while people move from one
// to the other: in every dialect, with either one the larger.
func TestKeepalived(t *testing.T) {
	t.Parallel()
	for _, d := range dialects {
		for _, s := range d.scenarios {
			theirs, play, who := 150, (*mixed).theirsIsLarger, "larger"
			if s.oursLarger {
				theirs, play, who = 90, (*mixed).oursIsLarger, "smaller"
			}
			t.Run(fmt.Sprintf("%s, preempt = %v, keepalived %s", d.name, s.preempt, who), func(t *testing.T) {
				t.Parallel()
				play(newMixed(t, d, theirs, s.preempt), s.preempt)
			})
		}
	}
}

func (m *mixed) oursIsLarger(preempt bool) {
	m.startOurs()
	m.waitActive(m.LB01)
	m.startKeepalived()
	m.stays(m.LB01)

	// The guard's farewell must be one that keepalived believes.
	began := time.Now()
	if err := m.LB01.Kill(); err != nil {
		m.t.Fatal(err)
	}
	w := m.handsOver("SIGKILL of ours", began, m.LB01, m.LB02)
	m.checkResignation(w, m.theirs)
	m.checkBelieved(1)

	began = time.Now()
	m.startOurs()
	if !preempt {
		m.stays(m.LB02)
		began = time.Now()
		m.terminateKeepalived()
		w = m.handsOver("SIGTERM of keepalived", began, m.LB02, m.LB01)
		m.checkResignation(w, m.ours)
		m.checkReason(m.lb02() + " resigned")
		return
	}
	m.handsOver("ours is back", began, m.LB02, m.LB01)
	m.checkReason("its own priority 100 is above 90 of " + m.lb02())
	m.stays(m.LB01)

	began = time.Now()
	m.terminateOurs()
	w = m.handsOver("SIGTERM of ours", began, m.LB01, m.LB02)
	m.checkResignation(w, m.theirs)
	m.checkBelieved(2)
}

func (m *mixed) theirsIsLarger(preempt bool) {
	m.startOurs()
	m.waitActive(m.LB01)
	began := time.Now()
	m.startKeepalived()
	if preempt {
		m.handsOver("start of keepalived", began, m.LB01, m.LB02)
		m.checkReason(m.lb02() + " is active with priority 150")
	} else {
		m.stays(m.LB01)
		began = time.Now()
		m.terminateOurs()
		w := m.handsOver("SIGTERM of ours", began, m.LB01, m.LB02)
		m.checkResignation(w, m.theirs)
		m.checkBelieved(1)
		m.startOurs()
	}
	m.stays(m.LB02)

	began = time.Now()
	m.terminateKeepalived()
	w := m.handsOver("SIGTERM of keepalived", began, m.LB02, m.LB01)
	m.checkResignation(w, m.ours)
	m.checkReason(m.lb02() + " resigned")

	began = time.Now()
	m.startKeepalived()
	if !preempt {
		m.stays(m.LB01)
		return
	}
	m.handsOver("keepalived is back", began, m.LB01, m.LB02)

	began = time.Now()
	m.killKeepalived()
	w = m.handsOver("death of keepalived's machine", began, m.LB02, m.LB01)
	m.checkSilence(w, m.ours)
	m.checkReason("no advert from " + m.lb02())

	if err := m.Heal(m.LB02.Host, lab.LAN); err != nil {
		m.t.Fatal(err)
	}
	began = time.Now()
	m.startKeepalived()
	m.handsOver("keepalived is back", began, m.LB01, m.LB02)
}
