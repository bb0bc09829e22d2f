package vrrp_test

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"appliance/vrrp"
	"appliance/vrrp/vrrptest"

	"github.com/rs/zerolog"
)

const ms = time.Millisecond

var vip = netip.MustParsePrefix("192.168.15.3/24")

// rig is a router with its fakes.
type rig struct {
	t      *testing.T
	router *vrrp.Router
	port   *vrrptest.Port
	holder *vrrptest.Holder
	stop   context.CancelFunc
	ended  chan error
}

func config(source string, priority int) vrrp.Config {
	return vrrp.Config{
		Name: "VI_1", VRID: 50, Interface: "eth0", Source: netip.MustParseAddr(source),
		Addresses: []netip.Prefix{vip}, Version: 3, AdvertInterval: 100 * ms,
		Priority: priority, Preempt: true, Settle: 3 * time.Second,
	}
}

// begin runs a router on lan, ready to take part.
func begin(t *testing.T, lan *vrrptest.LAN, cfg vrrp.Config, hooks vrrp.Hooks) *rig {
	return beginAt(t, lan.Join(cfg.Source), cfg, hooks)
}

// beginAt is begin at a port that has an address of its own.
func beginAt(t *testing.T, port *vrrptest.Port, cfg vrrp.Config, hooks vrrp.Hooks) *rig {
	r := prepare(t, port, cfg, hooks)
	r.run()
	return r
}

// prepare makes a router that does not run yet.
func prepare(t *testing.T, port *vrrptest.Port, cfg vrrp.Config, hooks vrrp.Hooks) *rig {
	r := &rig{t: t, port: port, holder: vrrptest.NewHolder(), ended: make(chan error, 1)}
	r.router = vrrp.NewRouter(cfg, r.port.Open, r.holder, hooks, zerolog.New(zerolog.NewTestWriter(t)))
	return r
}

// run runs the router, ready to take part.
func (r *rig) run() {
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.ended <- r.router.Run(ctx) }()
	r.router.SetFault(vrrp.StartupFault, "")
}

func (r *rig) end() {
	r.t.Helper()
	r.stop()
	if err := <-r.ended; err != nil {
		r.t.Errorf("Run: %v", err)
	}
}

func (r *rig) want(s vrrp.State) {
	r.t.Helper()
	synctest.Wait()
	if st := r.router.Status(); st.State != s {
		r.t.Fatalf("%s is %s (%s), want %s", st.Source, st.State, st.Reason, s)
	}
}

// wait lets virtual time pass.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// pair runs routers a (priority 100) and b (90) until a is active.
func pair(t *testing.T, hooks vrrp.Hooks, drain time.Duration) (lan *vrrptest.LAN, a, b *rig) {
	lan = new(vrrptest.LAN)
	cfg := config("192.168.15.11", 100)
	cfg.Drain = drain
	a = begin(t, lan, cfg, hooks)
	b = begin(t, lan, config("192.168.15.12", 90), vrrp.Hooks{})
	wait(time.Second)
	a.want(vrrp.Active)
	b.want(vrrp.Backup)
	return lan, a, b
}
