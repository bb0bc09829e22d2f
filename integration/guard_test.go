package integration

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"appliance/internal/lab"
)

// guardOf waits until a node has a guard, and returns its process id.
func (p *pair) guardOf(n *lab.Node) (pid int) {
	p.t.Helper()
	eventually(p.t, 20*time.Second, n.Name+" has a guard", func() bool {
		pid = p.findGuard(n)
		return pid != 0
	})
	return pid
}

// killWithGuard kills a node's appliance and its guard, so that nobody sweeps: the
// guard is frozen before, and no other one is started in its place.
func (p *pair) killWithGuard(n *lab.Node) {
	p.t.Helper()
	guard := p.guardOf(n)
	if err := syscall.Kill(guard, syscall.SIGSTOP); err != nil {
		p.t.Fatal(err)
	}
	if err := errors.Join(n.Kill(), syscall.Kill(guard, syscall.SIGKILL)); err != nil {
		p.t.Fatal(err)
	}
}

// findGuard returns the process id of a node's guard, 0 if it has none.
func (p *pair) findGuard(n *lab.Node) (pid int) {
	p.t.Helper()
	// Which of the appliance's threads began its only child is chance.
	children, err := n.Output(p.within(10*time.Second), "sh", "-c", fmt.Sprintf("cat /proc/%d/task/*/children", n.Appliance().PID()))
	if err != nil {
		return 0
	}
	fields := strings.Fields(children)
	if len(fields) != 1 {
		return 0
	}
	if _, err := fmt.Sscan(fields[0], &pid); err != nil {
		p.t.Fatalf("children of the appliance: %q", children)
	}
	return pid
}

// A guard that dies is replaced, and the next one sweeps as well.
func TestGuardIsReplaced(t *testing.T) {
	t.Parallel()
	// Until the kill no pause of the machine's is to move the address.
	p := newPair(t, patientConfig(t))
	p.start()
	first := p.guardOf(p.LB01)
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "another guard", func() bool {
		next := p.findGuard(p.LB01)
		return next != 0 && next != first
	})
	p.alone(p.LB01)
	killed := time.Now()
	if err := p.LB01.Kill(); err != nil {
		t.Fatal(err)
	}
	w := p.takeOverAfter(killed, p.LB01, p.LB02)
	w.checkKill(p, killed)
	p.waitActive(p.LB02)
	p.alone(p.LB02)
}

// Killed together with its guard, a node keeps its address no longer than the
// lease.
func TestLeaseEndsWhatTheGuardCannot(t *testing.T) {
	t.Parallel()
	p := newPair(t, "")
	p.dual = afterFreeze
	p.start()
	killed := time.Now()
	p.killWithGuard(p.LB01)
	w := p.takeOverAfter(killed, p.LB01, p.LB02)
	w.checkGap(t)
	p.waitActive(p.LB02)
	p.alone(p.LB02)
	if last, ok := p.Monitor.LastAnswer(p.LB01.Name); ok && last.Sub(killed) > afterFreeze {
		t.Errorf("the dead machine answered for %v", last.Sub(killed))
	}
}

// Who only waits for what a server will say hears of a kill, too: the sockets of the
// killed process say goodbye although their address has gone by then.
func TestKillIsToldToThoseWhoWait(t *testing.T) {
	t.Parallel()
	p := newKernelPair(t, kernelConfig)
	p.start()
	p.waitUp("tcp", "web1", "web2", "web3")
	waiting := make([]*talk, 40)
	for i := range waiting {
		waiting[i] = p.talk(netip.AddrPortFrom(p.VIP, 3307))
	}
	if err := p.LB01.Kill(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for i, k := range waiting {
		k.conn.SetReadDeadline(began.Add(5 * time.Second))
		if _, err := k.read.ReadByte(); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d: nobody tells that its node was killed", i)
		}
	}
	p.waitActive(p.LB02)
}
