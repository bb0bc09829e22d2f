package metrics

import (
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"appliance/internal/control"
)

// Handler answers a scrape with what status returns then, and with what Go and
// the kernel know of the process.
func Handler(status func() control.Status) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collector(status), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

// collector is a prometheus.Collector that makes all metrics when it is asked.
type collector func() control.Status

// Describe tells the families there may be.
func (c collector) Describe(to chan<- *prometheus.Desc) {
	for _, f := range families {
		to <- f.desc
	}
}

// Collect makes the metrics of now.
func (c collector) Collect(to chan<- prometheus.Metric) {
	out := sink(to)
	s := c()
	out.node(s)
	for _, v := range s.VRRP {
		out.router(v)
	}
	for _, p := range s.Peers {
		out.peer(p)
	}
	for _, v := range s.Services {
		out.service(v)
	}
	for _, p := range s.Pools {
		out.pool(p)
	}
	if s.Kernel != nil {
		out.kernel(*s.Kernel)
	}
	for _, l := range s.AccessLogs {
		out.add(accessLogLines, float64(l.Lines), l.Path)
		out.add(accessLogDropped, float64(l.Dropped), l.Path)
		out.add(accessLogFailing, truth(l.Error != ""), l.Path)
	}
}

// sink is where metrics go.
type sink chan<- prometheus.Metric

func (to sink) add(f *family, value float64, labels ...string) {
	for i, l := range labels {
		labels[i] = strings.ToValidUTF8(l, "\ufffd")
	}
	to <- prometheus.MustNewConstMetric(f.desc, f.kind, value, labels...)
}

// each adds a metric for each entry of counts, with its key as the last label.
func each[N uint64 | int64](to sink, f *family, counts map[string]N, labels ...string) {
	for key, n := range counts {
		to.add(f, float64(n), append(labels[:len(labels):len(labels)], key)...)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func (to sink) node(s control.Status) {
	to.add(info, 1, s.Node, s.Version)
	to.add(ready, truth(s.Ready))
	to.add(started, seconds(s.Started))
	to.add(configInfo, 1, s.Config.SHA256)
	to.add(configLoaded, seconds(s.Config.Loaded))
	to.add(configRefused, truth(s.Config.Error != ""))
	to.add(eventsFailing, truth(s.Events.Error != ""))
}

func (to sink) router(v control.VRRP) {
	for _, state := range []string{"active", "backup", "fault"} {
		to.add(vrrpState, truth(v.State == state), v.Name, state)
	}
	to.add(vrrpSince, seconds(v.Since), v.Name)
	to.add(vrrpPriority, float64(v.Priority), v.Name)
	to.add(vrrpBase, float64(v.BasePriority), v.Name)
	to.add(vrrpYielded, truth(v.Yielded), v.Name)
	to.add(vrrpDraining, truth(v.Draining), v.Name)
	for _, d := range v.Demotions {
		to.add(vrrpDemotion, float64(d.Amount), v.Name, d.Source)
	}
	for _, f := range v.Faults {
		to.add(vrrpFault, 1, v.Name, f.Source)
	}
	for _, a := range v.Alarms {
		to.add(vrrpAlarm, 1, v.Name, a.Source)
	}
	for name, n := range v.Counters {
		to.counter(v.Name, name, n)
	}
	l := v.AdvertLateness
	to.add(vrrpTimed, float64(l.Count), v.Name)
	for portion, value := range map[string]float64{"0.5": l.P50Seconds, "0.999": l.P999Seconds, "1": l.MaxSeconds} {
		to.add(vrrpLateness, value, v.Name, portion)
	}
}

// counter adds one of the counters of a virtual router.
func (to sink) counter(router, name string, n uint64) {
	for _, group := range []struct {
		prefix string
		family *family
	}{{"refused_", vrrpRefused}, {"checksum_", vrrpChecksum}, {"receive_error_", vrrpReceiveErrors}} {
		if rest, ok := strings.CutPrefix(name, group.prefix); ok {
			to.add(group.family, float64(n), router, rest)
			return
		}
	}
	f := vrrpCounters[name]
	if f == nil {
		to.add(vrrpOther, float64(n), router, name)
		return
	}
	to.add(f, float64(n), router)
}

func (to sink) peer(p control.Peer) {
	to.add(peerUp, truth(p.Link == "up"), p.Node)
	to.add(peerSince, seconds(p.Since), p.Node)
	if p.Reported == nil {
		return
	}
	to.add(peerReported, seconds(*p.Reported), p.Node)
	to.add(peerSameConfig, truth(p.SameConfig), p.Node)
	if f := p.Flows; f != nil {
		to.add(flowsComplete, truth(f.Complete), p.Node)
		to.add(flowsSent, float64(f.Sent), p.Node)
		to.add(flowsWaiting, float64(f.Waiting), p.Node)
		to.add(flowsLag, f.LagSeconds, p.Node)
		to.add(flowsHeard, float64(f.Heard), p.Node)
		each(to, flowsDropped, f.Dropped, p.Node)
	}
}

func (to sink) service(s control.Service) {
	if len(s.Pools) > 0 {
		to.add(serviceUsable, float64(s.Usable), s.Name)
	}
	to.add(serviceFault, truth(s.Fault != ""), s.Name)
	if s.Layer == 7 {
		to.add(l7Open, float64(s.Connections), s.Name)
		to.add(l7UnderWay, float64(s.Current), s.Name)
		to.add(l7Requests, float64(s.Total), s.Name)
		to.add(l7NoServer, float64(s.NoServer), s.Name)
		to.add(l7Received, float64(s.BytesIn), s.Name)
		to.add(l7Sent, float64(s.BytesOut), s.Name)
		each(to, l7Responses, s.Responses, s.Name)
		each(to, l7Errors, s.Errors, s.Name)
		shown := make(map[string]bool) // a file may name one twice
		for _, c := range s.Certificates {
			if shown[c.Path] {
				continue
			}
			shown[c.Path] = true
			to.add(certificateEnd, float64(c.NotAfter.Unix()), s.Name, c.Path)
		}
		return
	}
	to.add(l4Open, float64(s.Current), s.Name)
	to.add(l4Connections, float64(s.Total), s.Name)
	to.add(l4NoServer, float64(s.NoServer), s.Name)
	to.add(l4Received, float64(s.BytesIn), s.Name)
	to.add(l4Sent, float64(s.BytesOut), s.Name)
	each(to, l4Errors, s.Errors, s.Name)
	each(to, l4Fallback, s.Fallback, s.Name)
	if s.Path != "" {
		to.add(l4Kernel, truth(s.Path == "kernel"), s.Name)
	}
}

func (to sink) pool(p control.Pool) {
	to.add(poolUsable, float64(p.Usable), p.Name)
	to.add(poolWaiting, float64(p.Waiting), p.Name)
	for _, s := range p.Servers {
		at := []string{p.Name, s.Name}
		for _, state := range []string{"up", "down", "unknown"} {
			to.add(serverHealth, truth(s.Health == state), p.Name, s.Name, state)
		}
		for _, state := range []string{"ready", "drain", "maint"} {
			to.add(serverAdmin, truth(s.Admin == state), p.Name, s.Name, state)
		}
		to.add(serverEjected, truth(s.EjectedUntil != nil), at...)
		to.add(serverWeight, float64(s.Weight), at...)
		to.add(serverOpen, float64(s.Current), at...)
		to.add(serverTotal, float64(s.Total), at...)
		to.add(serverConnectErrors, float64(s.ConnectErrors), at...)
		to.add(serverConnect, s.ConnectSeconds, at...)
		to.add(serverSent, float64(s.BytesIn), at...)
		to.add(serverReceived, float64(s.BytesOut), at...)
		to.add(checkSeconds, s.LatencySeconds, at...)
		to.add(checks, float64(s.ChecksPassed), p.Name, s.Name, "passed")
		to.add(checks, float64(s.ChecksFailed), p.Name, s.Name, "failed")
		to.add(checkWarning, truth(s.CheckWarning != ""), at...)
	}
}

func (to sink) kernel(k control.Kernel) {
	to.add(kernelLoaded, truth(k.Loaded))
	to.add(kernelFlows, float64(k.Flows))
	to.add(kernelFlowLimit, float64(k.FlowLimit))
	to.add(kernelHalfOpen, float64(k.HalfOpen))
	to.add(kernelHalfOpenLimit, float64(k.HalfOpenLimit))
	to.add(kernelInstalled, float64(k.Installed))
	to.add(kernelChangesLost, float64(k.ChangesLost))
	each(to, kernelLeft, k.Left)
}
