package integration

import (
	"bufio"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"appliance/internal/lab"
)

// A node that is asked to stop says so before its address goes, and waits for
// what is under way: the clients notice a delay of a second at most.
func TestStopOfTheActiveNode(t *testing.T) {
	t.Parallel()
	need(t, "ip", "iproute2")
	p := newPair(t, labConfig(t, "[[vrrp]]", "[handover]\ndrain = \"5s\"\n\n[[vrrp]]"))
	p.serveSlowly(1500 * time.Millisecond)
	p.start()
	removed := p.watchRemoval(p.LB01)
	load := p.load(failoverRate, 80, 8080)
	began := time.Now()
	downloads := []*download{p.startDownload(p.targets(80)[0]), p.startDownload(p.targets(8080)[0])}

	stopped := time.Now()
	// The error tells of an exit code that is not 0.
	if err := p.LB01.Terminate(p.within(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Logf("the appliance ended %v after SIGTERM", time.Since(stopped).Round(time.Millisecond))
	if _, err := os.Stat(p.LB01.Path(lab.SocketPath)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the control socket is still there: %v", err)
	}
	p.waitActive(p.LB02)
	p.alone(p.LB02)
	for _, d := range downloads {
		if err := d.wait(); err != nil {
			t.Errorf("the download from %s was cut after %d of %d bytes: %v", d.target, d.got, downloadSize, err)
		}
	}

	select {
	case at := <-removed:
		p.resigned(stopped, at)
	case <-time.After(10 * time.Second):
		t.Fatal("the kernel of lb01 never said that it lost the address")
	}
	p.waitRequests(load, 2*failoverRate)
	report := load.Report(began, time.Now())
	t.Logf("at the client: of %d requests %s; no answer for %v at most", report.Requests, report, report.Gap.Round(time.Millisecond))
	if report.Failures() > 0 {
		t.Errorf("of %d requests %s, first: %v", report.Requests, report, report.FirstError)
	}
}

// resigned shows on the wire that lb01 gave the address away in the right order,
// and that lb02 took it after its Skew_Time.
func (p *pair) resigned(since, removed time.Time) {
	p.t.Helper()
	goodbye, ok := p.Capture.Last(lab.Advert, p.LB01.Name, time.Now())
	if !ok || goodbye.Priority != 0 || goodbye.Time.Before(since) {
		p.t.Fatalf("the last advert of lb01 has priority %d, want 0, after the stop", goodbye.Priority)
	}
	first, ok := p.Capture.First(lab.Advert, p.LB02.Name, since)
	if !ok {
		p.t.Fatal("lb02 never sent an advert")
	}
	// RFC 9568: Skew_Time is (256 - 90) / 256 of the advert interval, 64.8 ms.
	took := first.Time.Sub(goodbye.Time)
	p.t.Logf("on the wire: priority 0, the address was gone %v later, and the first advert of lb02 came after %v (Skew_Time is 64.8 ms)",
		removed.Sub(goodbye.Time).Round(100*time.Microsecond), took.Round(100*time.Microsecond))
	if removed.Before(goodbye.Time) {
		p.t.Errorf("the address went %v before lb01 resigned", goodbye.Time.Sub(removed))
	}
	if took < 60*time.Millisecond || took > takeOverLatest {
		p.t.Errorf("lb02 was active %v after lb01 had resigned, want about 65 ms", took)
	}
}

// watchRemoval returns a channel that gets the time at which the kernel of a
// node lost the virtual address.
func (p *pair) watchRemoval(n *lab.Node) <-chan time.Time {
	p.t.Helper()
	sign := netip.MustParsePrefix("192.0.2.1/32")
	cmd := n.Command("ip", "-ts", "-o", "monitor", "address")
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	monitor, err := n.Start(cmd)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { monitor.Kill() })
	removed := make(chan time.Time, 1)
	listens := make(chan struct{})
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			// It prints: [2026-01-31T12:00:00.123456] Deleted 2: eth0    inet 192.168.15.3/24 ...
			stamp, rest, _ := strings.Cut(strings.TrimPrefix(lines.Text(), "["), "] ")
			if strings.Contains(rest, " "+sign.Addr().String()+"/") {
				select {
				case <-listens:
				default:
					close(listens)
				}
			}
			if strings.HasPrefix(rest, "Deleted") && strings.Contains(rest, " "+p.VIP.String()+"/") {
				at, err := time.ParseInLocation("2006-01-02T15:04:05.000000", stamp, time.Local)
				if err == nil {
					removed <- at
				}
				return
			}
		}
	}()
	eventually(p.t, 20*time.Second, "the monitor of addresses listens", func() bool {
		if err := errors.Join(n.Network.AddAddress("lo", sign), n.Network.DeleteAddress("lo", sign)); err != nil {
			p.t.Fatal(err)
		}
		select {
		case <-listens:
			return true
		default:
			return false
		}
	})
	return removed
}

// The stop of a backup is nobody's business.
func TestStopOfTheBackup(t *testing.T) {
	t.Parallel()
	p := newPair(t, patientConfig(t))
	p.start()
	load := p.load(200, 80, 8080)
	before, began := p.transitions(p.LB01), time.Now()
	if err := p.LB02.Terminate(p.within(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	p.waitAdverts(p.LB01, 10)
	p.waitRequests(load, 100)
	if now := p.transitions(p.LB01); now != before {
		t.Errorf("lb01 went from %d transitions to %d", before, now)
	}
	if e, ok := p.Capture.First(lab.Advert, p.LB02.Name, began); ok {
		t.Errorf("lb02 sent an advert with priority %d", e.Priority)
	}
	if report := load.Report(began, time.Now()); report.Failures() > 0 {
		t.Errorf("of %d requests %s, first: %v", report.Requests, report, report.FirstError)
	}
	p.alone(p.LB01)
}

// A node that is frozen keeps its address only as long as its lease; when it
// goes on it leaves it to the node that has it now.
func TestFrozenNode(t *testing.T) {
	t.Parallel()
	p := newPair(t, "")
	p.dual = afterFreeze
	p.start()
	load := p.load(100, 80, 8080)
	frozen := time.Now()
	if err := p.LB01.Appliance().Stop(); err != nil {
		t.Fatal(err)
	}
	w := p.takeOverAfter(frozen, p.LB01, p.LB02)
	t.Log(w)
	w.checkGap(t)
	eventually(t, 2*afterFreeze, "the lease is over", func() bool { return time.Since(frozen) > afterFreeze })
	p.waitActive(p.LB02)
	p.alone(p.LB02)
	if last, ok := p.Monitor.LastAnswer(p.LB01.Name); ok {
		t.Logf("the frozen node's machine answered for the address for %v more", max(0, last.Sub(frozen)).Round(time.Millisecond))
		if last.Sub(frozen) > afterFreeze {
			t.Errorf("the frozen node's machine answered for the address %v after it was frozen", last.Sub(frozen))
		}
	}
	p.wellAgain(load, frozen, w)

	thawed := time.Now()
	if err := p.LB01.Appliance().Continue(); err != nil {
		t.Fatal(err)
	}
	var states [2]string
	eventually(t, 20*time.Second, "one node is active", func() bool {
		states = [2]string{p.status(p.LB01).VRRP[0].State, p.status(p.LB02).VRRP[0].State}
		return states == [2]string{"active", "backup"} || states == [2]string{"backup", "active"}
	})
	settled := time.Since(thawed)
	active, err := p.WaitAnyActive(p.within(20 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	p.waitAdverts(active, 20)
	p.alone(active)
	again := [2]string{p.status(p.LB01).VRRP[0].State, p.status(p.LB02).VRRP[0].State}
	if again != states {
		t.Errorf("lb01 and lb02 were %v, and are %v now", states, again)
	}
	report := load.Report(thawed, time.Now())
	t.Logf("%v after SIGCONT lb01 was %s and lb02 %s, because %q; at the client: of %d requests %s; no answer for %v at most",
		settled.Round(time.Millisecond), states[0], states[1], p.status(p.LB01).VRRP[0].Reason, report.Requests, report, report.Gap.Round(time.Millisecond))
	if active != p.LB02 {
		t.Errorf("lb01 was away for longer than its lease, and has taken the address from lb02")
	}
	for _, i := range p.Monitor.DualAnswerers() {
		if i.To.After(thawed) && i.Length() > duringTakeOver {
			t.Errorf("after SIGCONT %v answered for %v", i.Hosts, i.Length())
		}
	}
}
