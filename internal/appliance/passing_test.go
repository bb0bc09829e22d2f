package appliance

import (
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"appliance/internal/control"
	"appliance/vrrp"
)

// What another node asks for is looked at before anything is done about it.
func TestPassingRefuses(t *testing.T) {
	m := &member{config: vrrp.Config{Name: "VI_1", Interface: "none"}, vips: new(atomic.Pointer[[]netip.Addr])}
	m.vips.Store(&[]netip.Addr{netip.MustParseAddr("192.168.15.3"), netip.MustParseAddr("fe80::50")})
	a := &Appliance{}
	a.current.Store(&setup{})
	a.kernel = newKernelPath(zerolog.Nop(), a.current.Load, nil, nil)
	p := &passing{parts: a, member: m, log: zerolog.Nop()}
	good := passCall{ID: "1", VRRP: "VI_1", Addresses: []string{"192.168.15.3"}, MAC: "02:00:00:00:00:0b", Milliseconds: 1000}
	for want, change := range map[string]func(*passCall){
		`"02:00" is no hardware address`:             func(c *passCall) { c.MAC = "02:00" },
		`"" is no hardware address`:                  func(c *passCall) { c.MAC = "" },
		"is no hardware address of a station":        func(c *passCall) { c.MAC = "01:00:5e:00:00:12" },
		"0s is no time to drain":                     func(c *passCall) { c.Milliseconds = 0 },
		"-1ms is no time to drain":                   func(c *passCall) { c.Milliseconds = -1 },
		"10m0s is no time to drain":                  func(c *passCall) { c.Milliseconds = 600_000 },
		"this node has none of the addresses":        func(c *passCall) { c.Addresses = []string{"192.168.15.4", "fe80::50", "x"} },
		"interface none":                             func(*passCall) {},
		"02:00:00:00:00:0b:0c:0d\" is no hardware a": func(c *passCall) { c.MAC = "02:00:00:00:00:0b:0c:0d" },
	} {
		c := good
		change(&c)
		if _, err := p.begin("lb01", true, c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
	if p.current() != nil || p.describe() != nil {
		t.Error("something is passed on")
	}
	p.end(passedCall{ID: "1"})
	p.stop()
}

// Where connections cannot go on, the move says why, and they are waited for.
func TestLingeringNeedsAnInterface(t *testing.T) {
	l := &lingering{parts: &Appliance{}, member: &member{config: vrrp.Config{Name: "VI_1", Interface: "none"}}, log: zerolog.Nop()}
	for want, vips := range map[string][]netip.Addr{
		"link-local addresses alone": {netip.MustParseAddr("fe80::50")},
		"interface none":             {netip.MustParseAddr("192.168.15.3"), netip.MustParseAddr("fe80::50")},
	} {
		if err := l.prepare(t.Context(), "lb02", vips, time.Now().Add(time.Minute)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", vips, err, want)
		}
	}
	var none *control.Lingering
	if l.describe() != none || l.begins([]netip.Prefix{netip.MustParsePrefix("192.168.15.3/24")}) {
		t.Error("something lingers")
	}
	// None of these has anything to do.
	if l.begin() {
		t.Error("a stay begins that is none")
	}
	l.back()
	l.keep()
	l.finish(errBack)
	l.wait(t.Context())
}

// A stay begins once, and with all of its addresses.
func TestStayBegins(t *testing.T) {
	s := &stay{addresses: []netip.Addr{netip.MustParseAddr("192.168.15.3"), netip.MustParseAddr("192.168.15.4")}, left: make(chan struct{})}
	l := &lingering{stay: s, member: &member{passing: &passing{}}}
	both := []netip.Prefix{netip.MustParsePrefix("192.168.15.3/24"), netip.MustParsePrefix("192.168.15.4/24")}
	if l.begins(both[:1]) {
		t.Error("a stay begins though an address stays here")
	}
	if !l.begins(both) {
		t.Error("a stay does not begin though all addresses go")
	}
	for range 2 {
		if !l.begin() {
			t.Error("a stay does not begin")
		}
	}
	if l.begins(both) {
		t.Error("a stay begins twice")
	}
}
