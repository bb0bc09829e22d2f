package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A server that drains goes on draining, whatever else a reload changes, and after a
// crash.
func TestReloadKeepsDrain(t *testing.T) {
	t.Parallel()
	p := newPair(t, patientConfig(t))
	p.start()
	if code, output := p.applianctl(p.LB01, "server", "drain", "web/web2"); code != 0 {
		t.Fatalf("server drain: exit code %d: %s", code, output)
	}
	drained := time.Now()
	load := p.load(100, 80, 8080)
	for _, text := range []string{
		patientConfig(t) + "\n# changed\n",
		patientConfig(t, `address = "172.16.1.52:80" }`, `address = "172.16.1.52:80", weight = 5 }`),
		patientConfig(t, `[pool.web]`, "[pool.web]\nbalance = \"least_conn\""),
		patientConfig(t, `check   = { type = "http", interval = "1s"`, `check   = { type = "http", interval = "2s"`),
	} {
		p.reload(p.LB01, text)
		p.waitRequests(load, 30)
	}
	if r := load.Report(drained, time.Now()); r.Failures() > 0 || r.Servers["web2"] > 0 || r.Servers["web1"] == 0 || r.Servers["web3"] == 0 {
		t.Errorf("%d requests: %s; answered by %v", r.Requests, r, r.Servers)
	}
	drains := func() {
		t.Helper()
		for _, s := range p.status(p.LB01).Pools[1].Servers {
			if want := map[bool]string{true: "drain", false: "ready"}[s.Name == "web2"]; s.Admin != want {
				t.Errorf("%s is %s, want %s", s.Name, s.Admin, want)
			}
		}
	}
	drains()
	// Nor does the process: it goes on draining when that is started anew.
	if err := p.LB01.Kill(); err != nil {
		t.Fatal(err)
	}
	p.startNode(p.LB01)
	drains()
}

// A check that asks something else judges at once: servers that do not pass the new one
// are out of use when the reload is done, those that pass it never were.
func TestReloadChangesCheck(t *testing.T) {
	t.Parallel()
	p := newPair(t, patientConfig(t))
	p.Servers[0].SetHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "web1")
	}))
	p.start()
	load := p.load(100, 80)
	from := time.Now()
	const check = `check   = { type = "http", interval = "1s", timeout = "1s" }`
	// What is tracked must be checked, so the track goes with the check.
	without := patientConfig(t, check, "", `track             = [{ service = "web" }]`, "")
	stricter := patientConfig(t, check, `check   = { type = "http", path = "/health", interval = "1s", timeout = "1s" }`)
	healths := func() string {
		var all []string
		for _, s := range p.status(p.LB01).Pools[1].Servers {
			all = append(all, s.Name+" "+s.Health)
		}
		return strings.Join(all, ", ")
	}
	const lessOne, everyone = "web1 down, web2 up, web3 up", "web1 up, web2 up, web3 up"
	for i, step := range []struct{ text, want string }{
		{stricter, lessOne}, {patientConfig(t), everyone}, {without, everyone}, {stricter, lessOne}, {without, everyone},
	} {
		p.reload(p.LB01, step.text)
		done := time.Now()
		if got := healths(); got != step.want {
			t.Errorf("step %d: after the reload: %s; want %s", i, got, step.want)
		}
		p.waitRequests(load, 30)
		for _, o := range load.Outcomes() {
			if step.want == lessOne && o.Start.After(done) && o.Server == "web1" {
				t.Errorf("step %d: %v after the reload web1 served a request", i, o.Start.Sub(done))
				break
			}
		}
	}
	reloadNoFailures(t, load, from)
}
