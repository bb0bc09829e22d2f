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
	waitFor(t, string(kind), func() bool { return l.SoFar(from).Kinds[kind] > 0 })
	l.Stop()
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

// A request that hangs is a failure of the stretch in which it began, however
// early the report is asked for, and whether or not the load has been stopped.
func TestRequestsThatHangCount(t *testing.T) {
	const timeout = 200 * time.Millisecond
	for name, before := range map[string]func(*lab.Load){"stopped": (*lab.Load).Stop, "under way": func(*lab.Load) {}} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			server := p.Servers[0]
			arrived := make(chan struct{}, 1000)
			server.SetHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				arrived <- struct{}{}
				<-r.Context().Done()
			}))
			from := time.Now()
			l := lab.StartLoad(p.LB01.Host, lab.LoadOptions{
				Targets: []netip.AddrPort{netip.AddrPortFrom(server.Address, lab.HTTPPort)}, Timeout: timeout,
			})
			defer l.Stop()
			<-arrived
			to := time.Now()
			if r := l.SoFar(from); r.Requests > 0 && time.Since(from) < timeout {
				t.Errorf("%d requests have ended that hang", r.Requests)
			}
			before(l)
			r := l.Report(from, to)
			if r.Requests == 0 || r.Kinds[lab.TimedOut] != r.Requests || r.Failures() != r.Requests {
				t.Errorf("of %d requests that hang %s", r.Requests, r)
			}
			for _, o := range l.Outcomes() {
				if o.End.Sub(o.Start) < timeout {
					t.Errorf("a request was given up after %v", o.End.Sub(o.Start))
				}
			}
		})
	}
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
		r := l.SoFar(from)
		return r.Kinds[lab.Reset] > 0 && r.Kinds[lab.Refused] > 0
	})
	server.SetHandler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "answers", func() bool { return l.SoFar(from).Servers["web1"] > 0 })
	if r := l.Report(from, time.Now()); r.Gap <= 0 || r.Gap > r.To.Sub(r.From) {
		t.Errorf("the longest gap of %s is %s", r.To.Sub(r.From), r.Gap)
	}
}
