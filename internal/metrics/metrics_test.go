package metrics

import (
	"io"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"appliance/internal/control"
)

// everything is a status that has something of all.
func everything() control.Status {
	now := time.Now()
	return control.Status{
		Node: "lb01", Version: "1", Started: now, Ready: true, Config: control.Config{SHA256: "ab", Loaded: now, Error: "no"},
		VRRP: []control.VRRP{{
			Name: "VI \"1\"\n\xff", State: "active", Since: now, Priority: 70, BasePriority: 100,
			Demotions: []control.Condition{{Source: "service web", Amount: 30}}, Faults: []control.Condition{{Source: "x"}}, Alarms: []control.Condition{{Source: "y"}},
			AdvertLateness: control.Lateness{Count: 3, P50Seconds: 0.001, P999Seconds: 0.002, MaxSeconds: 0.003},
			Counters: map[string]uint64{
				"adverts_sent": 1, "packets_received": 2, "send_errors": 3, "address_errors": 4, "address_mismatches": 5, "transitions": 6, "late": 7,
				"addresses_restored": 8, "foreign_claims": 9, "refused_ttl": 10, "checksum_message": 11, "receive_error_fragment": 12, "news": 13,
			},
		}},
		Peers: []control.Peer{
			{Node: "lb02", Link: "up", Since: now, Reported: &now, Flows: &control.FlowCopy{Dropped: map[string]uint64{"full": 1}}},
			{Node: "lb03", Link: "connecting", Since: now},
		},
		Services: []control.Service{
			{Name: "mysql", Layer: 4, Path: "kernel", Errors: map[string]uint64{"broken": 1}, Fallback: map[string]int64{"new": 2}},
			{Name: "web", Layer: 7, Pools: []string{"p"}, Current: 1, Total: 20, Errors: map[string]uint64{"no_request": 3}, Responses: map[string]uint64{"2xx": 17},
				Certificates: []control.Certificate{{Path: "a.pem", NotAfter: now}}},
		},
		Pools:      []control.Pool{{Name: "p", Usable: 1, Servers: []control.Server{{Name: "s", Health: "up", Admin: "ready", ChecksPassed: 5, EjectedUntil: &now}}}},
		Kernel:     &control.Kernel{Loaded: true, Left: map[string]int64{"fragment": 1}},
		AccessLogs: []control.AccessLog{{Path: "stdout", Lines: 4, Dropped: 1}},
	}
}

func TestMetrics(t *testing.T) {
	w := httptest.NewRecorder()
	Handler(everything).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	text, _ := io.ReadAll(w.Result().Body)
	if w.Code != 200 {
		t.Fatalf("%d: %s", w.Code, text)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	got, err := parser.TextToMetricFamilies(strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if got[f.name] == nil {
			t.Errorf("nothing of %s", f.name)
		}
	}
	for _, want := range []string{
		`applianctl_info{node="lb01",version="1"} 1`,
		"applianctl_ready 1",
		"applianctl_vrrp_state{state=\"active\",vrrp=\"VI \\\"1\\\"\\n\ufffd\"} 1",
		"applianctl_vrrp_refused_adverts_total{reason=\"ttl\",vrrp=\"VI \\\"1\\\"\\n\ufffd\"} 10",
		"applianctl_vrrp_other_events_total{name=\"news\",vrrp=\"VI \\\"1\\\"\\n\ufffd\"} 13",
		`applianctl_l7_requests_total{service="web"} 20`,
		`applianctl_l7_responses_total{class="2xx",service="web"} 17`,
		`applianctl_l4_kernel_path{service="mysql"} 1`,
		`applianctl_server_health{pool="p",server="s",state="up"} 1`,
		`applianctl_access_log_dropped_lines_total{path="stdout"} 1`,
		"process_open_fds ", "go_goroutines ",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s", want)
		}
	}
	r := prometheus.NewRegistry()
	r.MustRegister(collector(everything))
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(all).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	// One that has nothing yet.
	r = prometheus.NewRegistry()
	r.MustRegister(collector(func() control.Status { return control.Status{} }))
	if _, err := r.Gather(); err != nil {
		t.Error(err)
	}
}

// docs/metrics.md lists what there is, and nothing else.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]bool)
	for _, m := range regexp.MustCompile("`(applianctl_[a-z0-9_]+)`").FindAllStringSubmatch(string(text), -1) {
		listed[m[1]] = true
	}
	for _, f := range families {
		if !listed[f.name] {
			t.Errorf("docs/metrics.md does not list %s", f.name)
		}
		delete(listed, f.name)
	}
	for name := range listed {
		t.Errorf("docs/metrics.md lists %s, which there is not", name)
	}
}

// A file that names a certificate twice has metrics all the same.
func TestCertificateThatIsNamedTwice(t *testing.T) {
	status := everything
	twice := func() control.Status {
		s := status()
		c := &s.Services[1].Certificates
		*c = append(*c, (*c)[0])
		return s
	}
	w := httptest.NewRecorder()
	Handler(twice).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 || strings.Count(w.Body.String(), "\napplianctl_certificate_not_after_time_seconds{") != 1 {
		t.Errorf("status %d: %.300s", w.Code, w.Body)
	}
}

// The alerts ask for metrics and labels that there are.
func TestAlertsAskForWhatThereIs(t *testing.T) {
	text, err := os.ReadFile("../../packaging/applianctl.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	Handler(everything).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	shown := w.Body.String()
	asked := regexp.MustCompile(`\b(applianctl_[a-z0-9_]+)(?:\{([a-z]+)(?:!?=))?`).FindAllStringSubmatch(string(text), -1)
	if len(asked) < 15 {
		t.Fatalf("found %d metrics in the alerts", len(asked))
	}
	for _, m := range asked {
		if !regexp.MustCompile(`(?m)^` + m[1] + `[{ ]`).MatchString(shown) {
			t.Errorf("an alert asks for %s, which there is not", m[1])
		}
		if m[2] != "" && !regexp.MustCompile(`(?m)^`+m[1]+`\{.*\b`+m[2]+`="`).MatchString(shown) {
			t.Errorf("an alert asks for the label %s of %s, which there is not", m[2], m[1])
		}
	}
}
