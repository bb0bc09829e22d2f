package integration

import (
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"appliance/internal/lab"
)

// watcher asks for what [admin] listen shows.
type watcher struct {
	t    *testing.T
	http http.Client
}

func newWatcher(t *testing.T, from *lab.Host) *watcher {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		return from.DialContext(ctx, network, address)
	}}
	return &watcher{t, http.Client{Transport: transport, Timeout: 20 * time.Second}}
}

func (w *watcher) get(url string) (status int, text string) {
	w.t.Helper()
	response, err := w.http.Get(url)
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return response.StatusCode, string(b)
}

// scrape returns all metrics, as Prometheus reads them.
func (w *watcher) scrape(address string) map[string]*dto.MetricFamily {
	w.t.Helper()
	status, text := w.get("http://" + address + "/metrics")
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if status != 200 || err != nil {
		w.t.Fatalf("%d, %v:\n%s", status, err, text)
	}
	return families
}

// value returns a metric by its labels, -1 if there is none.
func value(families map[string]*dto.MetricFamily, name string, labels map[string]string) float64 {
	for _, m := range families[name].GetMetric() {
		have := make(map[string]string)
		for _, l := range m.GetLabel() {
			have[l.GetName()] = l.GetValue()
		}
		if maps.Equal(have, labels) {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return -1
}

// Prometheus gets what the status says; strangers get nothing; a reload moves the
// door.
func TestMetrics(t *testing.T) {
	t.Parallel()
	const door = "[admin]\nlisten = \"0.0.0.0:9112\"\nallow  = [\"192.168.15.0/24\"]\n"
	text := linkedConfig(t, `name   = "web"`, `name   = "web"
access_log = "access.log"`) + door
	p := newPair(t, text)
	p.startLinked()
	p.waitUp("web", "web1", "web2", "web3")
	load := p.load(50, 80, 8080)
	p.waitRequests(load, 20)
	load.Stop()

	w := newWatcher(t, p.Client)
	got := w.scrape("192.168.15.11:9112")
	status := p.status(p.LB01)
	for _, one := range []struct {
		name   string
		labels map[string]string
		want   float64
	}{
		{"applianctl_ready", nil, 1},
		{"applianctl_info", map[string]string{"node": "lb01", "version": status.Version}, 1},
		{"applianctl_config_info", map[string]string{"sha256": status.Config.SHA256}, 1},
		{"applianctl_vrrp_state", map[string]string{"vrrp": "VI_1", "state": "active"}, 1},
		{"applianctl_vrrp_state", map[string]string{"vrrp": "VI_1", "state": "backup"}, 0},
		{"applianctl_vrrp_priority", map[string]string{"vrrp": "VI_1"}, 100},
		{"applianctl_peer_up", map[string]string{"peer": "lb02"}, 1},
		{"applianctl_peer_same_config", map[string]string{"peer": "lb02"}, 1},
		{"applianctl_server_health", map[string]string{"pool": "web", "server": "web1", "state": "up"}, 1},
		{"applianctl_service_usable_servers", map[string]string{"service": "web"}, 3},
		{"applianctl_access_log_dropped_lines_total", map[string]string{"path": "/run/appliance/access.log"}, 0},
	} {
		if v := value(got, one.name, one.labels); v != one.want {
			t.Errorf("%s%v is %v, want %v", one.name, one.labels, v, one.want)
		}
	}
	for _, one := range []struct{ name, label, value string }{
		{"applianctl_l7_requests_total", "service", "web"},
		{"applianctl_l4_connections_total", "service", "relay"},
		{"applianctl_vrrp_adverts_sent_total", "vrrp", "VI_1"},
	} {
		if v := value(got, one.name, map[string]string{one.label: one.value}); v < 1 {
			t.Errorf("%s of %s is %v", one.name, one.value, v)
		}
	}
	if v := value(w.scrape("192.168.15.12:9112"), "applianctl_vrrp_state", map[string]string{"vrrp": "VI_1", "state": "backup"}); v != 1 {
		t.Errorf("lb02 is a backup: %v", v)
	}
	if code, text := w.get("http://192.168.15.12:9112/healthz"); code != 200 || text != "ok\n" {
		t.Errorf("/healthz: %d %s", code, text)
	}

	// Others than those that are allowed.
	if code, text := newWatcher(t, p.Servers[0].Host).get("http://172.16.1.11:9112/v1/status"); code != 403 || !strings.Contains(text, "admin.allow") {
		t.Errorf("a stranger: %d %s", code, text)
	}

	p.reload(p.LB01, strings.Replace(text, "0.0.0.0:9112", "127.0.0.1:9113", 1))
	if _, err := w.http.Get("http://192.168.15.11:9112/metrics"); err == nil {
		t.Error("the old door is open still")
	}
	local := newWatcher(t, p.LB01.Host)
	eventually(t, 10*time.Second, "the other node has another file", func() bool {
		return value(local.scrape("127.0.0.1:9113"), "applianctl_peer_same_config", map[string]string{"peer": "lb02"}) == 0
	})
	p.reload(p.LB01, strings.Replace(text, door, "", 1))
	if _, err := local.http.Get("http://127.0.0.1:9113/metrics"); err == nil {
		t.Error("the door is open still")
	}
}
