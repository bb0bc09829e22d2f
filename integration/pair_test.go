package integration

import (
	"testing"
	"time"

	"appliance/internal/lab"
)

// Two nodes, one file, one virtual address: the pair serves through one of them.
func TestPairServes(t *testing.T) {
	t.Parallel()
	p := newPair(t, "")
	p.start()
	load := lab.StartLoad(p.Client, lab.LoadOptions{Targets: p.targets(80, 8080)})
	eventually(t, 10*time.Second, "200 requests", func() bool { return len(load.Outcomes()) >= 200 })
	load.Stop()
	report := load.Report(time.Time{}, time.Now())
	if report.Failures() > 0 || len(report.ServerNames()) != 3 {
		t.Errorf("%d requests: %s; answered by %v, want all of web1, web2, web3", report.Requests, report, report.ServerNames())
	}
	if a, b := p.status(p.LB01), p.status(p.LB02); a.VRRP[0].State != "active" || b.VRRP[0].State != "backup" {
		t.Errorf("lb01 is %s, lb02 is %s", a.VRRP[0].State, b.VRRP[0].State)
	} else if a.Config.SHA256 != b.Config.SHA256 {
		t.Errorf("one file, two hashes: %s and %s", a.Config.SHA256, b.Config.SHA256)
	}
}
