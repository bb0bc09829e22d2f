package appliance

import (
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"appliance/health"
	"appliance/internal/config"
	"appliance/internal/control"
	"appliance/internal/endpoint"
	"appliance/internal/events"
	"appliance/vrrp"
)

// said returns the kinds and texts of a history.
func said(history *events.Log) []string {
	list, _ := history.After(0)
	var s []string
	for _, e := range list {
		s = append(s, string(e.Kind)+": "+e.Text)
	}
	return s
}

func wantSaid(t *testing.T, history *events.Log, want ...string) {
	t.Helper()
	if got := said(history); !slices.Equal(got, want) {
		t.Errorf("the history says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestNoticesOfARouterInWords(t *testing.T) {
	history := events.Open("", zerolog.Nop())
	defer history.Close()
	c := &chronicle{history: history, subject: "vrrp VI_1"}
	vip := netip.MustParsePrefix("192.168.15.3/24")
	first := time.Date(2026, 1, 1, 12, 30, 5, 0, time.UTC)
	for _, n := range []vrrp.Notice{
		vrrp.Transition{From: vrrp.Backup, To: vrrp.Active, Reason: "192.168.15.11 resigned"},
		vrrp.Demoted{Source: "service web", N: 11, Reason: "no usable server in pool web"},
		vrrp.Demoted{Source: "service web"},
		vrrp.Faulted{Source: "interface eth0", Reason: "the interface has no carrier"},
		vrrp.Faulted{Source: "interface eth0"},
		vrrp.Restored{Addresses: []netip.Prefix{vip}, Reason: "removed by somebody else", NotTold: 3},
		vrrp.Foreign{Claim: vrrp.Claim{Address: vip.Addr(), MAC: "02:00:00:00:00:66", First: first, Count: 2}, Tell: true},
		vrrp.Late{By: 1234567 * time.Microsecond},
		vrrp.Late{By: time.Second}, // too soon
	} {
		c.tell(n)
	}
	wantSaid(t, history,
		"transition: backup -> active: 192.168.15.11 resigned",
		"demotion: demoted by 11: service web: no usable server in pool web",
		"demotion_end: no longer demoted: service web",
		"fault: fault: interface eth0: the interface has no carrier",
		"fault_end: no longer a fault: interface eth0",
		"address_restored: 192.168.15.3/24 was missing: removed by somebody else; put back and announced, and 3 times before",
		"foreign_claim: 192.168.15.3 is claimed by another station, 02:00:00:00:00:66 (2 times since 12:30:05); announced again",
		"late: this process was held up for 1.235s; listened once more before acting on a silence",
	)
	c.tellLate(time.Now().Add(lateQuiet), time.Second)
	if got := said(history); !strings.HasSuffix(got[len(got)-1], ", as 1 times before") {
		t.Errorf("%q", got[len(got)-1])
	}
}

// A server that dies over and over does not drive everything else out.
func TestDeathsOfServersAreBounded(t *testing.T) {
	history := events.Open("", zerolog.Nop())
	defer history.Close()
	d := deaths{history: history, told: make(map[health.Target]death)}
	web := health.Target{Address: endpoint.IP(netip.MustParseAddrPort("172.16.1.51:80")), Check: health.Config{Type: "http"}}
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	state := func(s health.State, reason string) {
		d.take(web, health.Result{State: s, Since: now, Reason: reason})
		now = now.Add(15 * time.Second)
	}
	state(health.Up, "status 200") // the first verdict is no news
	for range 4 {
		state(health.Down, "connection refused")
		state(health.Up, "status 200")
	}
	wantSaid(t, history,
		"server_down: down by its http check: connection refused",
		"server_up: up by its http check: status 200",
		"server_down: down by its http check: connection refused; and 1 times before, since 12:00:15",
		"server_up: up by its http check: status 200",
	)
}

func TestStartTellsOfAnEndWithoutAWord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	node := &config.Node{Name: "lb01", Admin: config.Admin{Events: path}}
	for _, run := range []struct{ stops, crashed bool }{{true, false}, {false, false}, {true, true}} {
		a := newAppliance(Options{Log: zerolog.Nop(), Version: "1.2.3", ConfigPath: "a.toml"}, node)
		a.began(&config.File{}, node)
		got := said(a.history)
		if last := got[len(got)-1]; !strings.Contains(last, "1.2.3 started with a.toml") || strings.Contains(last, "without a word") != run.crashed {
			t.Errorf("%q", last)
		}
		if run.stops {
			a.history.Add(events.Stop, nodeSubject(node), "stopped")
		}
		a.history.Close()
	}
}

func TestPlaceOfTheHistoryNeedsARestart(t *testing.T) {
	node := &config.Node{Name: "lb01", Admin: config.Admin{Events: ""}}
	a := newAppliance(Options{Log: zerolog.Nop()}, node)
	a.current.Store(&setup{node: node})
	other := &config.Node{Name: "lb01", Admin: config.Admin{Events: "/elsewhere"}}
	if err := a.unchangeable(other); err == nil || !strings.Contains(err.Error(), "admin.events") {
		t.Errorf("%v", err)
	}
	a.options.Events = "/by/flag"
	if err := a.unchangeable(other); err != nil {
		t.Errorf("with --events: %v", err)
	}
}

func TestCommandsAreNoted(t *testing.T) {
	a := newAppliance(Options{Log: zerolog.Nop()}, &config.Node{})
	err := a.setServer(t.Context(), control.ServerRequest{Pool: "web"})
	if _, refused := errors.AsType[*control.Error](err); !refused || len(said(a.history)) > 0 {
		t.Errorf("a refused command: %v, %q", err, said(a.history))
	}
	if got := by(control.WithCaller(t.Context(), "root")); got != " by command of root" {
		t.Errorf("%q", got)
	}
	if got := by(t.Context()); got != "" {
		t.Errorf("%q", got)
	}
}
