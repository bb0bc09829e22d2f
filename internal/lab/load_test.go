package lab_test

import (
	"net/http"
	"net/netip"
	"testing"
	"time"

	"appliance/internal/lab"
)

// loadFor sends requests from lb01 to web1 until one ended as kind, and returns
// the report of all of them.
func loadFor(t *testing.T, p *lab.Pair, port uint16, kind lab.OutcomeKind, o lab.LoadOptions) lab.Report {
	t.Helper()
	o.Targets = []netip.AddrPort{netip.AddrPortFrom(p.Servers[0].Address, port)}
	from := time.Now()
	l := lab.StartLoad(p.LB01.Host, o)
	defer l.Stop()
	waitFor(t, string(kind), func() bool { return l.Report(from, time.Now()).Kinds[kind] > 0 })
	return l.Report(from, time.Now())
}

func TestLoadTellsOutcomesApart(t *testing.T) {
	p := newPair(t)
	server := p.Servers[0]
	if r := loadFor(t, p, lab.HTTPPort, lab.OK, lab.LoadOptions{}); r.Failures() > 0 || r.Servers["web1"] != r.Requests {
		t.Errorf("a working server: %s, %+v", r, r)
	}
	loadFor(t, p, 81, lab.Refused, lab.LoadOptions{})

	server.SetHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	loadFor(t, p, lab.HTTPPort, lab.Status, lab.LoadOptions{})

	server.SetHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	loadFor(t, p, lab.HTTPPort, lab.TimedOut, lab.LoadOptions{Timeout: 50 * time.Millisecond})
}

// A server that is killed resets its connections and refuses others, until it
// is started again.
func TestServerDiesAndReturns(t *testing.T) {
	p := newPair(t)
	server := p.Servers[0]
	arrived := make(chan struct{}, 1000)
	server.SetHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	}))
	l := lab.StartLoad(p.LB01.Host, lab.LoadOptions{Targets: []netip.AddrPort{netip.AddrPortFrom(server.Address, lab.HTTPPort)}})
	defer l.Stop()
	from := time.Now()
	<-arrived
	server.Kill()
	waitFor(t, "resets and refusals", func() bool {
		r := l.Report(from, time.Now())
		return r.Kinds[lab.Reset] > 0 && r.Kinds[lab.Refused] > 0
	})
	server.SetHandler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "answers", func() bool { return l.Report(from, time.Now()).Servers["web1"] > 0 })
	if r := l.Report(from, time.Now()); r.Gap <= 0 || r.Gap > r.To.Sub(r.From) {
		t.Errorf("the longest gap of %s is %s", r.To.Sub(r.From), r.Gap)
	}
}
